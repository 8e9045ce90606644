"""The C program that a pack brings along: input bytes from stdin, outputs as numbers on stdout."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgewise.errors import ToolchainError
from edgewise.runtime.tensors import TensorSpec

_C_TYPES = {
    "float32": "float",
    "float16": "uint16_t",
    "bfloat16": "uint16_t",
    "uint8": "uint8_t",
    "int8": "int8_t",
    "int32": "int32_t",
    "int64": "int64_t",
    "bool": "uint8_t",
    "float64": "double",
    "int16": "int16_t",
    "uint16": "uint16_t",
}
# C's own words, and those that the program uses.
_WORDS = re.compile(
    "auto|break|case|char|const|continue|default|do|double|else|enum|extern|float|for|goto|if|inline|int|long|register|restrict|return|"
    "short|signed|sizeof|static|struct|switch|typedef|union|unsigned|void|volatile|while|context|engine|failed|main|options|i|"
    "fread|fprintf|printf|stderr|stdin|u?int(8|16|32|64)_t|size_t"
)
_PROGRAM = """\
/* Runs {name}: input bytes from stdin, in the order below (what is missing is zero); outputs as numbers on stdout.
 * {command} */
#include <stdint.h>
#include <stdio.h>

#include "edgewise.h"
{include}
{arrays}

static int failed(ew_status status) {{
    return status != EW_OK && fprintf(stderr, "%s\\n", ew_last_error()) > 0;
}}

int main(void) {{
    ew_engine* engine = NULL;
    ew_context* context = NULL;
    const ew_options options = {{.threads = 1}};
    if (failed({opening}) || failed(ew_context_create(engine, &options, &context))) return 1;
{binding}
{reading}
    if (failed(ew_run(context))) return 1;
{printing}
    ew_context_close(context);
    ew_close(engine);
    return 0;
}}
"""


@dataclass(frozen=True)
class Port:
    """An input or output with the shape that the example gives it; ``symbol`` is its name in C, ``free`` whether it has free dims."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    symbol: str
    free: bool

    @property
    def declaration(self) -> str:
        """Its memory in the program, aligned as the engine likes it."""
        dims = ",".join(map(str, self.shape))
        array = f"static {_C_TYPES[self.dtype]} {self.symbol}[{max(1, math.prod(self.shape))}]"
        return f"{array} __attribute__((aligned(64))); /* {self.dtype}[{dims}] */"


def ports_of(specs: Sequence[TensorSpec], shapes: Mapping[str, tuple[int, ...]], taken: set[str]) -> list[Port]:
    """Each with a shape of its own: that of the reference data where it has free dims, 1 for each without reference data.

    Raises:
        ToolchainError: an element type that engines do not have at their borders.
    """
    made = []
    for spec in specs:
        if spec.dtype not in _C_TYPES:
            raise ToolchainError(
                "cannot write the example", where=f"tensor {spec.name!r}", found=spec.dtype,
                expected=f"one of {', '.join(_C_TYPES)}", fix="Build the bundle with inputs and outputs of these types",
            )  # fmt: skip
        free = not all(isinstance(dim, int) for dim in spec.shape)
        shape = tuple(dim if isinstance(dim, int) else 1 for dim in spec.shape)
        made.append(Port(spec.name, spec.dtype, shapes.get(spec.name, shape), _symbol(spec.name, taken), free))
    return made


def identifier(name: str) -> str:
    """A name as C takes it."""
    word = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return f"n{word}" if not word or word[0].isdigit() or word.lower().startswith(("_", "ew_")) else word


def example(
    name: str, inputs: Sequence[Port], outputs: Sequence[Port], *, opening: str, include: str, command: str
) -> str:
    """The program's text; ``opening`` is the call that opens the engine, ``include`` a further header or empty."""
    shapes = [_shape(index, port) for index, port in enumerate(inputs) if port.free]
    both = [("input", inputs), ("output", outputs)]
    calls = [
        f"failed(ew_bind_{kind}(context, {index}, {port.symbol}, sizeof {port.symbol}))"
        for kind, ports in both
        for index, port in enumerate(ports)
    ]
    return _PROGRAM.format(
        name=name,
        command=command,
        include=f'#include "{include}"\n' if include else "",
        arrays="\n".join(port.declaration for port in [*inputs, *outputs]),
        opening=opening,
        binding="\n".join([*shapes, *(f"    if ({call}) return 1;" for call in calls)]),
        reading="\n".join(f"    (void)!fread({port.symbol}, 1, sizeof {port.symbol}, stdin);" for port in inputs),
        printing="\n".join(_print(port) for port in outputs),
    )


def _shape(index: int, port: Port) -> str:
    dims = f"(const int64_t[]){{{', '.join(map(str, port.shape))}}}"
    return f"    if (failed(ew_set_input_shape(context, {index}, {dims}, {len(port.shape)}))) return 1;"


def _print(port: Port) -> str:
    count = math.prod(port.shape)
    return f'    for (size_t i = 0; i < {count}; ++i) printf("%.9g\\n", (double){port.symbol}[i]);'


def _symbol(name: str, taken: set[str]) -> str:
    base = identifier(name)
    word, number = base, 1
    while word in taken or _WORDS.fullmatch(word):
        number += 1
        word = f"{base}_{number}"
    taken.add(word)
    return word
