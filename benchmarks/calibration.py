"""What calibration takes: seconds and memory for a network of DeiT-S's size (22 M parameters, 224x224).

    python benchmarks/calibration.py                   int8 min-max on 128 samples: seconds; on 1,000: peak memory
    python benchmarks/calibration.py --samples 32      another number of samples, one row
    python benchmarks/calibration.py --json

Weights are random and images are blurred noise: neither changes what there is to compute. Each row runs in a process of its
own, so that the peak is its own; the rounding of weights is the one that needs no data (``squant``).
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

# Packages look for optional ones by name (transformers for `kernels`); scripts beside this one must not answer.
sys.path = [place for place in sys.path if Path(place or ".").resolve() != Path(__file__).resolve().parent]

_LIMITS: dict[int, dict[str, float]] = {128: {"seconds": 60.0}, 1000: {"peak_gb": 2.0}}
_WIDTH, _DEPTH, _HEADS, _SIZE, _PATCH, _CLASSES = 384, 12, 6, 224, 16, 1000


def deit_small() -> Any:
    """A vision transformer of DeiT-S's shape (Touvron et al. 2021) with random weights."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(_WIDTH, eps=1e-6), nn.LayerNorm(_WIDTH, eps=1e-6)
            self.qkv, self.proj = nn.Linear(_WIDTH, 3 * _WIDTH), nn.Linear(_WIDTH, _WIDTH)
            self.fc1, self.fc2 = nn.Linear(_WIDTH, 4 * _WIDTH), nn.Linear(4 * _WIDTH, _WIDTH)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            b, n, c = x.shape
            q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, _HEADS, c // _HEADS).permute(2, 0, 3, 1, 4).unbind(0)
            mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c)
            x = x + self.proj(mixed)
            return x + self.fc2(nn.functional.gelu(self.fc1(self.norm2(x))))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, _WIDTH, _PATCH, _PATCH)
            self.token = nn.Parameter(torch.zeros(1, 1, _WIDTH))
            self.places = nn.Parameter(torch.randn(1, (_SIZE // _PATCH) ** 2 + 1, _WIDTH) * 0.02)
            self.blocks = nn.Sequential(*[Block() for _ in range(_DEPTH)])
            self.norm, self.head = nn.LayerNorm(_WIDTH, eps=1e-6), nn.Linear(_WIDTH, _CLASSES)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.patches(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
            return self.head(self.norm(self.blocks(x))[:, 0])

    torch.manual_seed(0)
    return Network().eval()


def write_network(path: Path) -> None:
    """Export it."""
    from edgewise.exporter import export
    from edgewise.runtime.onnx_file import write_onnx
    from edgewise.runtime.tensors import TensorSpec

    spec = TensorSpec.parse(f"x=f32[1,3,{_SIZE},{_SIZE}]")
    write_onnx(export(deit_small(), inputs=[spec]).model, path)


def images() -> Iterator[dict[str, np.ndarray]]:
    """Blurred noise without end, another image for each number."""
    number = 0
    while True:
        rough = np.random.default_rng(number).normal(size=(1, 3, _SIZE // 8, _SIZE // 8))
        yield {"x": np.kron(rough, np.ones((8, 8))).astype(np.float32)}
        number += 1


def peak_bytes() -> int:
    """The most that this process has held, on Linux: ``getrusage`` also counts what the parent held when it forked."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def measure(path: Path, samples: int) -> dict[str, Any]:
    """Quantize once, in this process."""
    import itertools

    import onnx_ir as ir

    from edgewise.quantize import QuantSpec, quantize
    from edgewise.runtime.data import Dataset, Sample

    def read(wanted: Any) -> Iterator[Sample]:
        return (Sample(arrays, None) for arrays in itertools.islice(images(), len(wanted)))

    model = ir.load(path)
    before = peak_bytes()
    started = time.perf_counter()
    made = quantize(
        model, QuantSpec(), Dataset("noise", samples, read), method="minmax", samples=samples, rounding="squant"
    )
    seconds = time.perf_counter() - started
    return {
        "samples": made.report["samples"],
        "layers": len(made.report["layers"]),
        "seconds": round(seconds, 1),
        "peak_gb": round(peak_bytes() / 1e9, 3),
        "before_gb": round(before / 1e9, 3),
    }


def run_apart(path: Path, samples: int) -> dict[str, Any]:
    """The same in a process of its own, and whether it keeps to what is allowed."""
    command = [sys.executable, __file__, "--one", str(path), "--samples", str(samples)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    row: dict[str, Any] = json.loads(done.stdout)
    limits = _LIMITS.get(samples, {})
    return row | {"limits": limits, "holds": all(row[name] <= most for name, most in limits.items())}


def show(row: dict[str, Any]) -> str:
    """A row of the table."""
    allowed = ", ".join(f"{name} ≤ {most:g}" for name, most in row["limits"].items())
    verdict = f"({allowed}: {'holds' if row['holds'] else 'FAILS'})" if allowed else ""
    return f"{row['samples']:5} samples  {row['seconds']:6.1f} s  peak {row['peak_gb']:.2f} GB, {row['before_gb']:.2f} of it before  {verdict}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, action="append")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.samples[0])))
        return 0
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "deit_small.onnx"
        write_network(path)
        for samples in options.samples or _LIMITS:
            rows.append(run_apart(path, samples))
            print(show(rows[-1]), file=sys.stderr if options.json else sys.stdout, flush=True)
    if options.json:
        json.dump({"schema_version": 1, "rows": rows}, sys.stdout, indent=1)
    return 0 if all(row["holds"] for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
