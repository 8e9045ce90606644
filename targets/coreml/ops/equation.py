"""The equation of an Einsum, with a letter for every axis."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_letters


def terms_of(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """The letters of each input and of the output; axes that an ellipsis stands for get letters that are free.

    Without "->" the output is what the ellipsis stands for, then the letters that occur once, in alphabetical order (as ONNX says).
    An ellipsis counts its axes from the last, so that inputs of different ranks meet as in NumPy.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    free = [letter for letter in ascii_letters if letter not in equation]
    hidden = [
        rank - len(term.replace("...", "")) if "..." in term else 0 for term, rank in zip(terms, ranks, strict=True)
    ]
    most = max(hidden, default=0)
    if not arrow:
        plain = left.replace("...", "").replace(",", "")
        right = "".join(
            ["..." if "..." in left else "", *sorted(letter for letter in plain if plain.count(letter) == 1)]
        )
    meant = "".join(free[:most])
    filled = [term.replace("...", meant[most - count :]) for term, count in zip(terms, hidden, strict=True)]
    return filled, right.replace("...", meant)
