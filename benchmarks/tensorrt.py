"""Engines of TensorRT for RTX, built without a GPU: how much of timm builds, and the networks of the examples for four architectures.

    python benchmarks/tensorrt.py zoo --results zoo.jsonl              every timm family in float32, float16 and int8, for SM89
    python benchmarks/tensorrt.py zoo --results zoo.jsonl --seconds 150   a piece of it; the next call goes on where this one ended
    python benchmarks/tensorrt.py zoo --results zoo.jsonl --graphs graphs   keeps exported networks there; the next run reads them
    python benchmarks/tensorrt.py zoo --results zoo.jsonl --precision int8  one of the three, or two; a later call adds the others
    python benchmarks/tensorrt.py networks --results networks.jsonl    trained networks for SM75, SM86, SM89, SM120, dynamic batch
    python benchmarks/tensorrt.py show --results zoo.jsonl             the table

Of each family the smallest model, with seeded random weights (`benchmarks/zoo.py`), exported and calibrated on random images: what is
asked here is whether the builder builds, and in which type the products run, as it says itself. Each model has a process of its own. The
builder's own settings are those of `edgewise build`: optimisation level 3, no timing cache, for there is no GPU on which it could time.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

# Packages look for optional ones by name; scripts beside this one must not answer ("tensorrt" among them).
sys.path = [place for place in sys.path if Path(place or ".").resolve() != Path(__file__).resolve().parent]

SEED = 0
_GOAL = 0.95
_DEVICE = "rtx-4070"
_SMS = {75: "t4", 86: "rtx-3060", 89: "rtx-4070", 120: "rtx-5080"}
PRECISIONS = ("float32", "float16", "int8")
NETWORKS = ("digits", "resnet20", "squeezenet", "fastestdet", "ultraface", "minilm", "deit_small_patch16_224")


def _beside(name: str) -> ModuleType:
    """Another benchmark as a module."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def built(model: Any, device: str, precision: str, options: dict[str, Any]) -> dict[str, Any]:
    """Build one engine; gives seconds, bytes and products by type, or the error."""
    from edgewise.runtime.errors import EdgewiseError
    from edgewise.targets import BuildRequest, find_device, targets

    chosen = {"precision": "float16" if precision == "int8" else precision} | options
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        try:
            request = BuildRequest(model, Path(folder), find_device(device, "tensorrt"), chosen)
            result = targets()["tensorrt"].build(request)
        except EdgewiseError as error:
            return {"builds": False, "error": str(error)[:600]}
        size = (Path(folder) / "model.engine").stat().st_size
    row = {"builds": True, "seconds": round(time.monotonic() - start, 1), "bytes": size}
    return row | {"products": result.proof["products"], "layers": len(result.layers)}


def in_precision(model: Any, precision: str, data: Callable[[], Any], random: bool) -> Any:
    """The graph, quantized where int8 is asked for."""
    from edgewise.quantize import quantize
    from edgewise.targets import find_device, targets

    if precision != "int8":
        return model
    spec = targets()["tensorrt"].quantization("int8", find_device(_DEVICE, "tensorrt"))
    return quantize(model, spec, data(), samples=1 if random else 16, allow_random=random).model


def zoo_model(name: str, place: Path | None, precisions: Sequence[str]) -> dict[str, Any]:
    """One timm model in each of the precisions."""
    from edgewise.runtime.data import random_data
    from edgewise.runtime.errors import EdgewiseError
    from edgewise.targets.nodes import tensor_spec

    row: dict[str, Any] = {}
    try:
        graph = _zoo_graph(name, place)
    except EdgewiseError as error:
        return {"error": str(error)}
    specs = [tensor_spec(value) for value in graph.graph.inputs]
    for precision in precisions:
        try:
            formed = in_precision(graph, precision, lambda: random_data(specs, 1, seed=SEED), random=True)
        except EdgewiseError as error:
            row[precision] = {"builds": False, "error": str(error)}
            continue
        row[precision] = built(formed, _DEVICE, precision, {})
    return row


def _zoo_graph(name: str, place: Path | None) -> Any:
    """The exported model; from ``place`` when it lies there, else exported and kept there."""
    from edgewise.runtime.onnx_file import read_onnx, write_onnx

    if place is not None and place.is_file():
        return read_onnx(place)
    from edgewise.exporter import export
    from edgewise.exporter.timm_arch import import_timm
    from edgewise.runtime.tensors import TensorSpec

    model = _beside("zoo").build(name)
    size = import_timm().data.resolve_model_data_config(model)["input_size"]
    graph = export(model, inputs=[TensorSpec("image", "float32", (1, *size))], verify=False).model
    if place is not None:
        write_onnx(graph, place)
    return graph


def trained_network(name: str) -> dict[str, Any]:
    """One network of the examples in float16 and int8 for each architecture, its batch dynamic."""
    graph, calibration = _dynamic(name)
    row: dict[str, Any] = {}
    for precision in ("float16", "int8"):
        formed = in_precision(
            graph, precision, calibration, random=name not in _beside("accuracy").NETWORKS | {"digits": 0}
        )
        for sm, device in _SMS.items():
            options = {"allow_other_precision": True} if sm == 75 and precision == "int8" else {}
            row[f"{precision} SM{sm}"] = built(formed, device, precision, options)
    return row


def _dynamic(name: str) -> tuple[Any, Callable[[], Any]]:
    """A trained network with a dynamic batch, and its calibration data."""
    from edgewise.exporter import export
    from edgewise.runtime.data import open_data, random_data
    from edgewise.runtime.preprocess import Preprocess
    from edgewise.runtime.tensors import TensorSpec

    accuracy = _beside("accuracy")
    if name == "digits":
        folder = f"{accuracy.ROOT}/examples/digits"
        spec = TensorSpec("image", "float32", ("N", 1, 8, 8))
        graph = export(f"{folder}/cnn.pth", arch=f"{folder}/model.py:cnn", inputs=[spec], verify=False).model
        return graph, lambda: open_data(f"{folder}/data.py:calib", [spec], None)
    if name not in accuracy.NETWORKS:
        spec = TensorSpec("image", "float32", ("N", 3, 224, 224))
        graph = export(_beside("zoo").build(name), inputs=[spec], verify=False).model
        return graph, lambda: random_data([TensorSpec("image", "float32", (1, 3, 224, 224))], 16, seed=SEED)
    chosen = accuracy.NETWORKS[name]
    if missing := accuracy.absent(chosen):
        raise SystemExit(f"{missing} is not there")
    inputs = [TensorSpec.parse(chosen.input)] if chosen.input else []
    more: dict[str, Any] = {"drop_outputs": ["pooler_output"]} if name == "minilm" else {}
    first = export(accuracy._source(chosen), arch=chosen.arch, inputs=inputs, verify=False, **more)
    batched = [TensorSpec(spec.name, spec.dtype, ("N", *spec.shape[1:])) for spec in first.inputs]
    exported = export(accuracy._source(chosen), arch=chosen.arch, inputs=batched, verify=False, **more)
    preprocess = Preprocess.parse(chosen.preprocess) if chosen.preprocess else None
    return exported.model, lambda: open_data(chosen.calib, exported.inputs, preprocess)


def entries(options: argparse.Namespace) -> Iterator[tuple[str, str, list[str]]]:
    """Family, model and precisions of what is wanted and not done, the smallest first."""
    known = [[name, name] for name in NETWORKS] if options.what == "networks" else _families(options.graphs)
    rows = {row["family"]: row for row in read(options.results)}
    for family, name, *_ in known:
        row = rows.get(family, {})
        missing = [each for each in options.precision or PRECISIONS if each not in row]
        done = "error" in row or (not missing if options.what == "zoo" else bool(row))
        if not done and (not options.only or family in options.only):
            yield family, name, missing


def _families(graphs: Path | None) -> list[list[Any]]:
    """Family, smallest model and its parameters, ascending; looked for once where there is a folder to keep it."""
    kept = graphs / "list.json" if graphs is not None else None
    if kept is not None and kept.is_file():
        found = json.loads(kept.read_text(encoding="utf-8"))
    else:
        zoo = _beside("zoo")
        found = [[family, *zoo.smallest(names)] for family, names in zoo.families().items()]
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(found), encoding="utf-8")
    return sorted(found, key=lambda each: each[2])


def run_child(family: str, name: str, precisions: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """One model in a process of its own."""
    row = {"family": family, "model": name}
    command = [sys.executable, str(Path(__file__).resolve()), options.what, "--one", name]
    command += [part for precision in precisions for part in ("--precision", precision)]
    if options.graphs is not None:
        command += ["--graphs", str(options.graphs / f"{family}.onnx")]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    try:
        child = subprocess.run(
            command, capture_output=True, text=True, timeout=options.timeout, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        return row | {"error": f"no result after {options.timeout} s"}
    if child.returncode != 0:
        return row | {"error": (child.stderr.strip().splitlines() or ["no message"])[-1][:500]}
    return row | json.loads(child.stdout.splitlines()[-1])


def walk(options: argparse.Namespace) -> None:
    """Examine what the file of results lacks, until the time is over."""
    start = time.monotonic()
    for family, name, precisions in list(entries(options)):
        if time.monotonic() - start > options.seconds:
            print(f"the time is over; go on with the same command (next: {family})", file=sys.stderr)
            return
        row = run_child(family, name, precisions, options)
        with options.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(told(row), file=sys.stderr, flush=True)


def read(results: Path) -> list[dict[str, Any]]:
    """A row for each network so far; of precisions that were built apart the lines are put together, the later over the earlier."""
    lines = results.read_text(encoding="utf-8").splitlines() if results.is_file() else []
    rows: dict[str, dict[str, Any]] = {}
    for row in map(json.loads, lines):
        rows[row["family"]] = rows.get(row["family"], {}) | row
    return list(rows.values())


def told(row: dict[str, Any]) -> str:
    """A row in one line."""
    if "error" in row:
        return f"{row['model']}: {row['error']}"
    parts = (f"{key} {_state(entry)}" for key, entry in row.items() if isinstance(entry, dict))
    return f"{row['model']}: " + "; ".join(parts)


def _state(entry: dict[str, Any]) -> str:
    if not entry["builds"]:
        return f"FAILED ({entry['error']})"
    types = ", ".join(f"{count} {dtype}" for dtype, count in entry["products"].items())
    return f"{entry['bytes'] / 2**20:.1f} MiB [{types}]"


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How many build, per precision."""
    columns = list(dict.fromkeys(key for row in rows for key, entry in row.items() if isinstance(entry, dict)))
    builds = Counter(column for row in rows for column in columns if row.get(column, {}).get("builds"))
    shares = {column: builds[column] / len(rows) for column in columns}
    return {"models": len(rows), "builds": {column: builds[column] for column in columns}, "shares": shares}


def main() -> int:
    """Run one of them; exit code 1 when fewer build than the goal."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("zoo", "networks", "show"))
    parser.add_argument("--results", type=Path, help="file to which rows are added, one JSON object a line")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no further model after this time")
    parser.add_argument("--timeout", type=int, default=600, help="seconds for one model")
    parser.add_argument("--only", action="append", default=[], help="this family or network; repeatable")
    parser.add_argument("--precision", action="append", choices=PRECISIONS, help="of the zoo in this alone; repeatable")
    parser.add_argument("--graphs", type=Path, help="folder in which exported networks of the zoo are kept")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")  # torch.export's own, one per call
    if options.one:
        precisions = options.precision or PRECISIONS
        row = (
            zoo_model(options.one, options.graphs, precisions)
            if options.what == "zoo"
            else trained_network(options.one)
        )
        print(json.dumps(row))
        return 0
    if options.results is None:
        parser.error("--results is needed")
    if options.what != "show":
        walk(options)
    rows = read(options.results)
    summary = summarise(rows)
    if options.json:
        print(json.dumps({"schema_version": 1, "summary": summary, "rows": rows}, indent=1))
    else:
        for row in rows:
            print(told(row))
        print(f"{summary['models']} models; built: {summary['builds']}")
    return 0 if rows and min(summary["shares"].values(), default=0.0) >= _GOAL else 1


if __name__ == "__main__":
    raise SystemExit(main())
