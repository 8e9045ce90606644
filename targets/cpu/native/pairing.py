"""The order of dense 8-bit weights in which AVX2 may add two entries' products before it widens them.

``vpmaddubsw`` multiplies u8 by s8 and adds two neighbouring products in 16 bits. Two such results may be added in 16 bits too where no x can
make them overflow: where among the four weights those of either sign add up to 128 at most (255 * 128 < 2 ** 15). That saves one of four
multiplications. Entries are free to choose another one of the same line of 16 outputs and the same chunk of 128 entries; in trained
networks 90 to 99 % find one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_CHUNK = 128  # entries: kOrderEntries in kernels/conv.h
_MOST = 128  # of weights of one sign that meet in 16 bits
_ROUNDS = 16
_CHUNKS_AT_ONCE = 512  # which bounds the memory
_WORTH = 0.4  # of the entries: with fewer in pairs they stay as they are


@dataclass(frozen=True)
class Paired:
    """Weights in another order.

    Attributes:
        weights: int8, as given, the entries of each chunk in their new order.
        index: uint8 [rows, bytes]; for each chunk of a line the number of pairs, then where its entries were: pairs first.
    """

    weights: np.ndarray
    index: np.ndarray


def paired_order(dense: np.ndarray) -> Paired | None:
    """Order dense weights [group, lines, entries, 16, 4] of int8, of which two neighbours fit 16 bits; None where pairs are few."""
    lines = dense.reshape(-1, *dense.shape[2:])
    made, index, paired = np.empty_like(lines), [], 0
    for first in range(0, lines.shape[1], _CHUNK):
        chunk = lines[:, first : first + _CHUNK]
        parts = [_match(chunk[at : at + _CHUNKS_AT_ONCE]) for at in range(0, len(chunk), _CHUNKS_AT_ONCE)]
        order = np.concatenate([order for order, _ in parts])
        counts = np.concatenate([counts for _, counts in parts])
        made[:, first : first + _CHUNK] = np.take_along_axis(chunk, order[:, :, None, None], 1)
        index += [counts[:, None], order]
        paired += 2 * int(counts.sum())
    if paired < _WORTH * lines.shape[0] * lines.shape[1]:
        return None
    return Paired(made.reshape(dense.shape), np.concatenate(index, 1).astype(np.uint8))


def _match(chunk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orders [rows, entries], pairs first, and how many pairs each has, of weights [rows, entries, 16, 4]."""
    heights = _heights(chunk)
    rows, entries = chunk.shape[:2]
    order = np.tile(np.arange(entries), (rows, 1))  # the first `done` of a row are paired, the others wait
    done = np.zeros(rows, int)
    for turn in range(_ROUNDS if entries > 1 else 0):
        order = _by_height(order, done, heights.max(2))
        first, second, there = _candidates(entries - done, done, turn)
        a, b = np.take_along_axis(order, first, 1), np.take_along_axis(order, second, 1)
        sums = np.take_along_axis(heights, a[:, :, None], 1) + np.take_along_axis(heights, b[:, :, None], 1)
        fits = there & (sums.max(2) <= _MOST)
        order, done = _moved(order, done, np.where(fits, first, -1), np.where(fits, second, -1))
    return order, done // 2


def _heights(chunk: np.ndarray) -> np.ndarray:
    """What each entry adds at most to the sums of 16 bits, by sign: [rows, entries, 64]."""
    halves = chunk.astype(np.int16).reshape(*chunk.shape[:2], -1, 2)
    return np.concatenate([np.maximum(halves, 0).sum(3), np.maximum(-halves, 0).sum(3)], 2).astype(np.int16)


def _by_height(order: np.ndarray, done: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Those that wait, the least ones first."""
    keys = np.take_along_axis(heights, order, 1).astype(int)
    keys[np.arange(order.shape[1]) < done[:, None]] = -1
    return np.take_along_axis(order, np.argsort(keys, axis=1, kind="stable"), 1)


def _candidates(waiting: np.ndarray, done: np.ndarray, turn: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places of those that are tried together, and whether a row has so many: the least with the greatest, then with their neighbours."""
    halves = waiting[:, None] // 2
    i = np.arange(max(1, int(halves.max(initial=0))))[None]
    there = i < halves
    first = done[:, None] + i
    second = done[:, None] + waiting[:, None] - 1 - (i + turn) % np.maximum(halves, 1)
    return np.where(there, first, 0), np.where(there, second, 0), there


def _moved(order: np.ndarray, done: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orders with the new pairs behind the old ones; -1 is no pair."""
    columns = order.shape[1]
    keys = np.where(np.arange(columns) < done[:, None], np.arange(columns) - 2 * columns, np.arange(columns))
    rows, pairs = np.nonzero(first >= 0)
    keys[rows, first[rows, pairs]] = 2 * pairs - columns
    keys[rows, second[rows, pairs]] = 2 * pairs + 1 - columns
    moved = np.take_along_axis(order, np.argsort(keys, axis=1, kind="stable"), 1)
    return moved, done + 2 * (first >= 0).sum(1)
