"""Results whose size a run finds out, and what is computed of them, beside ONNX Runtime: one context, inputs that give other counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import parser

from edgewise.targets.cpu.native.compile import NotTakenError, compile_model
from edgewise.targets.cpu.native.engine_file import encode
from edgewise.targets.cpu.native.plan import Isa

pytestmark = pytest.mark.usefixtures("libedgewise")
HEAD = '<ir_version: 10, opset_import: ["" : 21]>'
Check = Callable[..., None]

DETECTOR = """g (float[1,30,4] boxes, float[1,3,30] scores) => (float[n,4] kept, float[n,1] best, int64[n,3] places) {
    places = NonMaxSuppression(boxes, scores, limit, overlap, least)
    numbers = Gather<axis = 1>(places, two)
    flat = Squeeze(numbers, one)
    rows = Squeeze(boxes, zero)
    chosen = Gather<axis = 0>(rows, flat)
    kept = Mul(chosen, chosen)
    all = Reshape(scores, line)
    classes = Gather<axis = 1>(places, one)
    first = Mul(classes, thirty)
    at = Add(first, numbers)
    best = Gather<axis = 0>(all, at)
}"""
CONSTANTS = {
    "limit": np.array([7]), "overlap": np.array([0.3], np.float32), "least": np.array([0.5], np.float32), "two": np.array([2]),
    "one": np.array([1]), "zero": np.array([0]), "line": np.array([-1]), "thirty": np.array([30]),
}  # fmt: skip


def model_of(text: str, **constants: np.ndarray) -> ir.Model:
    proto = parser.parse_model(f"{HEAD}\n{text}")
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in constants.items())
    return ir.from_proto(proto)


@pytest.fixture(scope="module")
def opened(libedgewise: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """A context that stays, and the names of its inputs."""

    def make(model: ir.Model, threads: int = 1) -> Any:
        plan = compile_model(model, Isa.GENERIC).plan
        path = tmp_path_factory.mktemp("counted") / "n.engine"
        Path(path).write_bytes(encode(plan))
        context = libedgewise.Context(libedgewise.Engine(str(path)), threads=threads)
        return context, [tensor.name for tensor in plan.inputs]

    return make


@pytest.fixture
def check(opened: Any, run_onnx: Any) -> Check:
    """``check(model, samples)``: libedgewise gives what ONNX Runtime does, for one after the other; and there are different counts."""

    def run(model: ir.Model, samples: list[dict[str, np.ndarray]], counts: int = 2, threads: int = 1) -> None:
        context, names = opened(model, threads)
        seen = set()
        for inputs in [*samples, samples[0]]:
            wanted = run_onnx(model, inputs)
            made = context.run([inputs[name] for name in names])
            for found, want in zip(made, wanted, strict=True):
                assert found.shape == want.shape and found.dtype == want.dtype
                np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)
            seen.add(wanted[0].shape)
        assert len(seen) >= counts

    return run


def boxes_and_scores(seed: int, best: float = 1.0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    corners = np.sort(generator.uniform(0, 10, (1, 30, 2, 2)), 2).reshape(1, 30, 4)
    return {
        "boxes": corners.astype(np.float32),
        "scores": (generator.uniform(0, best, (1, 3, 30)) // 0.05 * 0.05).astype(np.float32),  # with equal ones
    }


@pytest.mark.parametrize("threads", [1, 3])
def test_a_detector_s_end(check: Check, threads: int) -> None:
    samples = [boxes_and_scores(0), boxes_and_scores(1, 0.6), boxes_and_scores(2, 0.4), boxes_and_scores(3)]
    check(model_of(DETECTOR, **CONSTANTS), samples, counts=3, threads=threads)


@pytest.fixture(scope="module")
def detector(opened: Any) -> Any:
    return opened(model_of(DETECTOR, **CONSTANTS))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_boxes_of_all_sorts(detector: Any, data: Any) -> None:
    """Also points, turned corners, infinite ones and NaN: whatever is found lies inside, in order, and within the bound."""
    numbers = st.sampled_from([0.0, 1.0, 2.0, 5.0, -3.0, 1e30, -1e30, float("inf"), float("nan")])
    values = data.draw(st.lists(numbers, min_size=210, max_size=210))
    context, names = detector
    given_arrays = dict(zip(("boxes", "scores"), np.split(np.array(values, np.float32), [120]), strict=True))
    shapes = {"boxes": (1, 30, 4), "scores": (1, 3, 30)}
    made = context.run([given_arrays[name].reshape(shapes[name]) for name in names])
    places = made[2]
    assert len(places) <= 21 and (places >= 0).all() and (places < [1, 3, 30]).all()
    assert sorted(map(tuple, places[:, :2].tolist())) == list(map(tuple, places[:, :2].tolist()))


def test_centers_and_no_thresholds(check: Check) -> None:
    model = model_of(
        """g (float[2,9,4] boxes, float[2,2,9] scores) => (int64[n,3] y) {
        y = NonMaxSuppression<center_point_box = 1>(boxes, scores, limit, overlap)
    }""", limit=np.array([2**40]), overlap=np.array([0.1], np.float32),
    )  # fmt: skip
    generator = np.random.default_rng(5)
    samples = [
        {"boxes": generator.uniform(0, 4, (2, 9, 4)).astype(np.float32), "scores": generator.normal(0, 1, (2, 2, 9)).astype(np.float32)}
        for _ in range(4)
    ]  # fmt: skip
    check(model, samples)


def test_elements_under_a_mask_are_taken_and_put_back(check: Check) -> None:
    model = model_of("""g (float[4,6] x, float[4,6] y) => (int64[n,2] places, float[n] z, float[4,6] w) {
        mask = Greater(x, y)
        found = NonZero(mask)
        places = Transpose<perm = [1, 0]>(found)
        z = GatherND(x, places)
        twice = Add(z, z)
        w = ScatterND(y, places, twice)
    }""")
    generator = np.random.default_rng(0)
    samples = [
        {name: generator.normal(shift, 1, (4, 6)).astype(np.float32) for name, shift in (("x", by), ("y", 0))}
        for by in (0, 1, -1, -9, 9)
    ]
    check(model, samples, counts=4)


@pytest.mark.parametrize(("axis", "length"), [(0, 4), (1, 5), (1, 3), (None, 20)])
def test_compress(check: Check, axis: int | None, length: int) -> None:
    told = "" if axis is None else f"<axis = {axis}>"
    shape = {0: "n,5", 1: "4,n", None: "n"}[axis]
    model = model_of(
        f"g (float[4,5] x, bool[{length}] c) => (float[{shape}] z) {{ y = Compress{told}(x, c)\n z = Relu(y) }}"
    )
    generator = np.random.default_rng(1)
    conditions = [generator.random(length) > part for part in (0.5, 0.2, 0.8)] + [
        np.zeros(length, bool),
        np.ones(length, bool),
    ]
    check(model, [{"x": generator.normal(0, 1, (4, 5)).astype(np.float32), "c": one} for one in conditions], counts=3)


@pytest.mark.parametrize("dtype", ["float", "int64", "int32", "bool", "uint8"])
def test_nonzero_of_any_dtype(check: Check, dtype: str) -> None:
    model = model_of(f"g ({dtype}[2,3,4] x) => (int64[3,n] y) {{ y = NonZero(x) }}")
    kind = {"float": np.float32, "bool": np.bool_}.get(dtype, dtype)
    generator = np.random.default_rng(1)
    check(model, [{"x": generator.integers(0, 3, (2, 3, 4)).astype(kind) * top} for top in np.array([1, 0], kind)])


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_boxes_that_were_chosen_are_cut_out(check: Check, ratio: int, mode: str) -> None:
    """The second stage of a detector: as many boxes as the first one found, some beyond the image."""
    model = model_of(
        f"""g (float[1,3,12,10] x, float[1,8,4] boxes, float[1,1,8] scores) => (float[n,3,4,3] y) {{
        places = NonMaxSuppression(boxes, scores, limit, overlap, least)
        numbers = Gather<axis = 1>(places, two)
        rows = Squeeze(boxes, zero)
        chosen = Gather<axis = 0>(rows, numbers)
        image = Gather<axis = 1>(places, zero_)
        y = RoiAlign<output_height = 4, output_width = 3, sampling_ratio = {ratio}, spatial_scale = 0.7, mode = "{mode}">(x, chosen, image)
    }}""", limit=np.array([8]), overlap=np.array([0.9], np.float32), least=np.array([0.4], np.float32),
        two=np.array(2), zero=np.array([0]), zero_=np.array(0),
    )  # fmt: skip
    generator = np.random.default_rng(7)
    turned = (lambda corners: corners) if ratio else (lambda corners: np.sort(corners, 2))
    samples = [
        {
            "x": generator.normal(0, 1, (1, 3, 12, 10)).astype(np.float32),
            # Turned ones have places too, but no number of them that would follow from their size.
            "boxes": turned(generator.uniform(-6, 22, (1, 8, 2, 2)).astype(np.float32)).reshape(1, 8, 4),
            "scores": generator.uniform(0, 1, (1, 1, 8)).astype(np.float32),
        }
        for _ in range(4)
    ]
    check(model, samples)


@pytest.mark.parametrize("threads", [1, 3])
def test_numbers_that_a_run_says(check: Check, threads: int) -> None:
    """How many boxes, and both thresholds, are inputs: also more than there are, fewer than none."""
    model = model_of("""g (float[1,30,4] boxes, float[1,3,30] scores, int64[1] limit, float[1] overlap, float least) => (int64[n,3] y) {
        score = Reshape(least, one)
        y = NonMaxSuppression(boxes, scores, limit, overlap, score)
    }""", one=np.array([1]))  # fmt: skip
    samples = [
        boxes_and_scores(seed)
        | {"limit": np.array([limit]), "overlap": np.array([overlap], np.float32), "least": np.array(least, np.float32)}
        for seed, (limit, overlap, least) in enumerate([(7, 0.3, 0.5), (2, 0.9, 0.1), (40, 0.0, 0.0), (0, 0.5, 0.5)])
    ]
    check(model, samples, counts=4, threads=threads)


def test_only_one_number_that_a_run_says(check: Check) -> None:
    model = model_of("""g (float[1,30,4] boxes, float[1,3,30] scores, float[1] least) => (int64[n,3] y) {
        y = NonMaxSuppression(boxes, scores, limit, overlap, least)
    }""", **{name: CONSTANTS[name] for name in ("limit", "overlap")})  # fmt: skip
    check(model, [boxes_and_scores(seed) | {"least": np.array([0.2 + 0.35 * seed], np.float32)} for seed in range(3)])


def test_cells_of_too_many_places_are_refused() -> None:
    model = model_of("""g (float[1,1,4,4] x, float[2,4] boxes, int64[2] image) => (float[2,1,1,1] y) {
        y = RoiAlign<sampling_ratio = 65>(x, boxes, image)
    }""")
    with pytest.raises(NotTakenError, match="sampling_ratio 65, above 64"):
        compile_model(model, Isa.GENERIC)
