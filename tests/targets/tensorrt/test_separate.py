"""Joint projections are taken apart for TensorRT: the same numbers, and products that stay in int8."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.quantize import quantize
from edgewise.runtime.data import random_data
from edgewise.runtime.errors import GateError
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.targets import find_device
from edgewise.targets.nodes import tensor_spec
from edgewise.targets.tensorrt import TARGET, prepare
from edgewise.targets.tensorrt.engine_layers import EngineLayer
from edgewise.targets.tensorrt.proof import products
from edgewise.targets.tensorrt.separate import SeparateProjections

TOKENS, HEADS, SIZE = 32, 4, 32
WIDTH = HEADS * SIZE
Attention = Callable[..., ir.Model]


@pytest.fixture
def attention(graph_maker: Any) -> Attention:
    """A joint projection, taken apart in one way or another, attention over four heads, a projection."""

    def make(form: str, batch: int | str = 1) -> ir.Model:
        g = graph_maker(2)
        joint = g.add("MatMul", ["x", g.weights("w", WIDTH, 3 * WIDTH)], "joint_product")
        joint = g.add("Add", [joint, g.weights("b", 3 * WIDTH)], "joint")
        g.constant("one_head", np.array([0, 0, HEADS, SIZE], np.int64))
        if form == "split":
            g.nodes.append(make_split(joint, ["q0", "k0", "v0"], -1))
            for name in "qkv":
                g.add("Transpose", [g.add("Reshape", [f"{name}0", "one_head"], f"{name}r")], name, perm=[0, 2, 1, 3])
        elif form == "in place":  # as Hiera: [batch, tokens, 3, heads, size], of which the third axis is taken apart
            dims = g.constant("dims", np.array([-1, TOKENS, 3, HEADS, SIZE], np.int64))
            x = g.add("Reshape", [joint, dims], "heads")
            for index, name in enumerate("qkv"):
                taken = g.add("Gather", [x, g.constant(f"i{name}", np.int64(index))], f"{name}0", axis=2)
                g.add("Transpose", [taken], name, perm=[0, 2, 1, 3])
        else:
            inner = form == "inner"  # [batch, tokens, heads, 3, size]
            dims = [-1, TOKENS, HEADS, 3, SIZE] if inner else [-1, TOKENS, 3, HEADS, SIZE]
            x = g.add("Reshape", [joint, g.constant("dims", np.array(dims, np.int64))], "heads")
            x = g.add("Transpose", [x], "turned", perm=[3, 0, 2, 1, 4] if inner else [2, 0, 3, 1, 4])
            if form == "unbound":
                g.nodes.append(make_split(x, ["q0", "k0", "v0"], 0))
            for index, name in enumerate("qkv"):
                if form == "unbound":
                    g.add("Squeeze", [f"{name}0", g.constant(f"a{name}", np.array([0], np.int64))], name)
                else:
                    g.add("Gather", [x, g.constant(f"i{name}", np.int64(index))], name, axis=0)
        scores = g.add("MatMul", ["q", g.add("Transpose", ["k"], "kt", perm=[0, 1, 3, 2])], "scores")
        scores = g.add("Mul", [scores, g.constant("scale", np.float32(SIZE**-0.5))], "scaled")
        x = g.add("MatMul", [g.add("Softmax", [scores], "weights", axis=-1), "v"], "mixed")
        x = g.add(
            "Reshape",
            [g.add("Transpose", [x], "back", perm=[0, 2, 1, 3]), g.constant("to", np.array([0, 0, WIDTH], np.int64))],
            "out",
        )
        g.add("MatMul", [x, g.weights("o", WIDTH, WIDTH)], "y")
        return g.model({"x": [batch, TOKENS, WIDTH]}, {"y": [batch, TOKENS, WIDTH]})

    return make


def make_split(x: str, outputs: list[str], axis: int) -> Any:
    from onnx import helper

    return helper.make_node("Split", [x], outputs, name="split", axis=axis, num_outputs=len(outputs))


def int8(model: ir.Model, batch: int = 1) -> ir.Model:
    specs = [tensor_spec(value) for value in model.graph.inputs]
    spec = TARGET.quantization("int8", find_device("rtx-4070", "tensorrt"))
    return quantize(model, spec, random_data(specs, 8, seed=0), allow_random=True).model


FORMS = ["split", "gathered", "unbound", "inner", "in place"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch", [1, "N"])
def test_the_numbers_stay_the_same(form: str, batch: int | str, attention: Attention) -> None:
    model = prepare.normalize(int8(attention(form, batch)))[0]
    x = {"x": np.random.default_rng(1).standard_normal((1 if batch == 1 else 3, TOKENS, WIDTH)).astype(np.float32)}
    before = OnnxRunner(model).run(x)["y"]
    assert SeparateProjections()(model).modified
    made = prepare.prepare(int8(attention(form, batch)), "float32").model
    assert sum(node.op_type == "MatMul" for node in made.graph) == 6 and not any(
        node.op_type == "Split" for node in made.graph
    )
    np.testing.assert_allclose(OnnxRunner(made).run(x)["y"], before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("form", "batch"), [("split", 1), ("gathered", "N"), ("unbound", 1), ("in place", "N")])
def test_products_stay_in_int8_and_attention_in_one_kernel(
    form: str, batch: int | str, attention: Attention, make_bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, result = make_bundle(TARGET, int8(attention(form, batch)))
    assert result.proof["products"] == {"float16": 2, "int8": 4}
    assert len(result.proof["fused_attention"]) == 1
    monkeypatch.setattr(SeparateProjections, "call", lambda self, model: ir.passes.PassResult(model, modified=False))
    with pytest.raises(GateError, match="Not in int8 but in float16: joint_product_node"):
        make_bundle(TARGET, int8(attention(form, batch)), name="joint")


@pytest.mark.parametrize("form", FORMS)
def test_float_attention_is_one_kernel(form: str, attention: Attention, make_bundle: Any) -> None:
    _, result = make_bundle(TARGET, attention(form))
    assert result.proof["products"] == {"float16": 4} and len(result.proof["fused_attention"]) == 1


def test_names_that_exporters_gave_stay_with_their_nodes(attention: Attention, make_bundle: Any) -> None:
    """PyTorch's exporter numbers the products of a block: the joint one, then those of attention."""
    model = int8(attention("split"))
    joint, *others = [node for node in model.graph if node.op_type == "MatMul"]
    for number, node in enumerate(others):
        node.name = f"{joint.name}_{number + 1}"
    made = prepare.prepare(model, "float16").model
    names = [node.name for node in made.graph]
    assert len(set(names)) == len(names)
    _, result = make_bundle(TARGET, model)
    assert result.proof["products"] == {"float16": 2, "int8": 4}


def test_attention_of_one_query_is_shown_to_be_float16(graph_maker: Any, make_bundle: Any) -> None:
    """As in class attention: one kernel from the sums of three integer products, in float32, to integers."""
    g = graph_maker(2)
    g.constant("by_head", np.array([0, -1, HEADS, SIZE], np.int64))
    ends = [g.constant(name, np.array([value], np.int64)) for name, value in (("begin", 0), ("end", 1), ("axis", 1))]
    for name, source in (("q", g.add("Slice", ["x", *ends], "first")), ("k", "x"), ("v", "x")):
        made = g.add("MatMul", [source, g.weights(f"w{name}", WIDTH, WIDTH)], f"{name}_product")
        g.add("Transpose", [g.add("Reshape", [made, "by_head"], f"{name}r")], name, perm=[0, 2, 1, 3])
    scores = g.add("MatMul", ["q", g.add("Transpose", ["k"], "kt", perm=[0, 1, 3, 2])], "scores")
    mixed = g.add("MatMul", [g.add("Softmax", [scores], "weights", axis=-1), "v"], "mixed")
    whole = g.constant("whole", np.array([0, 0, WIDTH], np.int64))
    joined = g.add("Reshape", [g.add("Transpose", [mixed], "back", perm=[0, 2, 1, 3]), whole], "joined")
    g.add("MatMul", [joined, g.weights("o", WIDTH, WIDTH)], "y")
    _, result = make_bundle(TARGET, int8(g.model({"x": [1, TOKENS, WIDTH]}, {"y": [1, 1, WIDTH]})))
    assert result.proof["products"] == {"float16": 2, "int8": 4}


def test_a_cast_in_the_same_kernel_tells_what_a_product_multiplies() -> None:
    kernel = EngineLayer("_gemv_mha", "kgen", ("cast", "p"), ("float32",), ("int8",), ("float32",))
    beside, half = {"p": frozenset({"cast"})}, {"p": ("MatMul", "float16")}
    assert [each.found for each in products([kernel], half, beside)] == ["float16"]
    assert [each.found for each in products([kernel], half, {"p": frozenset({"another"})})] == ["float32"]
    assert [each.found for each in products([kernel], {"p": ("MatMul", "int8")}, beside)] == ["float32"]


def test_what_is_also_read_whole_is_left_alone(graph_maker: Any) -> None:
    g = graph_maker()
    joint = g.add("MatMul", ["x", g.weights("w", 16, 32)], "joint")
    g.nodes.append(make_split(joint, ["a", "b"], -1))
    g.add("Mul", [g.add("Mul", ["a", "b"], "gate"), g.add("ReduceSum", [joint], "all")], "y")
    model = prepare.normalize(int8(g.model({"x": [1, 4, 16]}, {"y": [1, 4, 16]})))[0]
    assert not SeparateProjections()(model).modified


def test_integers_against_weights_in_float_are_no_integer_product() -> None:
    """As TensorRT for RTX writes it: it reads int8 activations, and float16 weights that another kernel made of int8 ones."""
    widened = EngineLayer("w", "kgen", ("p", "dq"), (), ("float16",), ("float32", "int8"), weights="int8")
    product = EngineLayer("__myl_CastMulCastFc", "runtime_fusion", ("p",), ("int8", "float16"), ("float16",))
    asked = {"p": ("MatMul", "int8")}
    assert [each.found for each in products([widened, product], asked)] == ["float16"]
    whole = EngineLayer("p", "gemm", ("p",), ("int8",), ("float32",), ("int8", "float32"), weights="int8")
    assert [each.found for each in products([whole], asked)] == ["int8"]
    both = EngineLayer("p", "gemm", ("p",), ("int8", "int8"), ("float32",))
    assert [each.found for each in products([both], asked)] == ["int8"]


def test_a_float_product_inside_a_generated_kernel_counts_by_what_it_writes() -> None:
    """It begins with the sums of an integer product, in float32."""
    kernel = EngineLayer("__myl_MulCastReshMulSum", "kgen", ("p",), ("float32",), ("float16",), ("float32",))
    assert [each.found for each in products([kernel], {"p": ("MatMul", "float16")})] == ["float16"]
    assert [each.found for each in products([kernel], {"p": ("MatMul", "int8")})] == ["float32"]
