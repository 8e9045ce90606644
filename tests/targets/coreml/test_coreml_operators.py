"""Every operator against ONNX Runtime, through the saved package: float32, float16, old opsets, other deployment targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from edgewise.targets.coreml.table import table

RNG = np.random.default_rng(11)
FLOAT32_DB, FLOAT16_DB = 90.0, 50.0


def w(*shape: int) -> np.ndarray:
    fan_in = max(1, int(np.prod(shape[1:])))
    return (RNG.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)


def ints(*values: Any) -> np.ndarray:
    return np.array(values, np.int64)


def array(values: Any) -> np.ndarray:
    return np.array(values, np.int64)


def f32(value: Any) -> np.ndarray:
    return np.asarray(value, np.float32)


HANN = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(16) / 16)).astype(np.float32)

CONVOLUTIONS = [
    ("Conv", ["f:1,3,9,8", w(4, 3, 3, 3)], {}),
    ("Conv", ["f:2,4,9,8", w(6, 2, 3, 2), w(6)], {"group": 2, "strides": [2, 1], "pads": [1, 0, 2, 1]}),
    ("Conv", ["f:1,6,10,10", w(6, 1, 3, 3), w(6)], {"group": 6, "dilations": [2, 2], "pads": [2, 2, 2, 2]}),
    ("Conv", ["f:1,4,12", w(5, 4, 3), w(5)], {"auto_pad": "SAME_UPPER", "strides": [2]}),
    ("Conv", ["f:1,4,11,11", w(5, 4, 4, 4)], {"auto_pad": "SAME_LOWER", "strides": [2, 3]}),
    ("Conv", ["f:1,2,5,6,7", w(3, 2, 2, 3, 3)], {"pads": [0, 1, 1, 1, 1, 1]}),
    ("Conv", ["f:1,4,8,8", "f:6,4,3,3"], {"pads": [1, 1, 1, 1]}),
    ("ConvTranspose", ["f:1,3,5,5", w(3, 4, 3, 3), w(4)], {"strides": [2, 2]}),
    ("ConvTranspose", ["f:1,4,5,6", w(4, 2, 3, 3), w(4)], {"strides": [2, 2], "group": 2, "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
    ("ConvTranspose", ["f:1,3,5,5", w(3, 4, 2, 2), w(4)], {"strides": [3, 3], "output_padding": [1, 2]}),
    ("ConvTranspose", ["f:1,3,7", w(3, 4, 4)], {"strides": [2], "pads": [1, 2], "dilations": [2]}),
    ("MaxPool", ["f:1,3,9,9"], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ("MaxPool", ["f:1,3,10,9"], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1], "ceil_mode": 1}),
    ("MaxPool", ["f:1,3,8"], {"kernel_shape": [3], "auto_pad": "SAME_UPPER"}),
    ("AveragePool", ["f:1,3,9,9"], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("AveragePool", ["f:1,3,9,9"], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ("AveragePool", ["f:1,3,10,10"], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ("AveragePool", ["f:1,2,6,6,6"], {"kernel_shape": [2, 2, 2], "strides": [2, 2, 2]}),
    ("GlobalAveragePool", ["f:1,3,7,5"], {}),
    ("GlobalMaxPool", ["f:1,3,7,5"], {}),
]  # fmt: skip
PRODUCTS = [
    ("MatMul", ["f:3,4", w(4, 5)], {}),
    ("MatMul", ["f:2,3,4", w(4, 5)], {}),
    ("MatMul", ["f:2,2,3,4", w(4, 5)], {}),
    ("MatMul", ["f:2,3,4", "f:2,4,5"], {}),
    ("MatMul", ["f:4", "f:4,5"], {}),
    ("MatMul", ["i:2,3", "i:3,4"], {}),
    ("Gemm", ["f:3,4", w(5, 4), w(5)], {"transB": 1}),
    ("Gemm", ["f:3,4", w(4, 5), w(1, 5)], {"alpha": 0.5, "beta": 2.0}),
    ("Gemm", ["f:4,3", w(4, 5), "f:3,5"], {"transA": 1, "alpha": 1.5, "beta": 0.25}),
    ("Gemm", ["f:4,3", "f:3,5"], {}),
    ("Einsum", ["f:2,3,4", "f:2,4,5"], {"equation": "bij,bjk->bik"}),
    ("Einsum", ["f:2,3,4,5", "f:6,3,5"], {"equation": "bhwc,khc->bhwk"}),
    ("Einsum", ["f:3,4", "f:5,6"], {"equation": "ij,kl->ikjl"}),
    ("Einsum", ["p:3,4", "p:3,4"], {"equation": "ij,ij->"}),
    ("Einsum", ["f:2,3,4"], {"equation": "bij->jb"}),
    ("Einsum", ["f:2,3", "f:3,4"], {"equation": "ij,jk"}),
    ("Einsum", ["f:2,3,3"], {"equation": "...ii->...i"}),
    ("Einsum", ["f:3,3"], {"equation": "ii->"}),
    ("Einsum", ["f:3,2,3,3"], {"equation": "ijii->ji"}),
    ("Einsum", ["f:3,3,4", "f:3,4,5"], {"equation": "iik,ikl->il"}),
    ("Einsum", ["f:2,3,4", "f:2,4,6"], {"equation": "...ij,...jk->...ik"}),
    ("Einsum", ["f:2,3,4", "f:4,5"], {"equation": "...j,jk"}),
    ("Einsum", ["f:2,3", "f:3,4", "f:4,5"], {"equation": "ij,jk,kl->il"}),
    ("Einsum", ["f:2,3", "f:4,3", "f:4,2"], {"equation": "ij,kj,ki->i"}),
    ("Einsum", ["f:2,3,4,5", "f:2,3,4,5"], {"equation": "abcd,abcd->abcd"}),
]
ARITHMETIC = [
    *((op, ["f:2,3,4", "f:3,1"], {}) for op in ("Add", "Sub", "Mul", "Greater", "LessOrEqual", "Max", "Min")),
    ("Div", ["f:2,3", "p:2,3"], {}),
    ("Div", ["i:4,5", "n:4,5"], {}),
    ("Div", ["i:4,5", ints(2)], {}),
    ("Mod", ["i:4,5", "n:4,5"], {}),
    ("Mod", ["f:4,5", "p:4,5"], {"fmod": 1}),
    ("Pow", ["p:2,3", f32(2)], {}),
    ("Pow", ["p:2,3", f32(0.5)], {}),
    ("Pow", ["p:2,3", f32([1.5, 2.5, -1])], {}),
    ("Pow", ["p:2,3", "i:3"], {}),
    ("Add", ["i:2,3", ints(7)], {}),
    ("Mul", ["j:2,3", "j:3"], {}),
    ("Max", ["f:2,3", "f:2,3", "f:3"], {}),
    ("Sum", ["f:2,3", "f:2,3", "f:3"], {}),
    ("Mean", ["f:2,3", "f:2,3", "f:3"], {}),
    ("Sum", ["f:2,3"], {}),
    ("Equal", ["i:4,5", "i:4,5"], {}),
    ("Equal", ["b:4,5", "b:4,5"], {}),
    ("Less", ["i:4,5", "i:5"], {}),
    ("GreaterOrEqual", ["f:4,5", "f:4,5"], {}),
    ("And", ["b:4,5", "b:5"], {}),
    ("Or", ["b:4,5", "b:5"], {}),
    ("Xor", ["b:4,5", "b:5"], {}),
    ("Not", ["b:4,5"], {}),
    ("Where", ["b:4,1", "f:4,5", "f:5"], {}),
    ("Where", ["b:4,5", "f:4,5", f32(-np.inf)], {}),
    ("IsNaN", ["f:3"], {}),
    ("Abs", ["i:3,4"], {}),
    ("Neg", ["f:3,4"], {}),
    ("Sign", ["f:3,4"], {}),
    ("Reciprocal", ["p:3,4"], {}),
    *((op, ["f:3,4"], {}) for op in ("Floor", "Ceil", "Round", "Exp", "Erf", "Sin", "Cos", "Atan", "Sinh", "Cosh", "Abs", "Asinh", "IsInf")),
    *((op, ["u:3,4"], {}) for op in ("Tan", "Asin", "Acos", "Atanh")),
    *((op, ["p:3,4"], {}) for op in ("Sqrt", "Log")),
]  # fmt: skip
ACTIVATIONS = [
    *((op, ["f:2,5"], {}) for op in ("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "HardSwish", "Mish", "Selu", "HardSigmoid")),
    ("Clip", ["f:2,5", f32(0), f32(6)], {}),
    ("Clip", ["f:2,5", f32(-0.5), f32(0.5)], {}),
    ("Clip", ["f:2,5", None, f32(0.5)], {}),
    ("Clip", ["f:2,5", "f:", None], {}),
    ("Clip", ["i:2,5", ints(-2).reshape(()), ints(2).reshape(())], {}),
    ("LeakyRelu", ["f:2,5"], {"alpha": 0.2}),
    ("PRelu", ["f:2,3,4,4", w(3, 1, 1)], {}),
    ("PRelu", ["f:2,5", w(5)], {}),
    ("Elu", ["f:2,5"], {"alpha": 0.7}),
    ("Celu", ["f:2,5"], {"alpha": 0.7}),
    ("HardSigmoid", ["f:2,5"], {"alpha": 1 / 6, "beta": 0.5}),
    ("ThresholdedRelu", ["f:2,5"], {"alpha": 0.3}),
    ("Softmax", ["f:2,5,3"], {"axis": 1}),
    ("LogSoftmax", ["f:2,5,3"], {"axis": -1}),
]  # fmt: skip
NORMALIZATIONS = [
    ("BatchNormalization", ["f:2,3,4,4", w(3), w(3), w(3), f32([0.5, 1, 2])], {"epsilon": 1e-3}),
    ("BatchNormalization", ["f:4,3", w(3), w(3), w(3), f32([0.5, 1, 2])], {}),
    ("InstanceNormalization", ["f:2,3,4,4", w(3), w(3)], {"epsilon": 1e-3}),
    ("InstanceNormalization", ["f:2,3,2,4,4", w(3), w(3)], {}),
    ("LayerNormalization", ["f:2,5,8", w(8), w(8)], {"epsilon": 1e-6}),
    ("LayerNormalization", ["f:2,5,8", w(5, 8)], {"axis": 1}),
    ("LayerNormalization", ["f:2,5,8", "f:8", w(8)], {}),
    ("LRN", ["f:2,7,4,4"], {"size": 3, "alpha": 0.1, "beta": 0.6, "bias": 1.5}),
    ("LpNormalization", ["f:2,7"], {"axis": -1}),
    ("LpNormalization", ["f:2,7"], {"axis": 0, "p": 1}),
]
REDUCTIONS = [
    *((f"Reduce{name}", ["f:2,3,4", ints(1)], {"keepdims": 0}) for name in ("Mean", "Sum", "Max", "Min", "Prod", "L1", "L2", "LogSumExp", "SumSquare")),
    ("ReduceMean", ["f:2,3,4", ints(-1, 0)], {}),
    ("ReduceSum", ["f:2,3,4"], {"keepdims": 0}),
    ("ReduceSum", ["f:2,3,4"], {"noop_with_empty_axes": 1}),
    ("ReduceLogSum", ["p:2,3,4", ints(2)], {}),
    ("ReduceMax", ["i:2,3,4", ints(2)], {}),
    ("ArgMax", ["d:2,3,4"], {"axis": 1, "keepdims": 0}),
    ("ArgMin", ["d:2,3,4"], {"axis": -1}),
    ("CumSum", ["f:2,5", ints(1)], {}),
    ("CumSum", ["f:2,5", ints(-2).reshape(())], {"reverse": 1, "exclusive": 1}),
    ("Hardmax", ["d:3,5"], {"axis": 0}),
    ("GlobalLpPool", ["f:1,3,4,4"], {"p": 2}),
    ("GlobalLpPool", ["f:1,3,4,4"], {"p": 1}),
    ("TopK", ["d:2,8", ints(3)], {}, 2),
    ("TopK", ["d:4,8", ints(2)], {"axis": 0, "largest": 0}, 2),
]  # fmt: skip
SHAPES = [
    ("Reshape", ["f:2,3,4", ints(0, -1)], {}),
    ("Reshape", ["f:1", np.array([], np.int64)], {}),
    ("Transpose", ["f:2,3,4"], {}),
    ("Transpose", ["f:2,3,4"], {"perm": [1, 0, 2]}),
    ("Flatten", ["f:2,3,4"], {"axis": 2}),
    ("Flatten", ["f:2,3,4"], {"axis": 0}),
    ("Squeeze", ["f:1,3,1,4", ints(0, 2)], {}),
    ("Squeeze", ["f:1,3,1,4"], {}),
    ("Unsqueeze", ["f:3,4", ints(0, -1)], {}),
    ("Unsqueeze", ["f:", ints(0)], {}),
    ("Identity", ["f:3,4"], {}),
    ("Dropout", ["f:3,4"], {}),
    ("DepthToSpace", ["f:1,8,2,3"], {"blocksize": 2}),
    ("DepthToSpace", ["f:1,8,2,3"], {"blocksize": 2, "mode": "CRD"}),
    ("SpaceToDepth", ["f:1,2,4,6"], {"blocksize": 2}),
    ("Concat", ["f:2,3", "f:2,1", w(2, 2)], {"axis": 1}),
    ("Concat", ["b:2,3", "b:2,1"], {"axis": -1}),
    ("Split", ["f:2,6"], {"axis": 1, "num_outputs": 3}, 3),
    ("Split", ["f:2,6", ints(1, 5)], {"axis": 1}, 2),
    ("Split", ["f:2,7"], {"axis": 1, "num_outputs": 3}, 3),
    ("Slice", ["f:5,6,7", ints(1, -4), ints(4, np.iinfo(np.int64).max), ints(0, 2), ints(2, 1)], {}),
    ("Slice", ["f:5,6", ints(-1, 4), ints(np.iinfo(np.int64).min, 1), ints(0, 1), ints(-1, -2)], {}),
    ("Slice", ["f:5,6", ints(1, 2), ints(3, 100)], {}),
    ("Slice", ["f:9,6", "k:1", "n:1", ints(0)], {}),
    ("Slice", ["f:9,6", "k:1", ints(np.iinfo(np.int64).max), ints(0)], {}),
    ("Pad", ["f:2,3,4", ints(0, 1, 2, 1, 0, 3)], {}),
    ("Pad", ["f:2,3,4", ints(1, 2), f32(1.5), ints(1)], {}),
    ("Pad", ["f:2,3,4", ints(0, -1, 1, 0, 0, -2)], {}),
    ("Pad", ["f:1,2,5,6", ints(0, 0, 2, 3, 0, 0, 1, 2)], {"mode": "reflect"}),
    ("Pad", ["f:1,2,5,6", ints(0, 0, 2, 3, 0, 0, 1, 2)], {"mode": "edge"}),
    ("Pad", ["f:3,2,5", ints(1, 0, 2, 2, 0, 1)], {"mode": "wrap"}),
    ("Pad", ["f:3,2,5", ints(1, 1, 0, 2, 0, 0)], {"mode": "reflect"}),
    ("Pad", ["i:3,2", ints(1, 0, 0, 2), ints(9).reshape(())], {}),
    ("Pad", ["b:3,2", ints(1, 0, 0, 2)], {}),
    ("Expand", ["f:3,1", ints(2, 3, 4)], {}),
    ("Expand", ["f:3,4", ints(1, 4)], {}),
    ("Expand", ["b:3,1", ints(3, 2)], {}),
    ("Tile", ["f:2,3", ints(2, 2)], {}),
    ("Tile", ["i:2,3", ints(1, 3)], {}),
    ("Trilu", ["f:2,4,5"], {}),
    ("Trilu", ["f:4,5", ints(-1).reshape(())], {"upper": 0}),
    ("Trilu", ["f:4,5", ints(2).reshape(())], {}),
    ("Trilu", ["b:4,5"], {"upper": 0}),
    ("Shape", ["f:2,3,4"], {"start": 1}),
    ("Size", ["f:2,3"], {}),
    ("Range", [ints(1).reshape(()), "n:", ints(1).reshape(())], {}),
    ("ConstantOfShape", ["n:2"], {}),
    ("Cast", ["f:3,4"], {"to": 7}),
    ("Cast", ["f:3,4"], {"to": 9}),
    ("Cast", ["b:3,4"], {"to": 1}),
    ("Cast", ["i:3,4"], {"to": 1}),
    ("Cast", ["i:3,4"], {"to": 6}),
    ("CastLike", ["i:3,4", w(1)], {}),
]
INDEXING = [
    ("Gather", ["f:5,4", ints(3, -1, 0)], {}),
    ("Gather", ["f:5,4", "k:2,3"], {"axis": 1}),
    ("Gather", ["f:5,4", ints(2).reshape(())], {"axis": 1}),
    ("Gather", ["b:5,4", array([[1, 0], [2, 4]])], {}),
    ("Gather", [w(11, 3), "i:2,3"], {}),
    ("GatherElements", ["f:3,4", "k:2,4"], {"axis": 0}),
    ("GatherElements", ["f:3,4", array([[0, -1], [3, 1], [1, 1]])], {"axis": 1}),
    ("GatherElements", ["f:3,4,5", "k:3,2,2"], {"axis": 1}),
    ("ScatterElements", ["f:4,5", "k:2,3", "f:2,3"], {"axis": 0, "reduction": "add"}),
    ("ScatterElements", ["f:2,5", array([[0, 4], [1, 2]]), "f:2,2"], {"axis": 1}),
    ("GatherND", ["f:3,4,5", array([[0, 1], [2, -1]])], {}),
    ("GatherND", ["f:3,4,5", "k:3,1"], {"batch_dims": 1}),
    ("ScatterND", ["f:4,5", array([[0], [-1]]), "f:2,5"], {}),
    ("ScatterND", ["f:4,5", array([[0], [0]]), "f:2,5"], {"reduction": "add"}),
    ("ScatterElements", ["f:4,5", array([[0, 1, 2], [-1, -2, 0]]), "f:2,3"], {"axis": 0}),
    ("ScatterElements", ["f:4,5", array([[0, 0]]), "f:1,2"], {"axis": 1, "reduction": "add"}),
    ("OneHot", ["i:3", ints(6), f32([-1, 2])], {}),
    ("OneHot", ["i:2,3", ints(6), ints(0, 1)], {"axis": 0}),
    ("NonZero", ["k:4,5"], {}),
]


def resize(spec: str, scales: Any = None, sizes: Any = None, **attributes: Any) -> tuple[Any, ...]:
    return (
        "Resize",
        [spec, None, None if scales is None else f32(scales), None if sizes is None else ints(*sizes)],
        attributes,
    )


RESIZES = [
    resize(
        "f:1,2,4,5", [1, 1, 2, 2], mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    ),
    resize("f:1,2,4,5", [1, 1, 2, 3], mode="nearest"),
    resize("f:1,2,8,9", sizes=(1, 2, 5, 4), mode="nearest", nearest_mode="ceil"),
    resize("f:1,2,4,5", [1, 1, 1.7, 0.6], mode="nearest", nearest_mode="round_prefer_ceil"),
    resize("f:1,2,4,5", [1, 1, 2, 2], mode="linear"),
    resize("f:1,2,4,5", sizes=(1, 2, 7, 9), mode="linear"),
    resize("f:1,2,4,5", sizes=(1, 2, 7, 9), mode="linear", coordinate_transformation_mode="align_corners"),
    resize("f:1,2,4,5", sizes=(1, 2, 7, 9), mode="linear", coordinate_transformation_mode="asymmetric"),
    resize("f:1,2,4,5", sizes=(1, 2, 1, 3), mode="linear", coordinate_transformation_mode="pytorch_half_pixel"),
    resize("f:1,2,4,5", [1, 1, 1.6, 0.7], mode="linear"),
    resize("f:1,2,8,9", sizes=(1, 2, 5, 4), mode="linear", antialias=1),
    resize("f:1,2,6,6", sizes=(1, 2, 9, 5), mode="cubic"),
    resize("f:1,2,6,6", [1, 1, 1.5, 2], mode="cubic", cubic_coeff_a=-0.5, exclude_outside=1),
    resize("f:1,2,9,8", sizes=(1, 2, 5, 4), mode="cubic", antialias=1, cubic_coeff_a=-0.5),
    resize("f:1,2,6", sizes=(1, 2, 9), mode="linear"),
    resize("f:1,2,4,5", [1, 1, 0.6, 1.3], mode="linear", coordinate_transformation_mode="align_corners"),
    resize("f:1,2,7,4", [1, 1, 1.9, 1.6], mode="cubic", coordinate_transformation_mode="align_corners"),
    resize("f:1,3,2,6", sizes=(1, 5, 2, 6), mode="linear"),
]
SAMPLING = [
    ("GridSample", ["f:2,3,5,6", "f:2,4,3,2"], {}),
    ("GridSample", ["f:1,3,5,6", "f:1,4,3,2"], {"padding_mode": "border", "align_corners": 1}),
    ("GridSample", ["f:1,3,5,6", "f:1,4,3,2"], {"padding_mode": "reflection"}),
    ("GridSample", ["f:1,3,5,6", "f:1,4,3,2"], {"padding_mode": "reflection", "align_corners": 1}),
    ("GridSample", ["f:1,3,5,6", "f:1,4,3,2"], {"mode": "nearest"}),
    ("GridSample", ["f:2,3,5,6", "f:2,4,3,2"], {"mode": "bicubic"}),
    ("GridSample", ["f:1,3,5,6", "f:1,4,3,2"], {"mode": "bicubic", "padding_mode": "border"}),
    ("GridSample", ["f:1,3,5,6", "f:1,4,3,2"], {"mode": "bicubic", "padding_mode": "reflection"}),
    ("GridSample", ["f:1,3,5,6", "f:1,4,3,2"], {"mode": "bicubic", "padding_mode": "reflection", "align_corners": 1}),
    ("DFT", ["f:2,10,1"], {"onesided": 1}),
    ("DFT", ["f:2,3,6,2", ints(8).reshape(())], {"axis": 2}),
    ("DFT", ["f:2,8,3,2", ints(6).reshape(())], {}),
    ("DFT", ["f:2,7,2"], {"inverse": 1}),
    ("STFT", ["f:2,32,1", ints(4).reshape(()), HANN], {}),
    ("STFT", ["f:1,33,1", ints(5).reshape(()), None, ints(8).reshape(())], {"onesided": 0}),
    ("Col2Im", ["f:1,12,9", ints(4, 4), ints(2, 2)], {}),
    ("Col2Im", ["f:2,6,4", ints(9), ints(3)], {"strides": [2]}),
    ("Col2Im", ["f:1,8,4", ints(3, 4, 2), ints(2, 2, 2)], {"strides": [1, 2, 1]}),
    ("Col2Im", ["f:2,18,12", ints(6, 7), ints(3, 3)], {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("LSTM", ["f:5,2,3", w(1, 16, 3), w(1, 16, 4), w(1, 32)], {"hidden_size": 4}, 3),
    ("LSTM", ["f:5,2,3", w(2, 16, 3), w(2, 16, 4), w(2, 32), None, "f:2,2,4", "f:2,2,4"], {"hidden_size": 4, "direction": "bidirectional"}, 3),
    ("LSTM", ["f:5,2,3", w(1, 16, 3), w(1, 16, 4)], {"hidden_size": 4, "direction": "reverse"}, 3),
    ("LSTM", ["f:5,2,3", w(2, 16, 3), w(2, 16, 4), w(2, 32), ints(5, 2).astype(np.int32)], {"hidden_size": 4, "direction": "bidirectional"}, 3),
    ("GRU", ["f:5,2,3", w(2, 12, 3), w(2, 12, 4), w(2, 24), None, "f:2,2,4"], {"hidden_size": 4, "direction": "bidirectional", "linear_before_reset": 1}, 2),
    ("GRU", ["f:5,2,3", w(1, 12, 3), w(1, 12, 4), w(1, 24), ints(3, 5).astype(np.int32)], {"hidden_size": 4, "direction": "reverse"}, 2),
    ("GRU", ["f:1,2,3", w(1, 12, 3), w(1, 12, 4)], {"hidden_size": 4}, 2),
    ("RNN", ["f:5,2,3", w(1, 4, 3), w(1, 4, 4)], {"hidden_size": 4, "direction": "reverse"}, 2),
]  # fmt: skip
CASES = [
    *CONVOLUTIONS, *PRODUCTS, *ARITHMETIC, *ACTIVATIONS, *NORMALIZATIONS, *REDUCTIONS, *SHAPES, *INDEXING, *RESIZES,
    *SAMPLING,
]  # fmt: skip
# Opset 9 had these as attributes, or another meaning.
OLD = [
    ("Clip", ["f:2,5"], {"min": -0.5, "max": 0.5}),
    ("Squeeze", ["f:1,3,1,4"], {"axes": [0, 2]}),
    ("Unsqueeze", ["f:3,4"], {"axes": [0, 3]}),
    ("Split", ["f:2,6"], {"axis": 1, "split": [1, 5]}, 2),
    ("ReduceMean", ["f:2,3,4"], {"axes": [1, 2]}),
    ("ReduceSum", ["f:2,3,4"], {"axes": [-1], "keepdims": 0}),
    ("Pad", ["f:2,3"], {"pads": [1, 0, 0, 2], "value": 0.5}),
    ("Slice", ["f:5,6"], {"starts": [1, -3], "ends": [4, 6], "axes": [0, 1]}),
    ("TopK", ["f:2,8"], {"k": 3}, 2),
    ("Softmax", ["f:2,3,4"], {"axis": 1}),
    ("LogSoftmax", ["f:2,3,4"], {}),
    ("Upsample", ["f:1,2,3,4", f32([1, 1, 2, 2])], {"mode": "nearest"}),
    ("Upsample", ["f:1,2,3,4", f32([1, 1, 2, 3])], {"mode": "linear"}),
    ("Gemm", ["f:3,4", w(5, 4), w(5)], {"transB": 1}),
    ("Reshape", ["f:2,3,4", ints(-1, 6)], {}),
]


# Operators that came after opset 18, or changed.
NEW = [
    ("Gelu", ["f:2,5"], {}),
    ("Gelu", ["f:2,5"], {"approximate": "tanh"}),
    ("GroupNormalization", ["f:2,6,4,4", w(6), w(6)], {"num_groups": 3}),
    ("RMSNormalization", ["f:2,5,8", w(8)], {}),
    ("Swish", ["f:2,5"], {}),
    ("Swish", ["f:2,5"], {"alpha": 1.5}),
    ("Reshape", ["f:2,3,4", ints(0, -1)], {}),
    ("ReduceMean", ["f:2,3,4", ints(1)], {}),
    ("GridSample", ["f:2,3,4,5,6", "f:2,2,3,2,3"], {}),
    ("GridSample", ["f:1,2,4,5,6", "f:1,2,3,2,3"], {"padding_mode": "border", "align_corners": 1}),
    ("GridSample", ["f:1,2,4,5,6", "f:1,2,3,2,3"], {"padding_mode": "reflection"}),
    ("GridSample", ["f:1,2,4,5,6", "f:1,2,3,2,3"], {"mode": "nearest"}),
    (
        "GridSample",
        ["f:1,2,4,5,6", "f:1,2,3,2,3"],
        {"mode": "nearest", "padding_mode": "reflection", "align_corners": 1},
    ),
    ("DFT", ["f:2,3,10,1", None, ints(-2).reshape(())], {}),
    ("DFT", ["f:2,6,4,1", ints(8).reshape(()), ints(1).reshape(())], {"onesided": 1}),
]


def names(cases: Sequence[Any]) -> list[str]:
    return [f"{case[0]}_{index}" for index, case in enumerate(cases)]


def too_noisy(built: Any, cases: Sequence[Any], least_db: float) -> dict[str, float]:
    """The cases below the limit. All in one test, so that no two processes build the same network of 150 operators, which takes long."""
    found = {label: built.sqnr_db(label) for label in names(cases)}
    return {label: value for label, value in found.items() if not value >= least_db}


def test_float32_matches_onnx_runtime(build_cases: Callable[..., Any]) -> None:
    assert too_noisy(build_cases(CASES, compute_precision="float32"), CASES, FLOAT32_DB) == {}


@pytest.mark.slow
def test_float16_matches_onnx_runtime(build_cases: Callable[..., Any]) -> None:
    assert too_noisy(build_cases(CASES), CASES, FLOAT16_DB) == {}


@pytest.mark.slow
@pytest.mark.parametrize("target", ["iOS15", "iOS16", "iOS18", "iOS26"])
def test_other_deployment_targets_match_onnx_runtime(build_cases: Callable[..., Any], target: str) -> None:
    needs_16 = [case for case in CASES if (case[0] == "GatherND" and case[2]) or case[2].get("mode") == "bicubic"]
    cases = [case for case in CASES if target != "iOS15" or not any(case is other for other in needs_16)]
    built = build_cases(cases, compute_precision="float32", minimum_deployment_target=target)
    assert too_noisy(built, cases, FLOAT32_DB) == {}


def test_opset_9_matches_onnx_runtime(build_cases: Callable[..., Any]) -> None:
    assert too_noisy(build_cases(OLD, opset=9, compute_precision="float32"), OLD, FLOAT32_DB) == {}


def test_opset_24_matches_onnx_runtime(build_cases: Callable[..., Any]) -> None:
    assert too_noisy(build_cases(NEW, opset=24, compute_precision="float32"), NEW, FLOAT32_DB) == {}


def test_every_operator_of_the_table_is_among_the_cases() -> None:
    # test_coreml_int8.py, test_coreml_fusions.py, test_coreml_expand.py, test_coreml_backend.py, test_coreml_control.py
    elsewhere = {"QuantizeLinear", "DequantizeLinear", "ScaledDotProductAttention"}
    elsewhere |= {"NonMaxSuppression", "RoiAlign", "EyeLike", "Acosh", "If", "Loop", "Scan"}
    assert {op for _, op in table()} - elsewhere == {case[0] for case in [*CASES, *OLD, *NEW]}
