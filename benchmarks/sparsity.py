"""What zeros cost: trained networks before and after one-shot pruning, on unlabelled calibration samples.

    python benchmarks/sparsity.py                            the table
    python benchmarks/sparsity.py --json > sparsity.json     the same as JSON
    python benchmarks/sparsity.py --network resnet20 --pattern block:4x1 --criterion magnitude --densities sensitivity

Networks and data are those of benchmarks/accuracy.py; each is pruned on the calibration samples alone, and both graphs run in
ONNX Runtime over the test data. Rows whose weights or data are absent (see ../shared) are skipped, and said so.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accuracy import NETWORKS, ROOT, absent


@dataclass(frozen=True)
class Row:
    """What is pruned how, and what it may cost: points of the metric."""

    network: str
    pattern: str
    sparsity: float
    allowed: float | None = None
    densities: str = "uniform"
    reconstruct: bool = False


ROWS = [
    Row("resnet20", "2:4", 0.5, allowed=1.5),
    Row("resnet20", "block:4x1", 0.5, allowed=3.0),
    Row("resnet20", "block:4x4", 0.5),
    Row("resnet20", "block:4x4", 0.5, reconstruct=True),
    Row("vit", "2:4", 0.5),
    Row("vit", "block:4x1", 0.5, allowed=2.0),
    Row("vit", "block:4x4", 0.5),
    Row("squeezenet", "2:4", 0.5),
    Row("minilm", "block:4x1", 0.5, allowed=3.0, densities="sensitivity", reconstruct=True),
]


class Opened:
    """A network, exported once, with its data and its own accuracy."""

    def __init__(self, name: str) -> None:
        from edgewise.exporter import export
        from edgewise.runtime.data import open_data
        from edgewise.runtime.preprocess import Preprocess
        from edgewise.runtime.tensors import TensorSpec

        self.network = NETWORKS[name]
        source = f"hf:{self.network.source}" if Path(self.network.source).is_dir() else self.network.source
        inputs = [TensorSpec.parse(self.network.input)] if self.network.input else []
        exported = export(source, arch=self.network.arch, inputs=inputs)
        self.model = exported.model
        # A solve wants more text than ranges of activations do.
        calib = self.network.calib if name != "minilm" else f"{ROOT}/examples/minilm/sentences.py:text"
        preprocess = Preprocess.parse(self.network.preprocess) if self.network.preprocess else None
        self.calib, self.test = (open_data(part, exported.inputs, preprocess) for part in (calib, self.network.test))
        self.before = self.accuracy(self.model)

    def accuracy(self, model: Any) -> float:
        from edgewise.runtime.metrics import evaluate
        from edgewise.runtime.onnx_runner import OnnxRunner

        value: float = evaluate(OnnxRunner(model).run, self.test, str(self.network.metric))["value"]
        return value


def measure(rows: list[Row], criterion: str, samples: int) -> Iterator[dict[str, Any]]:
    """One result per row; a network is opened once."""
    from edgewise.quantize import prune

    opened: dict[str, Opened] = {}
    for row in rows:
        if missing := absent(NETWORKS[row.network]):
            print(f"{row.network}: skipped, {missing} is absent", file=sys.stderr)
            continue
        if row.network not in opened:
            opened = {row.network: Opened(row.network)}
        network = opened[row.network]
        started = time.perf_counter()
        made = prune(
            network.model, pattern=row.pattern, sparsity=row.sparsity, criterion=criterion, data=network.calib,
            samples=samples, densities=row.densities, reconstruct=row.reconstruct,
        )  # fmt: skip
        seconds = time.perf_counter() - started
        after = network.accuracy(made.model)
        drop = 100 * (network.before - after)
        holds = {} if row.allowed is None else {"allowed_points": row.allowed, "holds": drop <= row.allowed + 1e-9}
        yield {
            "network": row.network, "pattern": row.pattern, "criterion": criterion, "densities": row.densities,
            "reconstruct": row.reconstruct, "sparsity": made.report["sparsity"], "float": network.before,
            "pruned": after, "drop_points": round(drop, 3), "prune_s": round(seconds, 1), **holds,
        }  # fmt: skip


def show(result: dict[str, Any]) -> str:
    """A row of the table."""
    values = f"{100 * result['float']:6.2f} → {100 * result['pruned']:6.2f}  −{result['drop_points']:.2f}"
    allowed = f"(≤ {result['allowed_points']}: {'holds' if result['holds'] else 'FAILS'})" if "holds" in result else ""
    how = " ".join([result["criterion"], result["densities"], *(["reconstructed"] if result["reconstruct"] else [])])
    head = f"{result['network']:<11} {result['pattern']:<12} {100 * result['sparsity']:5.1f} % zero"
    return f"{head}  {values} {allowed:<16}  {result['prune_s']:.0f} s  [{how}]"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="append", choices=sorted({row.network for row in ROWS}))
    parser.add_argument("--pattern", help="only rows of this pattern")
    parser.add_argument("--criterion", default="second_order")
    parser.add_argument("--densities", help="instead of those of the rows")
    parser.add_argument("--reconstruct", action=argparse.BooleanOptionalAction, help="instead of those of the rows")
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    chosen = [
        Row(
            row.network, row.pattern, row.sparsity, row.allowed, options.densities or row.densities,
            row.reconstruct if options.reconstruct is None else options.reconstruct,
        )
        for row in ROWS
        if row.network in (options.network or NETWORKS) and options.pattern in (None, row.pattern)
    ]  # fmt: skip
    results = []
    for result in measure(list(dict.fromkeys(chosen)), options.criterion, options.samples):
        results.append(result)
        print(show(result), file=sys.stderr if options.json else sys.stdout, flush=True)
    if options.json:
        json.dump({"schema_version": 1, "rows": results}, sys.stdout, indent=1)
    return 0 if all(result.get("holds", True) for result in results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
