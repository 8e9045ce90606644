"""Python on a device: this package's runtime is sent along as one zip, and the bundle as another; nothing is installed there."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgewise.runtime.bundle import Bundle, save_reference
from edgewise.runtime.devices.answers import converse
from edgewise.runtime.devices.errors import DeviceError
from edgewise.runtime.devices.runners import Order
from edgewise.runtime.devices.shell import Finished, Shell
from edgewise.runtime.progress import Progress

_RUNTIME = Path(__file__).resolve().parents[1]
_LEAST = (3, 11)
_STAMP = (1980, 1, 1, 0, 0, 0)  # the same files make the same zip, which is sent once
_TAIL_LINES = 2


def run_there(
    device: Shell, bundle: Bundle, order: Order, variants: Sequence[dict[str, Any]], progress: Progress
) -> dict[str, Any]:
    """Carry out an order there, see :mod:`edgewise.runtime.devices.there`; ``variants``: other engine settings to measure.

    The Python is ``runner`` of devices.toml, else ``python3``; it needs numpy and what the bundle's engine needs.

    Raises:
        DeviceError: no Python that can do it, the device vanishes, or the engine fails there.
    """
    python = list(device.runner) or ["python3"]
    _check_python(device, python)
    with tempfile.TemporaryDirectory(prefix="edgewise-") as name:
        folder = Path(name)
        runtime = device.push(_zip(folder / "runtime.zip", _runtime_files()), progress=progress)
        sent = device.push(_zip(folder / "bundle.zip", _bundle_files(bundle)), progress=progress)
        samples = None
        if order.samples is not None:
            save_reference(folder / "samples.npz", *([dict(each) for each in part] for part in order.samples))
            samples = device.push(folder / "samples.npz", progress=progress)
    own = {key: value for key, value in asdict(order).items() if key != "samples"}
    told = {**own, "path": sent, "function": "", "samples": samples, "variants": list(variants)}
    command = ["env", f"PYTHONPATH={runtime}", *python, "-m", "edgewise.runtime.devices.there", json.dumps(told)]
    answer, finished = converse(device, command, progress)
    if "error" in answer:
        raise DeviceError(**answer["error"] | {"where": f"{device.where}, {answer['error']['where']}"})
    if "result" not in answer:
        raise _crashed(device, python, finished)
    result: dict[str, Any] = answer["result"]
    return result


def _check_python(device: Shell, python: list[str]) -> None:
    finished = device.run([*python, "-c", "import sys; print(*sys.version_info[:2]); import numpy"])
    version = tuple(int(part) for part in finished.text.split() if part.isdigit())
    if finished.status == 0 and version >= _LEAST:
        return
    said = " ".join(finished.stderr.split()[-12:]) or f"exit status {finished.status}"
    raise DeviceError(
        "the device has no Python that can run the bundle", where=f"{device.where}, {' '.join(python)}",
        found=f"Python {'.'.join(map(str, version))}" if finished.status == 0 else said,
        expected=f"Python {'.'.join(map(str, _LEAST))} or later with numpy and the engine's library",
        fix="Install it there, or name another Python as `runner` in devices.toml (docs/devices.md)",
    )  # fmt: skip


def _crashed(device: Shell, python: list[str], finished: Finished) -> DeviceError:
    said = " | ".join(finished.stderr.strip().splitlines()[-_TAIL_LINES:])
    return DeviceError(
        "Python ended without an answer on the device", where=f"{device.where}, {' '.join(python)}",
        found=f"exit status {finished.status}" + (f" ({said})" if said else ""), expected="a result",
        fix="Look whether the device's memory ran out, or run the bundle there by hand",
    )  # fmt: skip


def _runtime_files() -> Iterable[tuple[str, bytes]]:
    """Python's files alone; nothing of edgewise but the runtime is there, so its own first file is empty."""
    yield "edgewise/__init__.py", b""
    for file in sorted(_RUNTIME.rglob("*.py")):
        yield f"edgewise/runtime/{file.relative_to(_RUNTIME).as_posix()}", file.read_bytes()


def _bundle_files(bundle: Bundle) -> Iterable[tuple[str, bytes]]:
    for file in sorted(bundle.path.rglob("*")):
        if file.is_file():
            yield f"bundle.edge/{file.relative_to(bundle.path).as_posix()}", file.read_bytes()


def _zip(path: Path, files: Iterable[tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files:
            archive.writestr(zipfile.ZipInfo(name, _STAMP), content)
    return path
