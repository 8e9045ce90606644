"""What a verb gives back, or raises when a gate fails; and what it takes a path for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from edgewise.errors import GateFailedError
from edgewise.runtime.errors import EdgewiseError
from edgewise.runtime.tensors import TensorSpec

SCHEMA_VERSION = 1


def spec_texts(inputs: Sequence[str | TensorSpec]) -> tuple[str, ...]:
    """Inputs as a recipe holds them: ``NAME=DTYPE[DIM,…]``."""
    return tuple(
        text if isinstance(text, str) else f"{text.name}={text.dtype}[{','.join(map(str, text.shape))}]"
        for text in inputs
    )


def is_bundle(path: str | Path) -> bool:
    """Whether a path names a bundle: a folder with a manifest, or a zip of one."""
    path = Path(path)
    return path.suffixes[-2:] == [".edge", ".zip"] or path.suffix == ".edge" or (path / "manifest.json").is_file()


def require(errors: Iterable[EdgewiseError], result: dict[str, Any]) -> dict[str, Any]:
    """The result, if no gate failed.

    Raises:
        GateFailedError: the first that did; it carries the result.
    """
    for error in errors:
        raise GateFailedError(error, result)
    return result
