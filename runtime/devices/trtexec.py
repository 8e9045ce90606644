"""NVIDIA's ``trtexec`` on a device without a Python for TensorRT: runs an engine, and tells times and outputs in files of JSON."""

from __future__ import annotations

import json
import re
import shlex
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edgewise.runtime.bundle import Bundle
from edgewise.runtime.compare import sums_of
from edgewise.runtime.devices.address import Address
from edgewise.runtime.devices.agents import agent_for, triple_of
from edgewise.runtime.devices.answers import converse, decode
from edgewise.runtime.devices.errors import DeviceError
from edgewise.runtime.devices.reference import Arrays
from edgewise.runtime.devices.runners import Order
from edgewise.runtime.devices.runners.native import samples_in
from edgewise.runtime.devices.shell import Shell
from edgewise.runtime.devices.watched import Watch
from edgewise.runtime.engines import model_file
from edgewise.runtime.progress import Progress

# By library: the program, and where JetPack and NVIDIA's packages put it outside of the PATH.
_PROGRAMS = {"tensorrt": ("trtexec", "/usr/src/tensorrt/bin/trtexec"), "tensorrt_rtx": ("tensorrt_rtx",)}
_LEAST_RUNS, _MOST_RUNS = 20, 10_000
_TIMES, _OUTPUTS, _LAYERS = "times.json", "outputs.json", "layers.json"
_LOADED = re.compile(r"(?:deserialized|loaded) in ([\d.]+) sec")
_VERSION = re.compile(r"\[TensorRT[^\]]*? v(\d+)\]")
# What it prints as soon as the timed runs are over.
_OVER = ("Warmup completed", "Timing trace")
_LINES = 3


def find_trtexec(device: Shell, library: str) -> str | None:
    """The program's path there; None: the device has none."""
    words = " ".join(f"command -v {shlex.quote(name)} ||" for name in _PROGRAMS.get(library, ()))
    return device.ask(f"{words} true") or None


def run_trtexec(
    device: Shell, address: Address, bundle: Bundle, order: Order, program: str, progress: Progress
) -> dict[str, Any]:
    """Check every sample, then measure on the first; latencies are those of copying in, computing and copying out.

    What trtexec does not tell is None: the first run and memory; ``warmup_ms`` is empty (it warms up for 200 ms by itself).

    Raises:
        DeviceError: the device vanishes, or trtexec refuses the engine.
    """
    if order.cold or order.concurrency:
        raise DeviceError(
            "trtexec cannot measure that", where=device.where, found="--cold" if order.cold else "--concurrency-sweep",
            expected="load and warm runs of one context", fix="Leave it out, or install the Python package tensorrt there (for --cold)",
        )  # fmt: skip
    inputs, references = order.samples or samples_in(bundle)
    triple = address.triple or triple_of(device.ask("uname -m"), device.where)
    agent = device.push(agent_for(triple, progress), executable=True, progress=progress)
    engine = device.push(model_file(bundle), progress=progress)
    place = device.ask("umask 077; mktemp -d")
    try:
        run = _Program(device, program, engine, place, bundle)
        outputs = []
        for index, sample in enumerate(inputs if references else ()):
            progress("check", index, len(inputs))
            run(
                sample, ["--iterations=1", "--duration=0", "--warmUp=0", f"--exportOutput={place}/{_OUTPUTS}"], progress
            )
            outputs.append(_outputs(run.told(_OUTPUTS), bundle))
        sums = sums_of([dict(each) for each in references], outputs) if references else []
        checked = {"engine": run.facts(), "samples": len(inputs), "sums": sums, "triple": triple}
        if order.check_only:
            return checked
        machine = [_machine(device, agent, progress)]
        watch = Watch(device, address, [agent], order.duration_s) if order.energy else None
        progress("measure", 0, order.runs)
        run(inputs[0], _measuring(order, place), progress, watch)
        machine.append(_machine(device, agent, progress))
        measured = _measured(run, order, machine, inputs[0])
        return {**checked, "engine": run.facts(), **measured, **(run.energy(watch, measured) if watch else {})}
    finally:
        device.ask(f"rm -rf {shlex.quote(place)}")


class _Program:
    """trtexec with one engine; ``said`` is what it printed last, ``heard`` the host's clock at each line of it."""

    def __init__(self, device: Shell, program: str, engine: str, place: str, bundle: Bundle) -> None:
        self._device, self._place, self.said = device, place, ""
        self.heard: list[tuple[float, str]] = []
        self._settings = bundle.manifest["engine"].get("settings", {})
        self._dynamic = {spec.name for spec in bundle.inputs if not all(isinstance(dim, int) for dim in spec.shape)}
        self._command = [program, f"--loadEngine={engine}"]
        if (core := self._settings.get("dla_core")) is not None:
            self._command.append(f"--useDLACore={core}")
        if self._settings.get("version_compatible"):
            self._command.append("--versionCompatible")  # else it refuses the runtime inside

    def __call__(self, sample: Arrays, words: Sequence[str], progress: Progress, watch: Watch | None = None) -> None:
        shapes = [
            f"{_quoted(name)}:{'x'.join(map(str, a.shape))}" for name, a in sample.items() if name in self._dynamic
        ]
        given = [f"{_quoted(name)}:{self._sent(array, progress)}" for name, array in sample.items()]
        more = [f"--shapes={','.join(shapes)}"] if shapes else []
        command = [*self._command, f"--loadInputs={','.join(given)}", *more, *words]
        self.heard = []
        finished = self._device.run(
            watch.beside(command) if watch else command, on_line=lambda line: self.heard.append((time.time(), line))
        )
        self.said = "\n".join([*(line for _, line in self.heard), finished.stderr])
        if finished.status != 0:
            errors = [line for line in self.said.splitlines() if "[E]" in line] or self.said.splitlines()
            raise DeviceError(
                "trtexec cannot run the engine", where=f"{self._device.where}, {self._command[0]}",
                found=" | ".join(errors[-_LINES:]) or f"exit status {finished.status}", expected="an engine of that TensorRT for that GPU",
                fix="Build it again with build_on for this device, or with the profile of its GPU",
            )  # fmt: skip

    def told(self, name: str) -> Any:
        """What it wrote into a file."""
        text = self._device.ask(f"cat {shlex.quote(f'{self._place}/{name}')}")
        try:
            return json.loads(text)
        except ValueError as error:
            raise DeviceError(
                "cannot read what trtexec wrote", where=f"{self._device.where}, {name}", found=str(error), expected="JSON",
                fix="Run it there by hand; another version may write another form",
            ) from error  # fmt: skip

    def energy(self, watch: Watch, measured: Mapping[str, Any]) -> dict[str, Any]:
        """``energy`` of the last run (or why it is not known), and when its timed runs were on the host's clock, if it said so."""
        over = next((at for at, line in self.heard if any(sign in line for sign in _OVER)), None)
        if over is None:
            return {"energy": "trtexec did not say when it had measured"}
        begin = over - measured["wall_s"]
        answer: dict[str, Any] = {}
        for at, line in self.heard:
            answer |= (told := decode(line))
            if "clock" in told:  # both lines took the same way, so its length does not count
                answer["ahead_s"] = at - told["clock"]
        window = (begin - answer.get("ahead_s", 0.0), over - answer.get("ahead_s", 0.0))
        return {"energy": watch.energy(answer, window, measured["count"]), "host_window": (begin, over)}

    def facts(self) -> dict[str, str]:
        version = _VERSION.search(self.said)
        library = str(self._settings["library"])
        built = str(self._settings.get("version", "unknown"))
        return {"library": library, "version": _dotted(version[1]) if version else built, "unit": "gpu", "through": "trtexec"}  # fmt: skip

    def load_ms(self) -> float | None:
        """Of the last run, where it said so."""
        seconds = _LOADED.search(self.said)
        return float(seconds[1]) * 1e3 if seconds else None

    def _sent(self, array: np.ndarray, progress: Progress) -> str:
        with tempfile.TemporaryDirectory(prefix="edgewise-") as folder:
            file = Path(folder) / "input"
            file.write_bytes(np.ascontiguousarray(array).tobytes())
            return self._device.push(file, progress=progress)


def _quoted(name: str) -> str:
    """Colons and commas part its lists."""
    return f"'{name}'" if re.search("[:,]", name) else name


def _dotted(number: str) -> str:
    """8601 is 8.6.1, 100300 is 10.3.0."""
    major, rest = divmod(int(number), 10_000 if len(number) > 4 else 1000)
    return f"{major}.{rest // 100}.{rest % 100}"


def _measuring(order: Order, place: str) -> list[str]:
    words = [f"--exportTimes={place}/{_TIMES}"]
    if order.duration_s > 0:
        words += [f"--duration={order.duration_s:g}"]
    elif order.runs is not None:
        words += [f"--iterations={order.runs}", "--duration=0"]
    else:
        words += [f"--iterations={_LEAST_RUNS}", f"--duration={order.min_time_s:g}"]
    if order.per_layer:
        words += ["--dumpProfile", "--separateProfileRun", f"--exportProfile={place}/{_LAYERS}"]
    return words


def _measured(
    run: _Program, order: Order, machine: Sequence[dict[str, Any]], sample: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    events = run.told(_TIMES)
    took = [float(event["latencyMs"]) for event in events]
    begin, end = float(events[0]["startH2dMs"]), float(events[-1]["endD2hMs"])
    # Of the load only what others made could count, and whose it was is not known.
    glances = [
        glance | {"busy_s": None, "total_s": None, "pace_us": None} for part in machine for glance in part["glances"]
    ]
    return {
        **{key: machine[0][key] for key in ("machine", "os", "governor", "clocks")},
        "load_ms": run.load_ms(),
        "first_run_ms": None,
        "warmup_ms": [],
        "runs_ms": took[: order.runs or _MOST_RUNS],
        "stable": True,
        "count": len(took),
        "series": _series(events) if order.duration_s > 0 else [],
        "own_cpu_s": 0.0,
        "wall_s": (end - begin) / 1e3,
        "resolution_ms": 0.0,
        "glances": glances,
        "memory_before_load_bytes": None,
        "peak_memory_bytes": None,
        "versions": {},
        "input_shapes": {name: list(array.shape) for name, array in sample.items()},
        "layers": _layers(run.told(_LAYERS)) if order.per_layer else None,
    }


def _series(events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A point for each second."""
    first = float(events[0]["startH2dMs"])
    seconds: dict[int, list[float]] = {}
    for event in events:
        seconds.setdefault(int((float(event["endD2hMs"]) - first) / 1e3), []).append(float(event["latencyMs"]))
    return [
        {"at_s": second + 1.0, "median_ms": median(took), "clock_mhz": None, "temperature_c": None}
        for second, took in sorted(seconds.items())
    ]


def _layers(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The first entry is the number of runs."""
    runs = int(entries[0].get("count", 0))
    return [
        {
            "name": e["name"],
            "op": "",
            "unit": "gpu",
            "median_ms": float(e.get("medianMs", e["averageMs"])),
            "runs": runs,
        }
        for e in entries
        if "name" in e
    ]


def _outputs(entries: Sequence[Mapping[str, Any]], bundle: Bundle) -> dict[str, np.ndarray]:
    made = {}
    for entry in entries:
        shape = [int(dim) for dim in str(entry["dimensions"]).split("x") if dim]
        made[str(entry["name"])] = np.array(entry["values"], np.float64).reshape(shape)
    return {spec.name: made[spec.name].astype(spec.dtype) for spec in bundle.outputs if spec.name in made}


def _machine(device: Shell, agent: str, progress: Progress) -> dict[str, Any]:
    """Processor, clocks and temperature by our own program, which needs nothing there."""
    answer, finished = converse(device, [agent, "--machine"], progress)
    if "result" not in answer:
        raise device.failed("edgewise-bench --machine", finished)
    told: dict[str, Any] = answer["result"]
    return told
