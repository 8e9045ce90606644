"""A turned stream computes the same; a sliced one loses least where the stream has few directions; others are refused."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.quantize import QuantizeError, prune
from edgewise.runtime.data import Dataset
from edgewise.runtime.onnx_runner import OnnxRunner

Graph = Callable[..., ir.Model]
Normal = Callable[..., Dataset]

_D, _F = 24, 40
# Two pre-norm MLPs between a stem and a head that reads the first token.
_PRE = (
    "(float[1, 5, 24] x, float[24] g1, float[24] b1, float[24, 40] w1, float[40] c1, float[40, 24] v1, float[24] d1,"
    " float[24] g2, float[24] b2, float[24, 40] w2, float[40] c2, float[40, 24] v2, float[24] d2,"
    " float[24] g3, float[24] b3, float[6, 24] h, float[6] hb) => (float[1, 6] y)"
    "{ s = Tanh(x) n1 = LayerNormalization(s, g1, b1) m1 = MatMul(n1, w1) a1 = Add(m1, c1) r1 = Relu(a1) o1 = MatMul(r1, v1)"
    "  p1 = Add(o1, d1) s1 = Add(s, p1) n2 = LayerNormalization(s1, g2, b2) m2 = MatMul(n2, w2) a2 = Add(m2, c2) r2 = Relu(a2)"
    "  o2 = MatMul(r2, v2) p2 = Add(d2, o2) s2 = Add(p2, s1) n3 = LayerNormalization(s2, g3, b3) zero = Constant<value_int = 0>()"
    "  t = Gather<axis = 1>(n3, zero) y = Gemm<transB = 1>(t, h, hb) }"
)


def directions(rank: int) -> np.ndarray:
    """Orthonormal columns, [24, rank]."""
    return np.linalg.qr(np.random.default_rng(9).normal(size=(_D, _D)))[0][:, :rank]


def constants(rank: int = _D) -> dict[str, np.ndarray]:
    """Writers of the stream reach only ``rank`` directions."""
    rng = np.random.default_rng(0)
    made = {}
    for spec in _PRE[1 : _PRE.index(")")].split("float[")[2:]:
        dims, name = spec.rstrip(", ").split("] ")
        made[name] = rng.normal(size=[int(dim) for dim in dims.split(",")]).astype(np.float32) * 0.3
    basis = directions(rank)
    for name in ("v1", "v2", "d1", "d2"):
        made[name] = (made[name] @ basis @ basis.T).astype(np.float32)
    return made


def flat(rank: int, count: int = 40) -> list[dict[str, np.ndarray]]:
    """Inputs whose tanh lies in the same few directions."""
    basis, rng = directions(rank), np.random.default_rng(1)
    made = [0.2 * rng.uniform(-1, 1, size=(1, 5, _D)) @ basis @ basis.T for _ in range(count)]
    return [{"x": np.arctanh(each).astype(np.float32)} for each in made]


def outputs(model: ir.Model, seed: int = 5) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(1, 5, _D)).astype(np.float32)
    return OnnxRunner(model).run({"x": x})["y"]


def test_at_full_width_nothing_changes(graph: Graph, normal: Normal) -> None:
    model = graph(_PRE, constants())
    made = prune(model, pattern="slice", sparsity=0.0, criterion="second_order", data=normal(40, (1, 5, _D)))
    np.testing.assert_allclose(outputs(made.model), outputs(model), rtol=1e-3, atol=1e-4)
    operators = [node.op_type for node in made.model.graph]
    assert "LayerNormalization" not in operators
    assert operators.count("Sqrt") == 3
    assert [value.name for value in made.model.graph.outputs] == ["y"]


def test_tensors_are_as_narrow_as_the_stream(graph: Graph, normal: Normal) -> None:
    model = graph(_PRE, constants())
    made = prune(model, pattern="slice", sparsity=0.3, criterion="second_order", data=normal(40, (1, 5, _D)))
    shapes = {name: value.const_value.numpy().shape for name, value in made.model.graph.initializers.items()}  # type: ignore[union-attr]
    assert (shapes["w1"], shapes["v1"], shapes["d2"], shapes["h"]) == ((16, _F), (_F, 16), (16,), (6, 16))
    assert {entry["width"] for entry in made.report["layers"]} == {16}
    wanted = {"s1": 16, "n2": 16, "n3": 16}
    found = {str(v.name): v.shape[-1] for node in made.model.graph for v in node.outputs if v.shape is not None}
    assert wanted.items() <= found.items() | {("n2", 16), ("n3", 16)}
    assert outputs(made.model).shape == (1, 6)


def test_a_stream_of_few_directions_is_sliced_without_loss(graph: Graph, dataset: Callable[..., Dataset]) -> None:
    """Centred, fifteen directions span at most sixteen: a third of the width goes and nothing is lost."""
    model, samples = graph(_PRE, constants(15)), flat(15)
    made = prune(model, pattern="slice", sparsity=1 / 3, criterion="second_order", data=dataset(samples))
    for sample in samples[:5]:
        want, have = (OnnxRunner(each).run(sample)["y"] for each in (model, made.model))
        np.testing.assert_allclose(have, want, rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("s1 = Add(s, p1)", "q1 = Add(s, p1) s1 = Relu(q1)", "Relu 'Relu_8' reads the stream at 'q1'"),
        ("r1 = Relu(a1)", "e1 = Softmax(n1) f1 = MatMul(e1, w1) r1 = Relu(f1)", "reads the normalised stream"),
        ("p1 = Add(o1, d1)", "p1 = Tanh(o1)", "is not made by a linear layer alone"),
        ("a1 = Add(m1, c1)", "a1 = Relu(m1)", "without a bias of its own"),
    ],
)
def test_streams_that_cannot_be_turned(graph: Graph, normal: Normal, old: str, new: str, reason: str) -> None:
    text = _PRE.replace(old, new)
    used = {name: array for name, array in constants().items() if text.count(name) > 1}
    for name in constants().keys() - used:
        text = re.sub(rf", float\[[\d, ]*\] {name}\b", "", text)
    with pytest.raises(QuantizeError) as error:
        prune(graph(text, used), pattern="slice", sparsity=0.3, criterion="second_order", data=normal(8, (1, 5, _D)))
    assert reason in str(error.value)


def test_slicing_needs_data(graph: Graph) -> None:
    with pytest.raises(QuantizeError, match="found criterion magnitude; expected second_order"):
        prune(graph(_PRE, constants()), pattern="slice", sparsity=0.3)
