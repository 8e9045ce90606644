"""Operators that TensorRT has no form of, and the nearest way to say the same with those that it has."""

from __future__ import annotations

# By operator: the rewrite in words, and the operators that it needs.
REWRITES: dict[str, tuple[str, tuple[str, ...]]] = {
    "AffineGrid": ("MatMul of theta with a constant grid", ("MatMul",)),
    "Bernoulli": ("RandomUniformLike, then Less", ("RandomUniformLike", "Less")),
    "BitShift": ("Mul or Div by a power of two", ("Mul", "Div")),
    "BitwiseAnd": ("And on booleans", ("And",)),
    "BitwiseNot": ("Not on booleans", ("Not",)),
    "BitwiseOr": ("Or on booleans", ("Or",)),
    "BitwiseXor": ("Xor on booleans", ("Xor",)),
    "CenterCropPad": ("Slice and Pad", ("Slice", "Pad")),
    "Col2Im": ("ConvTranspose with a one-hot kernel", ("ConvTranspose",)),
    "Compress": ("NonZero and Gather", ("NonZero", "Gather")),
    "ConcatFromSequence": ("Concat of the tensors themselves", ("Concat",)),
    "ConvInteger": ("QuantizeLinear, DequantizeLinear and Conv", ("QuantizeLinear", "DequantizeLinear", "Conv")),
    "CumProd": ("Log, CumSum and Exp, for positive numbers", ("Log", "CumSum", "Exp")),
    "DFT": ("MatMul with a constant matrix of cosines and sines", ("MatMul",)),
    "DeformConv": ("GridSample at the offsets of each tap, Mul by the mask, and Conv 1x1", ("GridSample", "Mul", "Conv")),
    "Det": ("Mul and Sub written out, for small matrices", ("Mul", "Sub")),
    "DynamicQuantizeLinear": ("QuantizeLinear with a calibrated scale", ("QuantizeLinear",)),
    "MatMulInteger": ("QuantizeLinear, DequantizeLinear and MatMul", ("QuantizeLinear", "DequantizeLinear", "MatMul")),
    "MaxRoiPool": ("RoiAlign with mode=max", ("RoiAlign",)),
    "MaxUnpool": ("ScatterElements into zeros", ("ScatterElements",)),
    "QLinearConv": ("QuantizeLinear, DequantizeLinear and Conv", ("QuantizeLinear", "DequantizeLinear", "Conv")),
    "QLinearMatMul": ("QuantizeLinear, DequantizeLinear and MatMul", ("QuantizeLinear", "DequantizeLinear", "MatMul")),
    "SequenceAt": ("Split or Gather of one tensor", ("Split", "Gather")),
    "SplitToSequence": ("Split", ("Split",)),
}  # fmt: skip


def nearest(op: str) -> str:
    """What to say after the reason for which a node is refused; empty where there is no rewrite."""
    return f"; the nearest rewrite: {REWRITES[op][0]}" if op in REWRITES else ""
