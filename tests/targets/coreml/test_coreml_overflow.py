"""Values beyond float16: found on calibration data, and computed in float32 where they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.errors import RunError
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.targets import TargetError
from edgewise.targets.base import BuildResult, Executor
from edgewise.targets.coreml.islands import rounded
from edgewise.targets.coreml.logarithms import before_logarithms
from edgewise.targets.coreml.prepare import prepare

BuildModel = Callable[..., tuple[Executor, BuildResult, Path]]
RNG = np.random.default_rng(8)


def network(norm: bool = False) -> ir.Model:
    """A product, something that overflows in float16, another product."""
    middle = (
        [helper.make_node("LayerNormalization", ["big", "gamma"], ["m"], name="norm", axis=-1)]
        if norm
        else [
            helper.make_node("Mul", ["big", "big"], ["square"], name="square"),
            helper.make_node("ReduceMean", ["square", "axes"], ["mean"], name="mean"),
            helper.make_node("Sqrt", ["mean"], ["root"], name="root"),
            helper.make_node("Div", ["big", "root"], ["m"], name="scale"),
        ]
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["big"], name="first"),
        *middle,
        helper.make_node("MatMul", ["m", "v"], ["y"], name="last"),
    ]
    constants = {
        "w": 300 * RNG.standard_normal((8, 8)).astype(np.float32), "v": RNG.standard_normal((8, 8)).astype(np.float32),
        "axes": np.array([-1]), "gamma": np.ones(8, np.float32),
    }  # fmt: skip
    if norm:
        del constants["axes"]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 8]) for name in "xy"]
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], initializers)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))


@pytest.fixture
def data(tmp_path: Path) -> str:
    np.savez(tmp_path / "calib.npz", x=RNG.standard_normal((4, 2, 8)).astype(np.float32))
    return str(tmp_path / "calib.npz")


def precisions(result: BuildResult) -> dict[str, str]:
    return {layer["name"]: layer["precision"] for layer in result.layers if layer["op"] != "cast"}


def test_what_overflows_computes_in_float32(build_model: BuildModel, data: str) -> None:
    model = network()
    x = {"x": RNG.standard_normal((2, 8)).astype(np.float32)}
    want = OnnxRunner(model, optimize=False).run(x)
    plain, _, _ = build_model(model)
    assert not compare_outputs([want], [plain.run(x)])[0].sqnr_db >= 20, "or there is nothing to keep"
    executor, result, _ = build_model(model, calibration=data)
    assert compare_outputs([want], [executor.run(x)])[0].sqnr_db >= 50
    found = precisions(result)
    assert found["square"] == found["mean"] == found["root"] == "float32"
    assert [layer["precision"] for layer in result.layers if layer["op"] == "linear"] == ["float16", "float16"]
    assert any("the calibration data" in note for note in result.notes)


def test_a_norm_that_squares_on_the_way(build_model: BuildModel, data: str) -> None:
    """Its input and output fit, the squares inside do not: the accelerator may hold them in float16."""
    _, result, _ = build_model(network(norm=True), calibration=data)
    assert [layer["precision"] for layer in result.layers if layer["op"] == "layer_norm"] == ["float32"]
    assert [layer["precision"] for layer in result.layers if layer["op"] == "linear"] == ["float16", "float16"]


def test_data_that_fits_changes_nothing(build_model: BuildModel, tmp_path: Path) -> None:
    np.savez(tmp_path / "small.npz", x=1e-4 * RNG.standard_normal((4, 2, 8)).astype(np.float32))
    _, result, _ = build_model(network(), calibration=str(tmp_path / "small.npz"))
    assert set(precisions(result).values()) == {"float16"}


def test_data_that_is_not_there(build_model: BuildModel) -> None:
    with pytest.raises(RunError, match="no such file"):
        build_model(network(), calibration="nowhere.npz")


def test_a_weight_that_is_nan_is_refused(build_model: BuildModel) -> None:
    model = network()
    broken = np.ones((8, 8), np.float32)
    broken[1, 2] = np.nan
    model.graph.initializers["w"].const_value = ir.tensor(broken, name="w")
    with pytest.raises(TargetError) as caught:
        build_model(model)
    assert "1 NaN among 64 numbers" in str(caught.value) and "'first'" in caught.value.where


def test_what_leads_to_a_logarithm_computes_in_float32(build_model: BuildModel) -> None:
    """A spectrogram: squares of small numbers are nothing in float16, and their logarithm is most of the picture."""
    nodes = [
        helper.make_node("MatMul", ["x", "waves"], ["spectrum"], name="spectrum"),
        helper.make_node("Mul", ["spectrum", "spectrum"], ["power"], name="power"),
        helper.make_node("MatMul", ["power", "bank"], ["bands"], name="bands"),
        helper.make_node("Add", ["bands", "least"], ["some"], name="some"),
        helper.make_node("Log", ["some"], ["loud"], name="loud"),
        helper.make_node("MatMul", ["loud", "head"], ["y"], name="head"),
    ]
    constants = {
        "waves": RNG.standard_normal((8, 8)), "bank": RNG.uniform(0, 1, (8, 8)), "least": np.array([1e-12]), "head": RNG.standard_normal((8, 8)),
    }  # fmt: skip
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 8]) for name in "xy"]
    initializers = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], initializers)
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))
    executor, result, _ = build_model(model)
    x = {"x": (1e-4 * RNG.standard_normal((4, 8))).astype(np.float32)}
    found = compare_outputs([OnnxRunner(model, optimize=False).run(x)], [executor.run(x)])
    assert found[0].sqnr_db > 50
    kept = [
        precision
        for name, precision in precisions(result).items()
        if any(part in name for part in ("power", "bands", "some", "loud"))
    ]
    assert kept and set(kept) == {"float32"}
    assert "float16" in precisions(result).values()


def test_a_quotient_by_a_constant_stays_in_float32(build_model: BuildModel) -> None:
    """A pass of coremltools makes a product of it, under another name."""
    nodes = [
        helper.make_node("Div", ["x", "c"], ["part"], name="part"),
        helper.make_node("Log", ["part"], ["y"], name="loud"),
    ]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 8]) for name in "xy"]
    constant = numpy_helper.from_array(np.float32(1e6), "c")
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [constant])
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))
    executor, result, _ = build_model(model)
    assert set(precisions(result).values()) == {"float32"}
    x = {"x": RNG.uniform(0.1, 9, (4, 8)).astype(np.float32)}
    assert compare_outputs([OnnxRunner(model, optimize=False).run(x)], [executor.run(x)])[0].sqnr_db > 90


def test_a_way_that_ends_at_a_product_does_not_hide_another() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["u"], name="u"),
        helper.make_node("MatMul", ["u", "w"], ["product"], name="product"),
        helper.make_node("Add", ["product", "u"], ["both"], name="both"),
        helper.make_node("Log", ["both"], ["y"], name="log"),
    ]
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 8]) for name in ("x", "y", "u", "product", "both")
    ]
    weights = numpy_helper.from_array(np.ones((8, 8), np.float32), "w")
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:2], [weights], value_info=ports[2:])
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))
    assert before_logarithms(model.graph) == ["u", "both", "y"]


def sharp_attention() -> ir.Model:
    """Scores in the thousands that differ by little: rounded before the softmax, they pick others."""
    layers = [helper.make_node("MatMul", ["x", "w0"], ["a"], name="early")]
    layers += [
        helper.make_node("MatMul", ["a", "keys"], ["scores"], name="scores"),
        helper.make_node("Softmax", ["scores"], ["picked"], name="picked", axis=-1),
        helper.make_node("MatMul", ["picked", "values"], ["l0"], name="gathered"),
    ]
    layers += [
        helper.make_node("MatMul", [f"l{i}", f"w{i + 1}"], [f"l{i + 1}" if i < 5 else "y"], name=f"late{i}")
        for i in range(6)
    ]
    rng = np.random.default_rng(5)
    constants = {f"w{i}": rng.standard_normal((16, 16)) / 4 for i in range(7)}
    constants |= {
        "keys": 1000 * rng.standard_normal((16, 1)) + 2 * rng.standard_normal((16, 64)),
        "values": rng.standard_normal((64, 16)),
    }
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [32, 16]) for name in "xy"]
    initializers = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in constants.items()]
    graph = helper.make_graph(layers, "g", ports[:1], ports[1:], initializers)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))


def test_what_makes_much_of_a_rounding_computes_in_float32(build_model: BuildModel, tmp_path: Path) -> None:
    model, rng = sharp_attention(), np.random.default_rng(6)
    np.savez(tmp_path / "calib.npz", x=rng.standard_normal((2, 32, 16)).astype(np.float32))
    x = {"x": rng.standard_normal((32, 16)).astype(np.float32)}
    want = OnnxRunner(model, optimize=False).run(x)
    plain, _, _ = build_model(model)
    assert compare_outputs([want], [plain.run(x)])[0].sqnr_db < 40, "or there is nothing to keep"
    executor, result, _ = build_model(model, calibration=str(tmp_path / "calib.npz"))
    assert compare_outputs([want], [executor.run(x)])[0].sqnr_db >= 46
    linear = [layer["precision"] for layer in result.layers if layer["op"] == "linear"]
    assert linear[:2] == ["float16", "float32"] and linear[-4:] == ["float16"] * 4, "the scores, not what is before"
    assert precisions(result)["picked"] == "float32"


def test_rounding_hands_float32_over_inside_an_island_only() -> None:
    """float16 holds 11 bits: 1 + 2**-11 is 1, unless it is computed and read in float32."""
    nodes = [helper.make_node("Add", ["x", "small"], ["a"]), helper.make_node("Sub", ["a", "one"], ["y"])]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    numbers = {"small": 2**-11, "one": 1.0}
    initializers = [numpy_helper.from_array(np.array([value], np.float32), name) for name, value in numbers.items()]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], initializers)
    model = prepare(
        ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)), 17
    )

    def computed(kept: set[str]) -> float:
        made = OnnxRunner(rounded(model, kept), optimize=False).run({"x": np.ones(1, np.float32)})
        return float(made["y"][0])

    assert [computed(kept) for kept in (set(), {"a"}, {"y"}, {"a", "y"})] == [0, 0, 0, 2**-11]
