"""The patterns that make tensors smaller, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from edgewise.quantize.errors import QuantizeError
from edgewise.quantize.shrinking.groups import CHANNEL, HEADS, WIDTH
from edgewise.quantize.shrinking.low_rank import factorise
from edgewise.quantize.shrinking.remove import remove_units
from edgewise.quantize.shrinking.slicing import slice_stream

# (model, sparsity, skip, refused, *, data, progress) → the report's ``layers``: makes a prepared model smaller in place. ``data``
# is there when the criterion looks at it; where groups may differ, ``budget`` comes too.
Remove = Callable[..., list[dict[str, Any]]]


@dataclass(frozen=True)
class Structure:
    """A pattern.

    Attributes:
        name: what ``--pattern`` takes.
        remove: what carries it out.
        criteria: those that it knows.
        densities: likewise; ``sensitivity`` and ``learned`` hand it a budget.
        keeps_parts: tensors between residual blocks keep their shapes, so ``reconstruct`` can compare them.
        multiples: it can keep a multiple of units.
    """

    name: str
    remove: Remove
    criteria: tuple[str, ...] = ("magnitude", "second_order")
    densities: tuple[str, ...] = ("uniform",)
    keeps_parts: bool = False
    multiples: bool = False


_MEASURED = ("uniform", "sensitivity", "learned")
STRUCTURES = (
    Structure(CHANNEL, partial(remove_units, kind=CHANNEL), densities=_MEASURED, multiples=True),
    Structure(HEADS, partial(remove_units, kind=HEADS), densities=_MEASURED, keeps_parts=True, multiples=True),
    Structure(WIDTH, partial(remove_units, kind=WIDTH), densities=_MEASURED, keeps_parts=True, multiples=True),
    Structure("low-rank", factorise, keeps_parts=True),
    Structure("slice", slice_stream, criteria=("second_order",)),
)


def find_structure(name: str) -> Structure | None:
    """The pattern of a name; None when it is none of these."""
    return next((each for each in STRUCTURES if each.name == name), None)


def check_structure(structure: Structure, criterion: str, densities: str, reconstruct: bool, multiple: int) -> None:
    """Refuse what a pattern cannot have.

    Raises:
        QuantizeError: another criterion, densities of layers, or a reconstruction where tensors change their shapes.
    """
    checks = (
        ("criterion", criterion, criterion in structure.criteria, " or ".join(structure.criteria)),
        ("densities", densities, densities in structure.densities, " or ".join(structure.densities)),
        ("reconstruct", str(reconstruct), structure.keeps_parts or not reconstruct, "no reconstruction"),
        ("multiple", str(multiple), multiple == 1 or structure.multiples, "1: it removes no units"),
    )
    for what, found, fits, expected in checks:
        if not fits:
            raise QuantizeError(
                "cannot prune as asked",
                where=f"pattern {structure.name}",
                found=f"{what} {found}",
                expected=expected,
                fix="Leave it out, or choose another pattern",
            )
