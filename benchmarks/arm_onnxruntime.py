"""ONNX Runtime's kernels for aarch64 in the same emulator as arm.py counts libedgewise's in: instructions per multiply-accumulate.

    pip download --no-deps --platform manylinux_2_28_aarch64 --python-version 3.11 --only-binary :all: onnxruntime
    unzip onnxruntime-*.whl 'onnxruntime/capi/*'
    python benchmarks/arm_onnxruntime.py onnxruntime/capi/libonnxruntime.so.*         (g++-aarch64-linux-gnu, qemu-user-static)

The library is run through its C API (arm_onnxruntime.c), one thread. Layers, weights, inputs, the check of the output with numpy, and
what is counted (a run of two samples less a run of one) are arm.py's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE))
import arm  # noqa: E402 - the script beside this one

COMPILER, LIBRARIES = "aarch64-linux-gnu-gcc", "/usr/aarch64-linux-gnu/lib"
# What ONNX Runtime reads about the processor, which is this machine's otherwise: the part's number, and features beside those of all.
PARTS = {"neon": ("0xd03", ""), "neon_dotprod": ("0xd0b", "asimddp"), "neon_i8mm": ("0xd40", "asimddp i8mm")}
CPUINFO = """processor\t: 0
Features\t: fp asimd atomics {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: {part}
CPU revision\t: 1
"""


def network(job: arm.Job, weights: np.ndarray) -> onnx.ModelProto:
    """A layer as ONNX: Conv and Relu, or QLinearConv whose zero point is where Relu cuts."""
    layer, pad = job.layer, job.layer.kernel // 2
    common: dict[str, Any] = {"pads": [pad] * 4, "group": layer.group}
    if job.dtype == "f32":
        nodes = [helper.make_node("Conv", ["x", "w"], ["c"], **common), helper.make_node("Relu", ["c"], ["y"])]
        constants, kind = {"w": weights}, TensorProto.FLOAT
    else:
        names = ["x", "x_scale", "x_zero", "w", "w_scale", "w_zero", "y_scale", "y_zero"]
        nodes = [helper.make_node("QLinearConv", names, ["y"], **common)]
        constants = {
            "x_scale": np.float32(1), "x_zero": np.uint8(100), "w": weights, "w_scale": np.full(layer.outputs, arm._scale(job), np.float32),
            "w_zero": np.zeros(layer.outputs, np.int8), "y_scale": np.float32(1), "y_zero": np.uint8(0),
        }  # fmt: skip
        kind = TensorProto.UINT8
    shape = ["N", layer.channels, layer.size, layer.size]
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, ["N", layer.outputs, layer.size, layer.size])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def counted(stream: IO[bytes], counts: list[int]) -> None:
    """Lines between each pair of marks."""
    inside, rest = -1, b""
    while block := stream.read(1 << 20):
        block = rest + block
        whole, _, rest = block.rpartition(b"\n")
        for number, part in enumerate(whole.split(b"<<\n") if whole else []):
            if number > 0:
                inside = 0
            body, end, _ = part.partition(b">>")
            if inside >= 0:
                inside += body.count(b"\n") + (end == b"" and number == whole.count(b"<<\n"))
            if end and inside >= 0:
                counts.append(inside)
                inside = -1


def system(root: Path, isa: str) -> Path:
    """A folder in which the emulator looks for files first: Debian's libraries for aarch64, and one processor."""
    (root / "proc").mkdir()
    cpus = root / "sys" / "devices" / "system" / "cpu"
    cpus.mkdir(parents=True)
    (root / "lib").symlink_to(LIBRARIES)
    part, features = PARTS[isa]
    (root / "proc" / "cpuinfo").write_text(CPUINFO.format(part=part, features=features))
    for name in ("possible", "present"):
        (cpus / name).write_text("0\n")
    return root


def count(program: Path, library: Path, root: Path, cpu: str, words: list[str]) -> list[int]:
    """Instructions of each run between marks."""
    command = [
        "qemu-aarch64-static",
        "-L",
        str(root),
        "-cpu",
        cpu,
        "-singlestep",
        "-d",
        "exec,nochain",
        str(program),
        str(library),
        *words,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        counts: list[int] = []
        counter = threading.Thread(target=counted, args=(process.stderr, counts))
        counter.start()
        assert process.stdout
        said = process.stdout.read()
        counter.join()
    if process.returncode:
        raise SystemExit(f"ended with {process.returncode}: {said.decode(errors='replace')}")
    return counts


def measure(isa: str, dtype: str, program: Path, library: Path) -> list[dict[str, Any]]:
    """All dense layers in one process, whose start takes most of the time."""
    jobs = [arm.Job(layer, dtype, isa) for layer in (*arm.DENSE, arm.DEPTHWISE)]
    with tempfile.TemporaryDirectory() as folder:
        words, wanted = [], []
        for at, job in enumerate(jobs):
            model, given, made = (Path(folder) / f"{at}.{end}" for end in ("onnx", "in", "out"))
            weights, x = arm.drawn(job), arm.inputs_of(job, 2)
            onnx.save(network(job, weights), model)
            given.write_bytes(x.tobytes())
            want = arm.expected(job, x, weights, 100 if dtype == "s8" else 0)
            if dtype == "s8":
                want = np.clip(want - 3, 0, 255)  # arm.py's zero point is 3
            made.write_bytes(bytes(want.size * (4 if dtype == "f32" else 1)))
            wanted.append(want)
            words += [
                str(model),
                str(given),
                str(made),
                "1" if dtype == "f32" else "2",
                str(job.layer.channels),
                str(job.layer.size),
            ]
        (Path(folder) / "root").mkdir()
        counts = count(program, library, system(Path(folder) / "root", isa), arm.PROCESSORS[isa].cpu, words)
        rows = []
        for at, (job, want) in enumerate(zip(jobs, wanted, strict=True)):
            have = np.fromfile(Path(folder) / f"{at}.out", np.float32 if dtype == "f32" else np.uint8).reshape(
                want.shape
            )
            if np.abs(have - want).max() > (1e-3 if dtype == "f32" else 1):
                raise SystemExit(f"{job}: off by {np.abs(have - want).max()}")
            macs = int(np.prod(job.layer.weights)) * job.layer.size**2
            each = (counts[2 * at + 1] - counts[2 * at]) / macs
            rows.append({"isa": isa, "dtype": dtype, "layer": str(job.layer), "macs": macs, "per_mac": each})
    return rows


def main() -> None:
    """Build the program, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path, help="libonnxruntime.so for aarch64")
    parser.add_argument("--isa", action="append", choices=list(arm.AARCH64), help="levels; all by default")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "arm_onnxruntime"
        source = HERE / "arm_onnxruntime.c"
        subprocess.run([COMPILER, "-O1", "-Wall", "-o", str(program), str(source), "-ldl"], check=True)
        rows = []
        for isa in asked.isa or arm.AARCH64:
            rows += measure(isa, "s8", program, asked.library)
        rows += measure("neon", "f32", program, asked.library)
    if asked.json:
        json.dump({"schema_version": 1, "rows": rows}, sys.stdout, indent=1)
        return
    print("| processor | dtype | layer | ONNX Runtime, instructions a MAC |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row['isa']} | {row['dtype']} | {row['layer']} | {row['per_mac']:.4f} |")


if __name__ == "__main__":
    main()
