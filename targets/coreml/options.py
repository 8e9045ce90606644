"""The recipe's ``build.options`` for Core ML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgewise.targets.base import TargetError
from edgewise.targets.devices import DeviceProfile

DEPLOYMENT_TARGETS = {"iOS15": 15, "iOS16": 16, "iOS17": 17, "iOS18": 18, "iOS26": 26}
PRECISIONS = ("float16", "float32")
_DEFAULTS = {"minimum_deployment_target": "iOS17"}
_LARGEST_DIM = 512


@dataclass(frozen=True)
class Range:
    """A symbolic dim that stays flexible; Core ML is fastest at ``default``."""

    lower: int = 1
    upper: int = _LARGEST_DIM
    default: int = 1


@dataclass(frozen=True)
class Options:
    """How to build.

    Attributes:
        ios: oldest iOS (macOS 12 goes with iOS 15, 13 with 16, …) that opens the package: 15, 16, 17, 18 or 26.
        half: compute in float16; else in float32 (which keeps the network off the Neural Engine).
        keep_float32: MIL operations by type, or ONNX tensors by name, that stay in float32.
        image_inputs: inputs that take an image; the preprocessing becomes part of the network.
        dims: symbolic dims by name: a number fixes one, a range keeps it flexible.
    """

    ios: int = 17
    half: bool = True
    keep_float32: tuple[str, ...] = ()
    image_inputs: tuple[str, ...] | bool = False
    dims: Mapping[str, int | Range] = field(default_factory=dict)

    @property
    def fixed_dims(self) -> dict[str, int]:
        """Dims that are numbers."""
        return {name: dim for name, dim in self.dims.items() if isinstance(dim, int)}

    def range_of(self, dim: str) -> Range:
        """The range of a symbolic dim that is not fixed."""
        chosen = self.dims.get(dim)
        return chosen if isinstance(chosen, Range) else Range()


def parse_options(options: Mapping[str, Any], device: DeviceProfile) -> Options:
    """The recipe's options over the device's settings over the defaults.

    Raises:
        TargetError: an unknown option, or a value of another form.
    """
    merged = {**_DEFAULTS, **device.settings.get("coreml", {}), **options}
    unknown = sorted(set(merged) - set(_READERS))
    if unknown:
        raise _bad(unknown[0], repr(merged[unknown[0]]), f"one of {', '.join(sorted(_READERS))}", "Check the spelling")
    return Options(**{field: read(merged[key], key) for key, (field, read) in _READERS.items() if key in merged})


def _bad(key: str, found: str, expected: str, fix: str = "Correct the option") -> TargetError:
    return TargetError(
        "bad option for the target coreml", where=f"build.options.{key}", found=found, expected=expected, fix=fix
    )


def _target(value: Any, key: str) -> int:
    if value not in DEPLOYMENT_TARGETS:
        raise _bad(key, repr(value), f"one of {', '.join(DEPLOYMENT_TARGETS)}")
    return DEPLOYMENT_TARGETS[value]


def _half(value: Any, key: str) -> bool:
    if value not in PRECISIONS:
        raise _bad(key, repr(value), " or ".join(PRECISIONS))
    return bool(value == "float16")


def _names(value: Any, key: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise _bad(key, repr(value), "a list of names")
    return tuple(value)


def _images(value: Any, key: str) -> tuple[str, ...] | bool:
    return value if isinstance(value, bool) else _names(value, key)


def _dims(value: Any, key: str) -> dict[str, int | Range]:
    if not isinstance(value, dict):
        raise _bad(key, repr(value), "a table of dims by name")
    return {str(name): _dim(dim, f"{key}.{name}") for name, dim in value.items()}


def _dim(value: Any, key: str) -> int | Range:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    form = "a number above 0, or {min, max, default} with 1 <= min <= default <= max"
    if not isinstance(value, dict) or not set(value) <= {"min", "max", "default"}:
        raise _bad(key, repr(value), form)
    if not all(isinstance(number, int) and not isinstance(number, bool) for number in value.values()):
        raise _bad(key, repr(value), form)
    lower = int(value.get("min", 1))
    chosen = Range(lower, int(value.get("max", max(_LARGEST_DIM, lower))), int(value.get("default", lower)))
    if not 1 <= chosen.lower <= chosen.default <= chosen.upper:
        raise _bad(key, repr(value), form)
    return chosen


_READERS: dict[str, tuple[str, Any]] = {
    "minimum_deployment_target": ("ios", _target),
    "compute_precision": ("half", _half),
    "keep_float32": ("keep_float32", _names),
    "image_inputs": ("image_inputs", _images),
    "dims": ("dims", _dims),
}
