"""What float16 cannot hold: found by running the float network on calibration data, before anything is built."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from edgewise.runtime.compare import Arrays
from edgewise.runtime.data import open_data
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.runtime.preprocess import Preprocess
from edgewise.targets.coreml.fusions.attention import DOMAIN
from edgewise.targets.coreml.islands import amplified
from edgewise.targets.coreml.node import constant
from edgewise.targets.coreml.options import Options
from edgewise.targets.coreml.prepare import prepare
from edgewise.targets.nodes import tensor_spec

_LARGEST = 65504.0
_UNFUSED_IOS = 17
_SAMPLES = 16
_TRIED = 2  # of them, with every rounding
# They square their input on the way: the largest number whose square float16 still holds.
_SQUARING = frozenset({"LayerNormalization", "RMSNormalization", "InstanceNormalization", "GroupNormalization", "LpNormalization",
                       "ReduceL2", "ReduceSumSquare", "LRN"})  # fmt: skip
_LARGEST_ROOT = float(np.sqrt(_LARGEST))


def kept_by_data(model: ir.Model, ready: ir.Model, options: Options, preprocess: dict[str, Any] | None) -> list[str]:
    """Tensors of the prepared graph whose nodes must compute in float32, in the order of the graph.

    A node is kept when one of its inputs or outputs goes beyond float16 on some sample, or when it squares an input whose
    square does; and those between which float16's rounding grows so much that the outputs are no longer right (``islands.py``).

    Raises:
        RunError: the data cannot be read, or ONNX Runtime refuses the network.
    """
    plain = prepare(model, _UNFUSED_IOS, options.fixed_dims)
    samples = _samples(plain, options.calibration, preprocess)
    largest = _largest(plain, samples)
    kept = {str(node.outputs[0].name) for node in plain.graph if _overflows(node, largest)}
    kept |= amplified(plain, {*kept, *options.keep_float32}, samples[:_TRIED])
    known = {str(node.outputs[0].name) for node in ready.graph}
    if kept - known:  # inside an attention that iOS 18 computes in one operation
        kept |= {str(node.outputs[0].name) for node in ready.graph if node.domain == DOMAIN}
    return [name for node in ready.graph if (name := str(node.outputs[0].name)) in kept]


def _samples(model: ir.Model, source: str, preprocess: dict[str, Any] | None) -> list[Arrays]:
    image = None if preprocess is None else Preprocess.from_json(preprocess)
    data = open_data(source, [tensor_spec(value) for value in model.graph.inputs], image).take(_SAMPLES)
    return [dict(sample.inputs) for sample in data]


def _largest(model: ir.Model, samples: list[Arrays]) -> dict[str, float]:
    """The greatest size of each float tensor over the samples; those of the inputs as well."""
    names = [
        str(value.name)
        for node in model.graph
        for value in node.outputs
        if value.name and value.dtype == ir.DataType.FLOAT and constant(value) is None
    ]
    found: dict[str, float] = {}
    runner = OnnxRunner(model, outputs=names)
    for sample in samples:
        for name, array in (runner.run(sample) | sample).items():
            if array.dtype.kind == "f" and array.size:
                found[name] = max(found.get(name, 0.0), float(np.max(np.abs(array[np.isfinite(array)]), initial=0.0)))
    return found


def _overflows(node: ir.Node, largest: dict[str, float]) -> bool:
    limit = _LARGEST_ROOT if node.op_type in _SQUARING else _LARGEST
    read = (largest.get(str(value.name), 0.0) for value in node.inputs if value is not None)
    return any(size > limit for size in read) or any(largest.get(str(v.name), 0.0) > _LARGEST for v in node.outputs)
