"""Engines side by side on this processor: libedgewise, ONNX Runtime, and OpenVINO where it is installed.

    pip install edgewise[bench]                                    OpenVINO, NNCF and timm
    python benchmarks/cpu.py                                       int8, all networks, one thread
    python benchmarks/cpu.py --network deit_small_patch16_224 --precision f32
    python benchmarks/cpu.py --precision sparse44 --json > cpu.json
    python benchmarks/cpu.py --prepare                             make all files and check them, for a later run with --prepared

Networks are timm's with seeded random weights (zoo.py), exported by edgewise and quantized on random data. Each engine's outputs are
compared first: in float with PyTorch, in int8 with ONNX Runtime on the same graph, node by node. Then all engines run in turns, and
the medians are compared; with more threads each engine runs in a process of its own, since waiting threads spin.
``openvino_nncf`` is OpenVINO with the network quantized by its own NNCF, from the float graph and the same data.
Load, first run and memory are those of a fresh process each; for the native engine also what its weights and arena take. The peak is measured in the same run (kernels.py).
``sparse42`` and ``sparse44`` prune by magnitude in blocks of 4 inputs by 2 (4) outputs, to 50 % (75 %); the other engines get these weights too.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
NETWORKS = (
    "deit_small_patch16_224",
    "resnet50",
    "convnext_tiny",
    "swin_tiny_patch4_window7_224",
    "repvit_m1_1",
    "fastvit_t8",
    "mobilenetv2_100",
    "efficientvit_m4",
    "shvit_s1",
    "mobilenetv4_conv_small",
)
ENGINES = ("native", "onnxruntime", "openvino", "openvino_nncf")
SIZES = {"fastvit_t8": 256}
PATTERNS = {"sparse42": ("block:4x2", 0.5), "sparse44": ("block:4x4", 0.75)}
FLOAT_DB, INT8_DB, NNCF_DB = 60.0, 12.0, 3.0  # NNCF's own steps are compared with PyTorch
TRANSFORMERS = ("deit_small_patch16_224", "swin_tiny_patch4_window7_224", "efficientvit_m4")
Run = Callable[[dict[str, np.ndarray]], list[np.ndarray]]


def prepared(name: str, precision: str, folder: Path) -> tuple[Path, np.ndarray]:
    """The ONNX file and PyTorch's output for the sample; both are kept in the folder."""
    path, kept = folder / f"{name}.{precision}.onnx", folder / f"{name}.npy"
    if not (path.is_file() and kept.is_file()):
        make(name, precision, path, kept)
    return path, np.load(kept)


def make(name: str, precision: str, path: Path, kept: Path) -> None:
    import torch

    from edgewise.exporter import export
    from edgewise.runtime.onnx_file import write_onnx
    from edgewise.runtime.tensors import TensorSpec

    size = SIZES.get(name, 224)
    network = load_zoo().build(name)
    with torch.no_grad():
        np.save(kept, network(torch.from_numpy(image(size))).numpy())
    exported = export(network, inputs=[TensorSpec("image", "float32", (1, 3, size, size))], verify=False)
    write_onnx(rewritten(exported.model, precision), path)


def rewritten(model: Any, precision: str) -> Any:
    """Pruned and quantized as asked."""
    from edgewise.quantize import prune, quantize
    from edgewise.runtime.data import random_data
    from edgewise.targets import find_device
    from edgewise.targets.cpu import TARGET
    from edgewise.targets.nodes import tensor_spec

    if precision == "f32":
        return model
    if precision in PATTERNS:
        pattern, sparsity = PATTERNS[precision]
        model = prune(model, pattern=pattern, sparsity=sparsity).model
    data = random_data([tensor_spec(value) for value in model.graph.inputs], 4, seed=0)
    spec = TARGET.quantization("int8", find_device(TARGET.default_device, "cpu"))
    return quantize(model, spec, data, method="minmax", samples=4, allow_random=True).model


def image(size: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1, 3, size, size)).astype(np.float32)


def load_zoo() -> Any:
    return load_script("zoo")


def load_script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"benchmarks/{name}.py is missing")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


# -- engines: a file made ahead of time, then opened


def build(engine: str, path: Path, again: bool) -> Path | None:
    """What an engine opens, the native one's macs beside it; None where it does not take part. Made anew, or found."""
    if engine == "openvino":
        return path
    if engine == "openvino_nncf":
        return by_nncf(path, again) if ".int8." in path.name else None
    from edgewise.runtime.onnx_file import read_onnx
    from edgewise.targets import BuildRequest, find_device
    from edgewise.targets.cpu import TARGET

    folder = path.with_suffix(f".{engine}")
    made = folder / {"native": "model.engine", "onnxruntime": "model.onnx"}[engine]
    if made.is_file() and not again:
        return made
    folder.mkdir(exist_ok=True)
    device = find_device(TARGET.default_device, "cpu")
    options = {"engine": engine} | ({"optimization": "all"} if engine == "onnxruntime" else {})
    result = TARGET.build(BuildRequest(read_onnx(path), folder, device, options))
    if result.kind != engine or folder / result.files[0] != made:
        raise SystemExit(f"{path.name}: {result.notes[0]}")
    (folder / "macs.json").write_text(json.dumps(result.settings.get("macs", {})))
    return made


def by_nncf(path: Path, again: bool) -> Path:
    """OpenVINO's own way to int8, from the float graph."""
    made = path.with_suffix(".nncf.xml")
    if made.is_file() and not again:
        return made
    import nncf
    import openvino

    name = path.name.split(".")[0]
    size, rng = SIZES.get(name, 224), np.random.default_rng(0)
    data = [{"image": rng.standard_normal((1, 3, size, size)).astype(np.float32)} for _ in range(4)]
    plain = openvino.Core().read_model(prepared(name, "f32", path.parent)[0])
    kind = nncf.ModelType.TRANSFORMER if name in TRANSFORMERS else None
    mixed = nncf.QuantizationPreset.MIXED
    openvino.save_model(nncf.quantize(plain, nncf.Dataset(data), subset_size=4, preset=mixed, model_type=kind), made)
    return made


def open_native(path: Path, threads: int) -> Run:
    from edgewise.runtime import _native  # type: ignore[attr-defined]

    engine = _native.Engine(str(path))
    context = _native.Context(engine, threads=threads)
    names = [port[0] for port in engine.inputs]
    return lambda inputs: context.run([inputs[name] for name in names])


def open_onnxruntime(path: Path, threads: int) -> Run:
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 4
    session = ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs)


def open_openvino(path: Path, threads: int) -> Run:
    import openvino

    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}
    if ".f32." in path.name:  # by itself it would compute in bfloat16
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    request = openvino.Core().compile_model(str(path), "CPU", settings).create_infer_request()
    return lambda inputs: [np.array(one) for one in request.infer(inputs).values()]


OPEN: dict[str, Callable[[Path, int], Run]] = {
    "native": open_native,
    "onnxruntime": open_onnxruntime,
    "openvino": open_openvino,
    "openvino_nncf": open_openvino,
}
MODULES = {"native": "edgewise.runtime._native", "openvino_nncf": "openvino"}


def installed(engine: str, prepared: bool) -> bool:
    """Whether its modules are there; NNCF itself is needed only to make files."""
    modules = [MODULES.get(engine, engine)] + (["nncf"] if engine == "openvino_nncf" and not prepared else [])
    return all(importlib.util.find_spec(module) is not None for module in modules)


# -- measurements


def fresh(engine: str, path: Path, size: int, options: argparse.Namespace) -> dict[str, float]:
    """Load, first run and memory in a process of its own; with several threads the median too."""
    seconds = 0.0 if options.threads == 1 else options.seconds / len(options.engine)
    command = [sys.executable, str(Path(__file__).resolve()), "--one", engine, str(path)]
    command += [str(size), str(options.threads), str(seconds)]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    if child.returncode:
        raise SystemExit(f"{engine}: {child.stderr.strip().splitlines()[-1]}")
    found: dict[str, float] = json.loads(child.stdout.splitlines()[-1])
    return found


def one(engine: str, path: Path, size: int, threads: int, seconds: float) -> dict[str, float]:
    importlib.import_module(MODULES.get(engine, engine))
    inputs = {"image": image(size)}
    before = high_water_bytes()
    start = time.perf_counter()
    run = OPEN[engine](path, threads)
    loaded = time.perf_counter()
    run(inputs)
    first = time.perf_counter()
    found = {
        "load_ms": 1e3 * (loaded - start),
        "first_run_ms": 1e3 * (first - loaded),
        "memory_bytes": high_water_bytes() - before,
    }
    if engine == "native":
        found["least_memory_bytes"] = weights_and_arena_bytes(path, threads)
    if seconds > 0:
        found["median_ms"] = medians({engine: run}, inputs, seconds)[engine]
    return found


def weights_and_arena_bytes(path: Path, threads: int) -> int:
    from edgewise.runtime import _native  # type: ignore[attr-defined]

    memory = _native.Context(_native.Engine(str(path)), threads=threads).memory()
    return int(memory["weights_bytes"] + memory["arena_bytes"])


def high_water_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def medians(runs: dict[str, Run], inputs: dict[str, np.ndarray], seconds: float) -> dict[str, float]:
    """In turns, so that a disturbance meets all."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run(inputs)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < 15:
        for name, run in runs.items():
            start = time.perf_counter()
            run(inputs)
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(found) for name, found in times.items()}


def db(wanted: np.ndarray, found: np.ndarray) -> float:
    noise = float(np.sum((wanted.astype(np.float64) - found) ** 2))
    return float("inf") if noise == 0 else 10 * float(np.log10(np.sum(wanted.astype(np.float64) ** 2) / noise))


def reference(path: Path, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """ONNX Runtime, node by node as ONNX defines it."""
    from edgewise.runtime.onnx_file import read_onnx
    from edgewise.runtime.onnx_runner import OnnxRunner

    return next(iter(OnnxRunner(read_onnx(path), threads=1, optimize=False).run(inputs).values()))


def measure(name: str, precision: str, options: argparse.Namespace, peak: float | None) -> list[dict[str, Any]]:
    """One network on all engines, checked before they are timed; nothing is timed with --prepare."""
    path, exact = prepared(name, precision, options.folder)
    size, inputs = SIZES.get(name, 224), {"image": image(SIZES.get(name, 224))}
    built = {
        engine: build(engine, path, not options.prepared)
        for engine in options.engine
        if installed(engine, options.prepared)
    }
    files = {engine: file for engine, file in built.items() if file is not None}
    runs = {engine: OPEN[engine](file, options.threads) for engine, file in files.items()}
    parity = checked(name, {engine: run(inputs)[0] for engine, run in runs.items()}, path, exact, inputs)
    if options.prepare:
        return []
    found = medians(runs, inputs, options.seconds) if options.threads == 1 else {}
    del runs
    own = {engine: fresh(engine, file, size, options) for engine, file in files.items()}
    found = found or {engine: row.pop("median_ms") for engine, row in own.items()}
    macs = sum(json.loads((files["native"].parent / "macs.json").read_text()).values()) if "native" in files else 0
    rivals = [found[engine] for engine in found if engine != "native"]
    return [
        {
            "network": name, "precision": precision, "engine": engine, "threads": options.threads, "median_ms": found[engine],
            "ratio_to_best_peer": found[engine] / min(rivals) if rivals else None,
            "share_of_peak": 2e-6 * macs / found[engine] / (peak * options.threads) if peak and macs else None,
            "sqnr_db": parity[engine], **own[engine],
        }
        for engine in files
    ]  # fmt: skip


def checked(
    name: str, outputs: dict[str, np.ndarray], path: Path, exact: np.ndarray, inputs: dict[str, np.ndarray]
) -> dict[str, float]:
    """Each engine's likeness in dB; ends the program where one computes another network."""
    wanted, least = (exact, FLOAT_DB) if ".f32." in path.name else (reference(path, inputs), INT8_DB)
    parity = {}
    for engine, found in outputs.items():
        nncf = engine == "openvino_nncf"
        parity[engine] = db(exact if nncf else wanted, found)
        if not parity[engine] >= (NNCF_DB if nncf else least):
            raise SystemExit(f"{name}, {engine}: {parity[engine]:.1f} dB against the reference, {least} are asked for")
    return parity


def show(row: dict[str, Any]) -> None:
    ratio = "" if row["ratio_to_best_peer"] is None else f"{row['ratio_to_best_peer']:.2f}"
    share = "" if row["share_of_peak"] is None else f"{row['share_of_peak']:.0%}"
    least = f"{row['least_memory_bytes'] / 1e6:7.1f}" if "least_memory_bytes" in row else ""
    print(
        f"{row['network']:32} {row['precision']:9} {row['engine']:13} {row['median_ms']:8.2f} {ratio:>6} {share:>6} "
        f"{row['sqnr_db']:7.1f} {row['load_ms']:8.1f} {row['first_run_ms']:8.1f} {row['memory_bytes'] / 1e6:8.1f} {least}",
        flush=True,
    )


def library_bytes() -> int:
    """Of the Python extension, which holds the library."""
    from edgewise.runtime import _native  # type: ignore[attr-defined]

    return Path(_native.__file__).stat().st_size


def main() -> int:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", action="append", default=[], help="only this one; repeatable")
    parser.add_argument("--precision", action="append", default=[], choices=["f32", "int8", *PATTERNS])
    parser.add_argument("--engine", action="append", default=[], choices=ENGINES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0, help="for a network, all engines together")
    parser.add_argument(
        "--folder", type=Path, default=Path("build/bench"), help="where ONNX files and engines are kept"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--prepare", action="store_true", help="make and check all files, and time nothing")
    parser.add_argument("--prepared", action="store_true", help="take the files of --prepare as they are")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        engine, path, size, threads, seconds = options.one
        print(json.dumps(one(engine, Path(path), int(size), int(threads), float(seconds))))
        return 0
    options.engine = options.engine or list(ENGINES)
    options.folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))
    peaks = {} if options.prepare else load_script("kernels").peaks()
    rows = []
    if not options.json:
        print("peak of one core:", ", ".join(f"{kind} {gops:.0f} GOPS" for kind, gops in peaks.items()))
        print(f"library with its Python binding: {library_bytes() / 1e6:.2f} MB")
        print(f"{'network':32} {'precision':9} {'engine':13} {'ms':>8} {'ratio':>6} {'peak':>6} {'dB':>7} {'load ms':>8} {'first ms':>8} {'MB':>8} {'weights + arena':>7}")  # fmt: skip
    for name in options.network or NETWORKS:
        for precision in options.precision or ["int8"]:
            found = measure(name, precision, options, peaks.get("f32" if precision == "f32" else "s8"))
            rows += found
            if not options.json:
                for row in found:
                    show(row)
    if options.json:
        print(json.dumps({"schema_version": 1, "peak_gops": peaks, "rows": rows}, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
