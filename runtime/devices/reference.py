"""Sample inputs and outputs as plain bytes, for the agent: runtime/native/bench/reference.h describes the form."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from edgewise.runtime.errors import RunError
from edgewise.runtime.storage import whole_file

_MAGIC = b"EWREF\0\0\1"
# As ew_dtype numbers them (runtime/native/include/edgewise.h).
_DTYPES = {
    "float32": 0, "float16": 1, "bfloat16": 2, "uint8": 3, "int8": 4, "int32": 5, "int64": 6, "bool": 7, "float64": 8, "int16": 9,
    "uint16": 10,
}  # fmt: skip

Arrays = Mapping[str, np.ndarray]


def write_plain_reference(path: Path, inputs: Sequence[Arrays], outputs: Sequence[Arrays]) -> None:
    """Write samples; ``outputs`` may be empty, and then nothing is compared.

    Raises:
        RunError: a dtype that engines do not have at their borders.
    """
    with whole_file(path) as draft, draft.open("wb") as file:
        file.write(_MAGIC + struct.pack("<I", len(inputs)))
        for index, sample in enumerate(inputs):
            wanted = outputs[index] if outputs else {}
            file.write(struct.pack("<II", len(sample), len(wanted)))
            for name, array in [*sample.items(), *wanted.items()]:
                file.writelines(_tensor(name, array))


def _tensor(name: str, array: np.ndarray) -> Iterator[bytes]:
    if array.dtype.name not in _DTYPES:
        raise RunError(
            "cannot send the reference data", where=f"tensor {name!r}", found=array.dtype.name,
            expected=f"one of {', '.join(_DTYPES)}", fix="Build the bundle with inputs and outputs of these types",
        )  # fmt: skip
    plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    text = name.encode()
    yield struct.pack("<I", len(text)) + text
    yield struct.pack(f"<II{array.ndim}qQ", _DTYPES[array.dtype.name], array.ndim, *array.shape, plain.nbytes)
    yield plain.tobytes()
