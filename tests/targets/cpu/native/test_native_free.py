"""What follows from shapes, or what a run alone knows: padding, loops, resizing with a free batch; and dtypes inside. Beside ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import parser

from edgewise.targets.cpu.native.compile import NotTakenError, compile_model
from edgewise.targets.cpu.native.engine_file import encode
from edgewise.targets.cpu.native.plan import Isa

pytestmark = pytest.mark.usefixtures("libedgewise")
Check = Callable[..., None]


def model_of(text: str, opset: int = 21, **constants: np.ndarray) -> ir.Model:
    proto = parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]>\n{text}')
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in constants.items())
    return ir.from_proto(proto)


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.fixture
def check(libedgewise: Any, run_onnx: Any, tmp_path: Path) -> Check:
    """``check(model, samples)``: one context gives what ONNX Runtime does, sample after sample."""

    def run(model: ir.Model, samples: list[dict[str, np.ndarray]], atol: float = 1e-5) -> None:
        plan = compile_model(model, Isa.GENERIC).plan
        path = tmp_path / "n.engine"
        path.write_bytes(encode(plan))
        context = libedgewise.Context(libedgewise.Engine(str(path)), threads=1)
        for inputs in samples:
            made = context.run([inputs[tensor.name] for tensor in plan.inputs])
            for found, wanted in zip(made, run_onnx(model, inputs), strict=True):
                assert found.shape == wanted.shape and found.dtype == wanted.dtype
                np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=atol)

    return run


IMAGES = [{"x": random(1, 3, height, width)} for height, width in ((8, 8), (7, 11), (9, 5), (1, 2))]


# -- padding that follows from shapes

TO_EIGHTS = """g (float[1,3,h,w] x) => (float[1,3,a,b] y) {{
    all = Shape(x)
    sizes = Slice(all, two, four)
    over = Mod(sizes, eight)
    short = Sub(eight, over)
    half = Div(short, two)
    rest = Sub(short, half)
    pads = Concat<axis = 0>(nothing, half, nothing, rest)
    y = Pad<mode = "{mode}">(x, pads{fill})
}}"""
NUMBERS = {"two": np.array([2]), "four": np.array([4]), "eight": np.array([8]), "nothing": np.array([0, 0])}


@pytest.mark.parametrize(("mode", "fill"), [("constant", ", number"), ("constant", ""), ("edge", "")])
def test_pads_up_to_a_multiple(check: Check, mode: str, fill: str) -> None:
    """As detectors bring images to a multiple of their stride: Shape, arithmetic, Pad."""
    model = model_of(TO_EIGHTS.format(mode=mode, fill=fill), number=np.array(2.5, np.float32), **NUMBERS)
    check(model, IMAGES)


def test_positions_of_tokens(check: Check) -> None:
    """What transformers compute of open lengths: buckets of distances in integers, masks picked by GatherND, heads in a computed Reshape."""
    model = model_of("""g (int64[n,t] mask, float[n,t,6] x) => (int64[t,t] d, float[n,1,t,t] m, float[p,t,3] h, float[n,t,6] l) {
        nt = Shape(mask)
        n0 = Gather(nt, zero)
        t0 = Gather(nt, one)
        p = Range(zero, t0, one)
        row = Unsqueeze(p, axis0)
        column = Unsqueeze(p, axis1)
        far = Sub(row, column)
        less = Neg(far)
        size = Abs(less)
        side = Sign(far)
        near = Clip(size, zero, two)
        d = Mul(near, side)
        batch = Range(zero, n0, one)
        b4 = Unsqueeze(batch, axes_b)
        k4 = Unsqueeze(p, axes_k)
        q4 = Unsqueeze(p, axes_q)
        k0 = Mul(q4, zero)
        key = Add(k4, k0)
        whole = Max(b4, key)
        sizes = Shape(whole)
        b = Expand(b4, sizes)
        k = Expand(key, sizes)
        back = Sub(k, t0)
        bu = Unsqueeze(b, last)
        ku = Unsqueeze(back, last)
        places = Concat<axis = -1>(bu, ku)
        shown = Cast<to = 9>(mask)
        picked = GatherND(shown, places)
        m = Cast<to = 1>(picked)
        double = Mul(n0, two)
        heads = Reshape(double, axis_any)
        t1 = Reshape(t0, axis_any)
        wanted = Concat<axis = 0>(heads, t1, three)
        h = Reshape(x, wanted)
        low = ReduceMin<keepdims = 0>(x)
        high = Add(low, step)
        l = Clip(x, low, high)
    }""", zero=np.array(0), one=np.array(1), two=np.array(2), three=np.array([3]), axis0=np.array([0]), axis1=np.array([1]), last=np.array([-1]),
        axes_b=np.array([1, 2, 3]), axes_k=np.array([0, 1, 2]), axes_q=np.array([0, 1, 3]), axis_any=np.array([-1]),
        step=np.array(1.5, np.float32))  # fmt: skip
    masks = [np.array([[1, 1, 0, 1, 1]]), np.array([[1, 0], [1, 1], [0, 1]]), np.array([[1]])]
    check(model, [{"mask": mask, "x": random(*mask.shape, 6)} for mask in masks])


def test_all_of_an_axis_of_one(check: Check) -> None:
    """A slice that takes it, forwards or backwards."""
    model = model_of("""g (float[n,1,3] x) => (float[n,1,3] y, float[n,1,3] z) {
        y = Slice(x, zero, one, one, two)
        z = Slice(x, zero, least, one, back)
    }""", zero=np.array([0]), one=np.array([1]), two=np.array([2]), least=np.array([-5]), back=np.array([-1]))  # fmt: skip
    check(model, [{"x": random(4, 1, 3)}])


def test_fewer_than_no_elements_are_refused(check: Check, libedgewise: Any) -> None:
    model = model_of("""g (float[1,3,h,w] x) => (float[1,3,a,b] y) {
        n = Shape<start = 2>(x)
        less = Sub(n, five)
        p = Concat<axis = 0>(less, less)
        y = Pad(x, p, , axes)
    }""", five=np.array([5, 5]), axes=np.array([2, 3]))  # fmt: skip
    check(model, IMAGES[1:2])
    with pytest.raises(libedgewise.NativeError):
        check(model, IMAGES[3:])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("g (float[3] x, int64[2] p) => (float[n] y) { y = Pad(x, p) }", "make them constants, or compute them from shapes"),
        ("g (float[h] x) => (float[n] y) { n = Shape(x)\n p = Concat<axis = 0>(n, n)\n y = Pad<mode = \"reflect\">(x, p) }", "fix them with --input"),
        ("g (uint32[3] x) => (uint32[3] y) { y = Identity(x) }", "cast it before the network"),
        ("g (int32[3] x) => (int16[3] y) { a = Cast<to = 5>(x)\n y = Abs(a) }", "int16 of another dtype inside"),
        ("g (int64[3] x) => (float[3] y) { a = Cast<to = 11>(x)\n b = Sqrt(a)\n y = Cast<to = 1>(b) }", "dtype float64"),
        ("g (float[3] x) => (float[3] y) { a = Cast<to = 11>(x)\n b = CumSum(a, zero)\n y = Cast<to = 1>(b) }", "dtype float64"),
        ("g (float[h,4] x) => (float[h,4] y) { y = Scan<num_scan_inputs = 1, body = b (float[4] r) => (float[4] s) { s = Relu(r) }>(x) }",
         "fix those of the inputs with --input"),
    ],
)  # fmt: skip
def test_what_is_refused_says_what_to_do(text: str, reason: str) -> None:
    with pytest.raises(NotTakenError, match=reason):
        compile_model(model_of(text, zero=np.array(0)), Isa.GENERIC)


# -- windows whose padding follows from shapes


@pytest.mark.parametrize("auto", ["SAME_UPPER", "SAME_LOWER"])
def test_strides_over_images_of_any_size(check: Check, auto: str) -> None:
    """As TensorFlow pads: by nothing, one or two pixels more, by what remains of the size."""
    model = model_of(f"""g (float[1,3,h,w] x) => (float[1,4,a,b] y, float[1,3,c,d] m, float[1,3,e,f] n) {{
        y = Conv<auto_pad = "{auto}", strides = [2, 3]>(x, k)
        m = MaxPool<auto_pad = "{auto}", kernel_shape = [3, 2], strides = [2, 2]>(x)
        n = AveragePool<auto_pad = "{auto}", kernel_shape = [3, 3], strides = [2, 1], count_include_pad = 1>(x)
    }}""", k=random(4, 3, 3, 4))  # fmt: skip
    check(model, IMAGES)


def test_bytes_stay_bytes(check: Check) -> None:
    text = """g (float[1,4,h,w] x) => (float[1,4,a,b] y) {
        q = QuantizeLinear(x, s, z)
        d = DequantizeLinear(q, s, z)
        w = DequantizeLinear(k, t, zero)
        c = Conv<auto_pad = "SAME_UPPER", strides = [2, 2]>(d, w)
        o = QuantizeLinear(c, s, z)
        y = DequantizeLinear(o, s, z)
    }"""
    kernel = np.random.default_rng(1).integers(-127, 128, (4, 4, 3, 3)).astype(np.int8)
    constants = {
        "s": np.array(0.05, np.float32), "z": np.array(117, np.uint8), "t": np.array(0.002, np.float32), "zero": np.array(0, np.int8)
    }  # fmt: skip
    model = model_of(text, k=kernel, **constants)
    check(model, [{"x": random(1, 4, 8, 7)}, {"x": random(1, 4, 5, 8)}], atol=0.0501)
    made = [op for op in compile_model(model, Isa.GENERIC).plan.ops if op.op == "conv"]
    assert [op.inputs[0].dtype.name for op in made if op.inputs[0]] == ["U8"]


# -- resizing where the batch is free


@pytest.mark.parametrize("opset", [18, 21])
def test_an_antialiased_image_of_any_batch(check: Check, opset: int) -> None:
    model = model_of("""g (float[n,2,9,12] x) => (float[n,2,5,7] y, float[n,2,4,6] z) {
        all = Shape<end = 2>(x)
        sizes = Concat<axis = 0>(all, wanted)
        y = Resize<mode = "linear", antialias = 1>(x, , , sizes)
        z = Resize<mode = "cubic", antialias = 1>(x, , scales)
    }""", opset, wanted=np.array([5, 7]), scales=np.array([1, 1, 0.5, 0.5], np.float32))  # fmt: skip
    check(model, [{"x": random(count, 2, 9, 12)} for count in (1, 3)])


# -- loops whose length a run finds out, up to a bound


@pytest.mark.parametrize("start", ["", "go"])
def test_a_loop_runs_as_often_as_it_is_told(check: Check, start: str) -> None:
    model = model_of(f"""g (int64 n, bool go, float[2] x) => (float[2] y, int64 count) {{
        most = Min(n, five)
        y, count = Loop<body = b (int64 i, bool before, float[2] s, int64 c) => (bool after, float[2] t, int64 d) {{
            t = Add(s, s)
            d = Add(c, one)
            after = Identity(before)
        }}>(most, {start}, x, zero)
        again = Not(go)
    }}""", five=np.array(5), one=np.array(1), zero=np.array(0))  # fmt: skip
    goes = (True, False) if start else (True,)
    check(model, [{"n": np.array(n), "go": np.array(go), "x": random(2)} for n in (0, 3, 5, 9, -2) for go in goes])


# -- numbers of pixels


def test_a_range_as_float32(check: Check) -> None:
    """As YOLOv8 numbers the cells of its grids: up to a size that was made float32."""
    model = model_of("""g (float[1,3,h,w] x) => (float[n] y, float[m] z) {
        rows = Shape<start = 2, end = 3>(x)
        row = Squeeze(rows)
        limit = Cast<to = 1>(row)
        y = Range(zero, limit, one)
        z = Range(limit, zero, less)
    }""", zero=np.array(0, np.float32), one=np.array(1, np.float32), less=np.array(-2, np.float32))  # fmt: skip
    check(model, IMAGES)
    with pytest.raises(NotTakenError, match=r"Range.*bounds that are not known"):
        compile_model(
            model_of("g (float l) => (float[n] y) { y = Range(zero, l, zero) }", zero=np.array(0, np.float32)),
            Isa.GENERIC,
        )


# -- dtypes inside


def test_float64_between_float32(check: Check) -> None:
    model = model_of("""g (float[4,6] x) => (float[4,6] y) {
        wide = Cast<to = 11>(x)
        half = Mul(wide, factor)
        sum = Add(half, wide)
        y = Cast<to = 1>(sum)
    }""", factor=np.array(1 / 3))  # fmt: skip
    check(model, [{"x": random(4, 6)}])


def test_wide_and_short_ends(libedgewise: Any, tmp_path: Path) -> None:
    """float64 and bfloat16 are computed in float32, integers of 16 bits in int32; these wrap around where they leave the network.

    numpy says what is wanted: ONNX Runtime has no such kernels.
    """
    model = model_of(
        """g (double[N] x, int16[4] i, uint16[4] u, bfloat16[4] z) => (double[N] y, int16[4] j, uint16[4] v, bool[4] b, int16[4] i, bfloat16[4] k) {
            s = Constant <value = double {0.125}> ()
            e = Exp(x)
            y = Mul(e, s)
            j = Sub(i, one)
            v = Cast<to = 4>(i)
            m = Cast<to = 6>(u)
            n = Cast<to = 6>(i)
            b = Less(n, m)
            t = Add(z, z)
            k = Sqrt(t)
        }""",
        one=np.ones((), np.int16),
    )
    path = tmp_path / "n.engine"
    path.write_bytes(encode(compile_model(model, Isa.GENERIC).plan))
    engine = libedgewise.Engine(str(path))
    assert [dtype for _, dtype, _ in engine.inputs] == ["float64", "int16", "uint16", "bfloat16"]
    x, i = np.linspace(-3, 3, 5), np.array([-32768, -1, 7, 32767], np.int16)
    u, z = i.view(np.uint16), np.array([0.5, 2, 1.5, 0.3], ml_dtypes.bfloat16)
    made = libedgewise.Context(engine, threads=1).run([x, i, u, z.view(np.uint16)])
    root = np.sqrt(2 * z.astype(np.float32)).astype(ml_dtypes.bfloat16).view(np.uint16)
    wanted = [np.exp(x) / 8, i - np.int16(1), u, i.astype(np.int32) < u, i, root]
    for found, want in zip(made, wanted, strict=True):
        assert found.dtype == want.dtype
        np.testing.assert_allclose(found, want, rtol=1e-6)
    with pytest.raises(libedgewise.NativeError, match="input x must be float64"):
        libedgewise.Context(engine, threads=1).run([x.astype(np.float32), i, u, root])


def test_bfloat16_inside(libedgewise: Any, tmp_path: Path) -> None:
    """Computed in float32, where ONNX rounds each result to 8 bits."""
    model = model_of("""g (float[4,6] x) => (float[4,5] y) {
        narrow = Cast<to = 16>(x)
        w = Cast<to = 16>(weights)
        sum = MatMul(narrow, w)
        y = Cast<to = 1>(sum)
    }""", weights=random(6, 5))  # fmt: skip
    plan = compile_model(model, Isa.GENERIC).plan
    path = tmp_path / "n.engine"
    path.write_bytes(encode(plan))
    made = libedgewise.Context(libedgewise.Engine(str(path)), threads=1).run([random(4, 6)])[0]
    np.testing.assert_allclose(made, random(4, 6) @ random(6, 5), atol=0.05)
