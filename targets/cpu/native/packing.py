"""Weights as libedgewise's kernels read them (runtime/native/src/kernels/conv.h, depthwise.h). Every level computes all of these forms.

An entry is what a kernel multiplies at once: at one position of the kernel, four input channels (int8) or one (float32).
Entry ``e`` is plane ``e // positions`` (four channels, or one) at position ``e % positions``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from edgewise.targets.cpu.native.pairing import paired_order
from edgewise.targets.cpu.native.plan import Attribute, Isa

# x86 levels whose kernels for bytes are AVX2's. VNNI adds four products at once: it gains nothing by fewer of them in 16 bits, nor by
# adding two before they are widened.
WITHOUT_VNNI = (Isa.AVX2, Isa.AVX512)
_LINE = 16  # outputs that lie side by side in dense weights
_FEWEST_PIXELS = 12  # for which sparse kernels, whose lanes are pixels, make sense
_FEWEST_TILES = {"float32": 12, "int8": 32}  # for which Winograd's transforms pay
_FEWEST_INPUTS = 16  # as well
_WORTH = 0.95  # of the time of dense weights: below that sparse ones are chosen
_WINOGRAD_TIME = 0.7  # of dense weights', as a rule
_PART_ENTRIES = 112  # times 5 vectors of 64 bytes: within a first cache of 48 KiB


@dataclass(frozen=True)
class Packed:
    """Operands and attributes for an operator.

    Attributes:
        constants: by the operand's name: ``weights``, for block-sparse ones ``index`` and ``start`` (int32), for dense ones in an
            order of their own ``index`` (uint8).
        attributes: ``kernel``, ``group``, ``outputs``, ``parts``, ``lines`` and ``safe_pairs``, as they apply.
        op: ``conv``, ``depthwise``, ``winograd`` or ``dynamic_linear``.
    """

    constants: dict[str, np.ndarray]
    attributes: dict[str, Attribute]
    op: str = "conv"


def pack_conv(
    weights: np.ndarray, *, group: int = 1, block: tuple[int, int] | None = None, paired: bool = False
) -> Packed:
    """Pack weights [M, C / group, kernel...] of int8 or float32.

    Args:
        weights: a fully connected layer's are [M, C].
        group: as in ONNX Conv. Groups of channels that are no multiple of four are merged, with zeros between them.
        block: None for dense; (R, C) keeps only the blocks of R inputs by C outputs that are not all zero, C being 1, 2 or 4.
        paired: dense weights whose pairs are safe lie in an order of their own (``pairing.py``), for AVX2; ``index`` says which.

    Raises:
        ValueError: shapes, dtype or block that the kernels do not have.
    """
    _check(weights, group, block)
    weights, group = _merged(weights, group)
    positions = prod(weights.shape[2:])
    entries = _entries(weights, group, positions)
    attributes: dict[str, Attribute] = {"group": group, "safe_pairs": int(safe_pairs(entries))}
    if weights.ndim > 2:
        attributes["kernel"] = list(weights.shape[2:])
    if block is None:
        dense = _dense(entries)
        order = paired_order(dense) if paired and attributes["safe_pairs"] else None
        return Packed(
            {"weights": dense} if order is None else {"weights": order.weights, "index": order.index}, attributes
        )
    constants, parts = _sparse(entries, block[1])
    return Packed(constants, {**attributes, "outputs": block[1], "parts": parts})


def pack_brain(weights: np.ndarray, *, group: int = 1) -> Packed:
    """Pack float32 weights [M, C / group, kernel...] as bfloat16 (their bits, uint16), dense: pairs of channels at one position.

    Raises:
        ValueError: as ``pack_conv``.
    """
    _check(weights, group, None)
    weights, group = _merged(weights, group)
    positions = prod(weights.shape[2:])
    flat = weights.reshape(group, weights.shape[0] // group, weights.shape[1], positions)
    flat = _filled(flat, 2, 2)
    pairs = flat.reshape(*flat.shape[:2], -1, 2, positions).swapaxes(3, 4).reshape(*flat.shape[:2], -1, 2)
    attributes: dict[str, Attribute] = {"group": group}
    if weights.ndim > 2:
        attributes["kernel"] = list(weights.shape[2:])
    return Packed({"weights": _dense(pairs.astype(ml_dtypes.bfloat16)).view(np.uint16)}, attributes)


def pack_winograd(weights: np.ndarray) -> Packed:
    """Pack weights [M, C, 3, 3] for ``winograd``: G g G' at 16 points (Lavin and Gray 2016, arXiv:1509.09308).

    Those of float32 are rounded once. Those of int8 become four times as large, which makes all of them integers of 16 bits, in pairs
    of channels: 0 and 2, then 1 and 3 of each four.

    Raises:
        ValueError: other weights.
    """
    _check(weights, 1, None)
    if weights.shape[2:] != (3, 3):
        raise ValueError(f"weights are [M, C, 3, 3], not {list(weights.shape)}")
    all_lines = -(-weights.shape[0] // _LINE)
    lines = next(count for count in (4, 3, 2, 1) if all_lines % count == 0)
    g = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
    points = np.einsum("ya,xb,mcab->yxmc", g, g, weights.astype(np.float64)).reshape(16, *weights.shape[:2])
    if weights.dtype == np.int8:
        fours = _filled(4 * points, 2, 4).astype(np.int16)
        pairs = fours.reshape(*fours.shape[:2], -1, 2, 2).swapaxes(3, 4)
        dense = _dense(pairs.reshape(*fours.shape[:2], -1, 2))
    else:
        dense = _dense(points.astype(np.float32)[..., None])
    groups = dense.reshape(16, -1, lines, *dense.shape[2:]).swapaxes(0, 1)  # [lines / G, 16, G, entries, 16, 1 or 2]
    return Packed({"weights": np.ascontiguousarray(groups)}, {"kernel": [3, 3], "lines": lines}, "winograd")


def winograd_pays(weights: np.ndarray, sizes: Sequence[int], isa: Isa) -> bool:
    """Whether ``winograd`` is faster than ``conv`` for these weights of a kernel 3x3, given the last two sizes of the output.

    As measured on 2 to 112 pixels a side, 3 to 256 inputs, 8 to 256 outputs, with AVX-512 and AVX2 (docs/notes/native-kernels.md):
    few inputs do not pay for the sums' way back, and few tiles do not fill a vector. In bytes 16 tiles would pay, but the weights of
    so small planes are a network's largest, and become 3.6 times as large.
    """
    if weights.dtype == np.int8 and isa not in WITHOUT_VNNI:
        return False
    tiles = -(-sizes[0] // 2) * -(-sizes[1] // 2)
    return tiles >= _FEWEST_TILES[weights.dtype.name] and weights.shape[1] >= _FEWEST_INPUTS


def choose_block(
    weights: np.ndarray, *, group: int = 1, pixels: int | None = None, isa: Isa = Isa.AVX512VNNI, winograd: bool = False
) -> tuple[int, int] | None:
    """The ``block`` of ``pack_conv`` that is fastest for these weights; None where dense is.

    By density.json, measured: time over that of dense weights, for the share of blocks that are not zero.

    Args:
        weights: as for ``pack_conv``.
        group: as for ``pack_conv``.
        pixels: of the output of one sample, where known: with few, dense weights have a kernel of their own.
        isa: what the device has: with AVX2 alone lists gain less, beside dense weights in pairs and with fewer registers.
        winograd: whether dense weights would be multiplied by Winograd's algorithm.
    """
    _check(weights, group, None)
    if pixels is not None and pixels < _FEWEST_PIXELS:
        return None
    weights, group = _merged(weights, group)
    entries = _entries(weights, group, prod(weights.shape[2:]))
    table, integer = _density_table(), weights.dtype == np.int8
    times = table["avx2" if isa is Isa.AVX2 or (integer and isa in WITHOUT_VNNI) else "avx512vnni"][
        "s8" if integer else "f32"
    ]
    best, block = _WINOGRAD_TIME if winograd else _WORTH, None
    for outputs in (4, 2, 1):
        time = float(np.interp(kept_blocks(entries, outputs), table["densities"], times[str(outputs)]))
        if time < best:
            best, block = time, (entries.shape[3], outputs)
    return block


def kept_blocks(entries: np.ndarray, outputs: int) -> float:
    """The share of blocks of one entry by ``outputs`` outputs that are not all zero."""
    group, _, count, width = entries.shape
    padded = _filled(entries, 1, outputs)
    return float(padded.reshape(group, -1, outputs, count, width).any(axis=(2, 4)).mean())


@cache
def _density_table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(Path(__file__).with_name("density.json").read_text())
    return table


def safe_pairs(entries: np.ndarray) -> bool:
    """Whether u8 times these weights [..., 4], added in neighbouring pairs, always fits 16 bits."""
    if entries.dtype != np.int8:
        return False
    sizes = np.abs(entries.astype(np.int16))
    return bool((sizes[..., 0::2] + sizes[..., 1::2]).max(initial=0) <= 128)


def _check(weights: np.ndarray, group: int, block: tuple[int, int] | None) -> None:
    if weights.dtype not in (np.int8, np.float32) or not 2 <= weights.ndim <= 5:
        raise ValueError(f"weights are int8 or float32 with 2 to 5 dims, not {weights.dtype}{list(weights.shape)}")
    if group < 1 or weights.shape[0] % group:
        raise ValueError(f"{weights.shape[0]} outputs cannot be split into {group} groups")
    if block is not None and (block[1] not in (1, 2, 4) or block[0] not in (1, 4)):
        raise ValueError(f"blocks have 1 or 4 inputs and 1, 2 or 4 outputs, not {block}")


def _merged(weights: np.ndarray, group: int) -> tuple[np.ndarray, int]:
    """The same convolution with groups that the kernels take: whole blocks of four channels on both sides."""
    outputs, inputs = weights.shape[0] // group, weights.shape[1]
    if group == 1:
        return weights, 1
    fours = 4 if weights.dtype == np.int8 else 1
    for merge in (n for n in range(1, group + 1) if group % n == 0):
        if merge == group or (inputs * merge % fours == 0 and outputs * merge % 4 == 0):
            break
    if merge == 1:
        return weights, group
    kernel = weights.shape[2:]
    wide = np.zeros((group // merge, merge, outputs, merge, inputs, *kernel), weights.dtype)
    narrow = weights.reshape(group // merge, merge, outputs, inputs, *kernel)
    for i in range(merge):
        wide[:, i, :, i] = narrow[:, i]
    return wide.reshape(weights.shape[0], merge * inputs, *kernel), group // merge


def _entries(weights: np.ndarray, group: int, positions: int) -> np.ndarray:
    """[group, outputs, entries, 4 (int8) or 1 (float32)], zeros where channels end."""
    outputs, inputs = weights.shape[0] // group, weights.shape[1]
    wide = 4 if weights.dtype == np.int8 else 1
    flat = weights.reshape(group, outputs, inputs, positions)
    flat = _filled(flat, 2, wide)
    flat = flat.reshape(group, outputs, -1, wide, positions).swapaxes(3, 4)
    return np.ascontiguousarray(flat.reshape(group, outputs, -1, wide))


def _filled(array: np.ndarray, axis: int, multiple: int) -> np.ndarray:
    """With zeros at the end of an axis up to a multiple of so many; the array itself where there are as many."""
    short = -array.shape[axis] % multiple
    return np.pad(array, [(0, short if at == axis else 0) for at in range(array.ndim)]) if short else array


def _dense(entries: np.ndarray) -> np.ndarray:
    """[group, lines, entries, 16, width]."""
    group, _, count, width = entries.shape
    padded = _filled(entries, 1, _LINE)
    lines = padded.reshape(group, -1, _LINE, count, width).swapaxes(2, 3)
    return np.ascontiguousarray(lines)


def _parts(entries: int, outputs: int) -> int:
    """Into how many the entries are cut, so that what a tile holds of one stays in the first cache.

    Blocks of four outputs use each value often enough to take it from the second cache.
    """
    return 1 if outputs == 4 else max(1, -(-entries // _PART_ENTRIES))


def _sparse(entries: np.ndarray, outputs: int) -> tuple[dict[str, np.ndarray], int]:
    """The blocks of each ``outputs`` outputs that are not zero, listed by group, part and outputs; and the number of parts."""
    group, _, count, width = entries.shape
    parts = _parts(count, outputs)
    padded = _filled(entries, 1, outputs)
    blocks = padded.reshape(group, -1, outputs, count, width).swapaxes(2, 3)
    kept: np.ndarray = np.any(blocks, axis=(3, 4))
    weights, index, start = [], [], [0]
    for g in range(group):
        for part in np.array_split(np.arange(count), parts):
            for b in range(blocks.shape[1]):
                chosen = part[kept[g, b, part]]
                weights.append(blocks[g, b, chosen])
                index.append(chosen)
                start.append(start[-1] + len(chosen))
    constants = {
        "weights": np.concatenate([*weights, np.zeros((0, outputs, width), entries.dtype)]),
        "index": np.concatenate([*index, np.zeros(0, np.int32)]).astype(np.int32),
        "start": np.array(start, np.int32),
    }
    return constants, parts


def pack_depthwise(weights: np.ndarray) -> Packed:
    """Weights [M, kernel...] of int8 or float32 for ``depthwise``; output m reads channel m * C / M. They stay as they are.

    Raises:
        ValueError: a dtype or rank that the kernels do not have.
    """
    if weights.dtype not in (np.int8, np.float32) or not 2 <= weights.ndim <= 4:
        raise ValueError(
            f"weights are int8 or float32 with 1 to 3 spatial dims, not {weights.dtype}{list(weights.shape)}"
        )
    flat = np.ascontiguousarray(weights.reshape(weights.shape[0], -1))
    # Kernels add neighbouring positions in pairs, in an order of their own: any two must fit.
    safe = weights.dtype == np.int8 and int(np.abs(flat.astype(np.int16)).max(initial=0)) <= 64
    return Packed({"weights": flat}, {"kernel": list(weights.shape[1:]), "safe_pairs": int(safe)}, "depthwise")
