"""Functions of elements and of lines of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import pi

import numpy as np
import onnx_ir as ir

from edgewise.targets.cpu.native.context import attribute_float, attribute_int, attribute_ints, constant_array
from edgewise.targets.cpu.native.value import Refusal
from edgewise.targets.cpu.native.written.writer import Writer, constant, need, numpy_dtype, rank_of, shape_of

_LARGEST = float(np.finfo(np.float32).max)


def _of_one(function: Callable[[Writer, ir.Value], ir.Value]) -> Callable[[ir.Node, Writer], Sequence[ir.Value]]:
    return lambda node, write: [function(write, need(node, 0))]


def _tan(write: Writer, x: ir.Value) -> ir.Value:
    return write("Div", write("Sin", x), write("Cos", x))


def _sinh(write: Writer, x: ir.Value) -> ir.Value:
    return write("Mul", write("Sub", write("Exp", x), write("Exp", write("Neg", x))), 0.5)


def _cosh(write: Writer, x: ir.Value) -> ir.Value:
    return write("Mul", write("Add", write("Exp", x), write("Exp", write("Neg", x))), 0.5)


def _asinh(write: Writer, x: ir.Value) -> ir.Value:
    """Of the magnitude, with its sign: the sum of a negative number and its root loses all digits."""
    size = write("Abs", x)
    root = write("Sqrt", write("Add", write("Mul", size, size), 1.0))
    return write("Mul", write("Sign", x), write("Log", write("Add", size, root)))


def _acosh(write: Writer, x: ir.Value) -> ir.Value:
    root = write("Sqrt", write("Sub", write("Mul", x, x), 1.0))
    return write("Log", write("Add", x, root))


def _atanh(write: Writer, x: ir.Value) -> ir.Value:
    ratio = write("Div", write("Add", x, 1.0), write("Sub", 1.0, x))
    return write("Mul", write("Log", ratio), 0.5)


# Abramowitz and Stegun 4.4.49: an error of at most 2e-8 in 0 … 1.
_ATAN = (
    1.0,
    -0.3333314528,
    0.1999355085,
    -0.1420889944,
    0.1065626393,
    -0.0752896400,
    0.0429096138,
    -0.0161657367,
    0.0028662257,
)


def _atan(write: Writer, x: ir.Value) -> ir.Value:
    """By a polynomial of the lesser of |x| and 1/|x|."""
    size = write("Abs", x)
    inner = write("Min", size, write("Reciprocal", write("Max", size, 1e-30)))
    square, total = write("Mul", inner, inner), write("Mul", inner, 0.0)
    for number in reversed(_ATAN):
        total = write("Add", write("Mul", total, square), number)
    angle = write("Mul", total, inner)
    turned = write("Where", write("Greater", size, 1.0), write("Sub", pi / 2, angle), angle)
    return write("Mul", write("Sign", x), turned)


def _asin(write: Writer, x: ir.Value) -> ir.Value:
    """Of x / √((1 − x)(1 + x)) the arc tangent."""
    root = write("Sqrt", write("Mul", write("Sub", 1.0, x), write("Add", x, 1.0)))
    return _atan(write, write("Div", x, root))


def _acos(write: Writer, x: ir.Value) -> ir.Value:
    return write("Sub", pi / 2, _asin(write, x))


def _is_nan(write: Writer, x: ir.Value) -> ir.Value:
    return write("Not", write("Equal", x, x))


def is_inf(node: ir.Node, write: Writer) -> list[ir.Value]:
    """Beyond the largest number, on the sides that are asked for."""
    x = need(node, 0)
    above, below = write("Greater", x, _LARGEST), write("Less", x, -_LARGEST)
    if not attribute_int(node, "detect_negative", 1):
        return [above]
    return [write("Or", above, below) if attribute_int(node, "detect_positive", 1) else below]


def mean(node: ir.Node, write: Writer) -> list[ir.Value]:
    """Of several values."""
    count = len(node.inputs)
    return [write("Mul", write("Sum", *node.inputs), 1.0 / count)]


def negated(node: ir.Node, write: Writer) -> list[ir.Value] | None:
    """Of integers: what 0 is more."""
    return None if not _whole(node) else [write("Sub", _zero(node), need(node, 0))]


def magnitude(node: ir.Node, write: Writer) -> list[ir.Value] | None:
    """Of integers: the greater of each and what it is negated."""
    x = need(node, 0)
    return None if not _whole(node) else [write("Max", x, write("Sub", _zero(node), x))]


def clipped(node: ir.Node, write: Writer) -> list[ir.Value] | None:
    """Of integers, and between limits that are computed: the greater of one and the lesser of the other."""
    limits = [node.inputs[index] if index < len(node.inputs) else None for index in (1, 2)]
    if not _whole(node) and all(limit is None or constant_array(limit) is not None for limit in limits):
        return None
    made = need(node, 0)
    for op, limit in zip(("Max", "Min"), limits, strict=True):
        if limit is not None:
            made = write(op, made, limit)
    return [made]


def sign(node: ir.Node, write: Writer) -> list[ir.Value] | None:
    """Of integers: between -1 and 1."""
    if not _whole(node):
        return None
    one = np.asarray(1, numpy_dtype(need(node, 0)))
    return [write("Max", write("Min", need(node, 0), one), -one)]


def _whole(node: ir.Node) -> bool:
    return need(node, 0).dtype in (ir.DataType.INT32, ir.DataType.INT64)


def _zero(node: ir.Node) -> np.ndarray:
    return np.asarray(0, numpy_dtype(need(node, 0)))


def hardmax(node: ir.Node, write: Writer) -> list[ir.Value]:
    """1 at the first of the largest along an axis."""
    x = need(node, 0)
    sizes = shape_of(x)
    axis = attribute_int(node, "axis", -1) % len(sizes)
    places = np.arange(sizes[axis]).reshape([-1 if index == axis else 1 for index in range(len(sizes))])
    best = write("ArgMax", x, axis=axis, keepdims=1)
    return [write("Cast", write("Equal", best, places), to=ir.DataType.FLOAT)]


def lp_normalization(node: ir.Node, write: Writer) -> list[ir.Value]:
    """Divided by the sum of magnitudes (p = 1) or the root of the sum of squares; 0 where that is 0."""
    x, axis = need(node, 0), attribute_int(node, "axis", -1)
    size = write("ReduceL1" if attribute_int(node, "p", 2) == 1 else "ReduceL2", x, [axis], keepdims=1)
    return [write("Div", x, write("Max", size, 1e-30))]


def lp_pool(node: ir.Node, write: Writer) -> list[ir.Value]:
    """The root of the average of powers times their number: padding adds zeros."""
    x, power = need(node, 0), float(attribute_int(node, "p", 2))
    kernel = attribute_ints(node, "kernel_shape") or shape_of(x)[2:]
    raised = write("Pow", write("Abs", x), power)
    names = ("auto_pad", "ceil_mode", "dilations", "pads", "strides")
    kept = {name: node.attributes[name].value for name in names if name in node.attributes}
    if attribute_int(node, "ceil_mode", 0):
        raise Refusal("LpPool with ceil_mode")
    pooled = write("AveragePool", raised, kernel_shape=kernel, count_include_pad=1, **kept)
    return [write("Pow", write("Mul", pooled, float(np.prod(kernel))), 1 / power)]


def global_lp_pool(node: ir.Node, write: Writer) -> list[ir.Value]:
    """Over all pixels."""
    x, power = need(node, 0), float(attribute_int(node, "p", 2))
    total = write("ReduceSum", write("Pow", write("Abs", x), power), list(range(2, rank_of(x))), keepdims=1)
    return [write("Pow", total, 1 / power)]


def lrn(node: ir.Node, write: Writer) -> list[ir.Value]:
    """Divided by a power of the sum of squares of neighbouring channels."""
    x = need(node, 0)
    count, sizes = attribute_int(node, "size", 1), shape_of(x)
    before, behind = (count - 1) // 2, count // 2
    alpha, beta, bias = (
        attribute_float(node, name, value) for name, value in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    )
    squares = write("Mul", x, x)
    flat = write.reshape(squares, [sizes[0], 1, sizes[1], int(np.prod(sizes[2:]))])
    near = write("AveragePool", flat, kernel_shape=[count, 1], pads=[before, 0, behind, 0], count_include_pad=1)
    scale = write("Add", write("Mul", write.reshape(near, sizes), alpha), bias)
    return [write("Div", x, write("Pow", scale, beta))]


def reduce_log_sum_exp(node: ir.Node, write: Writer) -> list[ir.Value]:
    """The logarithm of a sum of exponentials, less their largest so that none is too large."""
    x = need(node, 0)
    listed = attribute_ints(node, "axes")
    axes = constant(node, 1) if listed is None else np.asarray(listed, np.int64)
    if axes is None or not axes.size:
        if attribute_int(node, "noop_with_empty_axes", 0):
            return [write("Identity", x)]
        axes = np.arange(rank_of(x))
    largest = write(
        "Clip", write("ReduceMax", x, axes, keepdims=1), -_LARGEST, _LARGEST
    )  # infinity less infinity is no number
    total = write("ReduceSum", write("Exp", write("Sub", x, largest)), axes, keepdims=1)
    made = write("Add", write("Log", total), largest)
    return [made if attribute_int(node, "keepdims", 1) else write("Squeeze", made, axes)]


def trilu(node: ir.Node, write: Writer) -> list[ir.Value]:
    """The upper or lower triangle, zeros elsewhere."""
    x, k = need(node, 0), constant(node, 1)
    rows, columns = shape_of(x)[-2:]
    kept = np.tri(
        rows,
        columns,
        int(0 if k is None else k.reshape(-1)[0]) - (1 if attribute_int(node, "upper", 1) else 0),
        dtype=bool,
    )
    kept = ~kept if attribute_int(node, "upper", 1) else kept
    return [write("Where", kept, x, np.zeros((), numpy_dtype(x)))]


def eye_like(node: ir.Node, write: Writer) -> list[ir.Value]:
    """Ones on a diagonal: it depends on the shape alone."""
    rows, columns = shape_of(need(node, 0))
    dtype = node.outputs[0].dtype
    if dtype is None:
        raise Refusal("the dtype of the output is not known")
    return [write("Identity", np.eye(rows, columns, attribute_int(node, "k", 0), dtype=dtype.numpy()))]


def cum_prod(node: ir.Node, write: Writer) -> list[ir.Value]:
    """Products so far, one after the other."""
    x, axes = need(node, 0), constant(node, 1)
    sizes = shape_of(x)
    axis = int(np.asarray(axes).reshape(-1)[0]) % len(sizes)
    parts = [write.cut(x, axis, index, index + 1) for index in range(sizes[axis])]
    parts = parts[::-1] if attribute_int(node, "reverse", 0) else parts
    made = [parts[0]]
    for part in parts[1:]:
        made.append(write("Mul", made[-1], part))
    if attribute_int(node, "exclusive", 0):
        ones = np.ones([1 if index == axis else size for index, size in enumerate(sizes)], numpy_dtype(x))
        made = [write("Identity", ones), *made[:-1]]
    made = made[::-1] if attribute_int(node, "reverse", 0) else made
    return [write("Concat", *made, axis=axis)]


def softmax_of_one(node: ir.Node, write: Writer) -> list[ir.Value] | None:
    """1 for whatever number there is, its logarithm 0; of several numbers the engine has an operator."""
    x = need(node, 0)
    flat = (node.version or 13) < 13  # over all axes from the first one on
    if x.shape is None:
        return None
    axis = attribute_int(node, "axis", 1 if flat else -1) % len(x.shape)
    if any(size != 1 for size in x.shape[axis : None if flat else axis + 1]):
        return None
    zero = write("Sub", x, x)  # what is no number stays none
    return [write("Add", zero, 1.0) if node.op_type == "Softmax" else zero]


def swish(node: ir.Node, write: Writer) -> list[ir.Value]:
    """X · sigmoid(alpha · x)."""
    x, alpha = need(node, 0), attribute_float(node, "alpha", 1.0)
    return [write("Mul", x, write("Sigmoid", x if alpha == 1 else write("Mul", x, alpha)))]


def prelu(node: ir.Node, write: Writer) -> list[ir.Value]:
    """A slope below 0, whose shape broadcasts; ONNX's own definition is there from opset 16 on alone."""
    x, slope = need(node, 0), need(node, 1)
    sizes = None if slope.shape is None else list(slope.shape)
    if (
        sizes is not None
        and len(sizes) == 1
        and rank_of(x) > 2
        and sizes[0] != 1
        and x.shape is not None
        and x.shape[-1] != sizes[0]
    ):
        slope = write("Unsqueeze", slope, list(range(1, rank_of(x) - 1)))  # before opset 7: one for each channel
    return [write("Where", write("Less", x, np.zeros((), numpy_dtype(x))), write("Mul", slope, x), x)]


def selu(node: ir.Node, write: Writer) -> list[ir.Value]:
    """Gamma · Elu(x); ONNX's own definition is there from opset 22 on alone."""
    alpha, gamma = (
        attribute_float(node, "alpha", 1.67326319217681884765625),
        attribute_float(node, "gamma", 1.05070102214813232421875),
    )
    return [write("Mul", write("Elu", need(node, 0), alpha=alpha), gamma)]


def shrink(node: ir.Node, write: Writer) -> list[ir.Value]:
    """What lies between both sides of 0 becomes 0, the rest moves towards it."""
    x, edge, bias = need(node, 0), attribute_float(node, "lambd", 0.5), attribute_float(node, "bias", 0.0)
    low = write("Where", write("Less", x, -edge), write("Add", x, bias), 0.0)
    return [write("Where", write("Greater", x, edge), write("Sub", x, bias), low)]


RULES = {
    "Abs": magnitude, "Clip": clipped, "Neg": negated, "Sign": sign,
    "Acos": _of_one(_acos), "Acosh": _of_one(_acosh), "Asin": _of_one(_asin), "Asinh": _of_one(_asinh), "Atan": _of_one(_atan),
    "Atanh": _of_one(_atanh), "Cosh": _of_one(_cosh), "CumProd": cum_prod, "EyeLike": eye_like, "GlobalLpPool": global_lp_pool,
    "Hardmax": hardmax, "IsInf": is_inf, "IsNaN": _of_one(_is_nan), "LRN": lrn, "LogSoftmax": softmax_of_one, "LpNormalization": lp_normalization, "LpPool": lp_pool,
    "Mean": mean, "PRelu": prelu, "Selu": selu, "Shrink": shrink, "ReduceLogSumExp": reduce_log_sum_exp, "Sinh": _of_one(_sinh), "Softmax": softmax_of_one, "Swish": swish, "Tan": _of_one(_tan), "Trilu": trilu,
}  # fmt: skip
