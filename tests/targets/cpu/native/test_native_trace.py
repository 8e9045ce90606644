"""Inner tensors of libedgewise's engines, beside ONNX Runtime's for the same graph."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.quantize import quantize
from edgewise.runtime.data import random_data
from edgewise.runtime.errors import RunError
from edgewise.runtime.model import load
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.targets import find_device
from edgewise.targets.cpu import TARGET
from edgewise.targets.nodes import tensor_spec

pytestmark = pytest.mark.usefixtures("libedgewise")
# What the engine must give out of each; the rest is computed together with these, or shares their memory.
INSIDE = {
    "conv_net": {"relu1", "sum", "pool", "mean"},
    "dynamic_batch": {"relu1", "sum", "pool", "mean"},
    "transformer_block": {"norm1", "mixed", "sum1", "norm2", "gelu"},
    "parts": {"a", "b", "e"},
}


def parts(graph_maker: Any) -> ir.Model:
    """Channels that are no multiple of four, a Concat, slices, and results in their operand's memory."""
    g = graph_maker()
    g.add("Conv", ["x", g.weights("w1", 5, 3, 3, 3)], "a", pads=[1] * 4)
    g.add("Conv", ["x", g.weights("w2", 7, 3, 1, 1)], "b")
    g.add("Concat", ["a", "b"], "joined", axis=1)
    g.add("Conv", ["joined", g.weights("w3", 6, 12, 1, 1)], "c")
    g.add("Transpose", ["c"], "turned", perm=[0, 2, 3, 1])
    g.add("Sigmoid", ["turned"], "d")
    g.add("Mul", ["d", "turned"], "e")
    g.add("Sqrt", [g.add("Abs", ["e"], "f")], "y")
    return g.model({"x": [1, 3, 6, 5]}, {"y": [1, 6, 5, 6]})


@pytest.mark.parametrize("scheme", ["float", "int8"])
@pytest.mark.parametrize("name", INSIDE)
def test_inner_tensors_are_those_of_the_network(
    name: str,
    scheme: str,
    small_graph: Callable[[str], ir.Model],
    graph_maker: Any,
    make_bundle: Any,
    sample: Any,
    worst_db: Any,
) -> None:
    model = parts(graph_maker) if name == "parts" else small_graph(name)
    if scheme == "int8":
        data = random_data([tensor_spec(value) for value in model.graph.inputs], 8, seed=0)
        spec = TARGET.quantization("int8", find_device("x86-64-v4-vnni", "cpu"))
        model = quantize(model, spec, data, allow_random=True).model
    opened = load(make_bundle(TARGET, model)[0].path, threads=1)
    names, inputs = opened.inner_names(), sample(model)
    assert set(names) >= (INSIDE[name] if scheme == "float" else set())
    made = opened.inner(inputs, names)
    assert set(names) <= {value.name for node in model.graph for value in node.outputs}
    wanted = OnnxRunner(model, outputs=names, optimize=False).run(inputs)
    assert len(names) > 3
    for one in names:
        assert worst_db([wanted[one]], [made[one]]) > (100 if scheme == "float" else 20), one


def test_what_the_manifest_says_of_them_is_not_believed(
    small_graph: Callable[[str], ir.Model], make_bundle: Any, sample: Any
) -> None:
    model = small_graph("conv_net")
    path = make_bundle(TARGET, model)[0].path
    manifest = json.loads((path / "manifest.json").read_text())
    entry = manifest["engine"]["settings"]["tensors"]["sum"]
    for spoiled in (
        {"op": 99},
        {"order": [0, 0]},
        {"axes": [[1 << 40]]},
        {"axes": [["unknown"]]},
        {"dtype": "O"},
        {"lane": 7},
        {"what": 1},
    ):
        manifest["engine"]["settings"]["tensors"]["sum"] = entry | spoiled
        (path / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(RunError, match="does not say where an inner tensor lies"):
            load(path, threads=1).inner(sample(model), ["sum"])
    with pytest.raises(RunError, match="does not give these tensors"):
        load(path, threads=1).inner(sample(model), ["nobody"])


def test_a_trace_leaves_nothing_behind(libedgewise: Any, small_graph: Any, make_bundle: Any, sample: Any) -> None:
    """A run after it is the run before it; operators and outputs that there are not give nothing."""
    model = small_graph("conv_net")
    bundle = make_bundle(TARGET, model)[0]
    context = libedgewise.Context(libedgewise.Engine(str(bundle.path / "model.engine")), threads=1)
    x = sample(model)["x"]
    before = context.run([x])[0]
    assert [one.size for one in context.trace([x], [(0, 0), (99, 0), (0, 5), (-1, 0)])][1:] == [0, 0, 0]
    np.testing.assert_array_equal(context.run([x])[0], before)
