"""A Core ML package's inputs and outputs as a bundle describes them, and the conversions both ways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgewise.runtime.bundle import Bundle
from edgewise.runtime.errors import RunError
from edgewise.runtime.extras import needs
from edgewise.runtime.preprocess import Preprocess


@dataclass(frozen=True)
class Port:
    """One input or output.

    Attributes:
        name: the network's name for it.
        coreml: the package's.
        dtype: the network's dtype; Core ML itself has float16, float32 and int32.
        scalar: rank 0 in the network, one element of rank 1 in Core ML.
        image: for an input that the package takes as an image: how its pixels become the network's input.
    """

    name: str
    coreml: str
    dtype: str
    scalar: bool = False
    image: Preprocess | None = None

    def given(self, array: np.ndarray) -> Any:
        """What Core ML takes for the network's input: an array, or a PIL image.

        Raises:
            RunError: an integer beyond 32 bits.
        """
        if self.image is not None:
            return _picture(array, self.image)
        if array.dtype.kind not in "iub":
            narrow = array if array.dtype == np.float16 else array.astype(np.float32)
            return narrow.reshape(1) if self.scalar else narrow
        limits = np.iinfo(np.int32)
        if array.size and not limits.min <= int(array.min()) <= int(array.max()) <= limits.max:
            raise RunError(
                "Core ML cannot take the input", where=f"input {self.name!r}", found=f"{array.min()} to {array.max()}",
                expected="integers of 32 bits", fix="Use smaller ones",
            )  # fmt: skip
        return array.astype(np.int32).reshape(1 if self.scalar else array.shape)

    def made(self, value: Any) -> np.ndarray:
        """The network's output from Core ML's.

        Raises:
            RunError: there is none of that name.
        """
        if value is None:
            raise RunError(
                "Core ML gives other outputs than the manifest says", where=f"output {self.name!r}", found="nothing",
                expected=f"an output {self.coreml!r}", fix="Build the bundle again",
            )  # fmt: skip
        array = np.asarray(value)
        # Other widths and no booleans; another kind stays what it is, for the caller to refuse.
        if self.dtype == "bool" or _same_kind(array.dtype, np.dtype(self.dtype)):
            array = array.astype(self.dtype)
        return array.reshape(()) if self.scalar else array


def _same_kind(first: np.dtype[Any], second: np.dtype[Any]) -> bool:
    return first.kind == second.kind or {first.kind, second.kind} <= {"i", "u"}


def function_settings(bundle: Bundle, function: str) -> tuple[dict[str, Any], str]:
    """The settings that tell the ports of a function (empty: of the network itself), and where they stand.

    Raises:
        RunError: there are none.
    """
    settings, where = bundle.manifest["engine"].get("settings", {}), f"{bundle.path}, engine.settings"
    if not function:
        return settings, where
    functions = settings.get("functions")
    own = functions.get(function) if isinstance(functions, dict) else None
    if not isinstance(own, dict):
        raise RunError(
            "cannot run the Core ML package", where=f"{where}.functions", found=f"no {function!r}",
            expected="the ports of each function", fix="Build it again",
        )  # fmt: skip
    return own, f"{where}.functions.{function}"


def read_ports(entries: Any, where: str) -> list[Port]:
    """The ports of ``engine.settings.inputs`` or ``outputs``.

    Raises:
        RunError: another form.
    """
    try:
        return [
            Port(
                str(entry["name"]),
                str(entry["coreml"]),
                np.dtype(entry["dtype"]).name,
                bool(entry.get("scalar", False)),
                Preprocess.from_json(entry["image"]) if entry.get("image") is not None else None,
            )
            for entry in entries
        ]
    except (TypeError, KeyError, AttributeError) as error:
        raise RunError(
            "cannot run the Core ML package", where=where, found=f"{type(error).__name__}: {error}",
            expected="a list of inputs or outputs with name, coreml and dtype", fix="Build it again",
        ) from error  # fmt: skip


@dataclass(frozen=True)
class KeptState:
    """A tensor that the package keeps: the network's input ``name`` before a prediction, its output ``output`` after it."""

    name: str
    output: str
    coreml: str
    dtype: str


def read_states(entries: Any, where: str) -> list[KeptState]:
    """The states of ``engine.settings.states``; none where it is missing.

    Raises:
        RunError: another form.
    """
    keys = ("name", "output", "coreml", "dtype")
    try:
        return [KeptState(*(str(entry[key]) for key in keys)) for entry in entries or ()]
    except (TypeError, KeyError) as error:
        raise RunError(
            "cannot run the Core ML package", where=where, found=f"{type(error).__name__}: {error}",
            expected=f"a list of states with {', '.join(keys)}", fix="Build it again",
        ) from error  # fmt: skip


def _picture(array: np.ndarray, image: Preprocess) -> Any:
    """The image whose pixels, prepared, are this input; rounded to 8 bits, for Core ML takes no others."""
    with needs("images"):
        from PIL import Image
    mean, std = (np.asarray(value).reshape(-1, 1, 1) for value in (image.mean, image.std))
    pixels = (array[0].astype(np.float64) * std + mean) * image.scale
    rounded = np.clip(np.round(pixels), 0, 255).astype(np.uint8)
    if image.color == "gray":
        return Image.fromarray(rounded[0])
    # PIL has RGB, whatever the package wants.
    return Image.fromarray(
        np.ascontiguousarray((rounded[::-1] if image.color == "bgr" else rounded).transpose(1, 2, 0))
    )
