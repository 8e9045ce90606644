"""ONNX to ONNX passes: quantize, prune, rewrite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgewise.quantize.errors import QuantizeError
from edgewise.quantize.rewritten import Rewritten
from edgewise.quantize.spec import QuantSpec
from edgewise.runtime.extras import lazy_exports

if TYPE_CHECKING:
    from edgewise.quantize.budget import quantize_to_budget
    from edgewise.quantize.observations import Observations
    from edgewise.quantize.observers import OBSERVERS
    from edgewise.quantize.pipeline import quantize
    from edgewise.quantize.pruning.density import sparsity_of
    from edgewise.quantize.pruning.prune import prune
    from edgewise.quantize.sparing import quantize_above
    from edgewise.quantize.within import quantize_within

__all__ = [
    "OBSERVERS",
    "Observations",
    "QuantSpec",
    "QuantizeError",
    "Rewritten",
    "prune",
    "quantize",
    "quantize_above",
    "quantize_to_budget",
    "quantize_within",
    "sparsity_of",
]

__getattr__ = lazy_exports(
    {
        "OBSERVERS": "edgewise.quantize.observers",
        "Observations": "edgewise.quantize.observations",
        "prune": "edgewise.quantize.pruning.prune",
        "quantize": "edgewise.quantize.pipeline",
        "quantize_above": "edgewise.quantize.sparing",
        "quantize_to_budget": "edgewise.quantize.budget",
        "quantize_within": "edgewise.quantize.within",
        "sparsity_of": "edgewise.quantize.pruning.density",
    },
    extra="graph",
)
