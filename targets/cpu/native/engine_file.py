"""The bytes of an engine file. docs/native-format.md is their description, runtime/native/src/plan.cpp reads them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from edgewise.targets.cpu.native.plan import KINDS, Attribute, Dim, Isa, Op, Plan, Storage, Tensor, dim

MAGIC = b"EDGEWISE"
FORMAT_VERSION = 1
_HEADER_BYTES = _ALIGNMENT = 64
_ISA_AT = len(MAGIC) + 4  # behind the version


def encode(plan: Plan) -> bytes:
    """The engine file: header, plan, weights. The same plan gives the same bytes."""
    return _Encoder(plan).file()


def for_any_processor(file: bytes) -> bytes:
    """An engine file that names the least level; all else is the same."""
    return file[:_ISA_AT] + struct.pack("<I", Isa.GENERIC) + file[_ISA_AT + 4 :]


class _Encoder:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._symbols: dict[str, int] = {}
        self._dims: dict[Dim, int] = {}
        self._expressions: list[bytes] = []
        self._storages: dict[Storage, int] = {}
        self._tensors: dict[Tensor, int] = {}
        self._weights: list[bytes] = []
        self._weights_bytes = 0
        self._shared: dict[bytes, int] = {}

    def file(self) -> bytes:
        ops = _list(self._plan.ops, self._op)
        ports = _list(self._plan.inputs, self._port) + _list(self._plan.outputs, self._port)
        tensors = _list(list(self._tensors), self._tensor)
        storages = _list(list(self._storages), lambda storage: struct.pack("<I", self._dim(storage.size_bytes)))
        symbols = _list(list(self._symbols), _text)
        expressions = struct.pack("<I", len(self._expressions)) + b"".join(self._expressions)
        return self._join(symbols + expressions + storages + tensors + ports + ops)

    def _join(self, body: bytes) -> bytes:
        start = _aligned(_HEADER_BYTES + len(body))
        total = start + self._weights_bytes
        numbers = (FORMAT_VERSION, self._plan.isa, total, _HEADER_BYTES, len(body), start, self._weights_bytes)
        header = MAGIC + struct.pack("<IIQQQQQI", *numbers, zlib.crc32(body))
        return b"".join([header.ljust(_HEADER_BYTES, b"\0"), body.ljust(start - _HEADER_BYTES, b"\0"), *self._weights])

    def _dim(self, one: Dim) -> int:
        if one not in self._dims:
            kind = KINDS.index(one.kind)
            if one.left is not None and one.right is not None:
                a, b = self._dim(one.left), self._dim(one.right)
            elif one.left is not None:  # a count
                a, b = self._dim(one.left), self._index(one.tensor)
            elif one.kind == "symbol":
                a, b = (
                    self._symbols.setdefault(str(one.value), len(self._symbols)),
                    self._plan.limits.get(str(one.value), 0),
                )
            else:
                a, b = int(one.value), 0
            self._dims[one] = len(self._expressions)
            self._expressions.append(struct.pack("<Bqq", kind, a, b))
        return self._dims[one]

    def _index(self, tensor: Tensor | None) -> int:
        if tensor is None:
            return -1
        if tensor.storage is not None:
            self._storages.setdefault(tensor.storage, len(self._storages))
        return self._tensors.setdefault(tensor, len(self._tensors))

    def _tensor(self, tensor: Tensor) -> bytes:
        dims = b"".join(struct.pack("<I", self._dim(one)) for one in tensor.dims)
        head = _text(tensor.name) + struct.pack(
            "<BBBI", tensor.dtype, tensor.layout, tensor.data is not None, len(tensor.dims)
        )
        if tensor.data is not None:
            return head + dims + struct.pack("<QQI", self._place(tensor.data), tensor.data.nbytes, 0)
        storage = self._storages[tensor.storage] if tensor.storage else 0
        return head + dims + struct.pack("<QQI", self._dim(tensor.offset_bytes), 0, storage)

    def _place(self, array: np.ndarray) -> int:
        """Where a constant lies in the weights; equal ones lie there once."""
        data = np.ascontiguousarray(array).tobytes()
        place = self._shared.get(data)
        if place is None:
            self._shared[data] = place = _aligned(self._weights_bytes)
            self._weights += [bytes(place - self._weights_bytes), data]
            self._weights_bytes = place + len(data)
        return place

    def _port(self, tensor: Tensor) -> bytes:
        return struct.pack("<I", self._index(tensor))

    def _op(self, op: Op) -> bytes:
        inputs = _list(op.inputs, lambda tensor: struct.pack("<i", self._index(tensor)))
        outputs = _list(op.outputs, lambda tensor: struct.pack("<I", self._index(tensor)))
        attributes = _list(sorted(op.attributes.items()), lambda item: _text(item[0]) + self._attribute(item[1]))
        return _text(op.op) + _text(op.name) + inputs + outputs + attributes

    def _attribute(self, value: Attribute) -> bytes:
        """One byte for the kind (``AttributeKind`` in src/attributes.h), then the value."""
        if isinstance(value, int | np.integer):
            return struct.pack("<Bq", 0, value)
        if isinstance(value, float | np.floating):
            return struct.pack("<Bd", 1, value)
        if isinstance(value, str):
            return b"\x02" + _text(value)
        if any(isinstance(entry, Dim) for entry in value):
            return b"\x05" + _list(value, lambda entry: struct.pack("<I", self._dim(dim(entry))))
        if all(isinstance(entry, int | np.integer) for entry in value):
            return b"\x03" + _list(value, lambda entry: struct.pack("<q", entry))
        return b"\x04" + _list(value, lambda entry: struct.pack("<d", entry))


def _list(items: Sequence[Any] | Iterable[Any], encode_one: Callable[[Any], bytes]) -> bytes:
    parts = [encode_one(item) for item in items]
    return struct.pack("<I", len(parts)) + b"".join(parts)


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<I", len(data)) + data


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
