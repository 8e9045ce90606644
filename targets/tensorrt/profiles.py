"""The ranges of dynamic dims that an engine is built for: TensorRT's optimisation profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgewise.runtime.tensors import DimKind, long_dims
from edgewise.targets.errors import TargetError
from edgewise.targets.nodes import tensor_spec

if TYPE_CHECKING:
    import onnx_ir as ir

Shape = list[int]
Profile = dict[str, dict[str, Shape]]
"""Per dynamic input ``{"min": shape, "opt": shape, "max": shape}``."""

_KEYS = ("min", "opt", "max")
# Where the recipe does not say: sides of images and lengths of sounds are known by their shape, a leading dim is taken for a batch, others for
# a number of tokens.
_RANGES = {"batch": (1, 1, 8), "length": (1, 128, 512), "side": (64, 224, 512), "signal": (1_600, 16_000, 160_000)}


def shape_profile(inputs: Sequence[ir.Value], given: dict[str, Any]) -> tuple[Profile, list[str]]:
    """The profile for every input with dynamic dims, and a sentence for each whose range was chosen here.

    Raises:
        TargetError: a profile for an unknown or fixed input, of another rank, against a fixed dim, or not ordered; an
            input of unknown rank.
    """
    known = {value.name or "": value for value in inputs}
    for name, ranges in given.items():
        if name not in known:
            raise _wrong(name, "no such input", f"one of {', '.join(known)}")
        _check(name, _dims(known[name]), ranges)
    kinds = long_dims([tensor_spec(value) for value in inputs])
    profile: Profile = {}
    notes = []
    for name, value in known.items():
        dims = _dims(value)
        if name in given:
            profile[name] = {key: list(given[name][key]) for key in _KEYS}
        elif any(isinstance(dim, str) for dim in dims):
            profile[name] = _default(dims, kinds)
            notes.append(_note(name, profile[name]))
    return profile, notes


def _dims(value: ir.Value) -> list[int | str]:
    if value.shape is None:
        raise TargetError(
            "an input has no shape",
            where=f"input {value.name!r}",
            found="an unknown rank",
            expected="a shape with fixed or named dims",
            fix="Export the network again with --input NAME=DTYPE[DIM,…]",
        )
    return [dim if isinstance(dim, int) else str(dim.value or "?") for dim in value.shape]


def _default(dims: list[int | str], kinds: Mapping[str, DimKind]) -> dict[str, Shape]:
    ranges = [
        (dim, dim, dim) if isinstance(dim, int) else _RANGES[kinds.get(dim, "length" if axis else "batch")]
        for axis, dim in enumerate(dims)
    ]
    return {key: [limits[index] for limits in ranges] for index, key in enumerate(_KEYS)}


def _note(name: str, ranges: dict[str, Shape]) -> str:
    text = ", ".join(f"{key} {'x'.join(map(str, ranges[key]))}" for key in _KEYS)
    return f"Input {name!r} is dynamic; its range was chosen: {text}. Set build.options.profiles for another."


def _check(name: str, dims: list[int | str], ranges: Any) -> None:
    if not isinstance(ranges, dict) or set(ranges) != set(_KEYS):
        raise _wrong(name, repr(ranges), "a shape for each of min, opt, max")
    for key in _KEYS:
        shape = ranges[key]
        if not isinstance(shape, list | tuple) or not all(type(dim) is int and dim > 0 for dim in shape):
            raise _wrong(name, f"{key} = {shape!r}", "a list of positive integers")
        fits = len(shape) == len(dims) and all(
            isinstance(want, str) or want == have for want, have in zip(dims, shape, strict=True)
        )
        if not fits:
            raise _wrong(name, f"{key} = {shape!r}", f"a shape that fits {dims}".replace("'", ""))
    if not all(low <= best <= high for low, best, high in zip(*(ranges[key] for key in _KEYS), strict=True)):
        raise _wrong(name, repr(ranges), "min <= opt <= max in every dim")


def _wrong(name: str, found: str, expected: str) -> TargetError:
    return TargetError(
        "a shape profile does not fit",
        where=f"target tensorrt, build.options.profiles, input {name!r}",
        found=found,
        expected=expected,
        fix="Correct it in the recipe",
    )
