"""Mixed precision: 8 bits for the layers that gain most by them, within so many bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from edgewise.quantize.errors import QuantizeError
from edgewise.quantize.pipeline import quantize
from edgewise.quantize.rewritten import Rewritten
from edgewise.quantize.spec import QuantSpec

if TYPE_CHECKING:
    from edgewise.runtime.data import Dataset

_WIDE = 8


def quantize_to_budget(
    model: ir.Model, spec: QuantSpec, data: Dataset, *, max_bytes: int, wide: Sequence[str] = (), **options: Any
) -> Rewritten:
    """Quantize with few bits, and give 8 to those layers that lose most per byte, as far as the budget goes.

    Before::

        Conv(4 bits) ─► Conv(4 bits) ─► Conv(4 bits) ─► Gemm(4 bits)       60 KB, 90 KB allowed

    After::

        Conv(8 bits) ─► Conv(4 bits) ─► Conv(4 bits) ─► Gemm(8 bits)       88 KB

    What a layer loses is the noise at the network's outputs when it alone is quantized (``sensitivities``), measured on
    calibration data. The greedy choice by noise per byte is that of Z. Dong et al., "HAWQ" (ICCV 2019), whose measure is
    the Hessian's top eigenvalue.

    Args:
        model: a float32 network; not changed.
        spec: the QDQ form, with weights of fewer than 7 bits.
        data: calibration samples.
        max_bytes: what the weights' integers may take in all, packed; scales and biases aside.
        wide: layers that get 8 bits anyway.
        options: of ``quantize``.

    Returns:
        what ``quantize`` returns, with ``budget`` in the report: ``max_bytes``, ``weight_bytes``, ``widened``.

    Raises:
        QuantizeError: the weights do not fit even without any of these layers, or the scheme has 8 bits already; or what
            ``quantize`` raises.
    """
    if spec.bits >= _WIDE - 1:
        raise QuantizeError(
            "there is no mixed precision to choose",
            where=f"max_bytes {max_bytes}",
            found=f"a scheme of {spec.bits} bits for every layer",
            expected="a scheme of fewer bits, of which some layers get 8",
            fix="Choose another scheme (w4a8), or leave the budget out",
        )
    made = quantize(model, spec, data, wide=wide, **options | {"analyze": True})
    rows = made.report["sensitivity"]
    spent = sum(_bytes(row["weights"], row["weight_bits"] or 0) for row in rows)
    if spent > max_bytes:
        raise QuantizeError(
            "the weights do not fit the budget",
            where=f"max_bytes {max_bytes}",
            found=f"{spent} bytes with {spec.bits} bits",
            expected="no more than the budget",
            fix="Allow more bytes, or use a scheme of fewer bits",
        )
    widened = _widest_choice(rows, max_bytes - spent)
    if widened:
        made = quantize(model, spec, data, wide=[*wide, *(row["name"] for row in widened)], **options)
    spent += sum(_cost(row) for row in widened)
    budget = {"max_bytes": max_bytes, "weight_bytes": spent, "widened": [row["name"] for row in widened]}
    return Rewritten(made.model, made.report | {"budget": budget})


def _widest_choice(rows: list[dict[str, Any]], room: int) -> list[dict[str, Any]]:
    """Layers by noise per byte, as many as there is room for."""
    able = [row for row in rows if row["weight_bits"] is not None and row["sqnr_db"] is not None and _cost(row) > 0]
    chosen = []
    for row in sorted(able, key=lambda row: 10 ** (-row["sqnr_db"] / 10) / _cost(row), reverse=True):
        if _cost(row) <= room:
            chosen.append(row)
            room -= _cost(row)
    return chosen


def _cost(row: dict[str, Any]) -> int:
    """Bytes that 8 bits take more."""
    return _bytes(row["weights"], _WIDE) - _bytes(row["weights"], row["weight_bits"])


def _bytes(weights: int, bits: int) -> int:
    return -(-weights * bits // 8)
