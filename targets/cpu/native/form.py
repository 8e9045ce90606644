"""How a value of the network lies in memory: its axes as factors, and the order of the factors.

Splitting an axis, merging axes and exchanging them (Reshape, Transpose and their kin) change only what is said about memory,
not memory itself. So these operators cost nothing until somebody needs the elements in a certain order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from edgewise.targets.cpu.native.plan import Dim, dim, product

Axis = tuple[Dim, ...]


@dataclass(frozen=True)
class Form:
    """Axes in ONNX's order, each a product of factors; and in which order the factors lie in memory.

    Attributes:
        axes: for each axis its factors, the outermost first; an axis of size 1 has none.
        order: the factors, numbered through all axes, as they lie in memory, the outermost first.

    Example: the tokens of a vision transformer, ``[1, 196, 192]`` to ONNX, lie channel by channel and row by row:
    ``Form(axes=((), (14, 14), (192,)), order=(2, 0, 1))``.
    """

    axes: tuple[Axis, ...]
    order: tuple[int, ...]

    @staticmethod
    def plain(dims: Sequence[Dim]) -> Form:
        """Row by row, as ONNX has it."""
        axes = tuple(() if one.constant == 1 else (one,) for one in dims)
        return Form(axes, tuple(range(sum(map(len, axes)))))

    @cached_property
    def factors(self) -> tuple[Dim, ...]:
        """All of them, by number."""
        return tuple(factor for axis in self.axes for factor in axis)

    @cached_property
    def dims(self) -> tuple[Dim, ...]:
        """As ONNX sees the value."""
        return tuple(product(axis) for axis in self.axes)

    @property
    def memory(self) -> tuple[Dim, ...]:
        """The factors' sizes as they lie in memory."""
        return tuple(self.factors[number] for number in self.order)

    @property
    def is_plain(self) -> bool:
        """Whether it lies in memory as ONNX has it."""
        return self.order == tuple(range(len(self.order)))

    def numbers(self, axis: int) -> tuple[int, ...]:
        """Which factors make up an axis."""
        first = sum(len(one) for one in self.axes[:axis])
        return tuple(range(first, first + len(self.axes[axis])))

    def transposed(self, perm: Sequence[int]) -> Form:
        """The same memory with the axes exchanged, as ONNX's Transpose does."""
        new: dict[int, int] = {}
        for axis in perm:
            for number in self.numbers(axis):
                new[number] = len(new)
        return Form(tuple(self.axes[axis] for axis in perm), tuple(new[number] for number in self.order))

    def split(self, number: int, parts: Sequence[Dim]) -> Form:
        """One factor as the product of several."""
        axes, seen = [], 0
        for axis in self.axes:
            inside = seen <= number < seen + len(axis)
            axes.append((*axis[: number - seen], *parts, *axis[number - seen + 1 :]) if inside else axis)
            seen += len(axis)
        more = len(parts) - 1
        order: list[int] = []
        for one in self.order:
            order.extend(range(one, one + more + 1) if one == number else [one + more if one > number else one])
        return Form(tuple(axes), tuple(order))

    def merged(self) -> Form:
        """Neighbouring factors of one axis that are neighbours in memory too become one."""
        form = self
        while (pair := form._mergeable()) is not None:
            form = form._joined(pair)
        return form

    def _mergeable(self) -> int | None:
        starts = {numbers[0] for axis in range(len(self.axes)) if (numbers := self.numbers(axis))}
        for left, right in zip(self.order, self.order[1:], strict=False):
            if right == left + 1 and right not in starts:
                return left
        return None

    def _joined(self, number: int) -> Form:
        axes, seen = [], 0
        for axis in self.axes:
            at = number - seen
            if 0 <= at < len(axis):
                axis = (*axis[:at], axis[at] * axis[at + 1], *axis[at + 2 :])
                seen += 1
            axes.append(axis)
            seen += len(axis)
        order = [one - 1 if one > number else one for one in self.order if one != number + 1]
        return Form(tuple(axes), tuple(order))

    def reshaped(self, dims: Sequence[Dim]) -> Form | None:
        """The same memory with other axes, as ONNX's Reshape does; None when an axis would begin inside of a factor's step."""
        form, axes, number = self, [], 0
        for wanted in dims:
            taken, left = 0, wanted
            while left.constant != 1:
                if number + taken >= len(form.factors):
                    return None
                factor = form.factors[number + taken]
                parts = _fit(factor, left)
                if parts is None:
                    return None
                if len(parts) > 1:
                    form = form.split(number + taken, parts)
                left = _divided(left, parts[0])
                taken += 1
            axes.append(form.factors[number : number + taken])
            number += taken
        return Form(tuple(axes), form.order) if number == len(form.factors) else None


def _fit(factor: Dim, wanted: Dim) -> tuple[Dim, ...] | None:
    """The factor whole when it divides what is wanted; its first part and the rest when what is wanted divides it."""
    if factor == wanted:
        return (factor,)
    have, want = factor.constant, wanted.constant
    if have is None or want is None:
        if quotient(wanted, factor) is not None:
            return (factor,)
        rest = quotient(factor, wanted)
        return None if rest is None else (wanted, rest)
    if have == 0 or want == 0:
        return None
    if want % have == 0:
        return (factor,)
    if have % want == 0:
        return (wanted, dim(have // want))
    return None


def _divided(whole: Dim, part: Dim) -> Dim:
    found = quotient(whole, part)
    return dim(1) if found is None else found


def quotient(whole: Dim, part: Dim) -> Dim | None:
    """One product of dims divided by another, when it comes out even whatever the symbols are."""
    numbers, symbols = _terms(whole)
    divisor, gone = _terms(part)
    for symbol in gone:
        if symbol not in symbols:
            return None
        symbols.remove(symbol)
    if divisor == 0 or numbers % divisor:
        return None
    return product([dim(numbers // divisor), *symbols])


def _terms(one: Dim) -> tuple[int, list[Dim]]:
    """A dim as a number times what cannot be taken apart."""
    if one.constant is not None:
        return one.constant, []
    if one.kind == "multiply" and one.left is not None and one.right is not None:
        (a, left), (b, right) = _terms(one.left), _terms(one.right)
        return a * b, left + right
    return 1, [one]


def same_size(a: Dim, b: Dim) -> bool:
    """Whether two dims are equal whatever the symbols are."""
    return a == b or (quotient(a, b) or dim(0)).constant == 1


def common_factors(a: Axis, b: Axis) -> Axis | None:
    """The coarsest factors of which both axes are made, or None."""
    found: list[Dim] = []
    left, right = list(a), list(b)
    while left and right:
        if same_size(left[0], right[0]):
            found.append(left.pop(0))
            right.pop(0)
            continue
        for one, other in ((left, right), (right, left)):
            # The inner part of the larger one stays.
            parts = _fit(one[0], other[0])
            if parts is not None and len(parts) > 1:
                found.append(other.pop(0))
                one[0] = parts[1]
                break
        else:
            return None
    return None if left or right else tuple(found)
