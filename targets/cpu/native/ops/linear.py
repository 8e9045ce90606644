"""Conv, Gemm and MatMul with constant weights: all of them ``conv``, ``depthwise``, ``winograd`` or ``dynamic_linear`` of libedgewise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from edgewise.targets.cpu.native import packing
from edgewise.targets.cpu.native.builder import array_of, tensor_of
from edgewise.targets.cpu.native.coded import Rows
from edgewise.targets.cpu.native.context import Context, attribute_float, attribute_int, attribute_ints, attribute_text
from edgewise.targets.cpu.native.epilogue import Epilogue, finish, follow
from edgewise.targets.cpu.native.form import Form
from edgewise.targets.cpu.native.ops.matmul import product_of_values
from edgewise.targets.cpu.native.ops.padding import grown
from edgewise.targets.cpu.native.parts import parts_of
from edgewise.targets.cpu.native.plan import Attribute, Dim, DType, Layout, Tensor, dim, product
from edgewise.targets.cpu.native.value import Refusal, Value

if TYPE_CHECKING:
    import onnx_ir as ir

# The bits of bfloat16, and Winograd's weights for bytes.
_WORDS = {np.dtype(np.uint16): DType.BF16, np.dtype(np.int16): DType.S16}


@dataclass(frozen=True)
class Weights:
    """A layer's constants, the output channels first.

    Attributes:
        real: float32 [M, C/group, kernel...].
        integers: int8 of the same shape, or None when they are float.
        scale: of the integers; float32 [M] or [1].
        bias: float64 [M].
        rows: what they are stored as in 4 or 8 bits, where that is known.
        at_run: above 0: each row that they multiply is rounded to 8 bits first, so many neighbours by a range of their own.
    """

    real: np.ndarray
    integers: np.ndarray | None
    scale: np.ndarray
    bias: np.ndarray
    rows: Rows | None = None
    at_run: int = 0

    @property
    def outputs(self) -> int:
        """How many output channels."""
        return int(self.real.shape[0])


@dataclass(frozen=True)
class Window:
    """How a convolution walks; lists over the spatial axes, empty for products."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    pads: list[int]
    group: int = 1

    @property
    def pointwise(self) -> bool:
        """Whether each output pixel reads the one input pixel at the same place."""
        return all(one == 1 for one in [*self.kernel, *self.strides]) and not any(self.pads)

    @property
    def three_by_three(self) -> bool:
        """Whether it is 3x3 with steps of 1, without groups."""
        return self.kernel == [3, 3] and self.strides == self.dilations == [1, 1] and self.group == 1

    def sizes(self, given: list[Dim]) -> list[Dim]:
        """Spatial sizes of the output."""
        if not self.kernel:
            return given
        rank, found = len(self.kernel), []
        for axis, size in enumerate(given):
            reach = self.dilations[axis] * (self.kernel[axis] - 1) + 1
            padded = size + (self.pads[axis] + self.pads[axis + rank] - reach)
            found.append(padded // self.strides[axis] + 1)
        return found

    def attributes(self) -> dict[str, list[int]]:
        """As the engine's operators have them; none for products."""
        if not self.kernel:
            return {}
        return {"kernel": self.kernel, "strides": self.strides, "dilations": self.dilations, "pads": self.pads}


@dataclass(frozen=True)
class Layer:
    """What is multiplied.

    Attributes:
        value: the input.
        given: its tensor as the engine sees it.
        dims: of that tensor: images, channels, pixels (or spatial axes).
        weights: the constants.
        window: how it walks.
    """

    value: Value
    given: Tensor
    dims: tuple[Dim, ...]
    weights: Weights
    window: Window

    @property
    def integer(self) -> bool:
        """Whether it multiplies bytes."""
        return self.given.dtype is not DType.F32

    def rows(self, first: int, count: int, found: Epilogue) -> Layer:
        """Some of its outputs, after what was found to follow all of them."""
        kept = slice(first, first + count)
        old = self.weights
        scale = np.broadcast_to(old.scale, (old.outputs,)) * found.scale
        new = Weights(
            old.real[kept] * found.scale[kept].reshape(-1, *([1] * (old.real.ndim - 1))).astype(np.float32),
            None if old.integers is None else old.integers[kept],
            scale[kept].astype(np.float32),
            (old.bias * found.scale + found.shift)[kept],
        )  # not the rows: only layers of bytes are taken apart
        return replace(self, weights=new)


def conv(node: ir.Node, ctx: Context) -> None:
    """Conv with constant weights."""
    value = ctx.input(node, 0)
    weights = weights_of(ctx, node, 1, 0)
    if node.inputs[1] is None or ctx.input(node, 1).rank != value.rank:
        raise Refusal("weights of another rank")
    value, window = windowed(ctx, node, list(weights.real.shape[2:]), value, 0.0)
    _convolve(ctx, node.outputs[0], value, weights, window)


def windowed(ctx: Context, node: ir.Node, kernel: list[int], value: Value, fill: float) -> tuple[Value, Window]:
    """What a Conv or a pool walks over, and how; padded before where ``auto_pad`` depends on the inputs' shapes."""
    auto = attribute_text(node, "auto_pad", "NOTSET")
    strides = attribute_ints(node, "strides") or [1] * len(kernel)
    free = [stride != 1 and size.constant is None for stride, size in zip(strides, value.dims[2:], strict=True)]
    if not auto.startswith("SAME") or not any(free):
        return value, window_of(node, kernel, value)
    dilations = attribute_ints(node, "dilations") or [1] * len(kernel)
    for axis, (rows, stride, dilation) in enumerate(zip(kernel, strides, dilations, strict=True)):
        size = value.dims[axis + 2]
        total = ((size.ceildiv(stride) - 1) * stride + (dilation * (rows - 1) + 1) - size).maximum(0)
        less, more = total // 2, total - total // 2
        before, behind = (less, more) if auto == "SAME_UPPER" else (more, less)
        value = grown(ctx, value, axis + 2, before, behind, fill)
    return value, Window(kernel, strides, dilations, [0] * (2 * len(kernel)), attribute_int(node, "group", 1))


def window_of(node: ir.Node, kernel: list[int], value: Value) -> Window:
    """The attributes of a Conv or a pool, with ``auto_pad`` worked out."""
    rank = len(kernel)
    if rank > 3:
        raise Refusal(f"{rank} spatial axes")
    strides = attribute_ints(node, "strides") or [1] * rank
    dilations = attribute_ints(node, "dilations") or [1] * rank
    pads = attribute_ints(node, "pads") or [0] * (2 * rank)
    auto = attribute_text(node, "auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        begins, ends = [], []
        for axis in range(rank):
            stride, reach = strides[axis], dilations[axis] * (kernel[axis] - 1) + 1
            size = 1 if stride == 1 else value.size(axis + 2)  # by steps of 1 any image is padded alike
            total = max((-(-size // stride) - 1) * stride + reach - size, 0)
            small = total // 2
            begins.append(small if auto == "SAME_UPPER" else total - small)
            ends.append(total - begins[-1])
        pads = begins + ends
    elif auto == "VALID":
        pads = [0] * (2 * rank)
    return Window(kernel, strides, dilations, pads, attribute_int(node, "group", 1))


def gemm(node: ir.Node, ctx: Context) -> None:
    """Gemm with constant weights."""
    _multiply(ctx, node.outputs[0], ctx.input(node, 0), _gemm_weights(node, ctx))


def dynamic_linear(node: ir.Node, ctx: Context) -> None:
    """MatMul or Gemm of rows that are rounded at run time (``rows_at_run.py``)."""
    weights = replace(_gemm_weights(node, ctx), at_run=attribute_int(node, "group", 0))
    if weights.rows is None:
        raise Refusal("rows rounded at run time, but weights that are not stored in 8 bits")
    _multiply(ctx, node.outputs[0], ctx.input(node, 0), weights)


def _gemm_weights(node: ir.Node, ctx: Context) -> Weights:
    """Those of a Gemm (a MatMul is one without a bias), with its bias."""
    if ctx.input(node, 1).array is None:
        raise Refusal("Gemm with computed weights")
    if attribute_int(node, "transA", 0) or attribute_float(node, "alpha", 1.0) != 1.0:
        raise Refusal("Gemm with transA or alpha")
    weights = weights_of(ctx, node, 1, 0 if attribute_int(node, "transB", 0) else 1)
    bias = ctx.optional(node, 2)
    if bias is not None:
        given = array_of(bias).astype(np.float64) * attribute_float(node, "beta", 1.0)
        if given.size not in (1, weights.outputs):
            raise Refusal("Gemm with a bias of two axes")
        weights = replace(weights, bias=np.broadcast_to(given.reshape(-1), (weights.outputs,)).copy())
    return weights


def matmul(node: ir.Node, ctx: Context) -> None:
    """MatMul: with constant weights a layer, else a product of two values."""
    left, right = ctx.input(node, 0), ctx.input(node, 1)
    if right.array is not None and right.rank == 2 and left.array is None and left.rank >= 2:
        _multiply(ctx, node.outputs[0], left, weights_of(ctx, node, 1, 1))
    else:
        product_of_values(node, ctx, left, right)


def weights_of(ctx: Context, node: ir.Node, index: int, outputs: int) -> Weights:
    """A layer's weights with the axis of the outputs first; a Conv's bias too."""
    value = ctx.input(node, index)
    real = np.moveaxis(array_of(value), outputs, 0)
    if real.dtype != np.float32:
        raise Refusal(f"weights of {real.dtype}")
    bias = np.zeros(real.shape[0])
    if node.op_type in ("Conv", "ConvTranspose") and (given := ctx.optional(node, 2)) is not None:
        bias = array_of(given).astype(np.float64)
    kept, rows = value.weights, None if value.coded is None else value.coded.rows(outputs)
    if kept is None or kept.axis not in (None, outputs):
        return Weights(real, None, np.ones(1, np.float32), bias, rows)
    return Weights(real, np.moveaxis(kept.integers, outputs, 0), kept.scale, bias, rows)


def _multiply(ctx: Context, output: ir.Value, value: Value, weights: Weights) -> None:
    """Every row of the last axis times the weights."""
    axis = value.rank - 1
    if value.size(axis) != weights.real.shape[1]:
        raise Refusal(f"{value.size(axis)} values a row for weights of {weights.real.shape[1]}")
    _layer(ctx, output, value, axis, weights, Window([], [], [], []))


def _convolve(ctx: Context, output: ir.Value, value: Value, weights: Weights, window: Window) -> None:
    if value.size(1) != weights.real.shape[1] * window.group:
        raise Refusal(f"{value.size(1)} channels for weights of {weights.real.shape[1] * window.group}")
    if window.pointwise and window.group == 1:
        flat = replace(weights, real=weights.real.reshape(weights.real.shape[:2]))
        if flat.integers is not None:
            flat = replace(flat, integers=flat.integers.reshape(flat.real.shape))
        _layer(ctx, output, value, 1, flat, Window([], [], [], []))
    else:
        _layer(ctx, output, value, 1, weights, window)


def _layer(ctx: Context, output: ir.Value, value: Value, axis: int, weights: Weights, window: Window) -> None:
    integer = value.quant is not None and weights.integers is not None and not weights.at_run
    value = ctx.builder.as_unsigned(value) if integer else ctx.builder.real(value)
    if value.array is not None:
        raise Refusal("a layer on a constant")
    value = with_channels(ctx, value, axis, spatial=bool(window.kernel))
    layer = Layer(value, *input_of(ctx, value, axis, window, integer=integer), weights, window)
    form = _output_form(value, axis, weights.outputs, window)
    count_macs(ctx, weights, form)
    _finished(ctx, layer, output, _expected(form, axis))


def _expected(form: Form, axis: int) -> Value:
    """The output, with the lane that it would have as bytes."""
    numbers = form.numbers(axis)
    return Value(form, lane=numbers[-1] if numbers else None)


def _finished(ctx: Context, layer: Layer, output: ir.Value, expected: Value) -> None:
    """The layer with all that follows; as several where its outputs part ways right after."""
    found = follow(ctx, output, expected, layer.dims[0], layer.weights.outputs, integer=layer.integer)
    for part in parts_of(found) if layer.integer else []:
        rows = layer.rows(part.first, part.count, found)
        sub = follow(ctx, part.node.outputs[part.output], part.value, found.before, part.count, integer=True)
        sub.taken.append(part.node)
        finish(ctx, sub, emit(ctx, sub, rows))
        found.parted = True
    if found.parted:
        ctx.done.update(found.taken)
    else:
        finish(ctx, found, emit(ctx, found, layer))


def with_channels(ctx: Context, value: Value, axis: int, *, spatial: bool) -> Value:
    """The value with the channels' factors next to each other, the images before them, and pixels (or tokens) behind.

    With ``spatial`` the axes after the channels must be in their own order; a product takes pixels in any.
    """
    form = value.form
    channels = list(form.numbers(axis))
    images = list(form.numbers(0)) if axis != 0 else []
    rest = [number for number in form.order if number not in channels and number not in images]
    at = [form.order.index(number) for number in channels]
    together = at == list(range(at[0], at[0] + len(at))) if at else True
    if spatial:
        order = [*images, *channels, *sorted(rest)]
        value = ctx.builder.ordered(value, order)
        return value.with_form(value.form, value.lane) if value.lane is not None else value
    after = form.memory[at[-1] + 1 :] if at else ()
    if together and (not rest or product(after).constant != 1 or not at):
        return value
    return ctx.builder.ordered(value, [*images, *channels, *rest])


def _output_form(value: Value, axis: int, outputs: int, window: Window) -> Form:
    """The input's form with the new channels (one factor) and spatial sizes."""
    form = value.form
    channels, axes, order = form.numbers(axis), list(form.axes), []
    spatial = window.sizes([form.dims[one] for one in range(2, value.rank)]) if window.kernel else []
    for index, size in enumerate(spatial):
        axes[2 + index] = () if size.constant == 1 else (size,)
    axes[axis] = () if outputs == 1 else (dim(outputs),)
    if window.kernel:
        new = Form(tuple(axes), ())
        return Form(tuple(axes), tuple(range(len(new.factors))))
    # Number the factors anew: those of the channels are one now (or none).
    shift = len(axes[axis]) - len(channels)
    first = channels[0] if channels else sum(len(one) for one in form.axes[:axis])
    place = form.order.index(first) if channels else _place_of_one(form, axis)
    for at, number in enumerate(form.order):
        if at == place and outputs != 1:
            order.append(first)
        if number not in channels:
            order.append(number + shift if number >= first else number)
    if place == len(form.order) and outputs != 1:
        order.append(first)
    return Form(tuple(axes), tuple(order))


def _place_of_one(form: Form, axis: int) -> int:
    """Where channels belong in memory when there was one only: behind the images."""
    images = form.numbers(0) if axis != 0 else ()
    return len(images) if form.order[: len(images)] == tuple(images) else 0


def input_of(ctx: Context, value: Value, axis: int, window: Window, *, integer: bool) -> tuple[Tensor, tuple[Dim, ...]]:
    """The input as the engine sees it: [images, channels, pixels] or with its spatial axes."""
    form = value.form
    channels = form.numbers(axis)
    if integer:
        value = _in_lanes(ctx, value, axis)
    memory = form.memory
    first = form.order.index(channels[0]) if channels else _place_of_one(form, axis)
    last = first + len(channels)
    head = [product(memory[:first]), form.dims[axis]]
    tail = [form.dims[one] for one in range(2, value.rank)] if window.kernel else [product(memory[last:])]
    if not window.kernel and tail[0].constant == 1:
        tail = [dim(1)]
    layout = Layout.C4 if integer else Layout.PLAIN
    return ctx.builder.view(tensor_of(value), [*head, *tail], layout=layout), (*head, *tail)


def _in_lanes(ctx: Context, value: Value, axis: int) -> Value:
    value = ctx.builder.in_words(value, [axis])
    channels = value.form.numbers(axis)
    if channels:
        return ctx.builder.packed(value, channels)
    return single_channel(ctx, value, axis)


def single_channel(ctx: Context, value: Value, axis: int) -> Value:
    """A value of one channel as C4: with a factor of size 1 for its lane."""
    at = _place_of_one(value.form, axis)
    first = sum(len(one) for one in value.form.axes[:axis])
    axes = list(value.form.axes)
    axes[axis] = (dim(1),)
    order = [number + 1 if number >= first else number for number in value.form.order]
    order.insert(at, first)
    value = ctx.builder.unpacked(value)
    return ctx.builder.packed(value.with_form(Form(tuple(axes), tuple(order))), [first])


def emit(ctx: Context, found: Epilogue, layer: Layer) -> Value:
    """The operator of a layer and all that was found to follow it."""
    builder, weights = ctx.builder, layer.weights
    quant = found.quant if found.made.lane is not None else None
    found.quant = quant
    dims = [layer.dims[0], dim(weights.outputs), *layer.window.sizes(list(layer.dims[2:]))]
    layout = Layout.PLAIN if quant is None else Layout.C4
    made = builder.new(DType.F32 if quant is None else quant.dtype, dims, layout)
    op, constants, attributes = _constants(ctx, layer, found, [size.constant for size in dims[2:]])
    residual = None if found.residual is None else _residual(ctx, found.residual, dims)
    extra: list[Tensor | None] = [constants[key] for key in ("index", "start") if key in constants]
    if "terms" in constants:
        extra = [constants["terms"]] if layer.weights.at_run else [None, None, constants["terms"]]
    builder.emit(
        op,
        [layer.given, constants["weights"], constants.get("scale"), constants.get("bias"), residual, *extra],
        [made],
        **{**attributes, **layer.window.attributes()},
        **found.attributes(),
    )
    return replace(found.made, tensor=made, quant=quant, lane=None if quant is None else found.made.lane)


def _residual(ctx: Context, value: Value, dims: list[Dim]) -> Tensor:
    layout = Layout.PLAIN if value.lane is None else Layout.C4
    return ctx.builder.view(tensor_of(value), dims, layout=layout)


def _is_depthwise(weights: Weights, window: Window) -> bool:
    """One input channel for each output; the kernel takes 1, 2 or 4 outputs a channel."""
    alone = window.group > 1 and weights.real.shape[1] == 1 and bool(window.kernel)
    return alone and weights.outputs // window.group in (1, 2, 4)


def _constants(
    ctx: Context, layer: Layer, found: Epilogue, sizes: list[int | None]
) -> tuple[str, dict[str, Tensor], dict[str, Attribute]]:
    """The operator, packed weights, scales and bias, with what follows the layer folded in; ``sizes`` of the output, where known."""
    builder, weights = ctx.builder, layer.weights
    bias = weights.bias * found.scale + found.shift
    attributes: dict[str, Attribute] = {}
    tensors: dict[str, Tensor] = {}
    if layer.integer and weights.integers is not None and layer.value.quant is not None:
        matrix, quant = weights.integers, layer.value.quant
        scale = np.float64(quant.scale) * weights.scale.astype(np.float64) * found.scale
        sums = matrix.reshape(weights.outputs, -1).sum(1, dtype=np.int64)
        bias = bias - scale * quant.zero_point * sums
        attributes["x_zero_point"] = quant.zero_point
    else:
        matrix = weights.real if weights.at_run else _scaled(weights.real, found.scale)
        scale = np.ones(weights.outputs)
    packed = _packed(ctx, layer, found, matrix, sizes)
    tensors |= {key: builder.constant(array, dtype=_WORDS.get(array.dtype)) for key, array in packed.constants.items()}
    if found.factor is not None:
        scale = np.stack([np.broadcast_to(scale, found.factor.shape), found.factor])
    if layer.integer or found.factor is not None:
        tensors["scale"] = builder.constant(scale.astype(np.float32))
    if np.any(bias):
        tensors["bias"] = builder.constant(bias.astype(np.float32))
    return packed.op, tensors, attributes | dict(packed.attributes)


def _scaled(real: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Float32 weights times a factor for each output, rounded once; themselves where all factors are 1."""
    if np.all(scale == 1):
        return real.astype(np.float32, copy=False)
    scaled: np.ndarray = real.astype(np.float64) * scale.reshape(-1, *([1] * (real.ndim - 1)))
    return scaled.astype(np.float32)


def _packed(ctx: Context, layer: Layer, found: Epilogue, matrix: np.ndarray, sizes: list[int | None]) -> packing.Packed:
    """The weights in the form that is fastest for them."""
    weights, window = layer.weights, layer.window
    if weights.at_run and weights.rows is not None:
        return weights.rows.at_run(found.scale, weights.at_run)
    if _is_depthwise(weights, window):
        return packing.pack_depthwise(matrix[:, 0])
    known = [size for size in sizes if size is not None]
    pixels = prod(known) if len(known) == len(sizes) else None
    isa = ctx.builder.isa
    winograd = window.three_by_three and len(known) == 2 and packing.winograd_pays(matrix, known, isa)
    block = packing.choose_block(matrix, group=window.group, pixels=pixels, isa=isa, winograd=winograd)
    if layer.integer and block is None and winograd:
        return packing.pack_winograd(matrix)
    if layer.integer or block is not None:
        return packing.pack_conv(matrix, group=window.group, block=block, paired=isa in packing.WITHOUT_VNNI)
    if weights.rows is not None and window.group == 1:
        return weights.rows.packed(found.scale)
    if ctx.brain:
        return packing.pack_brain(matrix, group=window.group)
    if winograd:
        return packing.pack_winograd(matrix)
    return packing.pack_conv(matrix, group=window.group)


def count_macs(ctx: Context, weights: Weights, form: Form) -> None:
    """Note what a layer of this output multiplies."""
    ctx.macs[ctx.builder.name] = product(form.dims) * int(np.prod(weights.real.shape[1:]))
