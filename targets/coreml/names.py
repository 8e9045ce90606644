"""Names that Core ML accepts: ``[A-Za-z_][A-Za-z0-9_]*``, no word of MIL's own language, each once."""

from __future__ import annotations

import re

# Before the name of an ONNX tensor while coremltools' passes run, so that it is told from the names they make up.
MARK = "edgewise__"
# Before the name of what a node kept in float32 is made of.
KEPT = "edgewise32__"
_RESERVED = frozenset(
    [
        "any",
        "bool",
        "program",
        "func",
        "tensor",
        "list",
        "dict",
        "tuple",
        "true",
        "false",
        "string",
        "state",
        "bf16",
        "fp16",
        "fp32",
        "fp64",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
    ]
)


class Namer:
    """Gives each ONNX name a name of its own; asked again, the same one. ``given`` holds them."""

    def __init__(self) -> None:
        self.given: dict[str, str] = {}
        self._taken: set[str] = set()
        self._counts: dict[str, int] = {}  # the next number to try

    def __call__(self, name: str) -> str:
        """The name for an ONNX tensor."""
        if name not in self.given:
            self.given[name] = self.fresh(name)
        return self.given[name]

    def fresh(self, name: str) -> str:
        """A name like this one that was not given before."""
        plain = re.sub(r"[^A-Za-z0-9_]", "_", name)
        if not plain or not re.match(r"[A-Za-z]", plain):
            plain = f"var_{plain}"
        if plain in _RESERVED:
            plain += "_"
        unique = plain
        while unique in self._taken:
            count = self._counts.get(plain, 1)
            unique, self._counts[plain] = f"{plain}_{count}", count + 1
        self._taken.add(unique)
        return unique
