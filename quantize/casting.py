"""Shorter floating-point numbers after training: float16, bfloat16, FP8."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from edgewise.quantize.layers import WEIGHTED, describe
from edgewise.quantize.passes.cast_floats import CastFloats
from edgewise.quantize.passes.prepare import prepare
from edgewise.quantize.passes.quantize_to_fp8 import QuantizeToFp8
from edgewise.quantize.pruning.selection import check_names
from edgewise.quantize.rewritten import Rewritten
from edgewise.quantize.spec import FP8, QuantSpec
from edgewise.quantize.streaming import watch
from edgewise.runtime.progress import Progress, silent

if TYPE_CHECKING:
    from edgewise.runtime.data import Dataset

_DTYPES = {"float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}


def cast(
    model: ir.Model, spec: QuantSpec, data: Dataset, *, keep_float: Sequence[str] = (), progress: Progress = silent
) -> Rewritten:
    """Write a network in the short floats of a spec, with islands of float32 where the samples show that they are needed.

    Args:
        model: a float32 network; not changed.
        spec: ``float_dtype`` says which: ``float16``, ``bfloat16``, ``float8e4m3fn``.
        data: calibration samples: the largest magnitudes decide what may overflow, and the scales of FP8.
        keep_float: names of nodes that stay in float32.
        progress: told how far it is.

    Returns:
        The model and the report of ``quantize``: ``layers``, ``kept_float``, ``notes``, ``method``, ``samples``.

    Raises:
        QuantizeError: an unknown name, NaN or infinity in the data or in a tensor computed from it.
    """
    made = prepare(model, spec.opset)
    check_names(made.graph, keep_float)
    ranges, used = _ranges(made, spec, data, progress)
    if spec.float_dtype == FP8:
        pairs = QuantizeToFp8(ranges, keep_float)
        pairs(made)
        report: dict[str, Any] = {"layers": pairs.layers, "kept_float": pairs.kept}
    else:
        casts = CastFloats(keep_float, _DTYPES[spec.float_dtype], ranges)
        casts(made)
        report = _report(made.graph, casts, spec.float_dtype)
    RemoveUnusedNodesPass()(made)
    return Rewritten(made, report | {"notes": [], "method": "minmax", "samples": used})


def _ranges(model: ir.Model, spec: QuantSpec, data: Dataset, progress: Progress) -> tuple[dict[str, float], int]:
    """The largest magnitude of every tensor that matters, by its name."""
    found: dict[str, float] = {}

    def watcher(name: str) -> Any:
        def see(array: NDArray[np.float32]) -> None:
            if array.size:
                found[name] = max(found.get(name, 0.0), float(np.abs(array).max()))

        return see

    read = [node.inputs[index] for node in _layers(model.graph) for index in describe(node).activations]
    every = [value for node in model.graph for value in node.outputs]
    wanted = read if spec.float_dtype == FP8 else every
    values = dict.fromkeys(each for each in wanted if each is not None and each.dtype == ir.DataType.FLOAT)
    watchers = {value: watcher(str(value.name)) for value in values}
    return found, watch(model, watchers, data, task="find ranges", progress=progress)


def _layers(graph: ir.Graph) -> list[ir.Node]:
    return [node for node in graph if node.op_type in WEIGHTED and not node.domain]


def _report(graph: ir.Graph, casts: CastFloats, dtype: str) -> dict[str, Any]:
    nodes = {str(node.name): node for node in graph}
    rows = []
    for node in _layers(graph):
        reason = casts.kept.get(str(node.name), "")
        form = "float32" if reason else dtype
        row = {"name": str(node.name), "op": node.op_type, "precision": form, "weight_dtype": form}
        rows.append(row | {"granularity": "none", "reason": reason})
    kept = [{"node": name, "op": nodes[name].op_type, "reason": reason} for name, reason in casts.kept.items()]
    return {"layers": rows, "kept_float": kept}
