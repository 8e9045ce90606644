"""Packs for other processors: the example compiles without a warning, is small, runs in qemu, and computes what the network does."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from PIL import Image

from edgewise.runtime.bundle import create_bundle, open_bundle, save_reference
from edgewise.runtime.devices.cross import SOURCES, zig
from edgewise.runtime.errors import EdgewiseError
from edgewise.runtime.preprocess import Preprocess
from edgewise.targets.base import BuildRequest
from edgewise.targets.cpu.native.build import build_native
from edgewise.targets.devices import find_device
from edgewise.verbs.pack import pack

pytestmark = [pytest.mark.slow, pytest.mark.cross]

_ROOT = Path(__file__).resolve().parents[2]
_EMULATORS = {
    "x86_64-linux-musl": None,
    "aarch64-linux-musl": "qemu-aarch64-static",
    "arm-linux-musleabihf": "qemu-arm-static",
    "riscv64-linux-musl": "qemu-riscv64-static",
}
_GNU = "x86_64-linux-gnu"  # runs with this machine's glibc
_WASM, _NODE = "wasm32-wasi", _ROOT / "examples" / "embed_wasm" / "run.mjs"
_VECTORS_OF_FOUR = ("arm-", "riscv64", "wasm32")
_MOST_LINES, _LARGEST_BYTES = 40, 1_200_000
_STRICT = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"]
_NET = """
<ir_version: 8, opset_import: ["" : 18]>
net (float[N, 3, 8, 8] x, int64[N] shift) => (float[N, 5] y, int64[N] later)
<float[192, 5] f>
{
   one = Constant <value_ints=[1]> ()
   g = Flatten (x)
   y = MatMul (g, f)
   later = Add (shift, one)
}
"""

_STEPS = "resize=24,crop=16x20,color=bgr,scale=255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225"
_PREPARE = """
#include <stdio.h>
#include "a_net_1_preprocess.h"
static unsigned char pixels[30 * 40 * 3];
static float output[3 * 16 * 20];
static uint64_t workspace[4096];
int main(void) {
    const ew_image image = {pixels, 40, 30, 0, EW_PIXELS_RGB};
    ew_prepared told;
    if (fread(pixels, 1, sizeof pixels, stdin) != sizeof pixels) return 2;
    if (ew_preprocess_plan(&a_net_1_preprocess, &image, &told) || told.workspace_bytes > sizeof workspace) return 3;
    if (ew_preprocess_run(&a_net_1_preprocess, &image, output, sizeof output, workspace, sizeof workspace)) return 4;
    return fwrite(output, 1, sizeof output, stdout) != sizeof output;
}
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two inputs and outputs of different types with a free dim, which is 2 in the reference."""
    path = tmp_path_factory.mktemp("packed") / "a net-1.edge"
    model = onnx.parser.parse_model(_NET.replace("<float[192, 5] f>\n", ""))
    generator = np.random.default_rng(0)
    weights = generator.standard_normal((192, 5)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "f"))
    sample = {"x": generator.standard_normal((2, 3, 8, 8)).astype(np.float32), "shift": np.array([3, -4])}
    wanted = {"y": sample["x"].reshape(2, -1) @ weights, "later": sample["shift"] + 1}
    with create_bundle(path) as (draft, manifest):
        built = build_native(BuildRequest(ir.from_proto(model), draft, find_device("generic", "cpu")))
        save_reference(draft / "reference.npz", [sample], [wanted])
        ports = {
            "inputs": [("x", "float32", ["N", 3, 8, 8]), ("shift", "int64", ["N"])],
            "outputs": [("y", "float32", ["N", 5]), ("later", "int64", ["N"])],
        }
        for kind, told in ports.items():
            manifest[kind] = [{"name": name, "dtype": dtype, "shape": shape} for name, dtype, shape in told]
        manifest["target"], manifest["device"] = "cpu", "generic"
        manifest["preprocess"] = Preprocess.parse(_STEPS).to_json()
        manifest["engine"] = {"kind": built.kind, "files": built.files, "settings": built.settings}
    return path


def emulator(triple: str) -> list[str]:
    if triple == _GNU:
        return []
    if triple == _WASM:
        if not shutil.which("node"):
            pytest.skip("needs Node.js")
        return ["node", "--no-warnings", str(_NODE)]
    name = _EMULATORS[triple]
    if name and not shutil.which(name):
        pytest.skip(f"needs {name}")
    return [name] if name else []


def compiled(folder: Path, told: dict[str, Any]) -> Path:
    """Carry out the command that the pack names."""
    program, *words = told["command"].split()
    assert program == "zig"
    done = subprocess.run([str(zig()), *words, *_STRICT], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "example"


@pytest.mark.parametrize("embed", [False, True], ids=["beside", "embedded"])
@pytest.mark.parametrize("triple", [*_EMULATORS, _GNU, _WASM])
def test_the_example_computes_what_the_network_does(triple: str, embed: bool, bundle: Path, tmp_path: Path) -> None:
    if embed and triple in ("aarch64-linux-musl", "riscv64-linux-musl", _GNU):
        pytest.skip("two triples show that an engine can be embedded")
    runner = emulator(triple)
    if embed and triple == _WASM:
        with pytest.raises(EdgewiseError, match="cannot put the engine into the library"):
            pack(bundle, tmp_path / "pack", triple=triple, embed=True)
        return
    told = pack(bundle, tmp_path / "pack", triple=triple, embed=embed)
    program = compiled(tmp_path / "pack", told)
    assert {file.name for file in (tmp_path / "pack").iterdir()} == {*told["files"], "example"}
    text = (tmp_path / "pack" / "example.c").read_text()
    assert len(text.splitlines()) <= _MOST_LINES
    engine = open_bundle(bundle).file("model.engine").stat().st_size
    assert program.stat().st_size <= _LARGEST_BYTES + engine * embed
    (inputs,), (outputs,) = open_bundle(bundle).reference()
    said = subprocess.run(
        [*runner, str(program)], cwd=tmp_path if embed else tmp_path / "pack",
        input=inputs["x"].tobytes() + inputs["shift"].tobytes(), capture_output=True, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert (b"f32_vec4" in program.read_bytes()) == triple.startswith(_VECTORS_OF_FOUR)
    numbers = np.array(said.stdout.split(), np.float64)
    np.testing.assert_allclose(numbers[:10], outputs["y"].ravel(), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(numbers[10:], outputs["later"])


def test_a_distributions_compiler_links_the_library_for_its_glibc(bundle: Path, tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if not compiler:
        pytest.skip("needs a C compiler")
    pack(bundle, tmp_path / "pack", triple=_GNU, embed=True)
    words = ["example.c", "liba_net_1.a", "-lm", "-pthread", "-o", "example", *_STRICT]
    done = subprocess.run([compiler, "-O2", *words], cwd=tmp_path / "pack", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (inputs,), (outputs,) = open_bundle(bundle).reference()
    given = inputs["x"].tobytes() + inputs["shift"].tobytes()
    said = subprocess.run([tmp_path / "pack" / "example"], input=given, capture_output=True, check=True).stdout
    np.testing.assert_allclose(np.array(said.split(), np.float64)[:10], outputs["y"].ravel(), rtol=1e-4, atol=1e-4)


def test_the_example_links_the_libc_that_the_library_was_built_with(bundle: Path, tmp_path: Path) -> None:
    """Zig builds another one, 40 s of a processor, for another level of optimisation."""
    words = pack(bundle, tmp_path / "pack", triple="x86_64-linux-musl")["command"].split()[1:]
    settings = (SOURCES / "cmake" / "zig.cmake").read_text(encoding="utf-8")
    (flags,) = re.findall(r'CMAKE_CXX_FLAGS_RELEASE "(.*?)"', settings)
    (tmp_path / "pack" / "empty.cpp").write_text("int main() {}\n")
    linked = []
    for command in (words, ["c++", "-target", words[2], *flags.split(), "empty.cpp", "-o", "empty"]):
        told = subprocess.run(
            [zig(), *command, "-v"], cwd=tmp_path / "pack", capture_output=True, text=True, check=True
        )
        linked.append({word for word in (told.stdout + told.stderr).split() if Path(word).name == "libc.a"})
    assert linked[0] == linked[1] and len(linked[0]) == 1


# One processor of 64 bits, one of 32.
@pytest.mark.parametrize("triple", ["aarch64-linux-musl", "arm-linux-musleabihf"])
def test_pictures_become_the_numbers_of_the_evaluation(triple: str, bundle: Path, tmp_path: Path) -> None:
    runner = emulator(triple)
    pack(bundle, tmp_path / "pack", triple=triple)
    (tmp_path / "pack" / "prepare.c").write_text(_PREPARE)
    command = [str(zig()), "cc", "-target", triple, "-Os", "prepare.c", "libedgewise.a", "-o", "prepare", *_STRICT]
    done = subprocess.run(command, cwd=tmp_path / "pack", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pixels = np.random.default_rng(3).integers(0, 256, (30, 40, 3), np.uint8)
    program = [*runner, str(tmp_path / "pack" / "prepare")]
    said = subprocess.run(program, input=pixels.tobytes(), capture_output=True, check=True)
    wanted = Preprocess.parse(_STEPS)(Image.fromarray(pixels))
    np.testing.assert_array_equal(np.frombuffer(said.stdout, np.float32).reshape(wanted.shape), wanted)


def test_nothing_is_allocated_after_the_first_run(bundle: Path, tmp_path: Path) -> None:
    triple = "x86_64-linux-musl"
    pack(bundle, tmp_path / "pack", triple=triple)
    source = _ROOT / "benchmarks" / "endurance.c"
    command = [str(zig()), "cc", "-target", triple, "-Os", str(source), "-I.", "libedgewise.a", "-o", "endurance"]
    subprocess.run([*command, *_STRICT], cwd=tmp_path / "pack", check=True)
    done = subprocess.run(
        [tmp_path / "pack" / "endurance", tmp_path / "pack" / "a_net_1.engine", "20000"], capture_output=True, text=True, check=True
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert told["allocations_before"] > 0
    assert told["allocations_after"] == 0
    assert told["resident_kib_after"] <= told["resident_kib_before"] + 16
