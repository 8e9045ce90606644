"""QuantizeLinear and DequantizeLinear. On constants they are weights in integers, made into ``constexpr`` operations."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.held import Packed
from edgewise.targets.coreml.node import NodeView
from edgewise.targets.coreml.refusal import Refusal
from edgewise.targets.coreml.row import BYTES, FLOATS, Row

_HALF_BYTES = frozenset({"int4", "uint4"})
_STORED = BYTES | _HALF_BYTES


def _axis(node: NodeView) -> int:
    return node.integer("axis", 1) % max(1, len(node.dims(0)))


def _zero(node: NodeView, dtype: str) -> np.ndarray:
    """The zero point, of the shape of the scale."""
    zero = node.const(2)
    return np.zeros(node.known(1).shape, dtype) if zero is None else zero


def _quantized_dtype(node: NodeView) -> str:
    return node.out_dtype() or "uint8"


def _check_activation(node: NodeView, dtype: str) -> Refusal | None:
    if node.ios < 17:
        return Refusal(
            f"activations in {dtype}", "quantized activations from iOS 17 on",
            "Set minimum_deployment_target to iOS17, or quantize weights alone",
        )  # fmt: skip
    if dtype not in BYTES:
        return Refusal(f"activations in {dtype}", "int8 or uint8", "Quantize to int8")
    scale = node.const(1)
    if scale is not None and (np.asarray(scale) <= 0).any():
        return Refusal("a scale of 0 or below", "scales above 0", "Calibrate again", "input y_scale")
    if scale is not None and scale.ndim > 1:
        return Refusal(
            "scales in blocks", "one scale, or one per channel", "Quantize per channel", "attribute block_size"
        )
    return None


def _check_quantize(node: NodeView) -> Refusal | None:
    return _check_activation(node, _quantized_dtype(node))


def _check_dequantize(node: NodeView) -> Refusal | None:
    dtype = node.dtype(0) or "?"
    if node.const(0) is None:
        return _check_activation(node, dtype)
    if dtype == "int32":
        return None
    scale = node.known(1)
    if dtype not in _STORED:
        return Refusal(f"weights in {dtype}", ", ".join(sorted(_STORED)), "Quantize to int8", "input x")
    if node.ios < 16:
        return Refusal("weights in integers", "them from iOS 16 on", "Set minimum_deployment_target to iOS16 or later")
    if node.ios < 18 and (dtype in _HALF_BYTES or scale.ndim > 1):
        return Refusal(
            f"{dtype} weights with {scale.ndim}-dimensional scales", "int8 per tensor or channel before iOS 18",
            "Set minimum_deployment_target to iOS18",
        )  # fmt: skip
    return None


def _quantize(b: Building) -> Any:
    dtype = _quantized_dtype(b)
    scale, zero = b.known(1), _zero(b, dtype)
    return b.mb.quantize(input=b.x(), output_dtype=dtype, **_grid(b, scale, zero))


def _grid(b: Building, scale: np.ndarray, zero: np.ndarray) -> dict[str, Any]:
    """Scale and zero point as MIL takes them: scalars without an axis, or vectors with one; no zero point where it is 0."""
    kept = {"scale": scale, "zero_point": zero} if zero.any() else {"scale": scale}
    if scale.size == 1:
        return {key: array.reshape(-1)[0] for key, array in kept.items()}
    return {**kept, "axis": np.int32(_axis(b))}


def _dequantize(b: Building) -> Any:
    scale = b.known(1)
    data = b.const(0)
    if data is None:
        return b.mb.dequantize(input=b.x(), **_grid(b, scale, _zero(b, b.dtype(0) or "int8")))
    rank_scale = _spread(b, scale, data.ndim)
    if data.dtype == np.int32:  # a bias: it has no integer form in Core ML and is small
        return b.mb.const(val=b.array((data * rank_scale).astype(scale.dtype)))
    if data.size == 1 or data.ndim == 0:
        zero = _zero(b, data.dtype.name).astype(np.float32)
        return b.mb.const(val=b.array(((data.astype(np.float32) - zero) * scale).astype(scale.dtype)))
    offset = b.const(2)
    return Packed(data, rank_scale, None if offset is None else _spread(b, offset, data.ndim), b.ios)


def _spread(b: Building, array: np.ndarray, rank: int) -> np.ndarray:
    """A scale in the rank of the data: blocks keep their shape, a vector goes along the axis."""
    if array.ndim > 1:
        return array
    shape = [1] * rank
    if array.size > 1:
        shape[_axis(b)] = array.size
    return array.reshape(shape)


ROWS = (
    Row("QuantizeLinear", _quantize, _check_quantize, static=(1, 2), dtypes=FLOATS | BYTES, ios=16, note="activations from iOS 17"),
    Row(
        "DequantizeLinear", _dequantize, _check_dequantize, static=(1, 2), dtypes=FLOATS | _STORED | {"int32"},
        note="weights from iOS 16 (int4 and blocks from iOS 18), activations from iOS 17",
    ),
)  # fmt: skip
