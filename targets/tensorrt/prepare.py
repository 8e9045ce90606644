"""What every graph goes through before TensorRT's parser sees it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import (
    LiftConstantsToInitializersPass,
    RemoveUnusedNodesPass,
    ShapeInferencePass,
)

from edgewise.quantize.passes.cast_floats import CastFloats
from edgewise.targets.nodes import node_names
from edgewise.targets.tensorrt.col2im import Col2ImAsConvolution
from edgewise.targets.tensorrt.foreign_grids import DropRounding, RoundBeforePools
from edgewise.targets.tensorrt.separate import SeparateProjections
from edgewise.targets.tensorrt.symmetric import SymmetricGrids
from edgewise.targets.tensorrt.tiny_weights import ScaleTinyWeights
from edgewise.targets.tensorrt.weight_scales import ShortWeightScales


@dataclass(frozen=True)
class Prepared:
    """A graph for the parser. ``kept`` maps the names of nodes that stayed in float32 to the reason; ``notes`` are for the user."""

    model: ir.Model
    kept: dict[str, str]
    notes: list[str]


def normalize(model: ir.Model) -> tuple[ir.Model, list[str]]:
    """A copy in which every node has a name of its own, constants are initializers, dtypes are known, and grids are symmetric.

    With it the nodes whose grids became coarser for that. The names are those of ``node_names``, so that what the parser and the builder say can be told of the original.
    """
    copy = model.clone()
    for node, name in zip(copy.graph, node_names(copy.graph), strict=True):
        node.name = name
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(copy)
    ShapeInferencePass(check_type=False, strict_mode=False)(copy)
    FloatBiases()(copy)
    Col2ImAsConvolution()(copy)
    grids = SymmetricGrids()
    grids(copy)
    RemoveUnusedNodesPass()(copy)
    return copy, grids.widened


_NAMED_AT_MOST = 6
_SHORT_FLOATS = {"float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}


def prepare(
    model: ir.Model,
    precision: str,
    keep_float32: Collection[str] = (),
    ranges: Mapping[str, float] = MappingProxyType({}),
    in_floats: tuple[str, ...] = (),
) -> Prepared:
    """The strongly typed graph: normalised, and in the short float that is the precision.

    A graph that computes in short floats already (``edgewise quantize --scheme fp16``) is left as it is: its islands of
    float32 were placed by samples.

    Args:
        model: not changed.
        precision: ``float32``, ``float16`` or ``bfloat16``.
        keep_float32: names of nodes that stay in float32.
        ranges: the largest magnitude of tensors, by name, on samples: what comes near the largest float16 stays in float32.
        in_floats: products that the builder has no integer kernel for.
    """
    copy, widened = normalize(model)
    drop = DropRounding(in_floats)
    for place in (drop, RoundBeforePools(), RemoveUnusedNodesPass()):
        place(copy)
    notes = _grid_notes(widened) + _rounding_notes(drop.dropped)
    if SeparateProjections()(copy).modified:
        RemoveUnusedNodesPass()(copy)
        ShapeInferencePass(check_type=False, strict_mode=False)(copy)
    if precision == "float32" or any(value.dtype in _SHORT_FLOATS.values() for value in _made(copy)):
        return Prepared(copy, {}, notes)
    if precision == "float16":
        ScaleTinyWeights()(copy)
    cast = CastFloats(keep_float32, _SHORT_FLOATS[precision], ranges)
    cast(copy)
    ShortWeightScales()(copy)
    RemoveUnusedNodesPass()(copy)
    return Prepared(copy, cast.kept, notes)


def _grid_notes(widened: list[str]) -> list[str]:
    if not widened:
        return []
    return [
        f"{len(widened)} 8-bit grids had a zero point, which TensorRT's have not; they were made symmetric, up to twice as coarse: "
        f"{_some(widened)}. Quantize with --target tensorrt for better ones."
    ]


def _rounding_notes(readers: list[str]) -> list[str]:
    if not readers:
        return []
    return [
        f"{len(readers)} inputs were rounded to 8 bits before nodes that compute in floats; the rounding was left out there: {_some(readers)}."
    ]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED_AT_MOST} more" if len(names) > _NAMED_AT_MOST else ""
    return f"{', '.join(names[:_NAMED_AT_MOST])}{more}"


def _made(model: ir.Model) -> Iterator[ir.Value]:
    return (value for node in model.graph for value in node.outputs)


class FloatBiases(ir.passes.InPlacePass):
    """Undo int32 biases: TensorRT dequantizes 8-bit integers only, and adds biases in float.

    Before::

        b: i32[O] ─► DequantizeLinear(scale, 0) ─► Conv

    After::

        b × scale: f32[O] ─► Conv
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Replace every DequantizeLinear of an int32 initializer."""
        found = [node for node in model.graph if node.op_type == "DequantizeLinear" and _constant_int32(node)]
        for node in found:
            data, scale = (_array(node.inputs[index]) for index in (0, 1))
            output = node.outputs[0]
            name = f"{output.name}_float"
            bias = (data.astype(np.float64) * scale.astype(np.float64)).astype(np.float32)
            value = ir.Value(
                name=name,
                type=ir.TensorType(ir.DataType.FLOAT),
                shape=ir.Shape(bias.shape),
                const_value=ir.tensor(bias, name=name),
            )
            model.graph.register_initializer(value)
            output.replace_all_uses_with(value)
            model.graph.remove(node, safe=True)
        return ir.passes.PassResult(model, modified=bool(found))


def _constant_int32(node: ir.Node) -> bool:
    """A bias: int32 and its scale constant, one-dimensional or a scalar, without a zero point other than 0."""
    values = list(node.inputs)
    if any(value is None or value.const_value is None for value in values) or values[0] is None:
        return False
    zero = _array(values[2]) if len(values) > 2 else np.zeros(1)
    return values[0].dtype == ir.DataType.INT32 and len(values[0].shape or ()) <= 1 and not zero.any()


def _array(value: ir.Value | None) -> np.ndarray:
    return value.const_value.numpy() if value is not None and value.const_value is not None else np.zeros(0)
