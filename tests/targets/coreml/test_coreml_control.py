"""If, Loop and Scan, written out: the same numbers as ONNX Runtime, and a reason where they stay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.targets import TargetError
from edgewise.targets.base import BuildResult, Executor

BuildModel = Callable[..., tuple[Executor, BuildResult, Path]]
HEAD = '<ir_version: 8, opset_import: ["" : 18]>\n'
IF = "agraph (float[2,3] x, bool c) => (float[2,3] y) { z = Mul(x, x)  y = If (c) <then_branch = t () => (float[2,3] a) { a = Add(x, z) }, else_branch = e () => (float[2,3] b) { b = Neg(z) }> }"
CASES = {
    "if": IF,
    "loop": """agraph (float[2,3] x) => (float[2,3] y, float[4,2,3] all)
        <int64 n = {4}, bool go = {1}> { y, all = Loop (n, go, x) <body = b (int64 i, bool c, float[2,3] v) => (bool d, float[2,3] w, float[2,3] each)
        { d = Identity(c)  f = Cast<to = 1>(i)  s = Add(v, f)  w = Tanh(s)  each = Mul(w, v) }> }""",
    "early": """agraph (float[2,3] x) => (float[2,3] y)
        <int64 n = {6}, bool go = {1}, float two = {2.0}, float most = {9.0}> { y = Loop (n, go, x) <body = b (int64 i, bool c, float[2,3] v) => (bool d, float[2,3] w)
        { w = Mul(v, two)  m = ReduceMax<keepdims = 0>(w)  d = Less(m, most) }> }""",
    "nested": """agraph (float[2,3] x, bool c) => (float[2,3] y)
        <int64 n = {2}, bool go = {1}> { y = Loop (n, go, x) <body = b (int64 i, bool k, float[2,3] v) => (bool d, float[2,3] w)
        { d = Identity(k)  w = If (c) <then_branch = t () => (float[2,3] p) { p = Add(v, v) }, else_branch = e () => (float[2,3] q) { q = Neg(v) }> }> }""",
    "scan": """agraph (float[3] s, float[2,4,3] x) => (float[3] last, float[4,3] all)
        { r = ReduceSum<keepdims = 0>(x)  last, all = Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_input_directions = [1],
        body = b (float[3] v, float[2,3] p) => (float[3] w, float[3] each) <int64[1] zero = {0}> { q = ReduceSum<keepdims = 0>(p, zero)  u = Add(v, q)  w = Tanh(u)  each = Mul(w, w) }> (s, x) }""",
}


def given(model: onnx.ModelProto, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    arrays = {}
    for value in model.graph.input:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        is_bool = value.type.tensor_type.elem_type == onnx.TensorProto.BOOL
        arrays[value.name] = np.array(seed % 2 == 0) if is_bool else random.uniform(0.2, 1.5, shape).astype(np.float32)
    return arrays


@pytest.mark.parametrize("case", sorted(CASES))
def test_the_same_numbers(case: str, build_model: BuildModel) -> None:
    proto = onnx.parser.parse_model(HEAD + CASES[case])
    executor, result, _ = build_model(proto, compute_precision="float32")
    reference = OnnxRunner(ir.from_proto(proto), optimize=False)
    for seed in range(4):
        arrays = given(proto, seed)
        parities = compare_outputs([reference.run(arrays)], [executor.run(arrays)])
        assert min(parity.sqnr_db for parity in parities) >= 90
    assert not {"cond", "while_loop"} & {layer["op"] for layer in result.layers}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            IF.replace("b = Neg(z)", "b = ReduceSum<keepdims = 1>(z)").replace("float[2,3] b", "float[1,1] b"),
            "the same fixed shape",
        ),
        (
            CASES["loop"].replace("float[2,3] x)", "float[2,3] x, int64 n)").replace("int64 n = {4}, ", ""),
            "at run time only",
        ),
        (CASES["loop"].replace("{4}", "{5000}").replace("[4,", "[5000,"), "5000 iterations"),
        (CASES["loop"].replace("d = Identity(c)", "z = ReduceSum<keepdims = 0>(v)  d = Less(z, z)"), "may end early"),
    ],
)
def test_what_stays_is_refused(text: str, message: str, build_model: BuildModel) -> None:
    with pytest.raises(TargetError) as caught:
        build_model(onnx.parser.parse_model(HEAD + text))
    assert message in str(caught.value)
    assert any(op in caught.value.where for op in ("operator If", "operator Loop"))


def test_a_step_of_a_gru_is_eleven_operations(build_model: BuildModel) -> None:
    """coremltools' passes take seconds for thousands of operations and their constants."""
    steps = 12
    shapes = {"w": (1, 12, 3), "r": (1, 12, 4), "b": (1, 24)}
    model = ir.from_onnx_text(HEAD + f"""agraph (float[{steps},1,3] x, float[1,12,3] w, float[1,12,4] r, float[1,24] b) => (float[{steps},1,1,4] y)
        {{ y = GRU <hidden_size = 4, linear_before_reset = 1> (x, w, r, b) }}""")  # fmt: skip
    random = np.random.default_rng(4)
    for value in list(model.graph.inputs)[1:]:
        value.const_value = ir.tensor(random.standard_normal(shapes[str(value.name)]).astype(np.float32))
        model.graph.register_initializer(value)
    del model.graph.inputs[1:]
    _, result, _ = build_model(model, compute_precision="float32")
    assert len(result.layers) <= 11 * steps + 12
