"""Puts a plan together: tensors, operators, and the conversions between ways to lie in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from edgewise.targets.cpu.native.form import Form, same_size
from edgewise.targets.cpu.native.plan import Attribute, Dim, DType, Isa, Layout, Op, Storage, Tensor, dim, product
from edgewise.targets.cpu.native.value import Quant, Refusal, Value, constant_value, dtype_of

_MAX_RANK = 8
_COMPARED_FIRST = 1024  # elements


@dataclass
class Builder:
    """The plan so far.

    Attributes:
        isa: what the device has at least.
        name: of the layer that is being lowered; operators get it.
        ops: in order.
        tensors: all that are not constant.
        fixed: storages of the network's inputs and outputs.
    """

    isa: Isa
    name: str = ""
    ops: list[Op] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    fixed: set[Storage] = field(default_factory=set)
    _made: dict[Any, Tensor] = field(default_factory=dict)
    _constants: dict[tuple[int, tuple[Dim, ...]], Tensor] = field(default_factory=dict)
    _arrays: dict[Any, list[np.ndarray]] = field(default_factory=dict)
    _kept: list[Any] = field(default_factory=list)

    def emit(
        self, op: str, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor], /, **attributes: Attribute | None
    ) -> None:
        """Append an operator; attributes that are None are left out."""
        given = {key: value for key, value in attributes.items() if value is not None}
        self.ops.append(Op(op, self.name, list(inputs), list(outputs), given))

    def new(self, dtype: DType, dims: Sequence[Dim], layout: Layout = Layout.PLAIN) -> Tensor:
        """A tensor with memory of its own."""
        return self._kept_tensor(Tensor(self.name, dtype, tuple(dims), layout))

    def _kept_tensor(self, tensor: Tensor) -> Tensor:
        self.tensors.append(tensor)
        return tensor

    def converted(
        self, op: str, given: Tensor, dtype: DType, dims: Sequence[Dim], layout: Layout, **attributes: Attribute | None
    ) -> Tensor:
        """The output of a pure conversion; the same one asked for again is not computed again."""
        frozen = tuple((key, tuple(value) if isinstance(value, list) else value) for key, value in attributes.items())
        key = (op, _place(given), given.dims, given.layout, dtype, tuple(dims), layout, frozen)
        if key not in self._made:
            made = self.new(dtype, dims, layout)
            self.emit(op, [given], [made], **attributes)
            self.ops[-1].name = f"{self.name} ({op})"  # the layer's own name is for what multiplies
            self._made[key] = made
        return self._made[key]

    def constant(self, array: np.ndarray, dims: Sequence[Dim] | None = None, dtype: DType | None = None) -> Tensor:
        """A constant tensor; the same array, or one of the same bytes, gives the same tensor."""
        shape = tuple(dims) if dims is not None else tuple(dim(int(size)) for size in array.shape)
        array = self._first_equal(array)
        key = (id(array), shape)
        if key not in self._constants:
            self._kept.append(array)  # its id stays taken
            data = np.ascontiguousarray(array)
            self._constants[key] = Tensor(self.name, dtype or dtype_of(data), shape, data=data)
        return self._constants[key]

    def _first_equal(self, array: np.ndarray) -> np.ndarray:
        """The first array of the same bytes: the steps of an unrolled loop pack the same weights again and again.

        Only those that are alike in some elements are compared as a whole: a digest of all would read every weight of a network.
        """
        data = np.ascontiguousarray(array).reshape(-1)
        some = data[:: -(-data.size // _COMPARED_FIRST) or 1]
        alike = self._arrays.setdefault((some.tobytes(), array.dtype.str, array.shape), [])
        for first in alike:
            if np.array_equal(np.ascontiguousarray(first).reshape(-1).view(np.uint8), data.view(np.uint8)):
                return first
        alike.append(array)
        return array

    def relocate(self, storage: Storage, new: Storage, offset: Dim) -> None:
        """Everything that lies in one storage lies in another from now on, from an offset on."""
        for tensor in self.tensors:
            if tensor.storage is storage:
                tensor.storage, tensor.offset_bytes = new, tensor.offset_bytes + offset

    # -- the same memory, looked at in another way

    def view(
        self,
        tensor: Tensor,
        dims: Sequence[Dim],
        *,
        dtype: DType | None = None,
        layout: Layout | None = None,
        offset_bytes: Dim | int = 0,
    ) -> Tensor:
        """The same memory (from an offset on) under other dims."""
        if tensor.data is not None:
            return replace(tensor, dims=tuple(dims))
        dtype, layout = dtype or tensor.dtype, tensor.layout if layout is None else layout
        if (tuple(dims), dtype, layout) == (tensor.dims, tensor.dtype, tensor.layout) and offset_bytes == 0:
            return tensor
        place = tensor.offset_bytes + offset_bytes
        return self._kept_tensor(
            Tensor(tensor.name, dtype, tuple(dims), layout, storage=tensor.storage, offset_bytes=place)
        )

    def words(self, value: Value) -> tuple[Tensor, tuple[Dim, ...]]:
        """A C4 value as plain 32-bit words, four channels each, in the order of its factors in memory."""
        dims = tuple(
            value.form.factors[number].ceildiv(4) if number == value.lane else value.form.factors[number]
            for number in value.form.order
        )
        return self.view(tensor_of(value), dims, dtype=DType.S32, layout=Layout.PLAIN), dims

    # -- conversions

    def ordered(self, value: Value, order: Sequence[int]) -> Value:
        """The value with its factors in another order in memory. Constants get a tensor on the way."""
        if value.array is not None:
            return self._ordered_constant(value, order)
        if tuple(order) == value.form.order:
            return value
        perm = [value.form.order.index(number) for number in order]
        form = Form(value.form.axes, tuple(order))
        if value.lane is not None:
            tensor, dims = self.words(value)
            made = self._transposed(tensor, dims, perm)
            moved = [dims[axis] for axis in perm]
            return replace(value, form=form, tensor=self.bytes_from(made, moved, list(order).index(value.lane), value))
        return replace(value, form=form, tensor=self._transposed(tensor_of(value), value.form.memory, perm))

    def bytes_from(self, words: Tensor, dims: Sequence[Dim], at: int, like: Value) -> Tensor:
        """Words (one of their dims the channels') as C4 bytes."""
        shape = [product(dims[:at]), dims[at] * 4, product(dims[at + 1 :])]
        return self.view(words, shape, dtype=tensor_of(like).dtype, layout=Layout.C4)

    def _transposed(self, tensor: Tensor, dims: Sequence[Dim], perm: Sequence[int]) -> Tensor:
        runs: list[list[int]] = []
        for axis in perm:
            if runs and runs[-1][-1] + 1 == axis:
                runs[-1].append(axis)
            else:
                runs.append([axis])
        if len(runs) == 1:
            return tensor
        if len(runs) > _MAX_RANK:
            return self._transposed_twice(tensor, dims, runs)
        source = sorted(runs)
        given = self.view(tensor, [product([dims[axis] for axis in run]) for run in source], layout=Layout.PLAIN)
        made = [product([dims[axis] for axis in run]) for run in runs]
        new_perm = [source.index(run) for run in runs]
        return self.converted("transpose", given, given.dtype, made, Layout.PLAIN, perm=new_perm)

    def _transposed_twice(self, tensor: Tensor, dims: Sequence[Dim], runs: list[list[int]]) -> Tensor:
        """More axes than a tensor has: the first ones go to the front, where they count as one axis for the others."""
        ahead = len(runs) - _MAX_RANK + 1
        if 2 * ahead + 1 > _MAX_RANK:  # those ahead and what lies between them
            raise Refusal(f"a transposition of {len(runs)} axes")
        flat = [axis for run in runs for axis in run]
        front = flat[: sum(len(run) for run in runs[:ahead])]
        order = [*front, *sorted(set(flat) - set(front))]
        between = self._transposed(tensor, dims, order)
        return self._transposed(between, [dims[axis] for axis in order], [order.index(axis) for axis in flat])

    def _ordered_constant(self, value: Value, order: Sequence[int]) -> Value:
        array = array_of(value)
        key = ("constant", id(array), value.form.axes, tuple(order))
        if key not in self._made:
            sizes = [int(factor.value) for factor in value.form.factors]
            self._kept.append(array)
            self._made[key] = self.constant(np.ascontiguousarray(array.reshape(sizes).transpose(list(order))))
        return Value(Form(value.form.axes, tuple(order)), self._made[key])

    def plain(self, value: Value) -> Value:
        """Row by row as ONNX has it, not in C4."""
        value = self.unpacked(value) if value.lane is not None else value
        return self.ordered(value, range(len(value.form.factors)))

    def untangled(self, value: Value) -> Value:
        """Each axis's factors next to each other in memory, merged; the axes in the order in which their last factors lie."""
        if value.array is not None:
            return value
        place = {number: at for at, number in enumerate(value.form.order)}
        axes = [value.form.numbers(axis) for axis in range(value.rank)]
        axes = sorted((numbers for numbers in axes if numbers), key=lambda numbers: place[numbers[-1]])
        moved = self.ordered(value, [number for numbers in axes for number in numbers])
        form = moved.form.merged()
        lane = lane_in(moved, form)
        if moved.lane is not None and lane is None:
            moved = self.unpacked(moved)
        return moved.with_form(form, lane)

    def unpacked(self, value: Value) -> Value:
        """A C4 value as a plain one of the same order."""
        if value.lane is None:
            return value
        dims = channel_dims(value)
        given = self.view(tensor_of(value), dims, layout=Layout.C4)
        made = self.converted("relayout", given, given.dtype, dims, Layout.PLAIN)
        return replace(value, tensor=made, lane=None)

    def real(self, value: Value) -> Value:
        """As float32, rounded where ONNX rounds."""
        if value.quant is None or value.array is not None:
            return replace(value, quant=None)
        if value.dtype is DType.F32:
            value = self._rounded(value, None)
        quant = value.quant
        if quant is None:
            raise AssertionError
        dims = channel_dims(value) if value.lane is not None else (product(value.form.memory),)
        given = self.view(tensor_of(value), dims)
        made = self.converted(
            "dequantize", given, DType.F32, dims, Layout.PLAIN, scale=quant.scale, zero_point=quant.zero_point
        )
        return replace(value, tensor=made, lane=None, quant=None)

    def _rounded(self, value: Value, lane: int | None) -> Value:
        """A float value with a rounding to be done, as bytes."""
        if value.quant is None:
            raise Refusal("the value is float, and nothing says how to round it")
        quant = value.quant
        value = replace(value, lane=lane)
        dims = channel_dims(value) if lane is not None else (product(value.form.memory),)
        layout = Layout.PLAIN if lane is None else Layout.C4
        given = self.view(tensor_of(value), dims)
        made = self.converted(
            "quantize", given, quant.dtype, dims, layout, scale=quant.scale, zero_point=quant.zero_point
        )
        return replace(value, tensor=made)

    def bytes_of(self, value: Value) -> Value:
        """As 8-bit integers in whatever layout they already have, or plain."""
        return self._rounded(value, None) if value.dtype is DType.F32 else value

    def packed(self, value: Value, channels: Sequence[int]) -> Value:
        """As 8-bit C4 with these factors (neighbours in memory) as channels."""
        lane = channels[-1]
        self._check_channels(value, channels)
        if value.lane == lane:
            return value
        if value.dtype is DType.F32:
            return self._rounded(value, lane)
        value = replace(self.unpacked(value), lane=lane)
        dims = channel_dims(value)
        given = self.view(tensor_of(value), dims, layout=Layout.PLAIN)
        return replace(value, tensor=self.converted("relayout", given, given.dtype, dims, Layout.C4))

    def in_words(self, value: Value, axes: Sequence[int]) -> Value:
        """For ``packed`` with the factors of these axes: neighbours of the last one are joined where four channels lie in two of them.

        Heads of 19 channels, say, that a layer reads all; or windows' pixels 8 by 7.
        """
        channels = [number for axis in axes for number in value.form.numbers(axis)]
        if len(channels) < 2 or (value.form.factors[channels[-1]].constant or 1) % 4 == 0:
            return value
        value = self.unpacked(value)
        return value.with_form(value.form.merged())

    def _check_channels(self, value: Value, channels: Sequence[int]) -> None:
        at = [value.form.order.index(number) for number in channels]
        if any(right != left + 1 for left, right in pairwise(at)):
            raise Refusal("channels that are not neighbours in memory")
        inner = value.form.factors[channels[-1]].constant
        if len(channels) > 1 and (inner is None or inner % 4):
            raise Refusal("channels whose inner factor is no multiple of 4")

    def as_unsigned(self, value: Value) -> Value:
        """8-bit integers as u8: signed ones get 128 more, and so does their zero point."""
        quant = value.quant
        if quant is None or quant.dtype is DType.U8:
            return value
        wanted = Quant(quant.scale, quant.zero_point + 128, DType.U8)
        if value.dtype is DType.F32:
            return replace(value, quant=wanted)
        return self.looked_up(value, wanted, (quant.levels + 128).astype(np.uint8))

    def looked_up(self, value: Value, quant: Quant, table: np.ndarray) -> Value:
        """Each byte replaced by another: the table's."""
        given = tensor_of(value)
        made = self.new(quant.dtype, given.dims, given.layout)
        self.emit("lut", [given, self.constant(table.view(np.uint8))], [made])
        return replace(value, tensor=made, quant=quant)


def lane_in(value: Value, form: Form) -> int | None:
    """Which factor of another form of the same memory has the lanes; None when four channels would be taken apart.

    It is the factor that ends where the old one ended, when it is as large, or both are whole words.
    """
    if value.lane is None:
        return None
    old = value.form.factors[value.lane]
    after = product(value.form.memory[value.form.order.index(value.lane) + 1 :])
    for at in range(len(form.order) - 1, -1, -1):
        if same_size(product(form.memory[at + 1 :]), after):
            new = form.memory[at]
            words = all(one.constant is not None and one.constant % 4 == 0 for one in (old, new))
            return form.order[at] if words or same_size(old, new) else None
    return None


def tensor_of(value: Value) -> Tensor:
    """The memory of a value that is no constant.

    Raises:
        Refusal: it is one.
    """
    if value.tensor is None:
        raise Refusal("a constant where a computed value is expected")
    return value.tensor


def array_of(value: Value) -> np.ndarray:
    """The elements of a constant.

    Raises:
        Refusal: it is computed.
    """
    if value.array is None:
        raise Refusal("a computed value where a constant is expected")
    return value.array


def channel_dims(value: Value) -> tuple[Dim, Dim, Dim]:
    """A C4 value as ``[before, channels, after]``; the channels are the factors up to the lane that belong to it.

    With a lane that is no multiple of four only itself; else everything before it that is in memory may count as channels or as
    images, which is the same bytes: the neighbours within the lane's axis are taken.
    """
    form, lane = value.form, value.lane
    if lane is None:
        raise AssertionError
    at = form.order.index(lane)
    memory = form.memory
    size = memory[at].constant
    first = at
    if size is not None and size % 4 == 0:
        while first > 0 and form.order[first - 1] == form.order[first] - 1:
            first -= 1
    return product(memory[:first]), product(memory[first : at + 1]), product(memory[at + 1 :])


def float_constant(array: np.ndarray | float) -> Value:
    """A float32 constant."""
    return constant_value(np.asarray(array, np.float32))


def _place(tensor: Tensor) -> Any:
    if tensor.data is not None:
        return id(tensor.data)
    return tensor.storage, tensor.offset_bytes
