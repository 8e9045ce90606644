"""Device profiles: one TOML file each in ``targets/devices/``, or anywhere else as ``--device path/to/board.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from edgewise.targets.errors import TargetError

# What may stand in a profile, beside `summary`, `targets` and one table per target. The name carries the unit.
FACTS: dict[str, tuple[type, str]] = {
    "arch": (str, "the processor's architecture: x86_64 or aarch64"),
    "isa": (list, "its instruction set extensions, named as in Linux's /proc/cpuinfo"),
    "chip": (str, "processor or system on chip"),
    "cores": (int, "processor cores"),
    "clock_max_hz": (int, "the processor's highest clock"),
    "memory_bytes": (int, "main memory; the smallest variant sold"),
    "memory_bandwidth_bytes_per_s": (int, "peak bandwidth of main memory (of the GPU's, when it has its own)"),
    "gpu": (str, "name of the GPU"),
    "gpu_memory_bytes": (int, "memory of a GPU that has its own"),
    "cuda_cores": (int, "CUDA cores of the GPU"),
    "dla_cores": (int, "deep learning accelerators (NVIDIA DLA)"),
    "neural_engine_cores": (int, "cores of the neural engine"),
    "tdp_w": (int, "the vendor's board or chip power limit, in watts"),
    "os": (str, "operating system that it comes with"),
}


@dataclass(frozen=True)
class DeviceProfile:
    """What is known about a kind of device.

    Attributes:
        name: the file's name without ``.toml``.
        summary: one line for a list.
        targets: the targets that can build for it.
        facts: see ``FACTS``.
        settings: one table per target, such as ``[tensorrt]`` with its ``sm``.
    """

    name: str
    summary: str
    targets: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)

    def table(
        self, target: str, required: Mapping[str, type] | None = None, optional: Mapping[str, type] | None = None
    ) -> dict[str, Any]:
        """The target's own table, checked.

        Args:
            target: the table's name.
            required: keys that must be there, with their types.
            optional: keys that may be there.

        Raises:
            TargetError: a key is missing, unknown or of another type.
        """
        required, optional = required or {}, optional or {}
        table = self.settings.get(target, {})
        where = f"device {self.name!r}, table [{target}]"
        _refuse_unknown(table, {**required, **optional}, where)
        _refuse_missing(table, required, where)
        for key, value in table.items():
            _check_type(key, value, {**required, **optional}[key], where)
        return table


@cache
def device_profiles() -> dict[str, DeviceProfile]:
    """Every profile that edgewise ships, by name.

    Raises:
        TargetError: a file breaks the schema.
    """
    folder = resources.files("edgewise.targets") / "devices"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)
    profiles = [parse_profile(file.name.removesuffix(".toml"), file.read_text(encoding="utf-8")) for file in files]
    return {profile.name: profile for profile in profiles}


def find_device(name: str, target: str) -> DeviceProfile:
    """A profile that has the target: one of edgewise's by name, or any by the path of its ``.toml`` file.

    Raises:
        TargetError: unknown device, a file that breaks the schema, or a device that the target does not serve.
    """
    profiles = device_profiles()
    profile = read_profile(Path(name)) if name.endswith(".toml") else profiles.get(name)
    if profile is None or target not in profile.targets:
        fitting = [entry.name for entry in profiles.values() if target in entry.targets]
        raise TargetError(
            "unknown device" if profile is None else "the device has no such target",
            where=f"--device {name}, target {target}",
            found=f"{name!r}" if profile is None else f"{name!r}, which has {', '.join(profile.targets)}",
            expected=f"one of {', '.join(fitting) or 'none yet'}",
            fix="See `edgewise devices`, or write a TOML file (docs/devices.md) and pass its path",
        )
    return profile


def read_profile(path: Path) -> DeviceProfile:
    """Read somebody's own profile.

    Raises:
        TargetError: no such file, not TOML, or it breaks the schema.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TargetError(
            "cannot read the device profile",
            where=str(path),
            found=getattr(error, "strerror", None) or "text that is not UTF-8",
            expected="a TOML file",
            fix="Check the path",
        ) from error
    return parse_profile(path.stem, text, where=str(path))


def parse_profile(name: str, text: str, where: str = "") -> DeviceProfile:
    """Read a profile's text; ``where`` names it in errors.

    Raises:
        TargetError: not TOML, or it breaks the schema: an unknown or missing key, another type, a table that is no target.
    """
    where = where or f"device {name!r}"
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TargetError(
            "cannot read the device profile",
            where=where,
            found=str(error),
            expected="TOML",
            fix="Correct the file at that place",
        ) from error
    _refuse_missing(table, {"summary": str, "targets": list}, where)
    _check_type("summary", table["summary"], str, where)
    targets = _strings("targets", table.pop("targets"), where)
    settings = {key: table.pop(key) for key in targets if isinstance(table.get(key), dict)}
    _refuse_unknown(table, {"summary": str, **dict.fromkeys([*FACTS, *targets])}, where)
    summary = table.pop("summary")
    _check_facts(table, where)
    return DeviceProfile(name, summary, targets, facts=table, settings=settings)


def _check_facts(facts: dict[str, Any], where: str) -> None:
    for key, value in facts.items():
        # A key that is a target's name but holds no table: FACTS has no type for it.
        _check_type(key, value, FACTS[key][0] if key in FACTS else dict, where)
        if isinstance(value, list):
            _strings(key, value, where)
        if isinstance(value, int) and value <= 0:
            raise _bad(f"{key} = {value}", "a positive number", where)


def _strings(key: str, value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(entry, str) for entry in value):
        raise _bad(f"{key} = {value!r}", f"{key} as a list of strings with at least one entry", where)
    return tuple(value)


def _check_type(key: str, value: Any, wanted: type, where: str) -> None:
    # To Python a bool is an int, to a profile it is not.
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise _bad(f"{key} = {value!r}", f"{key} of type {_TOML_NAMES.get(wanted, wanted.__name__)}", where)


_TOML_NAMES = {str: "string", int: "integer", list: "array", dict: "table", bool: "boolean", float: "float"}


def _refuse_unknown(table: Mapping[str, Any], known: Mapping[str, Any], where: str) -> None:
    unknown = [key for key in table if key not in known]
    if unknown:
        raise _bad(f"the unknown key {unknown[0]!r}", f"keys among {', '.join(known) or 'none'}", where)


def _refuse_missing(table: Mapping[str, Any], required: Mapping[str, Any], where: str) -> None:
    missing = [key for key in required if key not in table]
    if missing:
        raise _bad(f"no {missing[0]!r}", f"the keys {', '.join(required)}", where)


def _bad(found: str, expected: str, where: str) -> TargetError:
    return TargetError(
        "the device profile breaks the schema",
        where=where,
        found=found,
        expected=expected,
        fix="Correct the file; docs/devices.md lists every key",
    )
