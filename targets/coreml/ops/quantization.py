"""QuantizeLinear and DequantizeLinear. On constants they are weights in integers, made into ``constexpr`` operations."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.held import Packed
from edgewise.targets.coreml.node import NodeView
from edgewise.targets.coreml.refusal import Refusal
from edgewise.targets.coreml.row import BYTES, FLOATS, Row
from edgewise.targets.coreml.widen import ORIGINAL

_QUARTER_BYTES = frozenset({"int2", "uint2"})
_FLOAT_BYTES = frozenset({"float4_e2m1fn", *(f"float8_{kind}" for kind in ("e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz"))})
_STORED = BYTES | _QUARTER_BYTES | {"int4", "uint4"}
_WIDE = frozenset({"int16", "uint16", "int32"})


def _axis(node: NodeView) -> int:
    return node.integer("axis", 1) % max(1, len(node.dims(0)))


def _zero(node: NodeView, dtype: str) -> np.ndarray:
    """The zero point, of the shape of the scale."""
    zero = node.const(2)
    return np.zeros(node.known(1).shape, dtype) if zero is None else zero


def _quantized_dtype(node: NodeView) -> str:
    """Of the output; whole numbers of 16 bits travel as int32."""
    return str(node.node.outputs[0].meta.get(ORIGINAL, node.out_dtype() or "uint8"))


def _is_native(node: NodeView, dtype: str) -> bool:
    """Whether MIL has an operation for it: bytes, one scale or one per channel."""
    return dtype in BYTES and node.known(1).ndim <= 1


def _check_activation(node: NodeView, dtype: str) -> Refusal | None:
    if node.ios < 17:
        return Refusal(
            f"activations in {dtype}", "quantized activations from iOS 17 on",
            "Set minimum_deployment_target to iOS17, or quantize weights alone",
        )  # fmt: skip
    if dtype not in BYTES | _WIDE:
        return Refusal(f"activations in {dtype}", "integers of 8 or 16 bits", "Quantize to int8")
    scale = node.known(1)
    if (scale <= 0).any():
        return Refusal("a scale of 0 or below", "scales above 0", "Calibrate again", "input y_scale")
    if scale.ndim > 1 and None in node.dims(0):
        return Refusal(
            "scales in blocks of a tensor whose size is known at run time only", "a fixed shape, or scales per channel",
            "Export with fixed shapes", "attribute block_size",
        )  # fmt: skip
    return None


def _check_quantize(node: NodeView) -> Refusal | None:
    return _check_activation(node, _quantized_dtype(node))


def _check_dequantize(node: NodeView) -> Refusal | None:
    dtype = node.dtype(0) or "?"
    if node.const(0) is None:
        return _check_activation(node, dtype)
    if dtype in _FLOAT_BYTES | {"int32"}:
        return None
    scale = node.known(1)
    if dtype not in _STORED:
        return Refusal(f"weights in {dtype}", ", ".join(sorted(_STORED)), "Quantize to int8", "input x")
    if node.ios < 16:
        return Refusal("weights in integers", "them from iOS 16 on", "Set minimum_deployment_target to iOS16 or later")
    if node.ios < 18 and (dtype not in BYTES or scale.ndim > 1):
        return Refusal(
            f"{dtype} weights with {scale.ndim}-dimensional scales", "int8 per tensor or channel before iOS 18",
            "Set minimum_deployment_target to iOS18",
        )  # fmt: skip
    return None


def _quantize(b: Building) -> Any:
    dtype = _quantized_dtype(b)
    scale, zero = b.known(1), _zero(b, dtype)
    if _is_native(b, dtype):
        return b.mb.quantize(input=b.x(), output_dtype=dtype, **_grid(b, scale, zero))
    is_wide = dtype not in BYTES  # float16 ends at 65504 and skips numbers from 2048 on: these compute in float32
    x = b.mb.cast(x=b.x(), dtype="fp32") if is_wide and b.dtype(0) == "float16" else b.x()
    kind: Any = np.float32 if is_wide else b.dtype(0)
    divided = b.mb.real_div(x=x, y=b.array(_full(b, scale).astype(kind)))
    moved = b.mb.add(x=b.mb.round(x=divided), y=b.array(_full(b, zero).astype(kind)))
    least, most = (np.array(limit, kind)[()] for limit in (np.iinfo(dtype).min, np.iinfo(dtype).max))
    held = b.mb.clip(x=moved, alpha=least, beta=most)
    if is_wide:
        b.values.keep(held, b)
    return b.mb.cast(x=held, dtype="int32" if is_wide else dtype)


def _grid(b: Building, scale: np.ndarray, zero: np.ndarray) -> dict[str, Any]:
    """Scale and zero point as MIL takes them: scalars without an axis, or vectors with one; no zero point where it is 0."""
    kept = {"scale": scale, "zero_point": zero} if zero.any() else {"scale": scale}
    if scale.size == 1:
        return {key: array.reshape(-1)[0] for key, array in kept.items()}
    return {**kept, "axis": np.int32(_axis(b))}


def _full(b: Building, array: np.ndarray) -> np.ndarray:
    """Scales or zero points of activations so that they broadcast: one of a block once for each of its elements."""
    dims, axis = b.dims(0), _axis(b)
    if array.ndim <= 1:
        return _spread(b, array, len(dims))
    size = int(dims[axis] or 1)
    block = b.integer("block_size") or -(-size // array.shape[axis])
    return np.take(np.repeat(array, block, axis), np.arange(size), axis)


def _dequantize(b: Building) -> Any:
    scale = b.known(1)
    data = b.const(0)
    if data is None:
        return _dequantized(b, scale, _zero(b, b.dtype(0) or "int8"))
    if data.dtype.name in _QUARTER_BYTES:  # in the next wider numbers that are stored
        data = data.astype(ml_dtypes.int4 if data.dtype.name == "int2" else ml_dtypes.uint4)
    rank_scale = _spread(b, scale, data.ndim)
    if data.dtype == np.int32 or data.dtype.name in _FLOAT_BYTES or data.size == 1:
        # A bias, 16 bits, floats of 4 and 8 bits: Core ML does not store them so.
        plain = (data.astype(np.float64) - _full(b, _zero(b, "int32").astype(np.float64))) * _full(b, scale)
        return b.mb.const(val=b.array(plain.astype(scale.dtype)))
    offset = b.const(2)
    return Packed(data, rank_scale, None if offset is None else _spread(b, offset.astype(data.dtype), data.ndim), b.ios)


def _dequantized(b: Building, scale: np.ndarray, zero: np.ndarray) -> Any:
    """Activations as numbers again."""
    if _is_native(b, b.dtype(0) or "int8"):
        return b.mb.dequantize(input=b.x(), **_grid(b, scale, zero))
    kind = "fp16" if scale.dtype == np.float16 else "fp32"
    moved = b.mb.sub(x=b.mb.cast(x=b.x(), dtype=kind), y=b.array(_full(b, zero).astype(scale.dtype)))
    made = b.mb.mul(x=moved, y=b.array(_full(b, scale)))
    if b.dtype(0) in BYTES:
        return made
    b.values.keep(made, b)
    return b.mb.identity(x=made)


def _spread(b: Building, array: np.ndarray, rank: int) -> np.ndarray:
    """A scale in the rank of the data: blocks keep their shape, a vector goes along the axis."""
    if array.ndim > 1:
        return array
    shape = [1] * rank
    if array.size > 1:
        shape[_axis(b)] = array.size
    return array.reshape(shape)


ROWS = (
    Row("QuantizeLinear", _quantize, _check_quantize, static=(1, 2), weights=(1,), dtypes=FLOATS | BYTES, ios=16, note="activations from iOS 17"),
    Row(
        "DequantizeLinear", _dequantize, _check_dequantize, static=(1, 2), weights=(1,), dtypes=FLOATS | _STORED | _FLOAT_BYTES | {"int32"},
        note="weights from iOS 16 (int4 and blocks from iOS 18), activations from iOS 17",
    ),
)  # fmt: skip
