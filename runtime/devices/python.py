"""Python on a device: this package's runtime is sent along as one zip, and the bundle as another; nothing is installed there."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from edgewise.runtime.bundle import Bundle, save_reference
from edgewise.runtime.devices.address import Address
from edgewise.runtime.devices.answers import converse
from edgewise.runtime.devices.errors import DeviceError
from edgewise.runtime.devices.runners import Order
from edgewise.runtime.devices.shell import Finished, Shell
from edgewise.runtime.progress import Progress

_RUNTIME = Path(__file__).resolve().parents[1]
_LEAST = (3, 11)
_STAMP = (1980, 1, 1, 0, 0, 0)  # the same files make the same zip, which is sent once
_TAIL_LINES = 2
# The version, then what is not installed. The modules are not imported: some take seconds.
_ASK = "import sys; from importlib.util import find_spec; print(*sys.version_info[:2], *(m for m in ('numpy', *sys.argv[1:]) if not find_spec(m)))"


def run_there(
    device: Shell,
    address: Address,
    bundle: Bundle,
    order: Order,
    variants: Sequence[dict[str, Any]],
    progress: Progress,
    *,
    modules: Sequence[str] = (),
    environment: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Carry out an order there, see :mod:`edgewise.runtime.devices.there`; ``variants``: other engine settings to measure.

    The Python is ``runner`` of devices.toml, else ``python3``; it needs numpy and ``modules``, which the bundle's engine imports.

    Raises:
        DeviceError: no Python that can do it, the device vanishes, or the engine fails there.
    """
    if order.concurrency:
        raise DeviceError(
            "cannot run several contexts at once there", where=device.where, found=f"an engine of kind {bundle.manifest['engine']['kind']!r}",
            expected="an engine of libedgewise", fix="Leave --concurrency-sweep out, or build with --target cpu --engine native",
        )  # fmt: skip
    python = python_of(device)
    _check_python(device, python, modules)
    with tempfile.TemporaryDirectory(prefix="edgewise-") as name:
        folder = Path(name)
        runtime = device.push(_zip(folder / "runtime.zip", _runtime_files()), progress=progress)
        sent = device.push(_zip(folder / "bundle.zip", _bundle_files(bundle)), progress=progress)
        samples = None
        if order.samples is not None:
            save_reference(folder / "samples.npz", *([dict(each) for each in part] for part in order.samples))
            samples = device.push(folder / "samples.npz", progress=progress)
    own = {key: value for key, value in asdict(order).items() if key != "samples"}
    told = {
        **own,
        "sensors": _sensors(address, order),
        "path": sent,
        "function": "",
        "samples": samples,
        "variants": list(variants),
    }
    variables = [f"{name}={value}" for name, value in environment.items()]
    command = ["env", f"PYTHONPATH={runtime}", *variables, *python, "-m", "edgewise.runtime.devices.there"]
    cold = _carry_out(device, [*command, json.dumps(told)], progress)["cold"] if order.cold else None
    return _carry_out(device, [*command, json.dumps({**told, "cold": False})], progress) | {"cold": cold}


def _sensors(address: Address, order: Order) -> str | None:
    """The folder with ``sys`` whose sensors are to be read."""
    return None if address.meter or not order.energy else address.sensors or "/"


def _carry_out(device: Shell, command: list[str], progress: Progress) -> dict[str, Any]:
    """What a process there brings back."""
    answer, finished = converse(device, command, progress)
    if "error" in answer:
        raise DeviceError(**answer["error"] | {"where": f"{device.where}, {answer['error']['where']}"})
    if "result" not in answer:
        raise _crashed(device, python_of(device), finished)
    result: dict[str, Any] = answer["result"]
    return result


def python_of(device: Shell) -> list[str]:
    """How Python is started there: ``runner`` of devices.toml, else ``python3``."""
    return list(device.runner) or ["python3"]


def lacks(device: Shell, python: list[str], modules: Sequence[str]) -> str:
    """What the Python there lacks to run a bundle: empty for nothing, else in words.

    Raises:
        DeviceError: the device vanishes.
    """
    finished = device.run([*python, "-c", _ASK, *modules])
    version = tuple(int(part) for part in finished.text.split()[:2] if part.isdigit())
    if finished.status != 0:
        return " ".join(finished.stderr.split()[-12:]) or f"exit status {finished.status}"
    if version < _LEAST:
        return f"Python {'.'.join(map(str, version))}"
    missing = finished.text.split()[2:]
    return f"a Python without {', '.join(missing)}" if missing else ""


def _check_python(device: Shell, python: list[str], modules: Sequence[str]) -> None:
    if missing := lacks(device, python, modules):
        wanted = " and ".join(["numpy", *modules]) if modules else "numpy and the engine's library"
        raise DeviceError(
            "the device has no Python that can run the bundle", where=f"{device.where}, {' '.join(python)}", found=missing,
            expected=f"Python {'.'.join(map(str, _LEAST))} or later with {wanted}",
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
