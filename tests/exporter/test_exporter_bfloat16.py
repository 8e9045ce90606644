"""Networks in bfloat16: exported in float32, whatever they came as."""

from __future__ import annotations

import numpy as np
import pytest

from edgewise.exporter import export, open_source
from edgewise.runtime.onnx_file import write_onnx
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.runtime.tensors import TensorSpec

pytestmark = pytest.mark.slow

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

SHORT = TensorSpec("x", "bfloat16", ("N", 6))


class Mixed(torch.nn.Module):
    """As transformers are: softmax in float32, cast back by name; a buffer, and a constant made in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(6, 5)
        self.register_buffer("shift", torch.arange(5.0))

    def forward(self, x):
        y = torch.softmax(self.layer(x).float(), -1).to(self.layer.weight.dtype)
        return (y + self.shift).to(torch.bfloat16) * torch.full((5,), 1.25, dtype=torch.bfloat16)


@pytest.fixture(scope="module")
def mixed():
    torch.manual_seed(0)
    return Mixed().eval().to(torch.bfloat16)


def wanted(module, x):
    """By numpy in float64, without the roundings inside."""
    weight, bias = (module.layer.weight.detach().double().numpy(), module.layer.bias.detach().double().numpy())
    powers = np.exp(x @ weight.T + bias)
    return (powers / powers.sum(-1, keepdims=True) + np.arange(5)) * 1.25


def sources(module, tmp_path):
    """The module itself, an exported program, TorchScript."""
    example = torch.zeros(2, 6, dtype=torch.bfloat16)
    program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("N")},))
    torch.export.save(program, tmp_path / "m.pt2")
    torch.jit.trace(module, example).save(tmp_path / "m.ts")
    return [module, tmp_path / "m.pt2", tmp_path / "m.ts"]


def test_of_pytorch(mixed, tmp_path):
    x = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)
    for source in sources(mixed, tmp_path):
        made = export(source, inputs=[SHORT])
        assert [(spec.name, spec.dtype) for spec in made.inputs + made.outputs] == [
            ("x", "float32"),
            ("output", "float32"),
        ]
        assert "bfloat16 is computed in float32, inputs and outputs too" in made.report["warnings"]
        assert made.parity[0].sqnr_db > 100
        np.testing.assert_allclose(OnnxRunner(made.model).run({"x": x})["output"], wanted(mixed, x), rtol=1e-5)
    assert mixed.layer.weight.dtype is torch.bfloat16, "the user's own module changed"


def test_of_onnx(tmp_path):
    """Functions, bodies of control flow, weights, constants and casts; what ``verify --against`` runs is the same."""
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 18, "own" : 1]>
        g (bfloat16[N,3] x, bool more) => (bfloat16[N,3] y) {
            s = own.twice(x)
            y = If (more) <
                then_branch = a () => (bfloat16[N,3] p) { p = Mul(s, w) },
                else_branch = b () => (bfloat16[N,3] q) { q = Identity(s) }
            >
        }
        <domain: "own", opset_import: ["" : 18]> twice (v) => (d) { f = Cast<to = 1>(v) h = Add(f, f) d = Cast<to = 16>(h) }
    """)
    model.graph.initializer.append(onnx.helper.make_tensor("w", onnx.TensorProto.BFLOAT16, [3], [1.5, -2, 0.25]))
    x = np.array([[1, 2, 3], [-4, 0.5, 7]], np.float32)
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    source = open_source(path)
    assert [spec.dtype for spec in source.inputs] == ["float32", "bool"]
    made = export(source)
    assert "bfloat16 is computed in float32, inputs and outputs too" in made.report["warnings"]
    for more in (np.array(True), np.array(False)):
        want = 2 * x * np.float32([1.5, -2, 0.25]) if more else 2 * x
        for runner in (OnnxRunner(made.model), OnnxRunner(path)):
            np.testing.assert_array_equal(runner.run({"x": x, "more": more})["y"], want)


def test_others_stay(network, graph, tmp_path):
    """Nothing is copied or told where nothing is bfloat16."""
    module = network("tiny")
    source = open_source(module, inputs=[TensorSpec("x", "float32", (1, 3, 8, 8))], fuse=False)
    assert source.module is module and "bfloat16" not in source.facts
    write_onnx(graph([("Relu", ["x"], ["y"])], {"x": [2]}, {"y": [2]}), tmp_path / "m.onnx")
    assert "bfloat16" not in open_source(tmp_path / "m.onnx").facts
