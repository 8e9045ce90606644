"""libedgewise's kernels for aarch64, ARMv7 and RISC-V: executed instructions per multiply-accumulate, counted in an emulator.

    python benchmarks/arm.py                     every level of aarch64, layer and form; a table
    python benchmarks/arm.py --isa neon_i8mm --json
    python benchmarks/arm.py --only separable --only recurrent
    python benchmarks/arm.py --isa armv7 --isa armv7-generic --isa riscv64 --isa riscv64-generic

There is no such hardware here, so nothing is timed. The agent (``edgewise-bench --serve``, built with Zig) runs a layer in qemu one instruction at
a time (``-singlestep -d exec``, a line each); two samples less one are a layer's own instructions: packing, products, the end to bytes, and
what is copied in and out (of ``recurrent`` two steps less one). Each output is compared with numpy first. The floor is what the multiplying instructions alone would be.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from edgewise.runtime.devices.agents import agent_for
from edgewise.targets.cpu.native.engine_file import encode
from edgewise.targets.cpu.native.packing import pack_conv, pack_depthwise
from edgewise.targets.cpu.native.plan import DType, Isa, Layout, Op, Plan, Tensor, dim


@dataclass(frozen=True)
class Processor:
    """For which triple the agent is built, and what runs it as which processor.

    ``floor``: multiply-accumulates of an instruction in 8 bits; without dot products 8 take two (smull, sadalp). ``level``: EDGEWISE_ISA.
    """

    triple: str
    cpu: str
    floor: int
    level: str = ""

    @property
    def emulator(self) -> str:
        return f"qemu-{self.triple.split('-')[0]}-static"


_ARM, _RISCV = ("arm-linux-musleabihf", "cortex-a7"), ("riscv64-linux-musl", "rv64,v=true,vlen=128")
AARCH64 = {
    "neon": Processor("aarch64-linux-musl", "cortex-a53", 4),
    "neon_dotprod": Processor("aarch64-linux-musl", "cortex-a76", 16),
    "neon_i8mm": Processor("aarch64-linux-musl", "max", 16),
}
PROCESSORS = AARCH64 | {
    "armv7": Processor(*_ARM, 4),
    "armv7-generic": Processor(*_ARM, 1, "generic"),
    "riscv64": Processor(*_RISCV, 4),
    "riscv64-generic": Processor(*_RISCV, 1, "generic"),
}
FLOAT_FLOOR = 4


@dataclass(frozen=True)
class Layer:
    """x [N, channels, size, size] by weights [outputs, channels / group, kernel, kernel]."""

    channels: int
    outputs: int
    size: int
    kernel: int = 1
    group: int = 1

    @property
    def weights(self) -> tuple[int, ...]:
        return (self.outputs, self.channels // self.group, self.kernel, self.kernel)

    def __str__(self) -> str:
        kind = "depthwise " if self.group > 1 else ""
        return f"{kind}{self.channels}->{self.outputs} {self.kernel}x{self.kernel} on {self.size}x{self.size}"


@dataclass(frozen=True)
class Pair:
    """The operator ``separable``: depthwise 3x3 and the pointwise layer that reads it."""

    channels: int
    outputs: int
    size: int

    @property
    def layers(self) -> tuple[Layer, Layer]:
        """Each alone."""
        return Layer(self.channels, self.channels, self.size, 3, self.channels), Layer(
            self.channels, self.outputs, self.size
        )

    def __str__(self) -> str:
        return f"separable {self.channels}->{self.outputs} 3x3 on {self.size}x{self.size}"


@dataclass(frozen=True)
class Steps:
    """The operator ``recurrent``: the state's part of an LSTM, for so many rows; its samples are steps."""

    hidden: int
    rows: int

    def __str__(self) -> str:
        return f"recurrent LSTM of {self.hidden}, batch {self.rows}"


@dataclass(frozen=True)
class Job:
    """A layer in a dtype on a level; dense, or with a quarter of its blocks."""

    layer: Layer | Pair | Steps
    dtype: str
    isa: str
    block: tuple[int, int] | None = None


# Layers of ResNet-50 and MobileNetV4, their channels and planes cut so that qemu takes seconds.
DENSE = (Layer(256, 128, 14), Layer(64, 64, 14, 3), Layer(512, 64, 7))
DEPTHWISE = Layer(32, 32, 28, 3, 32)
PAIR = Pair(64, 128, 14)
STEPS = (Steps(64, 1), Steps(64, 4))
DENSITY = 0.25
PANEL = 16  # units of the recurrent operator's weights


def jobs(isas: list[str]) -> Iterator[Job]:
    for isa in isas:
        for layer in (*DENSE, DEPTHWISE, PAIR):
            yield Job(layer, "s8", isa)
        for outputs in (4, 2, 1):
            yield Job(DENSE[0], "s8", isa, (4, outputs))
    for isa in isas:
        if isa in AARCH64 and isa != "neon":
            continue
        for layer in (*DENSE, DEPTHWISE, PAIR, *STEPS):
            yield Job(layer, "f32", isa)
        for outputs in (4, 2, 1):
            yield Job(DENSE[0], "f32", isa, (1, outputs))


@dataclass(frozen=True)
class Case:
    """A plan for some samples, what goes in and the first output that should come out, and multiply-accumulates of one sample."""

    plan: Plan
    x: np.ndarray
    wanted: np.ndarray
    macs: int


def case_of(job: Job, samples: int) -> Case:
    """Of any job."""
    if isinstance(job.layer, Pair):
        return _pair_case(job, job.layer, samples)
    if isinstance(job.layer, Steps):
        return _steps_case(job.layer, samples)
    weights, x = drawn(job), inputs_of(job, samples)
    # Of sparse layers those of the weights that are kept.
    kept = np.count_nonzero(weights) if job.dtype == "f32" and job.block else _kept(job, weights)
    want, fours = expected(job, x, weights), job.dtype == "s8"
    return Case(
        plan_of(job, weights, samples),
        in_fours(x) if fours else x,
        in_fours(want) if fours else want,
        int(kept) * job.layer.size**2,
    )


def _pair_case(job: Job, pair: Pair, samples: int) -> Case:
    """The plans of both layers joined; the second reads what the first gives, rounded in 8 bits."""
    first, second = (Job(layer, job.dtype, job.isa) for layer in pair.layers)
    weights, x = [drawn(one) for one in (first, second)], inputs_of(first, samples)
    plans = [plan_of(one, array, samples) for one, array in zip((first, second), weights, strict=True)]
    ops = [plan.ops[0] for plan in plans]
    joined = {f"first_{key}": value for key, value in ops[0].attributes.items()} | ops[1].attributes
    operands = [*ops[0].inputs[:4], *ops[1].inputs[1:]]
    plan = Plan(
        Isa.GENERIC, plans[0].inputs, plans[1].outputs, [Op("separable", "layer", operands, ops[1].outputs, joined)]
    )
    between = expected(first, x, weights[0])
    want, macs = expected(second, between, weights[1]), (weights[0].size + weights[1].size) * pair.size**2
    return Case(plan, *(in_fours(array) if job.dtype == "s8" else array for array in (x, want)), macs)


def _steps_case(layer: Steps, steps: int) -> Case:
    """An LSTM's recurrence by numpy: gates i, o, f and c of what the inputs add up to and the state's product."""
    rng, (hidden, rows) = np.random.default_rng(0), (layer.hidden, layer.rows)
    panels = hidden // PANEL
    weights = rng.uniform(-0.2, 0.2, (4, hidden, hidden)).astype(np.float32)  # [gate, unit, state]
    x = rng.standard_normal((steps, rows, 4 * hidden)).astype(np.float32)
    packed = weights.reshape(4 * panels, PANEL, hidden).transpose(0, 2, 1)
    shapes = [(steps, rows, hidden), (rows, hidden), (rows, hidden)]
    made = [
        Tensor(name, DType.F32, tuple(map(dim, shape))) for name, shape in zip(("y", "h", "c"), shapes, strict=True)
    ]
    given = Tensor("x", DType.F32, tuple(map(dim, x.shape)))
    functions = {"f": "sigmoid", "g": "tanh", "h": "tanh"}
    op = Op(
        "recurrent",
        "layer",
        [given, _constant("weights", np.ascontiguousarray(packed))],
        made,
        {"kind": "lstm", **functions},
    )
    h = c = np.zeros((rows, hidden))
    states = []
    for step in x.astype(np.float64).reshape(steps, rows, 4, hidden):
        i, o, f, new = np.moveaxis(step + np.einsum("gus,bs->bgu", weights, h), 1, 0)
        c = c / (1 + np.exp(-f)) + np.tanh(new) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
        states.append(h)
    return Case(Plan(Isa.GENERIC, [given], made, [op]), x, np.stack(states), 4 * hidden * hidden * rows)


def _constant(name: str, array: np.ndarray) -> Tensor:
    dtype = {"float32": DType.F32, "int8": DType.S8, "int32": DType.S32}[array.dtype.name]
    return Tensor(name, dtype, tuple(map(dim, array.shape)), data=array)


def drawn(job: Job) -> np.ndarray:
    """Weights, of which sparse ones keep blocks of inputs by outputs."""
    rng = np.random.default_rng(0)
    shape = job.layer.weights
    weights = (
        rng.integers(-127, 128, shape).astype(np.int8) if job.dtype == "s8" else rng.standard_normal(shape, np.float32)
    )
    if job.block:
        rows, columns = job.block
        kept = rng.random((shape[0] // columns, shape[1] // rows)) < DENSITY
        weights *= kept.repeat(columns, 0).repeat(rows, 1)[:, :, None, None].astype(weights.dtype)
    return weights


def plan_of(job: Job, weights: np.ndarray, samples: int) -> Plan:
    layer, depthwise = job.layer, job.layer.group > 1
    packed = pack_depthwise(weights[:, 0]) if depthwise else pack_conv(weights, block=job.block)
    operands: list[Tensor | None] = [None] * 7
    pixels, layout = (layer.size, layer.size), Layout.C4 if job.dtype == "s8" else Layout.PLAIN

    def port(name: str, channels: int) -> tuple[Tensor, Tensor]:
        dims = (dim(samples), dim(channels), *map(dim, pixels))
        if job.dtype == "f32":
            tensor = Tensor(name, DType.F32, dims)
            return tensor, tensor
        outer = Tensor(name, DType.U8, (dim(samples), dim(channels // 4), *map(dim, pixels), dim(4)))
        return outer, Tensor(name, DType.U8, dims, layout, storage=outer.storage)

    (x, operands[0]), (y, inner) = port("x", layer.channels), port("y", layer.outputs)
    for at, name in ((1, "weights"), (5, "index"), (6, "start")):
        if name in packed.constants:
            operands[at] = _constant(name, packed.constants[name])
    attributes: dict[str, Any] = {**packed.attributes, "pads": [layer.kernel // 2] * 4, "activation": "relu"}
    if job.dtype == "s8":
        operands[2] = _constant("scale", np.full(layer.outputs, _scale(job), np.float32))
        attributes |= {"x_zero_point": 100, "y_scale": 1.0, "y_zero_point": 3}
    op = Op("depthwise" if depthwise else "conv", "layer", operands, [inner], attributes)
    return Plan(Isa.GENERIC, [x], [y], [op])


def _scale(job: Job) -> float:
    return 1 / (512 * int(np.prod(job.layer.weights[1:])) ** 0.5)


def inputs_of(job: Job, samples: int) -> np.ndarray:
    """[N, C, H, W]."""
    rng = np.random.default_rng(1)
    shape = (samples, job.layer.channels, job.layer.size, job.layer.size)
    return rng.integers(0, 256, shape).astype(np.uint8) if job.dtype == "s8" else rng.standard_normal(shape, np.float32)


def expected(job: Job, x: np.ndarray, weights: np.ndarray, zero: int = 0) -> np.ndarray:
    """By numpy; ``zero`` is taken off x in 8 bits, and off what padding holds."""
    pad, k, layer = job.layer.kernel // 2, job.layer.kernel, job.layer
    fill = 100 if job.dtype == "s8" else 0
    wide = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (pad, pad), (pad, pad)), constant_values=fill)
    wide -= zero
    seen = np.lib.stride_tricks.sliding_window_view(wide, (k, k), axis=(2, 3))
    rule = "nchwyx,cyx->nchw" if layer.group > 1 else "nchwyx,mcyx->nmhw"
    sums = np.einsum(rule, seen, (weights[:, 0] if layer.group > 1 else weights).astype(np.float64), optimize=True)
    if job.dtype == "f32":
        return np.maximum(sums, 0)
    return np.clip(np.rint(np.maximum(sums * _scale(job), 0)) + 3, 0, 255)


def in_fours(x: np.ndarray) -> np.ndarray:
    """[N, C, H, W] as [N, C / 4, H, W, 4]."""
    return np.ascontiguousarray(np.moveaxis(x.reshape(x.shape[0], -1, 4, *x.shape[2:]), 2, -1))


def emulate(agent: Path, isa: str, plan: Plan, x: np.ndarray) -> tuple[int, str, bytes]:
    """Instructions executed in all, the kernel, and the output's bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.engine"
        path.write_bytes(encode(plan))
        kind = 0 if x.dtype == np.float32 else 3  # ew_dtype
        name = str(path).encode()
        request = struct.pack("<I", len(name)) + name + struct.pack("<II", 1, 1)
        request += struct.pack(f"<II{x.ndim}qQ", kind, x.ndim, *x.shape, x.nbytes) + x.tobytes()
        processor = PROCESSORS[isa]
        command = [
            processor.emulator,
            "-cpu",
            processor.cpu,
            "-singlestep",
            "-d",
            "exec,nochain",
            str(agent),
            "--serve",
        ]
        level = {"EDGEWISE_ISA": processor.level} if processor.level else {}
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | level
        ) as process:
            lines: list[int] = []
            counter = threading.Thread(target=_count_lines, args=(process.stderr, lines))
            counter.start()  # before anything is sent: the emulator waits for its lines to be read
            assert process.stdin and process.stdout
            process.stdin.write(request)
            process.stdin.close()
            answer = process.stdout.read()
            counter.join()
        if process.returncode != 0:
            raise SystemExit(f"the agent ended with {process.returncode}")
    return (lines[0], *_answer(answer))


def _count_lines(stream: IO[bytes], lines: list[int]) -> None:
    count = 0
    while block := stream.read(1 << 20):
        count += block.count(b"\n")
    lines.append(count)


def _answer(data: bytes) -> tuple[str, bytes]:
    def text(at: int) -> tuple[str, int]:
        (count,) = struct.unpack_from("<I", data, at)
        return data[at + 4 : at + 4 + count].decode(), at + 4 + count

    _, at = text(0)
    (status,) = struct.unpack_from("<I", data, at)
    told, at = text(at + 4)
    if status:
        raise SystemExit(f"libedgewise refuses the layer: {told}")
    _, _, rank = struct.unpack_from("<III", data, at)
    return told, data[at + 12 + 8 * rank + 8 :]


def measure(job: Job, agent: Path) -> dict[str, Any]:
    """Check a job's output, then count: two samples less one."""
    counts, kernel, macs = [], "", 0
    for samples in (1, 2):
        case = case_of(job, samples)
        count, kernel, made = emulate(agent, job.isa, case.plan, case.x)
        counts.append(count)
        have = np.frombuffer(made, np.uint8 if job.dtype == "s8" else np.float32)[: case.wanted.size]
        off, macs = np.abs(have - case.wanted.reshape(-1)), case.macs
        if off.max() > (1 if job.dtype == "s8" else 1e-3):
            raise SystemExit(f"{job}: off by {off.max()}")
    lanes = PROCESSORS[job.isa].floor
    floor = 1 / (min(FLOAT_FLOOR, lanes) if job.dtype == "f32" else lanes)
    each = (counts[1] - counts[0]) / macs
    return {
        "layer": str(job.layer), "dtype": job.dtype, "kernel": kernel, "block": "x".join(map(str, job.block)) if job.block else "dense",
        "macs": macs, "instructions": counts[1] - counts[0], "per_mac": each, "floor": floor, "times_floor": each / floor,
    }  # fmt: skip


def _kept(job: Job, weights: np.ndarray) -> int:
    if not job.block:
        return int(np.prod(weights.shape))
    rows, columns = job.block
    blocks = weights.reshape(weights.shape[0] // columns, columns, weights.shape[1] // rows, rows)
    return int(blocks.any(axis=(1, 3)).sum()) * rows * columns


def main() -> None:
    """Parse, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isa", action="append", choices=list(PROCESSORS), help="levels; those of aarch64 by default")
    parser.add_argument("--agent", type=Path, help="edgewise-bench for the levels' processor; built by default")
    parser.add_argument(
        "--only", action="append", metavar="WORD", help="layers whose name has this word, such as separable"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    asked = parser.parse_args()
    isas = asked.isa or list(AARCH64)
    for isa in isas:
        if not shutil.which(PROCESSORS[isa].emulator):
            raise SystemExit(f"needs {PROCESSORS[isa].emulator} (Debian's qemu-user-static)")
    rows = []
    if not asked.json:
        print("| kernel | layer | weights | instructions a MAC | floor | times the floor |\n|---|---|---|---|---|---|")
    for job in jobs(isas):
        if asked.only and not any(word in str(job.layer) for word in asked.only):
            continue
        row = measure(job, asked.agent or agent_for(PROCESSORS[job.isa].triple))
        rows.append(row)
        if not asked.json:
            cells = [
                f"`{row['kernel']}`",
                row["layer"],
                row["block"],
                f"{row['per_mac']:.4f}",
                f"{row['floor']:.4f}",
                f"{row['times_floor']:.2f}",
            ]
            print("| " + " | ".join(cells) + " |", flush=True)
    if asked.json:
        json.dump({"schema_version": 1, "rows": rows}, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
