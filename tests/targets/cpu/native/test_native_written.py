"""Operators that are written out by others, beside ONNX Runtime; ONNX's node tests (test_native_node_tests.py) have the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import parser
from onnx.reference import ReferenceEvaluator

from edgewise.targets.cpu.native.compile import NotTakenError, compile_model
from edgewise.targets.cpu.native.plan import Isa

pytestmark = pytest.mark.usefixtures("libedgewise")
HEAD = '<ir_version: 10, opset_import: ["" : 21]>'


def model_of(text: str, **constants: np.ndarray) -> ir.Model:
    """From ONNX's text form, with constants by name."""
    proto = parser.parse_model(f"{HEAD}\n{text}")
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in constants.items())
    return ir.from_proto(proto)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


Check = Callable[..., None]


@pytest.fixture
def check(run_native: Any, run_onnx: Any) -> Check:
    """``check(model, inputs)``: libedgewise computes what ONNX Runtime does."""

    def run(model: ir.Model, inputs: dict[str, np.ndarray], atol: float = 1e-5) -> None:
        for found, wanted in zip(run_native(model, inputs), run_onnx(model, inputs), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=atol)

    return run


@pytest.mark.parametrize("tokens", [1, 2])
def test_a_cache_grows_by_tokens(check: Check, tokens: int) -> None:
    model = model_of(
        f"""g (float[1,2,5,4] past, float[1,2,{tokens},4] new) => (float[1,2,{5 + tokens},4] y) {{
        y = Concat<axis = 2>(past, new)
    }}"""
    )
    check(model, {"past": random(1, 2, 5, 4), "new": random(1, 2, tokens, 4, seed=1)})


@pytest.mark.parametrize("pads", [[0, -1, 0, -2], [-1, 2, 3, -2], [0, 0, -1, 1]])
def test_padding_that_cuts_off(check: Check, pads: list[int]) -> None:
    rows, columns = 4 + pads[0] + pads[2], 6 + pads[1] + pads[3]
    model = model_of(
        f"""g (float[4,6] x) => (float[{rows},{columns}] y) {{ y = Pad(x, pads, fill) }}""",
        pads=np.array(pads),
        fill=np.array(2.5, np.float32),
    )
    check(model, {"x": random(4, 6)})


def test_keys_that_several_heads_share(check: Check) -> None:
    model = model_of("""g (float[1,4,5,8] q, float[1,1,8,7] k, float[1,1,7,8] v) => (float[1,4,5,8] y) {
        scores = MatMul(q, k)
        weights = Softmax<axis = -1>(scores)
        y = MatMul(weights, v)
    }""")
    check(model, {"q": random(1, 4, 5, 8), "k": random(1, 1, 8, 7, seed=1), "v": random(1, 1, 7, 8, seed=2)})


@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax"])
def test_softmax_of_one_number(check: Check, operator: str) -> None:
    model = model_of(f"""g (float[2,1,5] x) => (float[2,1,5] y) {{ y = {operator}<axis = 1>(x) }}""")
    check(model, {"x": random(2, 1, 5)})


@pytest.mark.parametrize("condition", [True, False])
def test_a_choice_that_is_computed(check: Check, condition: bool) -> None:
    model = model_of(
        """g (bool c, float[3] x) => (float[3] y) {
        y = If<then_branch = a () => (float[3] p) { p = Neg(x) }, else_branch = b () => (float[3] q) { q = Exp(x) }>(c)
    }"""
    )
    check(model, {"c": np.array(condition), "x": random(3)})


def test_a_loop_that_ends_early(check: Check) -> None:
    model = model_of(
        """g (float[2] x) => (float[2] y) {
        y = Loop<body = b (int64 i, bool before, float[2] s) => (bool after, float[2] t) {
            t = Add(s, s)
            total = ReduceSum<keepdims = 0>(t)
            after = Less(total, limit)
        }>(trips, always, x)
    }""",
        trips=np.int64(6).reshape(()),
        always=np.bool_(True).reshape(()),
        limit=np.float32(10).reshape(()),
    )
    check(model, {"x": np.array([1, 1], np.float32)})
    check(model, {"x": np.array([0.01, 0.01], np.float32)})


def test_a_number_of_runs_that_is_computed_is_refused() -> None:
    model = model_of(
        """g (int64 n, float[2] x) => (float[2] y) {
        y = Loop<body = b (int64 i, bool before, float[2] s) => (bool after, float[2] t) {
            t = Add(s, s)
            after = Identity(before)
        }>(n, , x)
    }"""
    )
    with pytest.raises(NotTakenError, match="a number of runs that is not known"):
        compile_model(model, Isa.GENERIC)


def test_the_steps_of_an_lstm_share_their_weights(check: Check) -> None:
    sizes: dict[int, int] = {}
    for steps in (2, 12):
        model = model_of(
            f"""g (float[{steps},1,8] x) => (float[{steps},1,1,16] y, float[1,1,16] h) {{
            y, h = LSTM<hidden_size = 16>(x, w, r, b)
        }}""",
            w=random(1, 64, 8),
            r=random(1, 64, 16, seed=1),
            b=random(1, 128, seed=2),
        )
        check(model, {"x": random(steps, 1, 8, seed=3)})
        plan = compile_model(model, Isa.GENERIC).plan
        constants = {
            id(one.data): one.data.nbytes for op in plan.ops for one in op.inputs if one and one.data is not None
        }
        sizes[steps] = sum(constants.values())
    assert sizes[12] == sizes[2]


def test_integers_come_in_and_go_out(check: Check) -> None:
    model = model_of(
        """g (uint8[1,8,4,4] x) => (uint8[1,4,4,4] y) {
        a = DequantizeLinear(x, s, z)
        w = DequantizeLinear<axis = 0>(k, ks)
        b = Conv(a, w)
        y = QuantizeLinear(b, t, z)
    }""",
        s=np.float32(0.05).reshape(()),
        z=np.uint8(120).reshape(()),
        t=np.float32(0.1).reshape(()),
        k=np.random.default_rng(0).integers(-50, 50, (4, 8, 1, 1)).astype(np.int8),
        ks=np.full(4, 0.01, np.float32),
    )
    check(model, {"x": np.random.default_rng(1).integers(0, 255, (1, 8, 4, 4)).astype(np.uint8)}, atol=1)


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "min", "max"])
def test_rows_are_replaced_and_reduced(check: Check, reduction: str) -> None:
    model = model_of(
        f"""g (float[5,3] x, int64[4,1] i, float[4,3] u) => (float[5,3] y) {{
        y = ScatterND<reduction = "{reduction}">(x, i, u)
    }}"""
    )
    rows = [[0], [4], [-3], [1]] if reduction == "none" else [[0], [4], [-1], [0]]
    check(model, {"x": random(5, 3), "i": np.array(rows, np.int64), "u": random(4, 3, seed=1)})


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("corners", [0, 1])
def test_pixels_between_pixels(check: Check, padding: str, mode: str, corners: int) -> None:
    model = model_of(
        f"""g (float[2,3,5,4] x, float[2,6,7,2] grid) => (float[2,3,6,7] y) {{
        y = GridSample<mode = "{mode}", padding_mode = "{padding}", align_corners = {corners}>(x, grid)
    }}"""
    )
    check(model, {"x": random(2, 3, 5, 4), "grid": random(2, 6, 7, 2, seed=1)}, atol=1e-4)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_recurrent_layers_of_any_batch(check: Check, kind: str) -> None:
    gates = {"LSTM": 4, "GRU": 3}[kind]
    model = model_of(
        f"""g (float[6,N,5] x) => (float[6,2,N,3] y) {{ y = {kind}<hidden_size = 3, direction = "bidirectional">(x, w, r, b) }}""",
        w=random(2, gates * 3, 5) * np.float32(0.5), r=random(2, gates * 3, 3, seed=1), b=random(2, gates * 6, seed=2),
    )  # fmt: skip
    for batch in (1, 4):
        check(model, {"x": random(6, batch, 5)})


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_resize_of_any_image(check: Check, mode: str) -> None:
    """By a scale, to a size that another value has, and to one that is known."""
    model = model_of(
        f"""g (float[1,2,H,W] x, float[1,2,A,B] other) => (float[1,2,P,Q] a, float[1,2,A,B] b, float[1,2,7,9] c) {{
        a = Resize<mode = "{mode}">(x, , scales)
        whole = Shape(other)
        b = Resize<mode = "{mode}", coordinate_transformation_mode = "align_corners">(x, , , whole)
        c = Resize<mode = "{mode}">(x, , , sizes)
    }}""",
        scales=np.array([1, 1, 1.5, 2], np.float32), sizes=np.array([1, 2, 7, 9]),
    )  # fmt: skip
    for height, width, rows, columns in ((4, 6, 8, 12), (5, 5, 5, 5), (3, 8, 9, 2)):
        check(model, {"x": random(1, 2, height, width), "other": random(1, 2, rows, columns)}, atol=1e-4)


def test_resize_of_a_region_with_its_aspect_or_smoothed(check: Check) -> None:
    """What the kernel does not do: three ways in one network, each of its own kind."""
    model = model_of(
        """g (float[1,3,7,9] x) => (float[1,3,P,Q] a, float[1,3,R,S] b, float[1,3,4,6] c) {
        a = Resize<mode = "linear", antialias = 1, keep_aspect_ratio_policy = "not_larger", axes = [2, 3]>(x, , , half)
        b = Resize<mode = "linear", coordinate_transformation_mode = "tf_crop_and_resize", extrapolation_value = 5.0>(x, region, , some)
        c = Resize<mode = "cubic", antialias = 1>(x, , , all)
    }""",
        half=np.array([3, 5]), region=np.array([0, 0, 0.4, -0.2, 1, 1, 0.6, 1.3], np.float32), some=np.array([1, 3, 3, 8]), all=np.array([1, 3, 4, 6]),
    )  # fmt: skip
    check(model, {"x": random(1, 3, 7, 9)}, atol=1e-5)


def test_resize_by_a_scale_that_leaves_the_size_is_no_copy(run_native: Any) -> None:
    """As ONNX defines it; ONNX Runtime hands the image over."""
    model = model_of(
        'g (float[1,1,7,9] x) => (float[1,1,7,9] y) { y = Resize<mode = "linear", antialias = 1>(x, , scales) }',
        scales=np.array([1, 1, 1.1, 1.1], np.float32),
    )
    x = random(1, 1, 7, 9)
    want = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})[0]
    assert np.abs(want - x).max() > 0.1
    np.testing.assert_allclose(run_native(model, {"x": x})[0], want, atol=1e-5)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
def test_padding_that_any_image_has_alike(check: Check, auto_pad: str) -> None:
    model = model_of(
        f"""g (float[1,2,H,W] x) => (float[1,3,H,W] y) {{
        a = Conv<auto_pad = "{auto_pad}">(x, w)
        y = MaxPool<kernel_shape = [2, 3], auto_pad = "{auto_pad}">(a)
    }}""",
        w=random(3, 2, 4, 3),
    )
    for height, width in ((4, 6), (5, 9)):
        check(model, {"x": random(1, 2, height, width)}, atol=1e-5)


def test_resize_by_an_odd_scale_of_any_image_is_refused() -> None:
    model = model_of(
        """g (float[1,2,H,8] x) => (float[1,2,P,8] y) { y = Resize(x, , scales) }""",
        scales=np.array([1, 1, 1.2345678, 1], np.float32),
    )
    with pytest.raises(NotTakenError, match=r"Resize by 1\.23457 of a size that depends"):
        compile_model(model, Isa.GENERIC)


def test_a_network_in_float16(run_native: Any, run_onnx: Any) -> None:
    """Inputs and outputs as they are, weights too; inside it is float32, so no sum overflows."""
    model = model_of(
        """g (float16[2,3,8,8] x, float16[1] s, bool c) => (float16[2,4,8,8] y, float16[2,3,8,8] twice) {
        a = Conv<pads = [1,1,1,1]>(x, w, b)
        scaled = Mul(a, s)
        chosen = If<then_branch = p () => (float16[2,4,8,8] u) { u = Relu(scaled) }, else_branch = q () => (float16[2,4,8,8] v) { v = Neg(scaled) }>(c)
        wide = Cast<to = 1>(chosen)
        root = Sqrt(wide)
        y = Cast<to = 10>(root)
        two = Constant<value = float16[1] {2}>()
        twice = Mul(x, two)
    }""", w=random(4, 3, 3, 3).astype(np.float16), b=random(4).astype(np.float16),
    )  # fmt: skip
    inputs = {"x": random(2, 3, 8, 8).astype(np.float16), "s": np.array([0.5], np.float16), "c": np.array(True)}
    for made, want in zip(run_native(model, inputs), run_onnx(model, inputs), strict=True):
        assert made.dtype == want.dtype == np.float16 and made.shape == want.shape
        np.testing.assert_allclose(made.astype(np.float32), want.astype(np.float32), atol=4e-3)
