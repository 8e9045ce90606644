"""Channels that several layers share go together: dead ones leave without a trace, and the reasons of those that stay are told."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.quantize import prune
from edgewise.runtime.onnx_runner import OnnxRunner

Graph = Callable[..., ir.Model]

# A stem and a block that meet in an Add, a gate over the same channels, and two readers.
_RESIDUAL = (
    "(float[1, 3, 6, 6] x, float[8, 3, 3, 3] s, float[8] sb, float[6, 8, 1, 1] a, float[8, 6, 3, 3] b, float[8] bb,"
    " float[8, 8, 1, 1] g, float[1, 8, 1, 1] m, float[4, 8, 1, 1] c, float[5, 8] d) => (float[1, 4, 6, 6] y, float[1, 5] z)"
    "{ t = Conv<pads = [1, 1, 1, 1]>(x, s, sb) i = Conv(t, a) j = Relu(i) k = Conv<pads = [1, 1, 1, 1]>(j, b, bb)"
    "  l = Add(t, k) r = Relu(l) p = GlobalAveragePool(r) q = Conv(p, g) h = Sigmoid(q) e = Mul(r, h) n = Mul(e, m)"
    "  y = Conv(n, c) o = GlobalAveragePool(n) f = Flatten(o) z = Gemm<transB = 1>(f, d) }"
)
_MLP = (
    "(float[2, 5, 8] x, float[8, 12] a, float[12] ab, float[1] h, float[12, 8] b, float[8] bb) => (float[2, 5, 8] y)"
    "{ n = Tanh(x) t = MatMul(n, a) u = Add(t, ab) v = Mul(u, h) e = Erf(v) w = Mul(u, e) o = MatMul(w, b) k = Add(o, bb)"
    "  y = Add(x, k) }"
)


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def constants(model_text: str, **dead: tuple[int, list[int]]) -> dict[str, np.ndarray]:
    """Random values for every input but x; ``dead``: entries of an axis that are zero."""
    made = {}
    head = model_text[1 : model_text.index(")")]
    for number, spec in enumerate(head.split("float[")[2:]):
        dims, name = spec.rstrip(", ").split("] ")
        made[name] = draw(*[int(dim) for dim in dims.split(",")], seed=number)
    for name, (axis, entries) in dead.items():
        made[name] = np.moveaxis(made[name], axis, 0).copy()
        made[name][entries] = 0
        made[name] = np.moveaxis(made[name], 0, axis)
    return made


def outputs(model: ir.Model, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    return OnnxRunner(model).run({"x": draw(*shape, seed=77)})


def shape(model: ir.Model, name: str) -> tuple[int, ...]:
    value = model.graph.initializers[name].const_value
    assert value is not None
    return value.numpy().shape


def test_a_residual_stream_shrinks_in_all_that_make_and_read_it(graph: Graph) -> None:
    gone = [1, 3, 4, 6]
    dead = dict.fromkeys(("s", "sb", "b", "bb", "g"), (0, gone))
    model = graph(_RESIDUAL, constants(_RESIDUAL, **dead))
    made = prune(model, pattern="channel", sparsity=0.5, skip=["Conv_1"])
    wanted = {
        "s": (4, 3, 3, 3), "sb": (4,), "a": (6, 4, 1, 1), "b": (4, 6, 3, 3), "bb": (4,), "g": (4, 4, 1, 1),
        "m": (1, 4, 1, 1), "c": (4, 4, 1, 1), "d": (5, 4),
    }  # fmt: skip
    assert {name: shape(made.model, name) for name in wanted} == wanted
    before, after = outputs(model, (1, 3, 6, 6)), outputs(made.model, (1, 3, 6, 6))
    for name, array in before.items():
        np.testing.assert_allclose(after[name], array, rtol=1e-4, atol=1e-5)
    assert {entry["weight"] for entry in made.report["layers"]} == {"s", "b", "g"}


def test_the_inner_width_of_a_block_shrinks_by_itself(graph: Graph) -> None:
    model = graph(_RESIDUAL, constants(_RESIDUAL, a=(0, [0, 5])))
    made = prune(model, pattern="channel", sparsity=1 / 3, skip=["Conv_0"])
    assert (shape(made.model, "a"), shape(made.model, "b")) == ((4, 8, 1, 1), (8, 4, 3, 3))
    before, after = outputs(model, (1, 3, 6, 6)), outputs(made.model, (1, 3, 6, 6))
    np.testing.assert_allclose(after["y"], before["y"], rtol=1e-4, atol=1e-5)
    reasons = {entry["node"]: entry["reason"] for entry in made.report["refused"]}
    assert reasons["Conv_0"] == "asked for"
    assert reasons["Conv_3"] == "its channels are bound to those of 'Conv_0', which stays: asked for"


def test_the_hidden_width_of_an_mlp_shrinks_through_its_gelu(graph: Graph) -> None:
    gone = [0, 2, 3, 7, 8, 11]
    model = graph(_MLP, constants(_MLP, a=(1, gone), ab=(0, gone)))
    made = prune(model, pattern="channel", sparsity=0.5)
    assert (shape(made.model, "a"), shape(made.model, "ab"), shape(made.model, "b")) == ((8, 6), (6,), (6, 8))
    before, after = outputs(model, (2, 5, 8)), outputs(made.model, (2, 5, 8))
    np.testing.assert_allclose(after["y"], before["y"], rtol=1e-4, atol=1e-5)
    (refusal,) = made.report["refused"]
    assert refusal["node"] == "MatMul_6"


@pytest.mark.parametrize(
    ("behind", "reason"),
    [
        ("u = Softmax(t) y = MatMul(u, b)", "go into Softmax"),
        ("u = Hardmax(t) y = MatMul(u, b)", "go into Hardmax"),
        ("u = Add(t, x) y = MatMul(u, b)", "bound to an input of the network"),
        ("u = MatMul(t, a) v = Add(u, x) y = MatMul(v, b)", "bound to an input of the network"),
    ],
)
def test_channels_that_cannot_go(graph: Graph, behind: str, reason: str) -> None:
    text = (
        "(float[2, 8] x, float[8, 8] a, float[8, 4] b, float[16, 4] c, float[8, 6] e, float[6, 4] f)"
        " => (float[2, 4] y, float[2, 4] z)"
        f"{{ n = Tanh(x) t = MatMul(n, a) k = MatMul(n, e) z = MatMul(k, f) {behind} }}"
    )
    used = re.findall(r"\w+", text[text.index("{") :])
    model = graph(text, {name: array for name, array in constants(text).items() if name in used})
    made = prune(model, pattern="channel", sparsity=0.5)
    assert reason in {entry["node"]: entry["reason"] for entry in made.report["refused"]}["MatMul_1"]
    assert [entry["weight"] for entry in made.report["layers"]] == ["e"]
