"""Quantized graphs: what is rounded and what is not, that the numbers hold, and that bad input is refused."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from torch import nn

from edgewise.quantize import OBSERVERS, QuantizeError, QuantSpec, quantize
from edgewise.quantize.layers import constant_of
from edgewise.quantize.observers import find_observer
from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.data import Dataset, Sample, open_data, random_data
from edgewise.runtime.onnx_file import to_bytes
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.runtime.tensors import TensorSpec

_X = TensorSpec("x", "float32", (1, 3, 8, 8))


class Net(nn.Module):
    """Conv, residual addition, pool, linear: what a CNN is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.a(x))
        z = torch.relu(self.b(y) + y)
        return self.c(torch.amax(z, (2, 3)))


class Block(nn.Module):
    """Pre-norm attention and a GELU MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.qkv, self.proj, self.f1, self.f2 = (
            nn.Linear(16, 48),
            nn.Linear(16, 16),
            nn.Linear(16, 32),
            nn.Linear(32, 16),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (t.reshape(1, 6, 2, 8).transpose(1, 2) for t in self.qkv(self.n1(x)).chunk(3, -1))
        scores = torch.softmax(q @ k.transpose(-1, -2) / 8**0.5, -1)
        x = x + self.proj((scores @ v).transpose(1, 2).reshape(1, 6, 16))
        return x + self.f2(nn.functional.gelu(self.f1(self.n2(x))))


def given_samples(inputs: list[dict[str, np.ndarray]]) -> Dataset:
    """Samples from a list, as a data set of DATA would give them."""
    return Dataset("a test's samples", len(inputs), lambda wanted: (Sample(inputs[i], None) for i in wanted))


def normal(count: int, *shape: int, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    return given_samples([{"x": rng.normal(size=shape).astype(np.float32)} for _ in range(count)])


def exported(module: nn.Module, *shape: int) -> ir.Model:
    torch.manual_seed(0)
    program = torch.onnx.export(module.eval(), (torch.zeros(*shape),), dynamo=True, verbose=False)
    assert program is not None
    model = ir.from_proto(program.model_proto)
    model.graph.inputs[0].name = "x"
    return model


@pytest.fixture(scope="module")
def cnn() -> ir.Model:
    torch.manual_seed(0)
    return exported(Net(), 1, 3, 8, 8)


@pytest.fixture(scope="module")
def transformer() -> ir.Model:
    torch.manual_seed(0)
    return exported(Block(), 1, 6, 16)


def ops(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def sqnr_db(float_model: ir.Model, made: ir.Model, data: Dataset) -> float:
    want, have = ([OnnxRunner(model).run(sample.inputs) for sample in data] for model in (float_model, made))
    return min(parity.sqnr_db for parity in compare_outputs(want, have))


SPECS = {
    "asymmetric": QuantSpec(),
    "symmetric": QuantSpec(activation_dtype="int8", activation_symmetric=True, quantize_bias=False),
    "one-sided": QuantSpec(activation_symmetric=True, one_sided=True, quantize_bias=False),
    "seven bits": QuantSpec(reduce_range=True),
    "per tensor": QuantSpec(per_channel=False),
}


@pytest.mark.parametrize("name", SPECS)
def test_a_quantized_cnn_computes_nearly_the_same(cnn: ir.Model, name: str) -> None:
    before = to_bytes(cnn, "cnn")
    made = quantize(cnn, SPECS[name], normal(16, 1, 3, 8, 8))
    assert to_bytes(cnn, "cnn") == before
    assert ops(cnn)["QuantizeLinear"] == 0 and ops(made.model)["QuantizeLinear"] >= 3
    onnx.checker.check_model(onnx.load_from_string(to_bytes(made.model, "made")), full_check=True)
    assert [value.name for value in made.model.graph.inputs] == ["x"]
    assert [value.name for value in made.model.graph.outputs] == [value.name for value in cnn.graph.outputs]
    assert 25 < sqnr_db(cnn, made.model, normal(8, 1, 3, 8, 8, seed=1)) < 60


def test_weights_biases_and_activations_have_the_form_that_was_asked_for(cnn: ir.Model) -> None:
    for spec in SPECS.values():
        made = quantize(cnn, spec, normal(4, 1, 3, 8, 8)).model
        conv = next(node for node in made.graph if node.op_type == "Conv")
        x, w = (value.producer() for value in conv.inputs[:2])
        assert x is not None and w is not None and {x.op_type, w.op_type} == {"DequantizeLinear"}
        zero, weights = x.inputs[2].const_value, w.inputs[0].const_value
        assert zero is not None and zero.dtype.numpy().name == spec.activation_dtype
        # The input has negative values: its symmetric grid is centred.
        assert not spec.activation_symmetric or int(zero.numpy()) == (128 if spec.one_sided else 0)
        assert weights is not None and weights.numpy().dtype == np.int8
        assert np.abs(weights.numpy().astype(int)).max() <= (63 if spec.reduce_range else 127)
        assert w.inputs[1].const_value.numpy().shape == ((8,) if spec.per_channel else ())
        bias = conv.inputs[2].producer()
        assert (bias is not None and bias.inputs[0].const_value.numpy().dtype == np.int32) == spec.quantize_bias


def test_the_scale_of_a_bias_is_that_of_its_product(cnn: ir.Model) -> None:
    made = quantize(cnn, QuantSpec(), normal(4, 1, 3, 8, 8)).model
    for conv in (node for node in made.graph if node.op_type == "Conv"):
        x, w, b = (value.producer().inputs[1].const_value.numpy() for value in conv.inputs)
        np.testing.assert_allclose(b, x * w, rtol=1e-6)


def test_onnx_s_own_evaluator_agrees(cnn: ir.Model) -> None:
    made = quantize(cnn, QuantSpec(), normal(4, 1, 3, 8, 8)).model
    sample = next(iter(normal(1, 1, 3, 8, 8, seed=5))).inputs
    want = ReferenceEvaluator(onnx.load_from_string(to_bytes(made, "made"))).run(None, sample)[0]
    have = next(iter(OnnxRunner(made, optimize=False).run(sample).values()))
    np.testing.assert_allclose(have, want, atol=0.05 * np.abs(want).max())


def test_a_transformer_keeps_norms_softmax_and_the_residual_stream_in_float(transformer: ir.Model) -> None:
    data = normal(16, 1, 6, 16)
    made = quantize(transformer, QuantSpec(), data)
    for node in made.model.graph:
        if node.op_type in ("LayerNormalization", "Softmax", "Add") and len(node.inputs[0].shape or ()) == 3:
            assert all(v.producer() is None or v.producer().op_type != "DequantizeLinear" for v in node.inputs[:1])
    assert {"LayerNormalization", "Softmax"} <= {entry["op"] for entry in made.report["kept_float"]}
    assert all(entry["reason"] for entry in made.report["kept_float"])
    assert sqnr_db(transformer, made.model, normal(8, 1, 6, 16, seed=1)) > 25


@settings(max_examples=15)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.integers(0, 100))
def test_convolutions_of_any_shape(inputs: int, outputs: int, kernel: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(outputs, inputs, kernel, kernel)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["x", "w", "b"], ["y"], name="conv")],
        "g",
        [onnx.helper.make_tensor_value_info("x", 1, [1, inputs, 6, 6])],
        [onnx.helper.make_tensor_value_info("y", 1, [1, outputs, 7 - kernel, 7 - kernel])],
        [
            onnx.numpy_helper.from_array(weights, "w"),
            onnx.numpy_helper.from_array(rng.normal(size=outputs).astype(np.float32), "b"),
        ],
    )
    model = ir.from_proto(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)]))
    model.ir_version = 10
    data = normal(4, 1, inputs, 6, 6, seed=seed)
    made = quantize(model, QuantSpec(), data)
    assert sqnr_db(model, made.model, data) > 22


def test_same_input_same_bytes(cnn: ir.Model) -> None:
    first, second = (quantize(cnn, QuantSpec(), normal(4, 1, 3, 8, 8)).model for _ in range(2))
    assert to_bytes(first, "a") == to_bytes(second, "b")


@pytest.mark.parametrize("method", sorted(OBSERVERS))
def test_every_method_works_and_lies_within_the_values(cnn: ir.Model, method: str) -> None:
    made = quantize(cnn, QuantSpec(), normal(16, 1, 3, 8, 8), method=method)
    assert made.report["method"] == method and made.report["samples"] == 16
    assert sqnr_db(cnn, made.model, normal(4, 1, 3, 8, 8, seed=3)) > 18


def test_a_moving_average_forgets_a_single_outlier() -> None:
    from edgewise.quantize.grid import Grid

    pieces = [np.array([-1.0, 2.0], np.float32)] * 100
    pieces[50] = np.array([-1.0, 200.0], np.float32)
    observer = find_observer("average")()
    for piece in pieces:
        observer.update(piece)
    lo, hi = observer.range(Grid("uint8", symmetric=False))
    assert lo == pytest.approx(-1) and 2 < hi < 4


@pytest.mark.parametrize("method", sorted(set(OBSERVERS) - {"average"}))
def test_observers_do_not_depend_on_how_the_values_come(method: str) -> None:
    from edgewise.quantize.grid import Grid

    values = np.random.default_rng(0).normal(size=40_000).astype(np.float32)
    grid = Grid("uint8", symmetric=False)
    one, many = find_observer(method)(), find_observer(method)()
    one.update(values)
    for part in np.split(values, 40):
        many.update(part)
    (lo, hi), (low, high) = one.range(grid), many.range(grid)
    assert low == pytest.approx(lo, rel=0.05) and high == pytest.approx(hi, rel=0.05)
    assert values.min() <= lo < 0 < hi <= values.max()


@pytest.mark.parametrize("method", sorted(OBSERVERS))
def test_a_one_sided_grid_wastes_no_step_on_what_is_never_negative(method: str) -> None:
    from edgewise.quantize.grid import Grid

    grid = Grid("uint8", symmetric=True, one_sided=True)
    values = np.random.default_rng(0).normal(size=40_000).astype(np.float32)
    signed, positive = find_observer(method)(), find_observer(method)()
    signed.update(values)
    positive.update(np.abs(values))
    centred, begun_at_zero = (grid.fit(*observer.range(grid)) for observer in (signed, positive))
    assert (centred.zero_point, begun_at_zero.zero_point) == (128, 0)
    assert begun_at_zero.scale < 0.6 * centred.scale
    assert grid.fit(0.0, 0.0).zero_point == 0


@pytest.mark.parametrize("method", ["percentile", "entropy", "mse"])
def test_an_outlier_does_not_rule(method: str) -> None:
    from edgewise.quantize.grid import Grid

    values = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
    values[7] = 1000
    observer = find_observer(method)()
    observer.update(values)
    # An error of 1000 on one value weighs as much as one of 2 on every fourth: mse keeps more of it than the others.
    assert observer.range(Grid("uint8", symmetric=False))[1] < 1000 * (1 if method == "mse" else 0.1)


def test_a_layer_kept_float_stays_float(cnn: ir.Model) -> None:
    name = next(str(node.name) for node in cnn.graph if node.op_type == "Conv")
    made = quantize(cnn, QuantSpec(), normal(4, 1, 3, 8, 8), keep_float=[name])
    node = next(node for node in made.model.graph if node.name == name)
    assert node.inputs[1].is_initializer()
    assert {"node": name, "op": "Conv", "reason": "asked for"} in made.report["kept_float"]


def test_weights_of_zeros_and_a_constant_activation_are_no_trouble() -> None:
    torch.manual_seed(0)
    module = Net()
    with torch.no_grad():
        module.b.weight.zero_()
        module.a.weight[0].zero_()
    model = exported(module, 1, 3, 8, 8)
    data = given_samples([{"x": np.zeros((1, 3, 8, 8), np.float32)}])
    made = quantize(model, QuantSpec(), data)
    want, have = (
        next(iter(OnnxRunner(m).run({"x": np.zeros((1, 3, 8, 8), np.float32)}).values())) for m in (model, made.model)
    )
    assert np.all(np.isfinite(have)) and np.abs(want - have).max() < 0.05
    notes = "\n".join(made.report["notes"])
    convolutions = [node for node in model.graph if node.op_type == "Conv"]
    zero = next(node.name for node in convolutions if not np.any(constant_of(node.inputs[1])))
    assert f"{zero!r}: its weights are all zero" in notes
    assert "tensor 'x' has one value on all calibration samples: its range means nothing for others" in notes
    assert "calibrated on 1 samples: ranges may be too narrow for others" in notes


def test_enough_samples_that_differ_are_not_doubted(cnn: ir.Model) -> None:
    notes = quantize(cnn, QuantSpec(), normal(8, 1, 3, 8, 8)).report["notes"]
    assert not [note for note in notes if "samples" in note]


def broken(value: float) -> Dataset:
    data = normal(3, 1, 3, 8, 8)
    list(data)[1].inputs["x"][0, 0, 0, 0] = value
    return data


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (broken(np.nan), {}, "calibration data is not finite (calibration sample 2 of a test's samples, input 'x')"),
        (broken(np.inf), {}, "calibration data is not finite"),
        (
            normal(1, 1, 3, 8, 8),
            {"keep_float": ["nothing"]},
            "found no node of that name; expected a node of the graph",
        ),
        (normal(1, 1, 3, 8, 8), {"method": "magic"}, "unknown calibration method"),
        (random_data([_X], 2), {}, "refusing to calibrate on random data"),
    ],
)
def test_bad_input_is_refused(cnn: ir.Model, data: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(QuantizeError) as error:
        quantize(cnn, QuantSpec(), data, **options)
    assert message in str(error.value)


def test_random_data_on_request(cnn: ir.Model) -> None:
    assert quantize(cnn, QuantSpec(), random_data([_X], 2), allow_random=True).report["samples"] == 2


def test_nothing_to_quantize_is_an_error() -> None:
    model = exported(nn.ReLU(), 1, 4)
    with pytest.raises(QuantizeError, match="nothing to quantize"):
        quantize(model, QuantSpec(), normal(1, 1, 4))


def test_a_quantized_graph_keeps_its_scales(cnn: ir.Model) -> None:
    made = quantize(cnn, QuantSpec(), normal(4, 1, 3, 8, 8)).model
    again = quantize(made, QuantSpec(), normal(4, 1, 3, 8, 8, seed=9))
    sample = next(iter(normal(1, 1, 3, 8, 8, seed=5))).inputs
    want, have = (next(iter(OnnxRunner(model).run(sample).values())) for model in (made, again.model))
    np.testing.assert_array_equal(have, want)
    assert ops(again.model) == ops(made)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_samples(tmp_path: Any) -> None:
    """Peak memory of a process that calibrates on 10 and on 200 samples of 3x128x128."""
    import subprocess
    import sys

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(torch.relu(self.a(x)))

    (tmp_path / "m.onnx").write_bytes(to_bytes(exported(Wide(), 1, 3, 128, 128), "wide"))
    (tmp_path / "data.py").write_text(
        "import numpy as np\n"
        "def samples():\n"
        "    rng = np.random.default_rng(0)\n"
        "    for _ in range(200):\n"
        "        yield {'x': rng.normal(size=(1, 3, 128, 128)).astype(np.float32)}\n"
    )
    script = (
        "import resource, sys\n"
        "from edgewise.quantize import QuantSpec, quantize\n"
        "from edgewise.runtime.data import open_data\n"
        "from edgewise.runtime.onnx_file import read_onnx\n"
        "from edgewise.runtime.tensors import TensorSpec\n"
        "data = open_data('data.py:samples', [TensorSpec('x', 'float32', (1, 3, 128, 128))])\n"
        "quantize(read_onnx('m.onnx'), QuantSpec(), data, method='entropy', samples=int(sys.argv[1]))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    peaks = [
        int(
            subprocess.run([sys.executable, "-c", script, str(n)], cwd=tmp_path, check=True, capture_output=True).stdout
        )
        for n in (10, 200)
    ]
    assert peaks[1] < 1.1 * peaks[0]


@pytest.mark.shared
@pytest.mark.slow
def test_resnet20_is_as_good_as_with_onnx_runtimes_quantizer(shared_dir: Any, tmp_path: Any) -> None:
    """From outside: our int8 agrees with fp32 at least as often as that of onnxruntime's static quantizer."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    from edgewise.exporter import export
    from edgewise.runtime.preprocess import Preprocess

    arch = "examples/cifar/resnet20.py:resnet20"
    made = export(
        shared_dir / "models/resnet20_cifar10.th", arch=arch, inputs=[TensorSpec("x", "float32", (1, 3, 32, 32))]
    )
    text = "resize=none,color=rgb,scale=255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225"
    calib, test = (
        open_data(str(shared_dir / f"data/cifar10_{part}.zip"), made.inputs, Preprocess.parse(text), limit=limit)
        for part, limit in (("calib", 64), ("test", 400))
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._samples = iter(calib)

        def get_next(self) -> dict[str, np.ndarray] | None:
            sample = next(self._samples, None)
            return sample.inputs if sample else None

    (tmp_path / "f.onnx").write_bytes(to_bytes(made.model, "f"))
    quantize_static(tmp_path / "f.onnx", tmp_path / "q.onnx", Reader(), per_channel=True)
    from edgewise.runtime.onnx_file import read_onnx

    ours = quantize(made.model, QuantSpec(), calib).model
    runs = [OnnxRunner(model) for model in (made.model, ours, read_onnx(tmp_path / "q.onnx"))]
    votes = [[int(next(iter(run.run(sample.inputs).values())).argmax()) for run in runs] for sample in test]
    agreement = [np.mean([vote[0] == vote[index] for vote in votes]) for index in (1, 2)]
    assert agreement[0] >= 0.97
    assert agreement[0] >= agreement[1] - 0.005
