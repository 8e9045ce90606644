"""Einsum as transposes, a matmul for each pair of inputs, and reshapes. MIL's own takes a handful of equations only."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.held import MAX_RANK
from edgewise.targets.coreml.node import NodeView
from edgewise.targets.coreml.ops.equation import terms_of
from edgewise.targets.coreml.refusal import Refusal
from edgewise.targets.coreml.row import FLOATS, Row

_PAIR = 2
_MOST_STACKED = 3  # axes before the two of a matrix


def _terms(node: NodeView) -> tuple[list[str], str]:
    return terms_of(node.text("equation"), [len(node.dims(index)) for index in range(len(node.node.inputs))])


def _check(node: NodeView) -> Refusal | None:
    terms, right = _terms(node)
    unknown = [sum(dim is None for dim in node.dims(index)) for index in range(len(terms))]
    if max(unknown) > 1 or (len(terms) > _PAIR and any(unknown)):
        return Refusal(
            "more than one size known at run time", "at most one, and none with three inputs or more",
            "Export with fixed shapes", "inputs",
        )  # fmt: skip
    sizes: dict[str, int | None] = {}
    for index, term in enumerate(terms):
        for letter, dim in zip(term, node.dims(index), strict=True):
            if sizes.setdefault(letter, dim) != dim:
                return Refusal(f"two sizes for {letter!r}", "one size per letter", "Expand the input first", "inputs")
    for index in range(1, len(terms)):
        letters = set("".join(terms[: index + 1])) & set("".join([*terms[index + 1 :], right]))
        if len(letters) > MAX_RANK:
            return Refusal(
                f"rank {len(letters)} in between",
                f"rank up to {MAX_RANK}",
                "Put the inputs into another order",
                "attribute equation",
            )
    return None


def _build(b: Building) -> Any:
    """Two inputs at a time, from the left; what a letter is not needed for any more is summed away on the way."""
    terms, right = _terms(b)
    sizes = _sizes(b, terms)
    x, have = _diagonal(b, b.x(), terms[0], sizes)
    for index, term in enumerate(terms[1:], 1):
        y, other = _diagonal(b, b.x(index), term, sizes)
        x, have = _product_of(b, (x, have), (y, other), "".join([*terms[index + 1 :], right]), sizes)
    return _arranged(b, *_summed(b, x, have, right), right)


def _diagonal(b: Building, x: Any, term: str, sizes: dict[str, int]) -> tuple[Any, str]:
    """A letter that is there twice once: its two axes come last, as one, of which every (size + 1)th element is taken."""
    twice = next((letter for letter in term if term.count(letter) > 1), None)
    if twice is None:
        return x, term
    first = term.index(twice)
    second = term.index(twice, first + 1)
    others = [axis for axis in range(len(term)) if axis not in (first, second)]
    size = sizes[twice]
    moved = b.mb.transpose(x=x, perm=[*others, first, second])
    flat = b.mb.reshape(x=moved, shape=[*(sizes[term[axis]] for axis in others), size * size])
    places = np.arange(0, size * size, size + 1, dtype=np.int32)
    left = "".join(term[axis] for axis in others)
    return _diagonal(b, b.mb.gather(x=flat, indices=places, axis=len(others)), left + twice, sizes)


def _product_of(
    b: Building, first: tuple[Any, str], second: tuple[Any, str], later: str, sizes: dict[str, int]
) -> tuple[Any, str]:
    """One matmul: over the letters that both have and nothing later reads; stacked along those that something does."""
    (x, left), (y, right) = first, second
    x, left = _summed(b, x, left, right + later)
    y, right = _summed(b, y, right, left + later)
    shared = [letter for letter in left if letter in right and letter in later]
    inner = [letter for letter in left if letter in right and letter not in later]
    rows = [letter for letter in left if letter not in right]
    columns = [letter for letter in right if letter not in left]
    lead = [sizes[letter] for letter in shared]
    if len(shared) > _MOST_STACKED:
        lead = [_product(lead)]
    x = _matrix(b, x, left, (shared, rows, inner), lead, sizes)
    y = _matrix(b, y, right, (shared, inner, columns), lead, sizes)
    product = b.mb.matmul(x=x, y=y)
    made = "".join([*shared, *rows, *columns])
    if len(rows) != 1 or len(columns) != 1 or len(lead) != len(shared):
        product = b.mb.reshape(x=product, shape=[sizes[letter] for letter in made] or [1])
    return product, made


def _sizes(b: Building, terms: list[str]) -> dict[str, int]:
    """Each letter's size, -1 for the one known at run time."""
    pairs = ((letter, dim) for index, term in enumerate(terms) for letter, dim in zip(term, b.dims(index), strict=True))
    return {letter: -1 if dim is None else dim for letter, dim in pairs}


def _summed(b: Building, x: Any, term: str, needed: str) -> tuple[Any, str]:
    """Sum over the letters that nothing else has."""
    axes = [axis for axis, letter in enumerate(term) if letter not in needed]
    if not axes:
        return x, term
    return b.mb.reduce_sum(x=x, axes=axes, keep_dims=False), "".join(letter for letter in term if letter in needed)


def _matrix(
    b: Building,
    x: Any,
    term: str,
    groups: tuple[list[str], list[str], list[str]],
    lead: list[int],
    sizes: dict[str, int],
) -> Any:
    """Axes in the order of the groups, the last two groups as one axis each."""
    order = [letter for group in groups for letter in group]
    x = _moved(b, x, term, "".join(order))
    if len(groups[1]) == 1 and len(groups[2]) == 1:
        return x
    return b.mb.reshape(x=x, shape=[*lead, *(_product([sizes[letter] for letter in group]) for group in groups[1:])])


def _product(sizes: list[int]) -> int:
    return -1 if -1 in sizes else prod(sizes)


def _moved(b: Building, x: Any, have: str, want: str) -> Any:
    return x if have == want else b.mb.transpose(x=x, perm=[have.index(letter) for letter in want])


def _arranged(b: Building, x: Any, have: str, want: str) -> Any:
    if not want:
        return b.mb.squeeze(x=x) if x.shape else x
    return _moved(b, x, have, want) if have != want else b.mb.identity(x=x)


ROWS = (
    Row("Einsum", _build, _check, weights=tuple(range(8)), dtypes=FLOATS, note="three and more inputs: fixed shapes"),
)
