"""Quantization that needs no samples: weights to the nearest integers, activations by ranges found at run time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onnx_ir.passes.common import RemoveUnusedNodesPass

from edgewise.quantize.errors import QuantizeError
from edgewise.quantize.passes.note_float import NoteFloat
from edgewise.quantize.passes.prepare import prepare
from edgewise.quantize.passes.quantize_at_run import QuantizeAtRun
from edgewise.quantize.passes.quantize_weights import QuantizeWeights
from edgewise.quantize.passes.select_layers import SelectLayers
from edgewise.quantize.passes.widen_layers import WidenLayers
from edgewise.quantize.plan import Plan
from edgewise.quantize.report import describe_plan
from edgewise.quantize.rewritten import Rewritten

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgewise.quantize.spec import QuantSpec

# Of the pipeline: each looks at samples, where it is not None, False or the word for what is done anyway.
_ANYWAY = {"rounding": "auto", "partition": "parts", "sensitivity": "sqnr"}
_ASKING = (
    "rounding", "relu_mlps", "search_scales", "correct_biases", "shift_biases", "split_channels", "analyze", "floor",
    "max_drop", "max_bytes",
)  # fmt: skip


def asks_for_data(spec: QuantSpec, options: Mapping[str, Any]) -> str:
    """What needs calibration samples: the scheme, or the first of these options of ``quantize``; empty where nothing does."""
    if not spec.dynamic:
        return "the scheme"
    return next((name for name in _ASKING if options.get(name) not in (None, False, _ANYWAY.get(name))), "")


def quantize_without_data(
    model: ir.Model, spec: QuantSpec, *, keep_float: Sequence[str] = (), wide: Sequence[str] = (), **options: Any
) -> tuple[Rewritten, Plan]:
    """Quantize by a scheme whose ranges are found at run time; the plan is what was decided.

    Raises:
        QuantizeError: the scheme, or one of the options, asks for samples.
    """
    if what := asks_for_data(spec, options):
        raise QuantizeError(
            "quantization needs calibration data",
            where=f"quantize, {what}",
            found="no data",
            expected="samples that look like what the network will see",
            fix="Pass samples, or choose a scheme whose ranges are found at run time (w8d8g32) and leave that option out",
        )
    model, plan = prepare(model, spec.opset), Plan(spec)
    for decide in (SelectLayers(plan, keep_float), WidenLayers(plan, wide), NoteFloat(plan)):
        decide(model)
    for write in (QuantizeWeights(plan), QuantizeAtRun(plan), RemoveUnusedNodesPass()):
        model = write(model).model
    return Rewritten(model, describe_plan(model.graph, plan) | {"method": "none", "samples": 0}), plan
