"""The fewest bytes in which Core ML stores exactly this weight: dense, sparse, a palette, or a sparse palette."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewise.targets.coreml.palettes import Palette, find_palette

_FIRST = 16  # constexpr operations
_FIRST_JOINT = 18
_PART_BYTES = 96  # of a tensor in the file: its header, and half of what fills up its last 64 bytes
_WORTH = 0.9  # of the dense bytes


def compact(mb: Any, weight: NDArray[np.floating], axis: int, ios: int, element_bytes: int) -> Any | None:
    """A ``constexpr`` operation that gives a float weight, or None where plain numbers are as small.

    Args:
        mb: coremltools' builder.
        weight: float32 or float16.
        axis: of the output channels; palettes may be grouped along it.
        ios: deployment target.
        element_bytes: what a number takes in the file: 2 in float16, 4 in float32.
    """
    make = _smallest(mb, weight, axis, ios, element_bytes)
    return None if make is None else make()


def is_compact(weight: NDArray[np.floating], axis: int, ios: int, element_bytes: int) -> bool:
    """Whether :func:`compact` finds fewer bytes for a weight."""
    return _smallest(None, weight, axis, ios, element_bytes) is not None


def _smallest(
    mb: Any, weight: NDArray[np.floating], axis: int, ios: int, element_bytes: int
) -> Callable[[], Any] | None:
    """What makes the form of fewest bytes; None for plain numbers."""
    if ios < _FIRST or not np.isfinite(weight).all():
        return None
    forms = _forms(mb, weight, axis, ios, element_bytes)
    size, make = min(forms, key=lambda form: form[0], default=(np.inf, None))
    dense = weight.size * element_bytes + _PART_BYTES
    return make if make is not None and size < _WORTH * dense else None


def _forms(
    mb: Any, weight: NDArray[np.floating], axis: int, ios: int, element_bytes: int
) -> list[tuple[float, Callable[[], Any]]]:
    """Bytes and maker of each form."""
    filled = int(np.count_nonzero(weight))
    holes, mask_bytes = weight.size - filled, weight.size / 8
    forms: list[tuple[float, Callable[[], Any]]] = []
    if 0 < filled < weight.size:
        forms.append((mask_bytes + filled * element_bytes + 2 * _PART_BYTES, lambda: _sparse(mb, weight, ios)))
    plain = weight.astype(np.float32)
    palette = find_palette(plain, axis, ios, element_bytes)
    if palette is not None:
        forms.append((palette.bytes(element_bytes) + 2 * _PART_BYTES, lambda: _palette(mb, palette, weight, ios)))
    if ios >= _FIRST_JOINT and palette is not None and 0 < filled < weight.size:
        joint = find_palette(plain, axis, ios, element_bytes, skip_zeros=True)
        if joint is not None:
            cost = mask_bytes + joint.bytes(element_bytes, holes) + 3 * _PART_BYTES
            forms.append((cost, lambda: _sparse_palette(mb, joint, weight)))
    return forms


def _sparse(mb: Any, weight: NDArray[np.floating], ios: int) -> Any:
    """A bit per weight, and the ones that are not zero in their order."""
    mask = weight != 0
    if ios >= _FIRST_JOINT:
        return mb.constexpr_sparse_to_dense(nonzero_data=weight[mask], mask=narrow(mask, 1))
    bits = np.packbits(mask.ravel(), bitorder="little")
    return mb.constexpr_sparse_to_dense(nonzero_data=weight[mask], mask=bits, shape=np.array(weight.shape, np.uint32))


def _palette(mb: Any, palette: Palette, weight: NDArray[np.floating], ios: int) -> Any:
    table = palette.table.astype(weight.dtype)
    if ios < _FIRST_JOINT:
        packed = _packed(palette.indices, palette.bits)
        return mb.constexpr_lut_to_dense(indices=packed, lut=table.ravel(), shape=np.array(weight.shape, np.uint32))
    along = {"vector_axis": np.int32(palette.axis)} if palette.vector > 1 else {}
    return mb.constexpr_lut_to_dense(indices=narrow(palette.indices, palette.bits), lut=table, **along)


def _sparse_palette(mb: Any, palette: Palette, weight: NDArray[np.floating]) -> Any:
    mask = weight != 0
    kept, values = mb.constexpr_lut_to_sparse(
        indices_mask=narrow(mask, 1),
        indices_nonzero_data=narrow(palette.indices[mask], palette.bits),
        lut=palette.table.astype(weight.dtype),
    )
    return mb.constexpr_sparse_to_dense(nonzero_data=values, mask=kept)


def _packed(indices: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Indices one after the other, least bit first, as MIL of iOS 16 describes them."""
    planes = np.unpackbits(indices.ravel()[:, None], axis=1, count=bits, bitorder="little")
    return np.packbits(planes.ravel(), bitorder="little")


def narrow(array: NDArray[Any], bits: int, signed: bool = False) -> NDArray[Any]:
    """Small integers in the dtype by which coremltools marks that they have so many bits in the file."""
    from coremltools.converters.mil.mil import types

    plain = np.ascontiguousarray(array).astype(np.int8 if signed else np.uint8)
    return plain if bits == 8 else plain.astype(getattr(types, f"np_{'' if signed else 'u'}int{bits}_dtype"))
