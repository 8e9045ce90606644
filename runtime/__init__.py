"""Load, run, compare and profile bundles; what goes on the device. Imports with numpy alone.

The profiler is ``edgewise.runtime.profile.profile``: as a package it cannot share its name with a function here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgewise.runtime.extras import lazy_exports

if TYPE_CHECKING:
    from edgewise.runtime.bundle import Bundle, open_bundle
    from edgewise.runtime.compare import TensorParity, compare_outputs, require_parity
    from edgewise.runtime.data import open_data, random_data
    from edgewise.runtime.errors import EdgewiseError, GateError, RunError
    from edgewise.runtime.metrics import evaluate
    from edgewise.runtime.model import Model, load
    from edgewise.runtime.preprocess import Preprocess
    from edgewise.runtime.tensors import TensorSpec

__all__ = [
    "Bundle",
    "EdgewiseError",
    "GateError",
    "Model",
    "Preprocess",
    "RunError",
    "TensorParity",
    "TensorSpec",
    "compare_outputs",
    "evaluate",
    "load",
    "open_bundle",
    "open_data",
    "random_data",
    "require_parity",
]

__getattr__ = lazy_exports(
    {
        "Bundle": "edgewise.runtime.bundle",
        "EdgewiseError": "edgewise.runtime.errors",
        "GateError": "edgewise.runtime.errors",
        "Model": "edgewise.runtime.model",
        "Preprocess": "edgewise.runtime.preprocess",
        "RunError": "edgewise.runtime.errors",
        "TensorParity": "edgewise.runtime.compare",
        "TensorSpec": "edgewise.runtime.tensors",
        "compare_outputs": "edgewise.runtime.compare",
        "evaluate": "edgewise.runtime.metrics",
        "load": "edgewise.runtime.model",
        "open_bundle": "edgewise.runtime.bundle",
        "open_data": "edgewise.runtime.data",
        "random_data": "edgewise.runtime.data",
        "require_parity": "edgewise.runtime.compare",
    },
    extra="cpu",
)
