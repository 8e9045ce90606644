"""Which function lowers which ONNX operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgewise.targets.cpu.native.activations import PRIVATE
from edgewise.targets.cpu.native.context import Lowering
from edgewise.targets.cpu.native.ops import (
    counted,
    elementwise,
    linear,
    movement,
    norm,
    pools,
    quantized,
    recurrence,
    recurrent,
    scan,
    spatial,
    transposed,
)

if TYPE_CHECKING:
    import onnx_ir as ir

_UNARY = [
    "Relu",
    "Sigmoid",
    "HardSwish",
    "Tanh",
    "Exp",
    "Log",
    "Sqrt",
    "Neg",
    "Abs",
    "Erf",
    "Reciprocal",
    "Floor",
    "Ceil",
    "Round",
    "Sin",
    "Cos",
    "Softplus",
    "Not",
    "Sign",
    "Mish",
    "Elu",
    "LeakyRelu",
    "HardSigmoid",
    "Gelu",
    "Clip",
]
_BINARY = [
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Pow",
    "Max",
    "Min",
    "Equal",
    "Less",
    "Greater",
    "LessOrEqual",
    "GreaterOrEqual",
    "And",
    "Or",
    "Mod",
    "Sum",
    "Xor",
]
_REDUCTIONS = [
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
]

LOWERINGS: dict[str, Lowering] = {
    **dict.fromkeys(_UNARY, elementwise.unary),
    **dict.fromkeys(_BINARY, elementwise.binary),
    **dict.fromkeys(_REDUCTIONS, norm.reduce),
    "ArgMax": norm.argmax,
    "ArgMin": norm.argmax,
    "AveragePool": pools.pool,
    "BatchNormalization": norm.batch_normalization,
    "Cast": elementwise.cast,
    "Compress": counted.compress,
    "Concat": spatial.concat,
    "ConstantOfShape": spatial.constant_of_shape,
    "Conv": linear.conv,
    "ConvTranspose": transposed.conv_transpose,
    "CumSum": scan.cumsum,
    "DepthToSpace": spatial.depth_to_space,
    "DequantizeLinear": quantized.dequantize,
    "Dropout": elementwise.dropout,
    "Expand": elementwise.expand,
    "Flatten": movement.flatten,
    "Gather": movement.gather,
    "GatherElements": movement.gather_elements,
    "Gemm": linear.gemm,
    "GlobalAveragePool": pools.global_pool,
    "GlobalMaxPool": pools.global_pool,
    "GroupNormalization": norm.group_normalization,
    "Identity": elementwise.identity,
    "InstanceNormalization": norm.group_normalization,
    "LayerNormalization": norm.layer_normalization,
    "LogSoftmax": norm.softmax,
    "MatMul": linear.matmul,
    "MaxPool": pools.pool,
    "NonMaxSuppression": counted.non_max_suppression,
    "NonZero": counted.nonzero,
    "Not": elementwise.logical_not,
    "Pad": spatial.pad,
    "RMSNormalization": norm.layer_normalization,
    "QuantizeLinear": quantized.quantize,
    "Range": scan.range_,
    "Reshape": movement.reshape,
    "Resize": spatial.resize,
    "RoiAlign": counted.roi_align,
    "Shape": elementwise.shape,
    "Size": elementwise.size,
    "Slice": movement.slice_,
    "Softmax": norm.softmax,
    "SpaceToDepth": spatial.space_to_depth,
    "Split": movement.split,
    "Squeeze": movement.squeeze,
    "Tile": movement.tile,
    "TopK": scan.topk,
    "Transpose": movement.transpose,
    "Unsqueeze": movement.unsqueeze,
    "Upsample": spatial.resize,
    "Where": elementwise.where,
}
_PRIVATE: dict[str, Lowering] = {
    "DynamicLinear": linear.dynamic_linear,
    "Recurrence": recurrence.recurrence,
    "Recurrent": recurrent.recurrent,
    "Scatter": movement.scatter,
    "Silu": elementwise.unary,
}


def has_operator(node: ir.Node) -> bool:
    """Whether a node is lowered as it is; else ONNX's own definition of it may be, if there is one."""
    outputs = [output for output in node.outputs[1:] if output.uses() or output.is_graph_output()]
    return _is_listed(node) and not (outputs and node.op_type == "LayerNormalization")


def _is_listed(node: ir.Node) -> bool:
    return node.domain in ("", "ai.onnx") and node.op_type in LOWERINGS


def lowering(node: ir.Node) -> Lowering | None:
    """The function for a node, or None when there is none."""
    if node.domain == PRIVATE:
        return _PRIVATE.get(node.op_type)
    return LOWERINGS[node.op_type] if _is_listed(node) else None
