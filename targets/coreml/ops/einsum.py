"""Einsum as transposes, one matmul and a reshape. MIL's own takes a handful of equations only."""

from __future__ import annotations

from math import prod
from typing import Any

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.node import NodeView
from edgewise.targets.coreml.refusal import Refusal
from edgewise.targets.coreml.row import FLOATS, Row


def _terms(node: NodeView) -> tuple[list[str], str]:
    """The letters of each input and of the output (alphabetical when the equation leaves them out, as ONNX says)."""
    equation = node.text("equation").replace(" ", "")
    left, _, right = equation.partition("->")
    terms = left.split(",")
    if "->" not in equation:
        joined = "".join(terms)
        right = "".join(sorted(letter for letter in set(joined) if joined.count(letter) == 1))
    return terms, right


def _check(node: NodeView) -> Refusal | None:
    terms, _ = _terms(node)
    equation = node.text("equation")
    if "." in equation or len(terms) > 2 or any(len(set(term)) != len(term) for term in terms):
        return Refusal(
            f"the equation {equation!r}", "one or two inputs, no ellipsis, no letter twice in an input",
            "Write it as MatMul, Transpose and ReduceSum", "attribute equation",
        )  # fmt: skip
    if any(
        sum(node.dims(index)[term.index(letter)] is None for letter in term) > 1 for index, term in enumerate(terms)
    ):
        return Refusal("more than one size known at run time", "at most one", "Export with fixed shapes", "inputs")
    sizes: dict[str, int | None] = {}
    for index, term in enumerate(terms):
        for letter, dim in zip(term, node.dims(index), strict=True):
            if sizes.setdefault(letter, dim) != dim:
                return Refusal(f"two sizes for {letter!r}", "one size per letter", "Expand the input first", "inputs")
    return None


def _build(b: Building) -> Any:
    terms, right = _terms(b)
    if len(terms) == 1:
        return _arranged(b, *_summed(b, b.x(), terms[0], right), right)
    first, second = terms
    x, first = _summed(b, b.x(0), first, second + right)
    y, second = _summed(b, b.x(1), second, first + right)
    shared = [letter for letter in first if letter in second and letter in right]
    inner = [letter for letter in first if letter in second and letter not in right]
    rows = [letter for letter in first if letter not in second]
    columns = [letter for letter in second if letter not in first]
    sizes = _sizes(b, terms)
    lead = [sizes[letter] for letter in shared]
    x = _matrix(b, x, first, (shared, rows, inner), lead, sizes)
    y = _matrix(b, y, second, (shared, inner, columns), lead, sizes)
    product = b.mb.matmul(x=x, y=y)
    made = "".join([*shared, *rows, *columns])
    if len(rows) != 1 or len(columns) != 1:
        product = b.mb.reshape(x=product, shape=[sizes[letter] for letter in made] or [1])
    return _arranged(b, product, made, right)


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


ROWS = (Row("Einsum", _build, _check, dtypes=FLOATS, note="one or two inputs, no ellipsis"),)
