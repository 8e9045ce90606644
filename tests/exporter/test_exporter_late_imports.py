"""An ONNX file needs no PyTorch, which takes seconds to import; what needs it and lacks it names the extra."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

pytestmark = pytest.mark.slow

_WITHOUT_TORCH = """
import importlib.util, sys
sys.modules["torch"] = None
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "torch" else real(name, *rest)
from edgewise.cli import main
sys.argv = ["edgewise", *sys.argv[1:]]
main()
"""


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _WITHOUT_TORCH, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_onnx_file_is_converted_without(tmp_path: Path) -> None:
    x = ir.Value(name="x", shape=ir.Shape(["batch", 8]), type=ir.TensorType(ir.DataType.FLOAT))
    weight = ir.Value(name="w", const_value=ir.tensor(np.eye(8, 4, dtype=np.float32)))
    product = ir.node("MatMul", [x, weight], name="product")
    graph = ir.Graph([x], product.outputs, nodes=[product], initializers=[weight], opset_imports={"": 18})
    product.outputs[0].name = "y"
    ir.save(ir.Model(graph, ir_version=10), tmp_path / "net.onnx")
    done = run(
        "convert", tmp_path / "net.onnx", "-o", tmp_path / "out", "--scheme", "int8", "--allow-random-calibration",
        "--target", "cpu", "--target", "coreml", "--samples", "8",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors", "hf"])
def test_what_pytorch_computes_names_the_extra(tmp_path: Path, name: str) -> None:
    source = tmp_path / name
    if name == "hf":
        source.mkdir()
        (source / "config.json").write_text("{}")
    else:
        source.write_bytes(b"\x80\x02}q\x00.")
    done = run("export", source, "-o", tmp_path / "net.onnx")
    assert done.returncode == 2
    assert "pip install 'edgewise[export]'" in done.stderr
    assert "Traceback" not in done.stderr
