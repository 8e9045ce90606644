"""libedgewise's convolutions and linear layers alone: what they reach of this processor's peak.

    python benchmarks/kernels.py                                    every shape of the benchmark networks: int8, float32, bfloat16, int4
    python benchmarks/kernels.py --network deit_small_patch16_224 --block 4x4 --density 0.25
    python benchmarks/kernels.py --isa avx2 --dtype f32 --json > kernels.json
    python benchmarks/kernels.py --table --isa avx2 > density.json        from where on sparsity pays: targets/cpu/native/density.json (three minutes)

The shapes are data: kernel_shapes.json. Each output is compared with numpy on some pixels before it is timed. The peak is that of
independent multiply-adds in registers (peak.c), measured in the same run; a time is the least of many. Layers that the compiler
gives to Winograd's algorithm run so here too: they multiply less than the layer's definition counts, and may pass the peak. ``int4`` is weights
in 4 bits, 32 inputs to a scale, under float32 inputs; its peak is float32's. Depthwise layers, and for int4 grouped ones, have no such form.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from edgewise.targets.cpu.native.coded import Rows
from edgewise.targets.cpu.native.engine_file import encode
from edgewise.targets.cpu.native.packing import (
    WITHOUT_VNNI,
    Packed,
    pack_brain,
    pack_conv,
    pack_depthwise,
    pack_winograd,
    winograd_pays,
)
from edgewise.targets.cpu.native.plan import DType, Isa, Layout, Op, Plan, Tensor, dim

HERE = Path(__file__).resolve().parent
ISAS = ("generic", "avx2", "avx512", "avx512vnni", "avx512bf16")
DTYPES = ("s8", "f32", "bf16", "int4")
DENSITY = Path(__file__).resolve().parent.parent / "targets/cpu/native/density.json"
SPREAD = 16.0  # of 8-bit weights, whose largest are 63
INT4_BLOCK = 32  # entries that share a scale


@dataclass(frozen=True)
class Shape:
    """A layer: its input [1, channels, *size], and how often a network has it."""

    network: str
    channels: int
    outputs: int
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    group: int
    stride: int
    pad: int
    count: int

    @property
    def depthwise(self) -> bool:
        return self.group == self.channels > 1 and self.outputs // self.channels in (1, 2, 4)

    @property
    def three_by_three(self) -> bool:
        return self.kernel == (3, 3) and self.stride == self.group == 1

    @property
    def out(self) -> tuple[int, ...]:
        kernel = self.kernel or (1,) * len(self.size)
        return tuple((s + 2 * self.pad - k) // self.stride + 1 for s, k in zip(self.size, kernel, strict=True))

    @property
    def weights(self) -> tuple[int, ...]:
        return (self.outputs, self.channels // self.group, *self.kernel)

    @property
    def macs(self) -> int:
        return int(np.prod(self.weights) * np.prod(self.out))

    def __str__(self) -> str:
        kernel = "x".join(map(str, self.kernel)) or "linear"
        group = f" g{self.group}" if self.group > 1 else ""
        stride = f"/{self.stride}" if self.stride > 1 else ""
        return f"{self.channels}->{self.outputs} {kernel}{stride}{group} on {'x'.join(map(str, self.size))}"


def shapes(networks: list[str]) -> Iterator[Shape]:
    data = json.loads((HERE / "kernel_shapes.json").read_text())
    for network in networks or list(data):
        for row in data[network]:
            yield Shape(network, **{**row, "size": tuple(row["size"]), "kernel": tuple(row["kernel"])})


def peaks() -> dict[str, float]:
    """GOPS of one core, by the kind of the kernels that it bounds."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "peak.so"
        command = [os.environ.get("CC", "cc"), "-O2", "-shared", "-fPIC", str(HERE / "peak.c"), "-o", str(library)]
        subprocess.run(command, check=True)
        peak = ctypes.CDLL(str(library)).peak
        peak.restype = ctypes.c_double
        import edgewise.runtime._native as native

        isas = native.isas().split()
        found = {}
        if "avx512vnni" in isas:
            found["s8"] = peak(0)
        if "avx512" in isas:
            found["f32"] = peak(1)
        if "avx2" in isas:
            found["f32_avx2"] = peak(2)
        if "avx512bf16" in isas:
            found["bf16"] = peak(3)
        return found


@dataclass(frozen=True)
class Job:
    """A shape with a dtype, dense or with blocks of which `density` are kept."""

    shape: Shape
    dtype: str
    block: tuple[int, int] | None
    density: float
    isa: str
    threads: int


def sparse_weights(weights: np.ndarray, job: Job, rng: np.random.Generator) -> np.ndarray:
    """Zero all but `density` of the blocks; the kept ones are drawn."""
    if job.block is None:
        return weights
    rows, columns = job.block
    blocks = (
        rng.random((-(-weights.shape[0] // columns), -(-weights.shape[1] // rows), *weights.shape[2:])) < job.density
    )
    kept = blocks.repeat(columns, 0).repeat(rows, 1)[: weights.shape[0], : weights.shape[1]]
    return weights * kept.astype(weights.dtype)


def constant(name: str, array: np.ndarray) -> Tensor:
    dtypes = {
        "float32": DType.F32,
        "int8": DType.S8,
        "int32": DType.S32,
        "uint16": DType.BF16,
        "uint8": DType.U8,
        "int16": DType.S16,
    }
    dtype = dtypes[array.dtype.name]
    return Tensor(name, dtype, tuple(dim(size) for size in array.shape), data=array)


def rounded(array: np.ndarray) -> np.ndarray:
    """To what bfloat16 holds."""
    return array.astype(ml_dtypes.bfloat16).astype(np.float32)


def packed_weights(job: Job, rng: np.random.Generator) -> tuple[np.ndarray, Packed]:
    """Weights, int8 or float32, and the form in which they are multiplied."""
    shape = job.shape
    if job.dtype == "s8":
        return packed_bytes(job, rng)
    if job.dtype == "int4":
        return codes(shape, rng)
    weights = sparse_weights(rng.standard_normal(shape.weights, np.float32), job, rng)
    if job.dtype == "bf16":
        return rounded(weights), pack_brain(weights, group=shape.group)
    if shape.depthwise:
        return weights, pack_depthwise(weights[:, 0])
    if shape.three_by_three and job.block is None and winograd_pays(weights, shape.out, Isa[job.isa.upper()]):
        return weights, pack_winograd(weights)
    return weights, pack_conv(weights, group=shape.group, block=job.block)


def packed_bytes(job: Job, rng: np.random.Generator) -> tuple[np.ndarray, Packed]:
    """Weights of 7 bits, normally distributed, packed as the compiler does for the level."""
    shape, isa = job.shape, Isa[job.isa.upper()]
    drawn = np.clip(np.rint(rng.standard_normal(shape.weights) * SPREAD), -63, 63)
    weights = sparse_weights(drawn.astype(np.int8), job, rng)
    if shape.depthwise:
        return weights, pack_depthwise(weights[:, 0])
    if shape.three_by_three and job.block is None and winograd_pays(weights, shape.out, isa):
        return weights, pack_winograd(weights)
    return weights, pack_conv(weights, group=shape.group, block=job.block, paired=isa in WITHOUT_VNNI)


def codes(shape: Shape, rng: np.random.Generator) -> tuple[np.ndarray, Packed]:
    """What weights in 4 bits stand for, and their codes."""
    entries = int(np.prod(shape.weights[1:]))
    scale = rng.uniform(0.1, 0.3, (shape.outputs, -(-entries // INT4_BLOCK)))
    rows = Rows(
        rng.integers(0, 16, (shape.outputs, entries)).astype(np.uint8), scale, np.full_like(scale, 8), INT4_BLOCK, 4
    )
    real = (rows.codes - 8.0) * scale.repeat(INT4_BLOCK, 1)[:, :entries]
    packed = rows.packed(np.ones(shape.outputs))
    kernel = {"kernel": list(shape.kernel)} if shape.kernel else {}
    return real.astype(np.float32).reshape(shape.weights), Packed(packed.constants, {**packed.attributes, **kernel})


def make(job: Job, rng: np.random.Generator) -> tuple[Plan, np.ndarray, np.ndarray]:
    """The plan, its input, and the weights."""
    shape, integer = job.shape, job.dtype == "s8"
    weights, packed = packed_weights(job, rng)
    pixels, out = int(np.prod(shape.size)), int(np.prod(shape.out))
    if integer:
        c4, m4 = -(-shape.channels // 4), -(-shape.outputs // 4)
        array = rng.integers(0, 256, (1, c4, pixels, 4)).astype(np.uint8)
        given = Tensor("x", DType.U8, tuple(map(dim, (1, c4, pixels, 4))))
        taken = Tensor("y", DType.U8, tuple(map(dim, (1, m4, out, 4))))
        x = Tensor("x", DType.U8, tuple(map(dim, (1, shape.channels, *shape.size))), Layout.C4, storage=given.storage)
        y = Tensor("y", DType.U8, tuple(map(dim, (1, shape.outputs, *shape.out))), Layout.C4, storage=taken.storage)
    else:
        array = rng.standard_normal((1, shape.channels, *shape.size), np.float32)
        if job.dtype == "bf16":
            array = rounded(array)
        given = x = Tensor("x", DType.F32, tuple(map(dim, array.shape)))
        taken = y = Tensor("y", DType.F32, tuple(map(dim, (1, shape.outputs, *shape.out))))
    attributes: dict[str, Any] = dict(packed.attributes)
    if shape.kernel:
        attributes |= {
            "kernel": list(shape.kernel),
            "strides": [shape.stride] * len(shape.size),
            "pads": [shape.pad] * 2 * len(shape.size),
        }
    if integer:
        attributes |= {"y_scale": 1.0, "y_zero_point": 128}
    scale = np.full(shape.outputs, 1 / (40.0 * np.sqrt(shape.weights[1] * 75.0)), np.float32)
    operands = {name: constant(name, value) for name, value in packed.constants.items()}
    inputs = [x, operands["weights"], constant("scale", scale), constant("bias", np.zeros_like(scale)), None]
    inputs += [operands.get("index"), operands.get("start"), operands.get("terms")]
    op = Op(packed.op, "layer", inputs, [y], attributes)
    return Plan(Isa[job.isa.upper()], [given], [taken], [op]), array, weights


def check(job: Job, x: np.ndarray, weights: np.ndarray, got: np.ndarray) -> None:
    """One output pixel in the middle, all outputs, against numpy."""
    shape, integer = job.shape, job.dtype == "s8"
    at = tuple(size // 2 for size in shape.out)
    if integer:
        planes = x.swapaxes(2, 3).reshape(-1, *shape.size)[: shape.channels].astype(np.float64)
        got = got.swapaxes(2, 3).reshape(-1, *shape.out)[: shape.outputs]
    else:
        planes, got = x[0].astype(np.float64), got[0]
    kernel = shape.kernel or (1,) * len(shape.size)
    padded = np.pad(planes, [(0, 0), *[(shape.pad, shape.pad)] * len(shape.size)])
    window = padded[
        (slice(None), *(slice(a * shape.stride, a * shape.stride + k) for a, k in zip(at, kernel, strict=True)))
    ]
    window = window.reshape(shape.group, shape.channels // shape.group, -1)
    sums = np.einsum(
        "gck,gmck->gm", window, weights.astype(np.float64).reshape(shape.group, -1, *window.shape[1:])
    ).ravel()
    want = sums / (40.0 * np.sqrt(shape.weights[1] * 75.0))
    if integer:
        want = np.clip(np.rint(want) + 128, 0, 255)
    error = np.abs(got[(slice(None), *at)].astype(np.float64) - want).max()
    if error > (1 if integer else 1e-4 * max(1.0, np.abs(want).max())):
        raise SystemExit(f"{job}: wrong by {error}")


def measure(job: Job) -> dict[str, Any]:
    import edgewise.runtime._native as native

    rng = np.random.default_rng(0)
    plan, x, weights = make(job, rng)
    with tempfile.NamedTemporaryFile(suffix=".engine") as file:
        file.write(encode(plan))
        file.flush()
        context = native.Context(native.Engine(file.name), threads=job.threads, profile=True)
        check(job, x, weights, context.run([x])[0])
        best, last = float("inf"), context.profile()[0][3]
        runs = int(min(200, max(15, 0.3e9 / max(last, 1))))
        for _ in range(runs):
            context.run([x])
            total = context.profile()[0][3]
            best, last = min(best, total - last), total
        kernel = context.profile()[0][2]
    gops = 2 * job.shape.macs / best
    return {"kernel": kernel, "ns": best, "gops": gops, "kept": float(np.count_nonzero(weights) / weights.size)}


def peak_for(kernel: str, found: dict[str, float]) -> float | None:
    if kernel.startswith("s8"):
        return found.get("s8")
    return found.get("bf16" if kernel.startswith("bf16") else "f32_avx2" if kernel.endswith("avx2") else "f32")


def row(job: Job, found: dict[str, float]) -> dict[str, Any]:
    result = measure(job)
    peak = peak_for(result["kernel"], found)
    share = result["gops"] / (peak * job.threads) if peak else None
    block = "x".join(map(str, job.block)) if job.block else None
    return {
        **{"network": job.shape.network, "shape": str(job.shape), "count": job.shape.count, "macs": job.shape.macs},
        **{"dtype": job.dtype, "isa": job.isa, "block": block, "density": job.density if job.block else 1.0},
        **{"threads": job.threads, **result, "peak_gops": peak, "share": share},
        "share_of_dense": share * job.density if share is not None and job.block else share,
    }


def jobs(arguments: argparse.Namespace) -> Iterator[Job]:
    block = tuple(map(int, arguments.block.split("x"))) if arguments.block else None
    for shape in shapes(arguments.network):
        for dtype in arguments.dtype:
            if (block or dtype == "int4") and (shape.depthwise or shape.group > 1):
                continue
            if dtype == "bf16" and shape.depthwise:
                continue
            yield Job(shape, dtype, block, arguments.density, arguments.isa, arguments.threads)


def density_table(isa: str) -> dict[str, Any]:
    """The compiler's table with this level measured anew: time of sparse weights over that of dense ones.

    By level (AVX2, or what is above it), dtype, outputs of a block, and share of the blocks kept; least times of three rounds.
    """
    layers = [Shape("", k, m, (197,), (), 1, 1, 0, 1) for k, m in ((384, 1536), (1536, 384), (128, 128))]
    table: dict[str, Any] = json.loads(DENSITY.read_text())

    def jobs_of(dtype: str, block: tuple[int, int] | None, density: float) -> list[Job]:
        return [Job(layer, dtype, block, density, isa, 1) for layer in layers]

    kinds = [(dtype, (rows, outputs)) for dtype, rows in (("s8", 4), ("f32", 1)) for outputs in (4, 2, 1)]
    every = {
        (dtype, block, density): jobs_of(dtype, block, density)
        for dtype, block in kinds
        for density in table["densities"]
    }
    every |= {(dtype, None, 1.0): jobs_of(dtype, None, 1.0) for dtype in ("s8", "f32")}
    rounds = [{key: [measure(job)["ns"] for job in some] for key, some in every.items()} for _ in range(3)]
    least = {key: np.min([times[key] for times in rounds], axis=0) for key in every}
    measured: dict[str, dict[str, list[float]]] = {"s8": {}, "f32": {}}
    for dtype, block in kinds:
        ratios = [least[dtype, block, density] / least[dtype, None, 1.0] for density in table["densities"]]
        measured[dtype][str(block[1])] = [round(float(np.exp(np.log(ratio).mean())), 3) for ratio in ratios]
    return table | {"avx2" if isa == "avx2" else "avx512vnni": measured}


def report(rows: list[dict[str, Any]], found: dict[str, float]) -> None:
    print("peak of one core:", ", ".join(f"{kind} {gops:.0f} GOPS" for kind, gops in found.items()))
    print(f"{'shape':48} {'kernel':16} {'us':>9} {'GOPS':>7} {'of peak':>8} {'x density':>9}  count")
    for network in dict.fromkeys(r["network"] for r in rows):
        for dtype in dict.fromkeys(r["dtype"] for r in rows):
            mine = [r for r in rows if r["network"] == network and r["dtype"] == dtype]
            total, macs = sum(r["ns"] * r["count"] for r in mine), sum(r["macs"] * r["count"] for r in mine)
            for r in mine:
                share = f"{r['share']:8.1%} {r['share_of_dense']:9.1%}" if r["share"] is not None else f"{'':18}"
                print(f"{r['shape']:48} {r['kernel']:16} {r['ns'] / 1e3:9.1f} {r['gops']:7.0f} {share}  {r['count']}")
            print(f"{network} {dtype}: {total / 1e6:.2f} ms, {2 * macs / max(total, 1):.0f} GOPS")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="append", default=[])
    parser.add_argument("--dtype", action="append", choices=DTYPES, default=[])
    parser.add_argument("--isa", choices=ISAS, help="the best of this machine by default")
    parser.add_argument("--block", help="RxC: R inputs by C outputs")
    parser.add_argument("--density", type=float, default=0.25, help="share of the blocks that are kept")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--table", action="store_true", help="print the table that the compiler chooses by")
    arguments = parser.parse_args()
    import edgewise.runtime._native as native

    arguments.isa = arguments.isa or native.isas().split()[-1]
    arguments.dtype = arguments.dtype or (["s8", "f32"] if arguments.block else list(DTYPES))
    if arguments.table:
        if arguments.isa not in ("avx2", "avx512vnni", "avx512bf16"):
            parser.error(f"--table has no part for {arguments.isa}: it is of avx2, or of avx512vnni and above")
        print(json.dumps(density_table(arguments.isa)).replace(', "', ',\n "'))
        return
    found = peaks()
    rows = [row(job, found) for job in jobs(arguments)]
    if arguments.json:
        json.dump({"schema_version": 1, "peak_gops": found, "rows": rows}, sys.stdout, indent=1)
    else:
        report(rows, found)


if __name__ == "__main__":
    main()
