"""How much of timm exports: the smallest model of each architecture family, with seeded random weights.

    python benchmarks/zoo.py                     the table
    python benchmarks/zoo.py --json > zoo.json   the same as JSON
    python benchmarks/zoo.py --families swin --families levit
    python benchmarks/zoo.py --build coreml --rows coreml.jsonl --minutes 3      built and computed as well; goes on where it stopped
    python benchmarks/zoo.py --native --rows native.jsonl --minutes 3            the same for libedgewise, in float32 and int8

Each model is built, exported and verified in a process of its own with a time limit; then every target is asked which nodes it takes, and
libedgewise, the target cpu's own engine, whether it takes the network.
Untrained networks have zero scales (last BatchNorm of a branch, LayerScale) that would fold whole branches away: they are redrawn.
With `--build` the target builds each of them in every precision that it has, and its executor's outputs are compared with PyTorch's.
With `--native` libedgewise computes each beside ONNX Runtime: float32 in decibels, int8 (ranges of 4 random images) in quantization steps of
each operator alone (`agreement.py`); beside them the memory of activations over the most that is alive at once.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

SEED = 0
_GOAL = 0.97
_NATIVE_DB = 90  # that float32 networks on libedgewise should reach beside ONNX Runtime
_BUILT_GOAL = 0.95
_WITHIN = 0.999  # of an int8 network's values, within one step of ONNX Runtime's
_ARENA = 1.1  # memory of activations over the most that is alive at once
_CALIBRATION = 2  # images on which float16 is tried
_CALIBRATION_INT8 = 4  # images that say the ranges
_ENOUGH = 1000  # values of a tensor, for its share within a step to say something
_LEAST_DB = {"float32": 70.0, "float16": 40.0}
_TOY = re.compile(r"test_")  # timm's own unit tests use these


def families() -> dict[str, list[str]]:
    """Timm's model names by the module that defines them."""
    from edgewise.exporter.timm_arch import import_timm

    timm = import_timm()
    found = {family: timm.list_models(module=family) for family in timm.list_modules()}
    return {
        family: real for family, names in found.items() if (real := [name for name in names if not _TOY.match(name)])
    }


def smallest(names: list[str]) -> tuple[str, int]:
    """The model with the fewest parameters, and how many; built on the meta device, so without memory."""
    import torch

    from edgewise.exporter.timm_arch import import_timm

    timm = import_timm()
    sizes = {}
    for name in names:
        with torch.device("meta"):
            sizes[name] = sum(weight.numel() for weight in timm.create_model(name).parameters())
    best = min(sizes, key=lambda name: (sizes[name], name))
    return best, sizes[best]


def build(name: str, options: dict[str, Any] | None = None) -> Any:
    """A timm model (with ``options`` of its own) in evaluation mode with seeded random weights, none of its scales zero."""
    import torch

    from edgewise.exporter.timm_arch import import_timm

    timm = import_timm()
    torch.manual_seed(SEED)
    model = timm.create_model(name, **options or {}).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if (
                weight.is_floating_point()
                and weight.numel()
                and weight.std(unbiased=False) == 0
                and weight.abs().max() < 1
            ):
                weight.copy_(torch.empty_like(weight).uniform_(0.05, 0.3))
        for buffer_name, buffer in model.named_buffers():
            if buffer_name.endswith("running_mean"):
                buffer.normal_(0, 0.1)
            elif buffer_name.endswith("running_var"):
                buffer.uniform_(0.7, 1.3)
    return model


def examine(name: str) -> dict[str, Any]:
    """Export one model, verify it and ask the targets."""
    from edgewise.exporter import export
    from edgewise.exporter.timm_arch import import_timm
    from edgewise.runtime.errors import EdgewiseError, GateError
    from edgewise.runtime.tensors import TensorSpec

    row: dict[str, Any] = {"exports": False, "verifies": False, "sqnr_db": None, "error": None, "targets": {}}
    model = build(name)
    size = import_timm().data.resolve_model_data_config(model)["input_size"]
    start = time.monotonic()
    try:
        exported = export(model, inputs=[TensorSpec("image", "float32", (1, *size))])
    except GateError as error:
        return row | {"exports": True, "error": str(error)}
    except EdgewiseError as error:
        return row | {"error": str(error)}
    worst = min(parity.sqnr_db for parity in exported.parity)
    ops = Counter(node.op_type for node in exported.model.graph)
    row |= {"exports": True, "verifies": True, "sqnr_db": round(worst, 1) if worst < 1e6 else None}
    row |= {"seconds": round(time.monotonic() - start, 1), "nodes": sum(ops.values()), "ops": dict(sorted(ops.items()))}
    row["fused"] = exported.source.facts.get("fused", {}) | exported.source.facts.get("not_fused", {})
    row["targets"] = support(exported.model)
    if not row["targets"]["libedgewise"]:
        row |= native_facts(exported.model)
    return row


def support(model: Any) -> dict[str, dict[str, int]]:
    """For each target the operators that it does not take, with counts; empty: it takes all."""
    from edgewise.runtime.errors import EdgewiseError
    from edgewise.targets import find_device, targets

    refused = {}
    for name, target in sorted(targets().items()):
        try:
            nodes = target.support(model, find_device(target.default_device, name))
        except EdgewiseError as error:
            refused[name] = {str(error): 1}
            continue
        refused[name] = dict(Counter(node.op for node in nodes if not node.taken))
    return refused | {"libedgewise": not_native(model)}


def not_native(model: Any) -> dict[str, int]:
    """The first operator that libedgewise does not take, and why: such a network goes to ONNX Runtime whole. Empty: it takes all."""
    from edgewise.targets.cpu.native.compile import NotTakenError, compile_model
    from edgewise.targets.cpu.native.plan import Isa

    try:
        compile_model(model, Isa.GENERIC)
    except NotTakenError as error:
        return {f"{error.op or 'network'} ({error.reason})": 1}
    return {}


def native_facts(model: Any) -> dict[str, float]:
    """What libedgewise computes beside ONNX Runtime in float32, and what memory it takes for it.

    ``libedgewise_db`` is the worst output's ratio of signal to noise, in decibels; ``libedgewise_arena`` the memory of
    activations over the most that is alive at once, which no placement could do without.
    """
    from edgewise.runtime import _native  # type: ignore[attr-defined]
    from edgewise.runtime.compare import compare_outputs
    from edgewise.runtime.data import random_data
    from edgewise.runtime.onnx_runner import OnnxRunner
    from edgewise.targets.cpu.native.compile import compile_model
    from edgewise.targets.cpu.native.engine_file import encode
    from edgewise.targets.cpu.native.plan import Isa
    from edgewise.targets.nodes import tensor_spec

    plan = compile_model(model, Isa.GENERIC).plan
    specs = [tensor_spec(value) for value in model.graph.inputs]
    inputs = dict(next(iter(random_data(specs, 1, seed=SEED))).inputs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "n.engine"
        path.write_bytes(encode(plan))
        context = _native.Context(_native.Engine(str(path)), threads=1)
        made = context.run([inputs[tensor.name] for tensor in plan.inputs])
        memory = context.memory()
    found = {tensor.name: array for tensor, array in zip(plan.outputs, made, strict=True)}
    worst = min(parity.sqnr_db for parity in compare_outputs([OnnxRunner(model).run(inputs)], [found]))
    return {
        "libedgewise_db": round(worst, 1),
        "libedgewise_arena": round(memory["arena_bytes"] / memory["least_arena_bytes"], 4),
    }


def examine_native(name: str) -> dict[str, Any]:
    """Export one model, and see it computed by libedgewise in float32 and int8; ``error`` says why it is not.

    Keys: those of :func:`native_facts`; ``int8_within`` and ``int8_equal`` are shares of all values, ``int8_worst`` the least
    share of values within a step over tensors with at least 1,000, ``int8_tensors`` those that fall short, the worst first.
    """
    from edgewise.exporter import export
    from edgewise.exporter.timm_arch import import_timm
    from edgewise.runtime.data import random_data
    from edgewise.runtime.errors import EdgewiseError
    from edgewise.runtime.tensors import TensorSpec
    from edgewise.targets.cpu.native.compile import NotTakenError

    agreement = _beside("agreement")
    row: dict[str, Any] = {"error": None}
    model = build(name)
    specs = [TensorSpec("image", "float32", (1, *import_timm().data.resolve_model_data_config(model)["input_size"]))]
    try:
        exported = export(model, inputs=specs, verify=False).model
        row |= native_facts(exported)
        quantized = agreement.quantized(exported, random_data(specs, _CALIBRATION_INT8, seed=SEED))
        row["int8_arena"] = _arena(quantized)
        found = agreement.agreement(quantized, dict(next(iter(random_data(specs, 1, seed=SEED + 1))).inputs))["alone"]
    except NotTakenError as error:
        return row | {"error": f"{error.op or 'network'} ({error.reason})"}
    except EdgewiseError as error:
        return row | {"error": str(error)}
    large = sorted((one for one in found if one.values >= _ENOUGH), key=lambda one: one.within)
    short = [(one.name, one.values, round(one.within, 6)) for one in large if one.within < _WITHIN]
    values = sum(one.values for one in found)
    row |= {"int8_values": values, "int8_within": agreement.share(found), "int8_tensors": short[:20]}
    row["int8_equal"] = sum(one.equal * one.values for one in found) / max(1, values)
    return row | {"int8_worst": min((one.within for one in large), default=1.0)}


def _arena(model: Any) -> float:
    """Memory of activations over the most that is alive at once."""
    from edgewise.runtime import _native  # type: ignore[attr-defined]
    from edgewise.targets.cpu.native.compile import compile_model
    from edgewise.targets.cpu.native.engine_file import encode
    from edgewise.targets.cpu.native.plan import Isa

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "n.engine"
        path.write_bytes(encode(compile_model(model, Isa.GENERIC).plan))
        memory = _native.Context(_native.Engine(str(path)), threads=1).memory()
    return round(memory["arena_bytes"] / memory["least_arena_bytes"], 4)


def _beside(name: str) -> Any:
    """Another script of this folder."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).resolve().parent / f"{name}.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"benchmarks/{name}.py is missing")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def native_well(row: dict[str, Any]) -> bool:
    """Whether libedgewise takes it, and is near enough to ONNX Runtime in float32 and int8."""
    return not row["error"] and row["libedgewise_db"] >= _NATIVE_DB and row["int8_within"] >= _WITHIN


def show_native(rows: list[dict[str, Any]]) -> None:
    """A table in Markdown, those that fall short marked."""
    print("| family | model | float32, dB | int8: within a step | worst tensor | equal | arena: float32 | int8 | |")
    print("|" + "---|" * 9)
    for row in sorted(rows, key=lambda row: row["family"]):
        state = row["error"] or ("" if native_well(row) else "short")
        shares = [
            f"{100 * row[key]:.4f} %" if key in row else "" for key in ("int8_within", "int8_worst", "int8_equal")
        ]
        arenas = [f"{row[key]:.3f}" if key in row else "" for key in ("libedgewise_arena", "int8_arena")]
        cells = [row["family"], f"`{row['model']}`", str(row.get("libedgewise_db", "")), *shares, *arenas, state]
        print(f"| {' | '.join(cells)} |")
    good = sum(map(native_well, rows))
    narrow = [max(row["libedgewise_arena"], row["int8_arena"]) <= _ARENA for row in rows if "int8_arena" in row]
    print(f"\n{len(rows)} models: {good} hold ({good / max(1, len(rows)):.1%})")
    print(f"{sum(narrow)} of {len(narrow)} take at most {_ARENA - 1:.0%} more memory than what is alive at once")


def examine_built(name: str, target_name: str) -> dict[str, Any]:
    """Export one model, build it in each precision, and compare what the target's executor computes with PyTorch."""
    import torch

    from edgewise.exporter import export
    from edgewise.exporter.timm_arch import import_timm
    from edgewise.runtime.errors import EdgewiseError
    from edgewise.runtime.tensors import TensorSpec
    from edgewise.targets import find_target

    row: dict[str, Any] = {"target": target_name, "error": None, "db": {}, "kept": {}, "seconds": {}}
    model = build(name)
    size = import_timm().data.resolve_model_data_config(model)["input_size"]
    image = torch.randn((1, *size), generator=torch.Generator().manual_seed(SEED))
    try:
        exported = export(model, inputs=[TensorSpec("image", "float32", tuple(image.shape))], verify=False).model
        with torch.no_grad():
            want = dict(zip((value.name for value in exported.graph.outputs), _flat(model(image)), strict=True))
        for precision in find_target(target_name).options["compute_precision"].choices:
            start = time.monotonic()
            db, kept = built_db(exported, target_name, precision, {"image": image.numpy()}, want)
            row["db"][precision], row["kept"][precision] = db, kept
            row["seconds"][precision] = round(time.monotonic() - start, 1)
    except EdgewiseError as error:
        row["error"] = str(error)
    return row


def _flat(outputs: Any) -> list[Any]:
    return [outputs.numpy()] if hasattr(outputs, "numpy") else [array for part in outputs for array in _flat(part)]


def built_db(
    model: Any, target_name: str, precision: str, inputs: dict[str, Any], want: dict[str, Any]
) -> tuple[float, float]:
    """Build for the target's default device; the worst output's ratio of signal to noise, in decibels, and the share of layers in float32.

    What float16 cannot hold is found on other random images than the one that is compared.
    """
    import numpy as np

    from edgewise.runtime.bundle import Bundle
    from edgewise.runtime.compare import compare_outputs
    from edgewise.targets import BuildRequest, find_device, find_target

    target = find_target(target_name)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as beside:
        device = find_device(target.default_device, target_name)
        random = np.random.default_rng(SEED + 1)
        samples = {
            name: random.standard_normal((_CALIBRATION, *array.shape[1:]), np.float32) for name, array in inputs.items()
        }
        np.savez(Path(beside) / "calibration.npz", **samples)
        options = {"compute_precision": precision, "calibration": f"{beside}/calibration.npz"}
        result = target.build(BuildRequest(model, Path(folder), device, options))
        manifest = {"engine": json.loads(json.dumps(asdict(result))), "files": dict.fromkeys(result.files, "")}
        executor = target.executor(Bundle(Path(folder), manifest))
        if isinstance(executor, str):
            raise SystemExit(executor)
        found = executor.run(inputs)
    wide = sum(layer["precision"] == "float32" for layer in result.layers) / max(1, len(result.layers))
    return round(min(parity.sqnr_db for parity in compare_outputs([want], [found])), 1), round(wide, 3)


def built_well(row: dict[str, Any]) -> bool:
    """Whether every precision is as near to PyTorch as it has to be."""
    return not row["error"] and all(db >= _LEAST_DB[precision] for precision, db in row["db"].items())


def run_rows(wanted: dict[str, list[str]], how: Sequence[str], rows_file: Path, timeout_s: int, minutes: float) -> bool:
    """One line of JSON a family, for those that the file does not have yet; whether all are there."""
    done = {json.loads(line)["family"] for line in rows_file.read_text().splitlines()} if rows_file.exists() else set()
    end = time.monotonic() + 60 * minutes
    for family, names in wanted.items():
        if family in done:
            continue
        if time.monotonic() > end:
            return False
        name, parameters = smallest(names)
        row = run_child(family, name, parameters, timeout_s, how)
        with rows_file.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{name}: {row['error'] or 'computed'}", file=sys.stderr, flush=True)
    return True


def show_built(rows: list[dict[str, Any]]) -> None:
    """A table in Markdown, those that fall short marked; beside float16 the share of layers that calibration keeps in float32."""
    precisions = list(dict.fromkeys(precision for row in rows for precision in row["db"]))
    heads = [f"{precision}, dB" for precision in precisions]
    print("| family | model | " + " | ".join(heads) + " | kept in float32 | |\n|" + "---|" * (len(precisions) + 4))
    for row in sorted(rows, key=lambda row: row["family"]):
        numbers = " | ".join(str(row["db"].get(precision, "")) for precision in precisions)
        kept = row.get("kept", {}).get("float16", 0)
        state = row["error"] or ("" if built_well(row) else "short")
        print(f"| {row['family']} | `{row['model']}` | {numbers} | {f'{kept:.1%}' if kept else ''} | {state} |")
    good = sum(built_well(row) for row in rows)
    print(f"\n{len(rows)} models: {good} hold ({good / max(1, len(rows)):.1%})")


def run_child(family: str, name: str, parameters: int, timeout_s: int, more: Sequence[str] = ()) -> dict[str, Any]:
    """Examine a model in a process of its own."""
    row = {"family": family, "model": name, "parameters": parameters}
    empty: dict[str, Any] = {"exports": False, "verifies": False, "sqnr_db": None, "targets": {}, "db": {}}
    command = [sys.executable, str(Path(__file__).resolve()), "--one", name, *more]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=environment, check=False)
    except subprocess.TimeoutExpired:
        return row | empty | {"error": f"no result after {timeout_s} s"}
    if child.returncode != 0:
        return row | empty | {"error": (child.stderr.strip().splitlines() or ["no message"])[-1][:500]}
    return row | json.loads(child.stdout.splitlines()[-1])


def show(rows: list[dict[str, Any]]) -> None:
    """The table on stdout."""
    names = sorted({target for row in rows for target in row["targets"]})
    print(f"{'model':44} {'M par.':>7} {'nodes':>6} {'SQNR dB':>8}  " + "  ".join(names))
    for row in rows:
        state = ("exact" if row["sqnr_db"] is None else f"{row['sqnr_db']}") if row["verifies"] else "FAILED"
        takes = [
            "all" if not row["targets"].get(name, {"?": 1}) else _listed(row["targets"].get(name)) for name in names
        ]
        print(
            f"{row['model']:44} {row['parameters'] / 1e6:7.2f} {row.get('nodes', 0):6} {state:>8}  " + "  ".join(takes)
        )
        if row["error"]:
            print(f"    {row['error']}")
    summary = summarise(rows)
    print(
        f"\n{summary['models']} models: {summary['exports']} export, {summary['verifies']} verify ({summary['share']:.1%})"
    )
    for name, count in summary["taken"].items():
        print(f"{name}: takes every node of {count}")
    if computed := [row for row in rows if "libedgewise_db" in row]:
        near = sum(row["libedgewise_db"] >= _NATIVE_DB for row in computed)
        worst = min(row["libedgewise_db"] for row in computed)
        print(f"libedgewise: {near} of {len(computed)} within {_NATIVE_DB} dB of ONNX Runtime, the worst at {worst} dB")
        arena = max(row["libedgewise_arena"] for row in computed)
        print(f"libedgewise: activations take at most {arena - 1:.1%} more than what is alive at once")


def _listed(refused: dict[str, int] | None) -> str:
    return "-" if refused is None else "no " + ",".join(f"{op}x{count}" for op, count in sorted(refused.items()))


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts over all rows."""
    names = sorted({target for row in rows for target in row["targets"]})
    verified = [row for row in rows if row["verifies"]]
    return {
        "models": len(rows),
        "exports": sum(row["exports"] for row in rows),
        "verifies": len(verified),
        "share": len(verified) / max(1, len(rows)),
        "goal": _GOAL,
        "taken": {name: sum(row["targets"].get(name) == {} for row in verified) for name in names},
    }


def main() -> int:
    """Run the benchmark; exit code 1 when fewer verify than the goal."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--families", action="append", default=[], help="only these (timm's module names); repeatable")
    parser.add_argument("--limit", type=int, default=None, help="only the first N families")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--timeout", type=int, default=600, help="seconds for one model")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--build", metavar="TARGET", help="build for this target too, and compute what it built")
    parser.add_argument("--native", action="store_true", help="compute with libedgewise, in float32 and int8")
    parser.add_argument(
        "--rows", type=Path, default=Path("zoo.jsonl"), help="with --build, --native: a row a model; those there stay"
    )
    parser.add_argument(
        "--minutes", type=float, default=600, help="with --build, --native: begin no model after so long"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        native = examine_native if options.native else examine
        print(json.dumps(examine_built(options.one, options.build) if options.build else native(options.one)))
        return 0
    wanted = {name: models for name, models in families().items() if not options.families or name in options.families}
    unknown = set(options.families) - set(wanted)
    if unknown:
        parser.error(f"unknown families: {', '.join(sorted(unknown))}")
    if options.build or options.native:
        return _main_rows(wanted, options)
    rows: list[dict[str, Any]] = []
    with ThreadPoolExecutor(options.jobs) as pool:
        chosen = [(family, *smallest(models)) for family, models in list(wanted.items())[: options.limit]]
        for row in pool.map(lambda entry: run_child(*entry, options.timeout), chosen):
            rows.append(row)
            refusals = [f"{target} {_listed(ops)}" for target, ops in row["targets"].items() if ops]
            state = "; ".join([f"ok, {row['sqnr_db']} dB", *refusals]) if row["verifies"] else row["error"]
            print(f"[{len(rows)}/{len(chosen)}] {row['model']}: {state}", file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps({"schema_version": 1, "summary": summarise(rows), "rows": rows}, indent=1))
    else:
        show(rows)
    return 0 if summarise(rows)["share"] >= _GOAL else 1


def _main_rows(wanted: dict[str, list[str]], options: argparse.Namespace) -> int:
    """Exit code 1 when fewer hold than the goal, 3 when models are left."""
    chosen = dict(list(wanted.items())[: options.limit])
    how = ["--native"] if options.native else ["--build", options.build]
    whole = run_rows(chosen, how, options.rows, options.timeout, options.minutes)
    rows = [json.loads(line) for line in options.rows.read_text().splitlines()]
    if options.json:
        print(json.dumps({"schema_version": 1, "rows": rows}, indent=1))
    else:
        (show_native if options.native else show_built)(rows)
    if not whole:
        return 3
    return 0 if sum(map(native_well if options.native else built_well, rows)) >= _BUILT_GOAL * len(rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
