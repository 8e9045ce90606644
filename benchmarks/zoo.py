"""How much of timm exports: the smallest model of each architecture family, with seeded random weights.

    python benchmarks/zoo.py                     the table
    python benchmarks/zoo.py --json > zoo.json   the same as JSON
    python benchmarks/zoo.py --families swin --families levit

Each model is built, exported and verified in a process of its own with a time limit; then every target is asked which nodes it takes.
Untrained networks have zero scales (last BatchNorm of a branch, LayerScale) that would fold whole branches away: they are redrawn.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SEED = 0
_GOAL = 0.97
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


def build(name: str) -> Any:
    """A timm model in evaluation mode with seeded random weights, none of its scales zero."""
    import torch

    from edgewise.exporter.timm_arch import import_timm

    timm = import_timm()
    torch.manual_seed(SEED)
    model = timm.create_model(name).eval()
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
    return refused


def run_child(family: str, name: str, parameters: int, timeout_s: int) -> dict[str, Any]:
    """Examine a model in a process of its own."""
    row = {"family": family, "model": name, "parameters": parameters}
    empty = {"exports": False, "verifies": False, "sqnr_db": None, "targets": {}}
    command = [sys.executable, str(Path(__file__).resolve()), "--one", name]
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
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(examine(options.one)))
        return 0
    wanted = {name: models for name, models in families().items() if not options.families or name in options.families}
    unknown = set(options.families) - set(wanted)
    if unknown:
        parser.error(f"unknown families: {', '.join(sorted(unknown))}")
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


if __name__ == "__main__":
    raise SystemExit(main())
