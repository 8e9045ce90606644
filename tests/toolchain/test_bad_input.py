"""Bad input through the command line: one readable sentence, exit code 2, no traceback, nothing half-written left behind."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgewise.targets.cpu.host import host_device

ARCH = """
import torch

def make(classes=5):
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, classes)
    )

def fails():
    raise ValueError("no weights today")
"""
INPUT = ("--input", "x=f32[1,3,8,8]")


class Folder:
    """A folder to work in. ``unchanged`` holds that a command leaves no file there, not even a hidden one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def listing(self) -> list[str]:
        ours = (path for path in self.path.rglob("*") if "__pycache__" not in path.parts)
        return sorted(path.relative_to(self.path).as_posix() for path in ours)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "arch.py").write_text(ARCH)
    yield Folder(tmp_path)


@pytest.fixture
def refused(cli: Any, folder: Folder) -> Any:
    """Run a command that must be refused; gives its one line on stderr."""

    def run(*arguments: str | Path, code: int = 2) -> str:
        before = folder.listing()
        done = cli(*arguments)
        assert done.code == code, done.err
        assert done.out == ""
        assert "Traceback" not in done.err
        assert "bug in edgewise" not in done.err
        assert folder.listing() == before
        *_, last = done.err.strip().splitlines()
        assert last.startswith("error: ")
        return str(last)

    return run


def state_dict(path: Path, **changes: Any) -> Path:
    import torch

    torch.manual_seed(0)
    scope: dict[str, Any] = {}
    exec(ARCH, scope)  # noqa: S102
    weights = scope["make"]().state_dict()
    torch.save({name: value for name, value in {**weights, **changes}.items() if value is not None}, path)
    return path


@pytest.mark.parametrize(
    "verb",
    [
        ["inspect"],
        ["build", "-o", "x.edge", "--target", "cpu"],
        pytest.param(["export", "-o", "m.onnx"], marks=pytest.mark.slow),
        pytest.param(["convert", "-o", "out", "--target", "cpu"], marks=pytest.mark.slow),
    ],
)
def test_a_missing_file(refused: Any, verb: list[str]) -> None:
    text = refused(*verb, "nothing.onnx")
    assert "nothing.onnx" in text and "no such file" in text


def test_a_cut_onnx_file(refused: Any, folder: Folder, tiny: Path) -> None:
    (folder / "cut.onnx").write_bytes(tiny.read_bytes()[:-700])
    text = refused("inspect", "cut.onnx")
    assert "cut.onnx" in text and "bytes that do not decode" in text
    assert "expected an ONNX file" in text


def test_a_graph_in_bfloat16_is_exported_first(refused: Any, folder: Folder) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18]> g (bfloat16[3] x) => (bfloat16[3] y) { y = Relu(x) }'
    )
    onnx.save(model, folder / "short.onnx")
    text = refused("build", "short.onnx", "-o", "x.edge", "--target", "cpu")
    assert "short.onnx, 'x'" in text and "edgewise export" in text


@pytest.mark.slow
def test_a_cut_checkpoint(refused: Any, folder: Folder) -> None:
    whole = state_dict(folder / "whole.pth").read_bytes()
    (folder / "cut.pth").write_bytes(whole[: len(whole) // 2])
    assert "cut.pth" in refused("export", "cut.pth", "-o", "m.onnx", "--arch", "arch.py:make", *INPUT)


@pytest.mark.slow
def test_an_html_page_named_pth(refused: Any, folder: Folder) -> None:
    (folder / "page.pth").write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>")
    text = refused("export", "page.pth", "-o", "m.onnx", "--arch", "arch.py:make", *INPUT)
    assert "page.pth" in text and "HTML" in text


@pytest.mark.slow
def test_a_pickle_with_code_in_it_is_not_run(refused: Any, folder: Folder) -> None:
    import torch

    class Code:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(folder / "pwned"),)

    torch.save({"state_dict": {"a": torch.ones(1)}, "more": Code()}, folder / "code.pth")
    text = refused("export", "code.pth", "-o", "m.onnx", "--arch", "arch.py:make", *INPUT)
    assert "code.pth" in text and "--trust-pickle" in text
    assert not (folder / "pwned").exists()


@pytest.mark.slow
def test_keys_that_do_not_match(refused: Any, folder: Folder) -> None:
    import torch

    state_dict(folder / "keys.pth", **{"0.weight": None, "strange.weight": torch.ones(3)})
    text = refused("export", "keys.pth", "-o", "m.onnx", "--arch", "arch.py:make", *INPUT)
    assert "0.weight" in text and "strange.weight" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ["--arch"]),
        (("--arch", "arch.py:mak", *INPUT), ["arch.py", "mak"]),
        (("--arch", "nowhere.py:make", *INPUT), ["nowhere.py"]),
        (("--arch", "arch.py:fails", *INPUT), ["no weights today"]),
        (("--arch", "arch.py:make", "--arch-arg", "classes", *INPUT), ["--arch-arg classes", "KEY=VALUE"]),
        (("--arch", "arch.py:make"), ["--input"]),
        (("--arch", "arch.py:make", "--input", "x=f33[1]"), ["--input x=f33[1]", "NAME=DTYPE"]),
        (("--arch", "arch.py:make", "--input", "x=f32[1,4,8,8]"), ["4"]),
    ],
)
def test_a_wrong_architecture_or_input(
    refused: Any, folder: Folder, arguments: tuple[str, ...], words: list[str]
) -> None:
    state_dict(folder / "net.pth")
    text = refused("export", "net.pth", "-o", "m.onnx", *arguments)
    for word in words:
        assert word in text


def test_external_data_outside_the_folder_of_the_model(refused: Any, folder: Folder, tiny: Path) -> None:
    model = onnx.load(tiny)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../etc/passwd")
    onnx.save(model, folder / "evil.onnx")
    text = refused("inspect", "evil.onnx")
    assert "outside the folder" in text and "conv.weight" in text


@pytest.mark.parametrize("target", ["cpu", "null"])
def test_an_operator_that_a_target_lacks(refused: Any, folder: Folder, target: str) -> None:
    node = helper.make_node("Frobnicate", ["x"], ["y"], name="odd_one", domain="example.org")
    spec = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("example.org", 1)]
    onnx.save(
        helper.make_model(helper.make_graph([node], "g", spec[:1], spec[1:]), opset_imports=opsets, ir_version=9),
        folder / "odd.onnx",
    )
    text = refused("build", "odd.onnx", "-o", "odd.edge", "--target", target)
    assert "Frobnicate" in text


def test_an_input_of_another_shape_or_name(refused: Any, folder: Folder, built: Path) -> None:
    np.savez(folder / "shape.npz", x=np.zeros((2, 4, 8, 8), np.float32), label=[0, 1])
    np.savez(folder / "name.npz", image=np.zeros((2, 3, 8, 8), np.float32), label=[0, 1])
    text = refused("eval", built, "--data", "shape.npz")
    assert "x" in text and "4, 8, 8]" in text and "3, 8, 8]" in text
    text = refused("eval", built, "--data", "name.npz")
    assert "image" in text and "x" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "nothing.npz"], ["nothing.npz", "no such file"]),
        (["--data", "unlabelled.npz"], ["labels"]),
        (["--data", "good.npz", "--metric", "top7"], ["top7", "top1"]),
        (["--data", "good.npz", "--metric", "nowhere:f1"], ["nowhere"]),
        (["--data", "good.npz", "--limit", "3", "--preprocess", "resize=big"], ["resize", "big"]),
    ],
)
def test_wrong_data_metric_or_preprocessing(
    refused: Any, folder: Folder, built: Path, arguments: list[str], words: list[str]
) -> None:
    arrays = np.zeros((4, 3, 8, 8), np.float32)
    np.savez(folder / "unlabelled.npz", x=arrays)
    np.savez(folder / "good.npz", x=arrays, label=[0, 1, 2, 3])
    text = refused("eval", built, *arguments)
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["quantize", "{tiny}", "-o", "q.onnx", "--target", "cpu"], ["needs calibration data", "--allow-random-calibration"]),
        (["quantize", "{tiny}", "-o", "q.onnx", "--target", "cpu", "--calib", "none.npz"], ["none.npz", "no such file"]),
        (["quantize", "{tiny}", "-o", "q.onnx", "--target", "toaster", "--calib", "n"], ["'toaster'", "cpu"]),
        (["quantize", "{tiny}", "-o", "q.onnx", "--target", "cpu", "--scheme", "int3", "--allow-random-calibration"], ["int3", "int8"]),
        (["quantize", "{tiny}", "-o", "q.onnx", "--target", "cpu", "--method", "guess", "--allow-random-calibration"], ["guess", "minmax"]),
        (["quantize", "{tiny}", "-o", "q.onnx", "--target", "cpu", "--keep-float", "nobody", "--allow-random-calibration"], ["nobody"]),
        (["build", "{tiny}", "-o", "b.edge", "--target", "cpu", "--device", "iphone-15-pro"], ["iphone-15-pro", "x86-64-v3"]),
        (["build", "{tiny}", "-o", "b.edge", "--target", "cpu", "--option", "speed=11"], ["speed"]),
        (["profile", "{built}", "--device", "ssh://me:secret@host"], ["a password", "with a key"]),
        (["profile", "{built}", "--device", "ssh://me@127.0.0.1:1"], ["cannot reach the device", "an SSH server there"]),
        (["verify", "{built}", "--device", "adb:1 2"], ["cannot read the device's address", "`adb devices`"]),
        (["profile", "{built}", "--device", "toaster"], ["'toaster'", "expected local"]),
        (["profile", "{tiny}"], ["cannot open the bundle"]),
        (["verify", "{built}", "--data", "x.npz"], ["DATA without --against"]),
        (["verify", "{built}", "--per-layer"], ["--against SOURCE"]),
        (["convert", "-o", "out", "--target", "cpu"], ["SOURCE", "a checkpoint or an ONNX file"]),
        (["convert", "{tiny}", "-o", "out"], ["--target"]),
        (["convert", "{tiny}", "-o", "out", "--target", "cpu", "--target", "cpu"], [f"'tiny-cpu-{host_device()}' more than once"]),
        (["convert", "{tiny}", "-o", "out", "--target", "cpu", "--device", "iphone-15-pro"], ["iphone-15-pro"]),
        (["convert", "{tiny}", "-o", "out", "--target", "cpu", "--pattern", "2:4"], ["'sparsity'"]),
        (["convert", "{tiny}", "-o", "out", "--recipe", "none.yaml"], ["none.yaml", "No such file"]),
        (["convert", "{tiny}", "-o", "out", "--target", "cpu", "--name", "../outside"], ["'../outside'", "the name cannot name files"]),
        (["convert", "{tiny}", "-o", "out", "--target", "cpu", "--name", ".hidden"], ["'.hidden'"]),
        (["inspect", "{built}", "--target", "cpu"], ["a bundle has its target already"]),
        (["report", "nowhere"], ["nothing to report on", "no such folder"]),
    ],
)  # fmt: skip
def test_wrong_choices(refused: Any, tiny: Path, built: Path, arguments: list[str], words: list[str]) -> None:
    text = refused(*(argument.format(tiny=tiny, built=built) for argument in arguments))
    for word in words:
        assert word in text


def test_a_damaged_bundle(refused: Any, folder: Folder, built: Path) -> None:
    import shutil

    shutil.copytree(built, folder / "bad.edge")
    (folder / "bad.edge" / "model.engine").write_bytes(b"flipped")
    for verb in (["inspect"], ["verify"], ["profile"], ["eval", "--data", "x.npz"]):
        assert "changed since the build" in refused(*verb, "bad.edge")


def test_a_hostile_zip(refused: Any, folder: Folder) -> None:
    with zipfile.ZipFile(folder / "evil.edge.zip", "w") as archive:
        archive.writestr("../../outside.txt", "x")
    assert "evil.edge.zip" in refused("inspect", "evil.edge.zip")


def test_a_place_that_cannot_be_written(refused: Any, folder: Folder, tiny: Path) -> None:
    (folder / "file").write_text("in the way")
    text = refused("build", tiny, "-o", "file/x.edge", "--target", "null")
    assert "cannot write" in text and "file" in text


def test_somebody_s_folder_is_not_replaced(refused: Any, folder: Folder, tiny: Path) -> None:
    (folder / "home").mkdir()
    (folder / "home" / "letter.txt").write_text("dear")
    text = refused("build", tiny, "-o", "home", "--target", "null")
    assert "cannot write the bundle (home)" in text and "an earlier bundle" in text and "another output folder" in text


def test_a_network_that_takes_no_random_inputs(refused: Any, folder: Folder) -> None:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [2, 3, 9], [0.1] * 54)
    spec = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, c, name]) for name, c in (("x", 3), ("y", 2))]
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"])], "g", spec[:1], spec[1:], [weights])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / "features.onnx"
    )
    text = refused("build", "features.onnx", "-o", "x.edge", "--target", "cpu")
    assert "does not run on random inputs (inputs x [1, 3, 2])" in text and "--data DATA" in text


def limited(arguments: list[str], folder: Path, largest_bytes: int) -> subprocess.CompletedProcess[str]:
    """Run the program where no file can grow beyond a size: the way a full disk looks to it."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_bytes, largest_bytes))

    command = [sys.executable, "-m", "edgewise", *arguments]
    # Python would cut the bytecode that it writes just as well, and other tests would read that.
    env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, preexec_fn=limit)


@pytest.mark.slow
@pytest.mark.parametrize(
    "verb",
    [
        ["quantize", "-o", "q.onnx", "--target", "cpu", "--allow-random-calibration"],
        ["build", "-o", "x.edge", "--target", "cpu"],
        ["build", "-o", "x.edge", "--target", "null"],
        ["prune", "-o", "p.onnx", "--pattern", "unstructured", "--sparsity", "0.5"],
    ],
    ids=["quantize", "build-cpu", "build-null", "prune"],
)
def test_a_full_disk(folder: Folder, tiny: Path, verb: list[str]) -> None:
    before = folder.listing()
    done = limited([verb[0], str(tiny), *verb[1:]], folder.path, 500)
    assert done.returncode == 2, done.stderr
    assert "cannot write" in done.stderr
    assert "nothing was left behind" in done.stderr
    assert "Traceback" not in done.stderr
    assert folder.listing() == before


def test_no_space_left_on_the_device(refused: Any, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    text = refused("quantize", tiny, "-o", "q.onnx", "--target", "cpu", "--allow-random-calibration")
    assert "No space left on device" in text and "Free some space" in text


SLOW_DATA = """
import pathlib, time
import numpy as np

def samples():
    yield {"x": np.ones((1, 3, 8, 8), np.float32)}
    pathlib.Path("../started").touch()
    time.sleep(60)
    yield {"x": np.ones((1, 3, 8, 8), np.float32)}
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("verb", ["quantize", "convert"])
def test_interrupted_in_the_middle(tmp_path: Path, tiny: Path, verb: str, number: signal.Signals, code: int) -> None:
    inner = Folder(tmp_path / "inner")
    inner.path.mkdir()
    (inner / "slow.py").write_text(SLOW_DATA)
    recipe = inner / "r.yaml"
    recipe.write_text("export: null\n")
    output = ["-o", "q.onnx"] if verb == "quantize" else ["-o", "out", "--recipe", "r.yaml"]
    choices = ["--target", "cpu", "--scheme", "int8", "--calib", "slow.py:samples"]
    # A shell that starts jobs in the background lets them ignore the interrupt, and their children inherit that.
    answering = "import signal, runpy; signal.signal(signal.SIGINT, signal.default_int_handler); runpy.run_module('edgewise', run_name='__main__')"
    command = [sys.executable, "-c", answering, verb, str(tiny), *output, *choices]
    running = subprocess.Popen(command, cwd=inner.path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(number)
    out, err = running.communicate(timeout=30)
    assert running.returncode == code, err
    assert out == ""
    assert "Traceback" not in err
    assert inner.listing() == ["r.yaml", "slow.py"]
