"""Pruning goes through the network once: how much is computed, what is seen of tensors that come later, and what is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.quantize import QuantizeError, prune
from edgewise.quantize.pruning.sensitivity import Probe
from edgewise.quantize.walking import Piece, Walk, kept_count
from edgewise.runtime.data import Dataset, Sample
from edgewise.runtime.onnx_runner import OnnxRunner

Graph = Callable[..., ir.Model]
Arrays = dict[str, np.ndarray]

_WIDTH = 24
_OPTIONS: dict[str, Any] = {"pattern": "block:4x1", "sparsity": 0.5, "criterion": "second_order"}
# The shortcut's layer comes last, though the first layer reads what it reads.
_LATE = """(float[8,24] x, float[24,24] e, float[24,24] a, float[24,24] c, float[24,24] d) => (float[8,24] y)
    { q = Relu(x)  p = MatMul(q, e)  r = Relu(p)  s = MatMul(r, a)  u = Relu(s)  t = MatMul(u, c)  v = MatMul(r, d)  y = Add(t, v) }"""


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def chain(graph: Graph, depth: int) -> ir.Model:
    """Layers one behind the other, of any number of rows."""
    weights = {f"w{i}": draw(_WIDTH, _WIDTH, seed=i) / 5 for i in range(depth)}
    named = ", ".join(f"float[{_WIDTH}, {_WIDTH}] {name}" for name in weights)
    nodes = " ".join(f"s{i} = MatMul(r{i}, w{i}) r{i + 1} = Tanh(s{i})" for i in range(depth))
    text = f"(float[N, {_WIDTH}] x, {named}) => (float[N, {_WIDTH}] r{depth}) {{ r0 = Relu(x) {nodes} }}"
    return graph(text, weights)


def mixed(rows: int, seed: int) -> np.ndarray:
    """Numbers that depend on one another, so that some can make good for others."""
    mix = draw(_WIDTH, _WIDTH, seed=3) + 2 * draw(_WIDTH, 4, seed=4) @ draw(4, _WIDTH, seed=5)
    return np.asarray(draw(rows, _WIDTH, seed=seed) @ mix, np.float32)


def array(model: ir.Model, name: str) -> np.ndarray:
    value = model.graph.initializers[name].const_value
    assert value is not None
    return value.numpy()


def stacked(model: ir.Model, samples: Sequence[Arrays], name: str) -> np.ndarray:
    runner = OnnxRunner(model, outputs=[name])
    return np.concatenate([runner.run(sample)[name] for sample in samples]).astype(np.float64)


class Counted:
    """A data set that counts how many samples were read from it."""

    def __init__(self, samples: Sequence[Arrays]) -> None:
        self.read = 0
        self._samples = samples
        self.data = Dataset("a list", len(samples), self._read)

    def _read(self, wanted: Sequence[int]) -> Iterator[Sample]:
        for index in wanted:
            self.read += 1
            yield Sample(self._samples[index], None)


@pytest.mark.parametrize("more", [{}, {"densities": "sensitivity"}, {"reconstruct": True}])
def test_samples_are_read_a_few_times_however_deep_the_network_is(graph: Graph, more: dict[str, Any]) -> None:
    reads = []
    for depth in (3, 6):
        counted = Counted([{"x": mixed(8, i)} for i in range(16)])
        prune(chain(graph, depth), data=counted.data, **_OPTIONS, **more)
        reads.append(counted.read)
    assert reads[0] == reads[1] <= 16 * 4


def test_every_node_is_computed_once_in_each_network(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: dict[str, int] = {}
    run = Piece.run

    def counting(self: Piece, inputs: Arrays, outputs: Sequence[str]) -> Arrays:
        for name in self.made:
            computed[name] = computed.get(name, 0) + 1
        return run(self, inputs, outputs)

    monkeypatch.setattr(Piece, "run", counting)
    prune(chain(graph, 6), data=Counted([{"x": mixed(8, i)} for i in range(16)]).data, **_OPTIONS)
    assert computed["s4"] == 2 * 16
    assert set(computed.values()) == {2 * 16}


def test_a_shortcut_that_comes_later_is_made_good_for_once_it_is_pruned(graph: Graph) -> None:
    """The last layer of the branch aims at the dense sum less the pruned shortcut; the shortcut, at what it gave itself."""
    dense = graph(_LATE, {name: draw(24, 24, seed=i) / 5 for i, name in enumerate("eacd")})
    samples = [{"x": mixed(8, i)} for i in range(40)]
    made = prune(dense, data=Counted(samples).data, **_OPTIONS).model
    branch = stacked(dense, samples, "y") - stacked(made, samples, "v")
    for weights, read, want in (
        ("c", stacked(made, samples, "u"), branch),
        ("d", stacked(made, samples, "r"), stacked(dense, samples, "v")),
    ):
        ridge = 0.01 * np.square(read).sum() / 24
        for column, before, target in zip(array(made, weights).T, array(dense, weights).T, want.T, strict=True):
            kept = np.flatnonzero(column)
            gram = read[:, kept].T @ read[:, kept] + ridge * np.eye(len(kept))
            right = read[:, kept].T @ target + ridge * before[kept]
            np.testing.assert_allclose(column[kept], np.linalg.solve(gram, right), rtol=1e-3, atol=1e-4)


def test_samples_may_differ_in_length(graph: Graph) -> None:
    """The same rows in other pieces give the same weights."""
    rows = mixed(320, 0)
    cuts = [(0, 3), (3, 40), (40, 41), (41, 200), (200, 320)]
    models = [
        prune(chain(graph, 3), data=Counted([{"x": rows[a:b]} for a, b in pieces]).data, **_OPTIONS).model
        for pieces in ([(0, 320)], cuts)
    ]
    for name in ("w0", "w1", "w2"):
        np.testing.assert_allclose(*(array(model, name) for model in models), rtol=1e-3, atol=1e-4)


def test_fewer_samples_where_they_do_not_fit_are_reported(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    model, counted = chain(graph, 3), Counted([{"x": mixed(8, i)} for i in range(40)])
    alive = 2 * 2 * 8 * _WIDTH * 4  # bytes: what a node reads and what it makes, in each of two networks
    monkeypatch.setattr("edgewise.quantize.pruning.prune.kept_count", partial(kept_count, budget=10 * alive))
    made = prune(model, data=counted.data, **_OPTIONS)
    assert made.report["samples"] == 10
    assert counted.read == 1 + 10  # one to see how large tensors are
    assert kept_count(model, counted.data, most=1) == 1


def test_infinity_in_a_tensor_is_named(graph: Graph) -> None:
    text = "(float[8,24] x, float[24,24] a) => (float[8,24] y) { r = Exp(x) y = MatMul(r, a) }"
    data = Counted([{"x": draw(8, 24)}, {"x": draw(8, 24) + 1000}]).data
    with pytest.raises(QuantizeError) as error:
        prune(graph(text, {"a": draw(24, 24)}), data=data, **_OPTIONS)
    assert str(error.value) == (
        "cannot prune by what the layers read (tensor 'r' on calibration sample 2 of a list): found NaN or infinity; expected finite "
        "numbers. Check the samples and their preprocessing, or the network."
    )


def test_a_probe_computes_what_comes_behind_the_layer(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is that of whole networks in ONNX Runtime; an output that comes before the layer counts, with no error."""
    model = chain(graph, 4)
    model.graph.outputs.insert(0, next(value for node in model.graph for value in node.outputs if value.name == "s0"))
    samples = [{"x": mixed(8, i)} for i in range(6)]
    want = stacked(model, samples, "r4")
    probe = Probe(model, Counted(samples).data)
    probe.reach(next(value for node in model.graph for value in node.outputs if value.name == "r2"))
    assert probe.error() == 0
    model.graph.initializers["w2"].const_value = ir.tensor(array(model, "w2") * 0.8, name="w2")
    have = stacked(model, samples, "r4")
    seen: list[str] = []
    run = Piece.run
    monkeypatch.setattr(Piece, "run", lambda self, *given: seen.extend(self.made) or run(self, *given))
    assert probe.error() == pytest.approx(np.square(have - want).sum() / np.square(want).sum() / 2, rel=1e-4)
    assert set(seen) == {"s2", "r3", "s3", "r4"}


def test_a_walk_that_looks_ahead_stays_where_it_is(graph: Graph) -> None:
    model, samples = chain(graph, 3), [{"x": mixed(2, i)} for i in range(3)]
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    walk = Walk(model, samples)
    walk.values([values["r1"]])
    found = list(walk.ahead([values["r1"], values["r3"]]))
    model.graph.initializers["w2"].const_value = ir.tensor(array(model, "w2") * 0.8, name="w2")
    for name, made in (
        ("r1", [each["r1"] for each in found]),
        ("r3", [each["r3"] for each in walk.ahead([values["r3"]])]),
    ):
        np.testing.assert_allclose(np.concatenate(made), stacked(model, samples, name), rtol=1e-5, atol=1e-6)
    assert walk.to_come([values["r1"], values["s1"]]) == [values["s1"]]
