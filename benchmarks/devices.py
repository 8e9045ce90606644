"""Whether measurements can be believed: `profile` against a loop in C, its spread, a device over SSH, ten million inferences.

Run it on an idle machine; with `--device ssh://me@localhost` the third part too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import edgewise
from edgewise.runtime.bundle import open_bundle

_ROOT = Path(__file__).resolve().parents[1]
_INVOCATIONS = 5
_AT_MOST = 20
_RUNS = 10_000
_LOOPS = 10_000_000
_SHARED = 1.2
# 5 MB of weights in float32 and a few milliseconds; and a network that is hardly more than a call.
_NETS = {
    "five_megabytes": ([(64, 3, 3, 3), (128, 64, 3, 3), (256, 128, 3, 3), (384, 256, 3, 3)], 28),
    "tiny": ([(4, 3, 1, 1)], 4),
}


def network(convolutions: list[tuple[int, ...]], side: int) -> onnx.ModelProto:
    """Convolutions with ReLU, each with a stride of 2 but the first."""
    generator, name, nodes, weights = np.random.default_rng(0), "x", [], []
    for index, shape in enumerate(convolutions):
        weights.append(onnx.numpy_helper.from_array(generator.normal(0, 0.05, shape).astype(np.float32), f"w{index}"))
        pads, strides = [shape[2] // 2] * 4, [1 if index == 0 else 2] * 2
        nodes.append(onnx.helper.make_node("Conv", [name, f"w{index}"], [f"c{index}"], pads=pads, strides=strides))
        nodes.append(onnx.helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        name = f"r{index}"
    nodes.append(onnx.helper.make_node("GlobalAveragePool", [name], ["y"]))
    ports = [
        onnx.helper.make_tensor_value_info(port, onnx.TensorProto.FLOAT, shape)
        for port, shape in (("x", [1, 3, side, side]), ("y", [1, convolutions[-1][0], 1, 1]))
    ]
    graph = onnx.helper.make_graph(nodes, "net", ports[:1], ports[1:], weights)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)


def built(folder: Path, name: str) -> Path:
    """A float bundle of libedgewise."""
    onnx.save(network(*_NETS[name]), folder / f"{name}.onnx")
    bundle = folder / f"{name}.edge"
    edgewise.build(folder / f"{name}.onnx", bundle, target="cpu", options={"engine": "native"})
    return bundle


def program(name: str, folder: Path) -> Path:
    """A C program of this folder, linked with libedgewise as it is built from source here."""
    build, made = _ROOT / ".cache" / "native-release", folder / name
    tool = Path(sys.executable).with_name("cmake")
    cmake = str(tool) if tool.is_file() else "cmake"
    for command in (
        [cmake, "-S", _ROOT / "runtime/native", "-B", build], [cmake, "--build", build, "--parallel", "2", "--target", "edgewise_static"],
    ):  # fmt: skip
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
    words = [
        "cc",
        "-O2",
        _ROOT / "benchmarks" / f"{name}.c",
        f"-I{_ROOT / 'runtime/native/include'}",
        build / "libedgewise.a",
    ]
    subprocess.run([*map(str, words), "-lstdc++", "-lm", "-pthread", "-o", str(made)], check=True)
    return made


def said(*command: str | Path) -> str:
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout


def agreement(folder: Path) -> dict[str, Any]:
    """Medians in turns: `edgewise profile --threads 1` in a process of its own, and the loop in C, until five had the core to themselves."""
    bundle, loop = built(folder, "five_megabytes"), program("loop", folder)
    engine = open_bundle(bundle).file("model.engine")
    cli = Path(sys.executable).with_name("edgewise")
    seen: list[dict[str, Any]] = []
    while len(seen) < _AT_MOST and len(alone(seen)) < _INVOCATIONS:
        profile = json.loads(said(cli, "profile", bundle, "--threads", "1", "--runs", str(_RUNS), "--json"))
        loop_ms = float(said(loop, engine, str(_RUNS)))
        pace_us = [glance["pace_us"] for glance in profile["glances"]]
        seen.append({"profile_ms": profile["latency_ms"]["median"], "loop_ms": loop_ms, "pace_us": pace_us})
    return {"engine_bytes": engine.stat().st_size, "alone": medians(alone(seen)), "all": medians(seen)}


def alone(seen: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those in which at most half of the looks found the core shared: on the others this machine was not idle, whatever it ran itself."""
    own_us = min((min(part["pace_us"]) for part in seen), default=0.0)
    for part in seen:
        part["shared"] = sum(pace > _SHARED * own_us for pace in part["pace_us"]) / len(part["pace_us"])
    return [part for part in seen if part["shared"] <= 0.5]


def medians(seen: list[dict[str, Any]]) -> dict[str, Any]:
    """What five or more invocations have in common; nothing of none."""
    told: dict[str, Any] = {name: [part[name] for part in seen] for name in ("profile_ms", "loop_ms", "shared")}
    if seen:
        middle, plain = statistics.median(told["profile_ms"]), statistics.median(told["loop_ms"])
        told["difference"] = middle / plain - 1
        told["spread"] = (max(told["profile_ms"]) - min(told["profile_ms"])) / middle
        told["spread_of_the_loop"] = (max(told["loop_ms"]) - min(told["loop_ms"])) / plain
    return told


def reached(folder: Path, device: str) -> dict[str, Any]:
    """Twice the check of a bundle on a device: seconds in all, and bytes that were sent."""
    bundle = built(folder, "five_megabytes")
    told: dict[str, Any] = {}
    for name in ("first", "second"):
        sent: list[str] = []

        def progress(task: str, done: int, total: int | None, sent: list[str] = sent) -> None:
            if task == "send to the device":
                sent.append(f"{done} of {total}")

        start = time.perf_counter()
        edgewise.verify(bundle, device=device, progress=progress)
        told[name] = {"seconds": time.perf_counter() - start, "sent": sent[-1:]}
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", help="address of a device")
    parser.add_argument("--loops", type=int, default=_LOOPS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(json.dumps({"agreement": agreement(folder)}, indent=1))
        if options.device:
            print(json.dumps({"reached": reached(folder, options.device)}, indent=1))
        tiny = open_bundle(built(folder, "tiny")).file("model.engine")
        print(said(program("endurance", folder), tiny, str(options.loops)))


if __name__ == "__main__":
    main()
