"""A cache that the package keeps: states in place of ports, and the same numbers step by step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.targets import TargetError
from edgewise.targets.base import BuildResult, Executor
from edgewise.targets.coreml.package import read_spec

BuildModel = Callable[..., tuple[Executor, BuildResult, Path]]
RNG = np.random.default_rng(4)
LENGTH, WIDTH = 6, 8


def decoder(length: int | str = LENGTH) -> ir.Model:
    """One step of attention over a cache of fixed length: the new key goes to row ``place``, the product reads all rows."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["key"], name="key"),
        helper.make_node("ScatterElements", ["past", "rows", "key"], ["present"], name="write", axis=0),
        helper.make_node("Transpose", ["present"], ["turned"], name="turn", perm=[1, 0]),
        helper.make_node("MatMul", ["x", "turned"], ["scores"], name="scores"),
        helper.make_node("Softmax", ["scores"], ["share"], name="share"),
        helper.make_node("MatMul", ["share", "present"], ["y"], name="read"),
        helper.make_node("Expand", ["place", "row"], ["rows"], name="rows"),
    ]
    nodes = [nodes[0], nodes[6], *nodes[1:6]]
    float32 = TensorProto.FLOAT
    inputs = [("x", float32, [1, WIDTH]), ("place", TensorProto.INT64, [1, 1]), ("past", float32, [length, WIDTH])]
    outputs = [("y", float32, [1, WIDTH]), ("present", float32, [length, WIDTH])]
    constants = {"w": RNG.standard_normal((WIDTH, WIDTH)).astype(np.float32), "row": np.array([1, WIDTH])}
    graph = helper.make_graph(
        nodes, "decoder", *([helper.make_tensor_value_info(*port) for port in ports] for ports in (inputs, outputs)),
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))


def test_the_cache_stays_in_the_package(build_model: BuildModel) -> None:
    model = decoder()
    executor, result, folder = build_model(model, minimum_deployment_target="iOS18", states={"past": "present"})
    description = read_spec(folder / "model.mlpackage").description
    assert [port.name for port in description.input] == ["x", "place"]
    assert [port.name for port in description.output] == ["y"]
    assert [state.name for state in description.state] == ["past"]
    assert result.settings["states"] == [{"name": "past", "output": "present", "coreml": "past", "dtype": "float32"}]
    cache = {"onnx": np.zeros((LENGTH, WIDTH), np.float32), "coreml": np.zeros((LENGTH, WIDTH), np.float32)}
    reference = OnnxRunner(model, optimize=False)
    for step in range(LENGTH):
        token = {"x": RNG.standard_normal((1, WIDTH)).astype(np.float32), "place": np.array([[step]])}
        want = reference.run({**token, "past": cache["onnx"]})
        have = executor.run({**token, "past": cache["coreml"]})
        assert min(parity.sqnr_db for parity in compare_outputs([want], [have])) >= 40
        assert np.any(have["present"][step]) and not np.any(have["present"][step + 1 :])
        cache = {"onnx": want["present"], "coreml": have["present"]}


@pytest.mark.parametrize(
    ("target", "states", "length", "message"),
    [
        ("iOS17", {"past": "present"}, LENGTH, "iOS18 or later"),
        ("iOS18", {"old": "present"}, LENGTH, "no input 'old'"),
        ("iOS18", {"past": "new"}, LENGTH, "no output 'new'"),
        ("iOS18", {"past": "y"}, LENGTH, "the same fixed shape"),
        ("iOS18", {"past": "present"}, "rows", "the same fixed shape"),
        ("iOS18", {"place": "present"}, LENGTH, "the same dtype"),
        ("iOS18", {"past": "present", "x": "present"}, LENGTH, "each name once"),
        ("iOS18", {"past": 1}, LENGTH, "each name once"),
    ],
)
def test_states_that_do_not_fit(
    target: str, states: dict[str, Any], length: int | str, message: str, build_model: BuildModel
) -> None:
    with pytest.raises(TargetError) as caught:
        build_model(decoder(length), minimum_deployment_target=target, states=states)
    assert message in str(caught.value) and "build.options.states" in caught.value.where
