"""Tables of few values that stand for many weights: k-means over weights, or over short vectors of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_SWEEPS = 60
_BINS = 512
_LEARN_FROM = 1 << 15  # vectors
_AT_ONCE = 1 << 16
_SEED = 0


def learn_table(vectors: Floats, importance: Floats, entries: int) -> Floats:
    """The ``entries`` vectors for which Σ importance·‖vector − its nearest‖² is low.

    Lloyd's iterations ("Least squares quantization in PCM", IEEE Trans. IT 1982) from a start that follows the density.

    Args:
        vectors: [count, length].
        importance: [count], above 0 for at least one.
        entries: of the table.

    Returns:
        [entries, length]; fewer different vectors than entries are all in it, exactly.
    """
    known = np.unique(vectors, axis=0)
    if len(known) <= entries:
        return np.concatenate([known, np.repeat(known[-1:], entries - len(known), axis=0)])
    if vectors.shape[1] == 1:
        return _scalars(vectors[:, 0], importance, entries)[:, None]
    return _lloyd(vectors, importance, entries)


def nearest(vectors: Floats, table: Floats) -> NDArray[np.int64]:
    """Per vector the entry of the table that is nearest to it."""
    if table.shape[1] == 1:
        order = np.argsort(table[:, 0], kind="stable")
        values = table[order, 0]
        return order[np.searchsorted((values[1:] + values[:-1]) / 2, vectors[:, 0])]
    squares = np.sum(table**2, axis=1)
    parts = [vectors[at : at + _AT_ONCE] for at in range(0, len(vectors), _AT_ONCE)]
    return np.concatenate([np.argmin(squares - 2 * part @ table.T, axis=1) for part in parts])


def _scalars(values: Floats, importance: Floats, entries: int) -> Floats:
    """In one dim clusters are runs of the sorted values: their sums are differences of running sums."""
    order = np.argsort(values, kind="stable")
    values, importance = values[order], importance[order]
    mass = np.concatenate([[0.0], np.cumsum(importance)])
    moment = np.concatenate([[0.0], np.cumsum(importance * values)])
    table = _spread(values, importance, entries)
    for _ in range(_SWEEPS):
        ends = np.concatenate([[0], np.searchsorted(values, (table[1:] + table[:-1]) / 2), [len(values)]])
        weight = np.diff(mass[ends])
        new = np.sort(np.where(weight > 0, np.diff(moment[ends]) / np.where(weight > 0, weight, 1), table))
        if np.array_equal(new, table):
            break
        table = new
    return table


def _spread(values: Floats, importance: Floats, entries: int) -> Floats:
    """Points as dense as the cube root of the density: the best there are for many entries (Panter and Dite, 1951)."""
    counts, edges = np.histogram(values, bins=_BINS, weights=importance)
    share = np.concatenate([[0.0], np.cumsum(np.cbrt(counts))])
    return np.asarray(np.interp((np.arange(entries) + 0.5) / entries * share[-1], share, edges), dtype=np.float64)


def _lloyd(vectors: Floats, importance: Floats, entries: int) -> Floats:
    """Vectors: from entries drawn among them, and on at most ``_LEARN_FROM`` of them; seeded."""
    random = np.random.default_rng(_SEED)
    if len(vectors) > _LEARN_FROM:
        chosen = np.sort(random.choice(len(vectors), _LEARN_FROM, replace=False))
        vectors, importance = vectors[chosen], importance[chosen]
    table = vectors[random.choice(len(vectors), entries, replace=len(vectors) < entries)]
    for _ in range(_SWEEPS // 3):
        own = nearest(vectors, table)
        mass = np.bincount(own, importance, entries)
        sums = np.stack([np.bincount(own, importance * part, entries) for part in vectors.T], axis=1)
        moved = np.where(mass[:, None] > 0, sums / np.where(mass > 0, mass, 1)[:, None], table)
        empty = np.flatnonzero(mass == 0)
        if len(empty):  # an entry that nobody takes goes to where the error is greatest
            errors = importance * np.sum((vectors - moved[own]) ** 2, axis=1)
            moved[empty] = vectors[np.argsort(-errors, kind="stable")[: len(empty)]]
        table = moved
    return table
