"""Post-training quantization: decide, calibrate, rewrite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import onnx_ir as ir
from edgewise.quantize.calibrate import calibrate
from edgewise.quantize.errors import QuantizeError
from edgewise.quantize.observers import find_observer
from edgewise.quantize.passes.grow_integers import GrowIntegers
from edgewise.quantize.passes.hoist_rounding import HoistRounding
from edgewise.quantize.passes.prepare import prepare
from edgewise.quantize.passes.quantize_activations import QuantizeActivations
from edgewise.quantize.passes.quantize_biases import QuantizeBiases
from edgewise.quantize.passes.quantize_weights import QuantizeWeights
from edgewise.quantize.passes.select_layers import SelectLayers
from edgewise.quantize.plan import Plan
from edgewise.quantize.report import describe_plan
from edgewise.quantize.rewritten import Rewritten
from edgewise.quantize.spec import QuantSpec
from edgewise.runtime.progress import Progress, silent
from onnx_ir.passes.common import RemoveUnusedNodesPass

if TYPE_CHECKING:
    from edgewise.runtime.data import Dataset


def quantize(
    model: ir.Model,
    spec: QuantSpec,
    data: Dataset,
    *,
    method: str = "minmax",
    samples: int = 128,
    keep_float: Sequence[str] = (),
    allow_random: bool = False,
    progress: Progress = silent,
) -> Rewritten:
    """Quantize a float network after training, to int8 weights and 8-bit activations with QDQ as the target wants it.

    Args:
        model: a float32 network; not changed.
        spec: the QDQ form; targets give theirs by ``target.quantization(scheme, device)``.
        data: calibration samples that look like what the network will see.
        method: how a tensor's range is found: ``minmax``, ``percentile``, ``entropy`` or ``mse``.
        samples: how many samples to use, spread evenly over ``data``.
        keep_float: names of layers to leave in float.
        allow_random: accept data that is random; the ranges are then of no meaning for real inputs.
        progress: told how far calibration is.

    Returns:
        The new model, and a report with ``layers``, ``kept_float``, ``notes``, ``method`` and ``samples``.

    Raises:
        QuantizeError: no layer to quantize, unknown names, random or unusable data.
        RunError: ONNX Runtime refuses the model or the data.
    """
    find_observer(method)
    if data.random and not allow_random:
        raise QuantizeError(
            "refusing to calibrate on random data",
            where=data.source,
            found="random numbers",
            expected="samples that look like real inputs",
            fix="Pass real samples (--calib), or allow_random=True (--allow-random) if accuracy does not matter",
        )
    model = prepare(model)
    plan = Plan(spec)
    for decide in (SelectLayers(plan, keep_float), GrowIntegers(plan), HoistRounding(plan)):
        decide(model)
    if not plan.layers:
        raise QuantizeError(
            "nothing to quantize",
            where=f"graph {model.graph.name!r}",
            found=plan.kept_float[0]["reason"] if plan.kept_float else "no layer with weights",
            expected=f"at least one of {', '.join(spec.op_types)} with constant float32 weights",
            fix="Export the network again, or leave this stage out",
        )
    used = calibrate(model, plan, data, method=method, samples=samples, progress=progress)
    for rewrite in (QuantizeWeights(plan), QuantizeBiases(plan), QuantizeActivations(plan), RemoveUnusedNodesPass()):
        model = rewrite(model).model
    return Rewritten(model, describe_plan(plan) | {"method": method, "samples": used})
