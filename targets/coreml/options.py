"""The recipe's ``build.options`` for Core ML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edgewise.targets.devices import DeviceProfile
from edgewise.targets.errors import TargetError
from edgewise.targets.options import Option, read_options

DEPLOYMENT_TARGETS = {"iOS15": 15, "iOS16": 16, "iOS17": 17, "iOS18": 18, "iOS26": 26}
OPTIONS = {
    "minimum_deployment_target": Option("iOS17", str, tuple(DEPLOYMENT_TARGETS)),
    "compute_precision": Option("float16", str, ("float16", "float32")),
    "keep_float32": Option(None, list),
    "calibration": Option(None, str),
    "image_inputs": Option(None, list),
    "dims": Option(None, dict),
    "labels": Option(None, str),
    "states": Option(None, dict),
    "functions": Option(None, dict),
}
_LARGEST_DIM = 512
_FUNCTION_FORM = "a table of {dims, states, model}, each of them optional"
_FUNCTION_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_DIM_FORM = "a number above 0, a list of them, or {min, max, default} with 1 <= min <= default <= max"


@dataclass(frozen=True)
class Range:
    """A symbolic dim that stays flexible; Core ML is fastest at ``default``."""

    lower: int = 1
    upper: int = _LARGEST_DIM
    default: int = 1


@dataclass(frozen=True)
class Choice:
    """A symbolic dim that is one of a few sizes; Core ML is fastest at the first."""

    sizes: tuple[int, ...]


@dataclass(frozen=True)
class FunctionOptions:
    """One function of a package with several: what is other than in the whole's options.

    Attributes:
        dims: sizes over those of the whole.
        states: in place of those of the whole; None: the same.
        model: the ONNX file that it computes; empty: the network itself.
    """

    dims: Mapping[str, int | Range | Choice] = field(default_factory=dict)
    states: Mapping[str, str] | None = None
    model: str = ""


@dataclass(frozen=True)
class Options:
    """How to build.

    Attributes:
        ios: oldest iOS (macOS 12 goes with iOS 15, 13 with 16, …) that opens the package: 15, 16, 17, 18 or 26.
        half: compute in float16; else in float32 (which keeps the network off the Neural Engine).
        keep_float32: MIL operations by type, or ONNX tensors by name, that stay in float32.
        calibration: data on which float16 is tried: nodes whose values it cannot hold stay in float32.
        image_inputs: inputs that take an image; the preprocessing becomes part of the network.
        dims: symbolic dims by name: a number fixes one, a range or a choice keeps it flexible.
        labels: a text file with a class label a line; empty: no classifier.
        states: inputs that hold what outputs gave the time before: kept in the package.
        functions: by name; the first is the one that the package computes unless it is asked for another.
    """

    ios: int = 17
    half: bool = True
    keep_float32: tuple[str, ...] = ()
    calibration: str = ""
    image_inputs: tuple[str, ...] = ()
    dims: Mapping[str, int | Range | Choice] = field(default_factory=dict)
    labels: str = ""
    states: Mapping[str, str] = field(default_factory=dict)
    functions: Mapping[str, FunctionOptions] = field(default_factory=dict)

    def of_function(self, name: str, symbols: set[str]) -> Options:
        """What holds for one function, whose graph has these symbolic dims."""
        own = self.functions[name]
        dims = {dim: sizes for dim, sizes in self.dims.items() if dim in symbols} | dict(own.dims)
        return replace(self, dims=dims, states=self.states if own.states is None else own.states, functions={})

    @property
    def fixed_dims(self) -> dict[str, int]:
        """Dims that are numbers."""
        return {name: dim for name, dim in self.dims.items() if isinstance(dim, int)}

    def sizes_of(self, dim: str) -> Range | Choice:
        """What a symbolic dim that is not fixed may be."""
        chosen = self.dims.get(dim)
        return chosen if isinstance(chosen, Range | Choice) else Range()


def parse_options(options: Mapping[str, Any], device: DeviceProfile) -> Options:
    """The recipe's options over the device's settings over the defaults.

    Raises:
        TargetError: an unknown option, or a value of another form.
    """
    settings = device.table("coreml", optional={key: option.kind for key, option in OPTIONS.items()})
    given = read_options({**settings, **options}, OPTIONS, "coreml")
    return Options(
        ios=DEPLOYMENT_TARGETS[given["minimum_deployment_target"]],
        half=given["compute_precision"] == "float16",
        keep_float32=_names(given, "keep_float32"),
        calibration=given["calibration"] or "",
        image_inputs=_names(given, "image_inputs"),
        labels=given["labels"] or "",
        states=_pairs(given["states"] or {}, "states"),
        dims=_dims(given["dims"] or {}, "dims"),
        functions={
            str(name): _function(str(name), own, f"functions.{name}")
            for name, own in (given["functions"] or {}).items()
        },
    )


def wrong_option(key: str, found: str, expected: str) -> TargetError:
    """The error for an option's value."""
    return TargetError(
        "a build option has a wrong value",
        where=f"target coreml, build.options.{key}",
        found=found,
        expected=expected,
        fix="Correct it in the recipe",
    )


def _names(given: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = given[key] or []
    if not all(isinstance(item, str) for item in value):
        raise wrong_option(key, repr(value), "a list of names")
    return tuple(value)


def _pairs(value: Any, key: str) -> dict[str, str]:
    named = isinstance(value, dict) and all(isinstance(name, str) for pair in value.items() for name in pair)
    if not named or len(set(value.values())) < len(value):
        raise wrong_option(key, repr(value), "{input: output}, each name once")
    return dict(value)


def _function(name: str, value: Any, key: str) -> FunctionOptions:
    if not _FUNCTION_NAME.fullmatch(name):
        raise wrong_option(key, repr(name), "a letter, then letters, digits and _")
    value = {} if value is None else value
    if not isinstance(value, dict) or not set(value) <= {"dims", "states", "model"}:
        raise wrong_option(key, repr(value), _FUNCTION_FORM)
    if not isinstance(value.get("model", ""), str) or not isinstance(value.get("dims", {}), dict):
        raise wrong_option(key, repr(value), _FUNCTION_FORM)
    states = value.get("states")
    return FunctionOptions(
        _dims(value.get("dims", {}), f"{key}.dims"),
        None if states is None else _pairs(states, f"{key}.states"),
        value.get("model", ""),
    )


def _dims(value: Mapping[Any, Any], key: str) -> dict[str, int | Range | Choice]:
    return {str(name): _dim(dim, f"{key}.{name}") for name, dim in value.items()}


def _dim(value: Any, key: str) -> int | Range | Choice:
    if _is_whole(value) and value > 0:
        return int(value)
    if isinstance(value, list) and value and all(_is_whole(size) and size > 0 for size in value):
        return Choice(tuple(dict.fromkeys(int(size) for size in value)))
    if not isinstance(value, dict) or not set(value) <= {"min", "max", "default"}:
        raise wrong_option(key, repr(value), _DIM_FORM)
    if not all(_is_whole(number) for number in value.values()):
        raise wrong_option(key, repr(value), _DIM_FORM)
    lower = int(value.get("min", 1))
    chosen = Range(lower, int(value.get("max", max(_LARGEST_DIM, lower))), int(value.get("default", lower)))
    if not 1 <= chosen.lower <= chosen.default <= chosen.upper:
        raise wrong_option(key, repr(value), _DIM_FORM)
    return chosen


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
