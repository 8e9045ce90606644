"""Prints what an extra of edgewise needs besides edgewise, as lines for pip: ``scripts/needs.py dev``."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

_PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def needed(extra: str) -> Iterator[str]:
    """The extra's lines, in place of those that name other extras theirs."""
    for line in _PROJECT["optional-dependencies"][extra]:
        if line.startswith("edgewise["):
            for name in line.removeprefix("edgewise[").removesuffix("]").split(","):
                yield from needed(name)
        else:
            yield line


if __name__ == "__main__":
    print("\n".join(dict.fromkeys([*_PROJECT["dependencies"], *needed(sys.argv[1])])))
