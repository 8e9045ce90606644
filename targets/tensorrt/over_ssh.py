"""Building with a machine's own TensorRT: on this one, or over SSH, where the kit goes there and the engine comes back into the bundle."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgewise.runtime.devices import Finished, open_device, parse_address
from edgewise.runtime.devices.address import LOCAL, Address
from edgewise.runtime.errors import GateError
from edgewise.targets.base import BuildResult
from edgewise.targets.errors import TargetError
from edgewise.targets.tensorrt.ahead import ONNX
from edgewise.targets.tensorrt.on_device import BUILD_SETTINGS, SCRIPT

ENGINE, REPORT = "model.engine", "model.engine.json"
_GATE = 1
_LINES = 4


def build_there(
    folder: Path, kit: BuildResult, address: str, *, trtexec: bool, allow_other_precision: bool
) -> BuildResult:
    """Build from a kit with the TensorRT (Python package or ``trtexec``) of this machine, or of a host to which the kit is sent.

    Args:
        folder: where the kit lies; ``model.engine`` and ``model.engine.json`` are written beside it.
        kit: what ``write_build_kit`` gave.
        address: ``local``, ``ssh://user@host[:port][?key=FILE]`` or a name in ``devices.toml``.
        trtexec: use trtexec although the Python package may be there.
        allow_other_precision: keep an engine without the precision asked for.

    Raises:
        DeviceError: the host cannot be reached, or vanishes.
        GateError: the engine computes in another precision than the graph asks for.
        TargetError: the host (or this machine) refuses or cannot build; says what it said.
    """
    flags = ["--trtexec"] * trtexec + ["--allow-other-precision"] * allow_other_precision
    found = parse_address(address)
    if found.kind == LOCAL:
        _build_here(folder, flags)
    else:
        _build_away(folder, flags, found)
    report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    return _adopted(kit, report, address)


def _build_here(folder: Path, flags: list[str]) -> None:
    """In a process of its own, as anybody would run the script."""
    command = [sys.executable, str(folder / SCRIPT), "--folder", str(folder), *flags]
    done = subprocess.run(command, capture_output=True, check=False)
    _check(Finished(done.returncode, done.stdout, done.stderr.decode("utf-8", "replace")), "this machine")


def _build_away(folder: Path, flags: list[str], address: Address) -> None:
    with open_device(address) as shell:
        place = shell.ask("umask 077; mktemp -d")
        try:
            for name in (ONNX, BUILD_SETTINGS, SCRIPT):
                shell.ask(f"cp {shlex.quote(shell.push(folder / name))} {shlex.quote(f'{place}/{name}')}")
            finished = shell.run(["python3", f"{place}/{SCRIPT}", *flags])
            _check(finished, shell.where)
            for name in (ENGINE, REPORT):
                shell.pull(f"{place}/{name}", folder / name)
        finally:
            shell.ask(f"rm -rf {shlex.quote(place)}")


def _check(finished: Finished, machine: str) -> None:
    if finished.status == 0:
        return
    said = " ".join(finished.stderr.splitlines()[-_LINES:]).removeprefix("error: ") or finished.text[-400:]
    kind = GateError if finished.status == _GATE else TargetError
    raise kind(
        "the device did not build the engine",
        where=f"{machine}, {SCRIPT}",
        found=said.rstrip(".") or f"exit status {finished.status}",
        expected="an engine in the precision that was asked for, built by the device's own TensorRT",
        fix="See what it said; the bundle without build_on holds the same kit, to be run there by hand",
    )


def _adopted(kit: BuildResult, report: dict[str, Any], address: str) -> BuildResult:
    """The kit's result with the engine in place of the plan, under its TensorRT version, SM and driver."""
    gpu, version = report["gpu"], report["tensorrt"]
    where = f"{gpu['name']}, SM{gpu['sm']}, driver {gpu.get('driver', 'unknown')}, TensorRT {version}"
    return replace(
        kit,
        files=[ENGINE, *kit.files],
        versions={**kit.versions, "tensorrt": version},
        layers=[
            {"name": layer["name"], "op": layer["kind"], "precision": layer["precision"], "unit": "gpu"}
            for layer in report["layers"]
        ],
        settings={
            **kit.settings, "model": ENGINE, "engine_built": True, "version": version, "sm": gpu["sm"],
            "driver": gpu.get("driver", "unknown"), "listing": REPORT,
        },
        notes=[*kit.notes[:-1], f"Built on {address}: {where}."],
        varying=[ENGINE, REPORT],
        proof=report["proof"],
    )  # fmt: skip
