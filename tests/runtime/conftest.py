"""Small bundles to try the runtime on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import pytest
from onnx import numpy_helper

from edgewise.runtime.bundle import create_bundle, save_reference

BundleMaker = Callable[..., Path]

_NET = """
<ir_version: 8, opset_import: ["" : 18]>
net (float[N, 3, 8, 8] x) => (float[N, 5] y)
{
   a = Conv <pads=[1,1,1,1]> (x, w, b)
   r = Relu (a)
   g = Flatten (r)
   y = MatMul (g, f)
}
"""


def small_net(seed: int = 0) -> onnx.ModelProto:
    """A convolution, an activation and a linear layer, with batch dim N."""
    generator = np.random.default_rng(seed)
    model = onnx.parser.parse_model(_NET)
    for name, shape in (("w", (4, 3, 3, 3)), ("b", (4,)), ("f", (256, 5))):
        values = generator.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


@pytest.fixture
def net() -> onnx.ModelProto:
    return small_net()


@pytest.fixture
def make_bundle(tmp_path: Path, net: onnx.ModelProto) -> BundleMaker:
    """Make ``NAME.edge`` around the small net; keywords replace keys of the manifest."""

    def make(name: str = "net", engine: dict[str, Any] | None = None, **changes: Any) -> Path:
        path = tmp_path / f"{name}.edge"
        x = np.random.default_rng(1).standard_normal((2, 1, 3, 8, 8)).astype(np.float32)
        run = onnx.reference.ReferenceEvaluator(net).run
        with create_bundle(path) as (draft, manifest):
            (draft / "model.onnx").write_bytes(net.SerializeToString())
            (draft / "sub").mkdir()
            (draft / "sub" / "recipe.yaml").write_text("stages: {}\n")
            save_reference(
                draft / "reference.npz", [{"x": x[0]}, {"x": x[1]}], [{"y": run(["y"], {"x": part})[0]} for part in x]
            )
            manifest |= {
                "source": {"sha256": "0" * 64},
                "inputs": [{"name": "x", "dtype": "float32", "shape": ["N", 3, 8, 8], "layout": "NCHW"}],
                "outputs": [{"name": "y", "dtype": "float32", "shape": ["N", 5]}],
                "preprocess": None,
                "target": "cpu",
                "device": "x86-64-v3",
                "engine": {
                    "kind": "onnxruntime",
                    "files": ["model.onnx"],
                    "versions": {"onnxruntime": "1"},
                    "layers": [],
                    "settings": {"model": "model.onnx"},
                    "notes": [],
                }
                | (engine or {}),
                "stages": {},
                "parity": {},
            } | changes
        return path

    return make
