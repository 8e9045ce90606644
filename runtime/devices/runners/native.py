"""Engine files of libedgewise: the static agent is sent along, checks the outputs there, and measures."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import Any

from edgewise.runtime.bundle import REFERENCE, Bundle
from edgewise.runtime.data import random_data
from edgewise.runtime.devices.address import Address
from edgewise.runtime.devices.agents import agent_for, triple_of
from edgewise.runtime.devices.answers import converse
from edgewise.runtime.devices.errors import DeviceError
from edgewise.runtime.devices.reference import write_plain_reference
from edgewise.runtime.devices.runners import Order
from edgewise.runtime.devices.shell import Finished, Shell, cannot_start
from edgewise.runtime.devices.watched import Watch
from edgewise.runtime.engines import model_file
from edgewise.runtime.profile.roofline import find_peak
from edgewise.runtime.progress import Progress

# By ew_status, and the agent's own (runtime/native/bench/failure.h): what was expected, and what the user can do.
_ADVICE = {
    3: ("a whole engine file of this format", "Build the bundle again with this version of edgewise"),
    4: ("a processor for which the engine was built", "Build the bundle again with --device for that device's processor"),
    5: ("enough memory", "Free some memory there, or use a smaller network or fewer threads"),
    65: ("the network's own inputs and outputs", "Build the bundle again"),
}  # fmt: skip
_NO_ADVICE = ("an engine that runs there", "Run the bundle on this machine to see whether it fails here too")
not_over_adb = ""


def measure(device: Shell, address: Address, bundle: Bundle, order: Order, progress: Progress) -> dict[str, Any]:
    """See :class:`~edgewise.runtime.devices.runners.Runner`."""
    triple = address.triple or triple_of(device.ask("uname -m"), device.where)
    agent = device.push(agent_for(triple, progress), executable=True, progress=progress)
    engine = device.push(model_file(bundle), progress=progress)
    with tempfile.TemporaryDirectory(prefix="edgewise-") as folder:
        plain = Path(folder) / "reference.bin"
        write_plain_reference(plain, *(order.samples or samples_in(bundle)))
        reference = device.push(plain, progress=progress)
    start = [*device.runner, agent]
    cold = _cold(device, [*start, engine, reference], order, progress) if order.cold else None
    program = [*start, engine, reference, *_options(order)]
    if order.check_only or not order.energy:
        measured = _run(device, program, progress)
    else:
        measured = _measure(device, Watch(device, address, start, order.duration_s), program, progress)
    macs = bundle.manifest["engine"].get("settings", {}).get("macs") or {}
    for layer in measured["layers"] or []:
        layer["macs"] = macs.get(layer["name"])
    if measured["layers"]:
        measured["peak"] = find_peak(
            measured, order.threads, lambda words: _run(device, [*start, *words], progress), progress
        )
    return measured | {"versions": {"agent": measured["engine"]["version"]}, "triple": triple, "cold": cold}


def _measure(device: Shell, watch: Watch, program: list[str], progress: Progress) -> dict[str, Any]:
    """With ``energy``, or the reason why it is not known."""
    answer = _answer(device, watch.beside(program), progress)
    measured: dict[str, Any] = answer["result"]
    return measured | {"energy": watch.energy(answer, tuple(measured["window"]), measured["count"])}


def _cold(device: Shell, command: list[str], order: Order, progress: Progress) -> dict[str, Any]:
    """In a process of its own, before anything else has read the engine's file."""
    progress("start cold", 0, None)
    return _run(device, [*command, "--threads", str(order.threads), "--cold"], progress)


def samples_in(bundle: Bundle) -> tuple[list[Any], list[Any]]:
    """The bundle's samples with their outputs; without them a random input, and no outputs."""
    if REFERENCE in bundle.manifest["files"] and (own := bundle.reference())[0]:
        return own
    return [sample.inputs for sample in random_data(bundle.inputs, 1)], []


def _options(order: Order) -> list[str]:
    words = ["--threads", str(order.threads), "--min-time", str(order.min_time_s), "--duration", str(order.duration_s)]
    words += [] if order.runs is None else ["--runs", str(order.runs)]
    words += [] if order.warmup is None else ["--warmup", str(order.warmup)]
    words += ["--per-layer"] if order.per_layer else []
    words += ["--concurrency", ",".join(map(str, order.concurrency))] if order.concurrency else []
    return words + (["--check-only"] if order.check_only else [])


def _run(device: Shell, command: list[str], progress: Progress) -> dict[str, Any]:
    result: dict[str, Any] = _answer(device, command, progress)["result"]
    return result


def _answer(device: Shell, command: list[str], progress: Progress) -> dict[str, Any]:
    """All that the agent says; ``result`` is there."""
    answer, finished = converse(device, command, progress)
    if "error" in answer:
        status, what, found = (answer["error"][key] for key in ("status", "what", "found"))
        expected, fix = _ADVICE.get(status, _NO_ADVICE)
        raise DeviceError(what, where=device.where, found=found, expected=expected, fix=fix)
    if "result" not in answer:
        raise _crashed(device, command, finished)
    return answer


def _crashed(device: Shell, command: list[str], finished: Finished) -> DeviceError:
    said = " ".join(finished.stderr.split())
    if cannot_start(finished):
        return DeviceError(
            "the device cannot start the agent", where=f"{device.where}, {shlex.join(command[:2])}", found=said,
            expected="a program for its processor and a folder from which programs may start",
            fix="Name the triple, the folder or the runner in devices.toml (docs/devices.md)",
        )  # fmt: skip
    # A shell gives 128 and the signal's number.
    how = f"signal {finished.status - 128}" if finished.status > 128 else f"exit status {finished.status}"
    return DeviceError(
        "the agent ended without an answer", where=device.where, found=how + (f" ({said})" if said else ""), expected="a result",
        fix="Look whether the device's memory ran out (signal 9) or its processor lacks an instruction (signal 4)",
    )  # fmt: skip
