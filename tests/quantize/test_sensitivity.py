"""Which layers cost most, and putting back as few of them as a metric asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.quantize import QuantizeError, QuantSpec, quantize
from edgewise.quantize.schemes import with_scheme
from edgewise.quantize.within import quantize_within
from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.onnx_runner import OnnxRunner

Make = Callable[..., Any]

# One output of m is so large that one scale for the whole tensor leaves the others few steps.
NET = """(float[4,16] x, float[16,16] w, float[16,16] m, float[16,16] v, float[16,4] u) => (float[4,4] y)
    { a = MatMul(x, w)  r = Tanh(a)  b = MatMul(r, m)  s = Tanh(b)  c = MatMul(s, v)  t = Tanh(c)  y = MatMul(t, u) }"""


@pytest.fixture(scope="module")
def net(graph: Make) -> ir.Model:
    rng = np.random.default_rng(0)
    arrays = {name: (rng.normal(size=(16, 16)) / 4).astype(np.float32) for name in "wmv"}
    arrays["m"][:, 0] *= 100
    return graph(NET, arrays | {"u": rng.normal(size=(16, 4)).astype(np.float32)})


def fidelity(net: ir.Model, normal: Make) -> Callable[[ir.Model], float]:
    """SQNR in dB, and for the float network itself 60."""
    data = list(normal(8, (4, 16), 5))

    def metric(model: ir.Model) -> float:
        want, have = ([OnnxRunner(m, optimize=False).run(sample.inputs) for sample in data] for m in (net, model))
        return min(60.0, min(parity.sqnr_db for parity in compare_outputs(want, have)))

    return metric


def options() -> dict[str, Any]:
    return {"rounding": "squant", "correct_biases": False}


def test_the_worst_layer_comes_first(net: ir.Model, normal: Make) -> None:
    spec = QuantSpec(per_channel=False)
    made = quantize(net, spec, normal(16, (4, 16)), analyze=True, **options())
    rows = made.report["sensitivity"]
    assert rows[0]["name"] == "MatMul_2" and len(rows) == 4
    assert rows[0]["sqnr_db"] < rows[1]["sqnr_db"] - 5
    assert {row["weights"] for row in rows} == {256, 64}
    assert "sensitivity" not in quantize(net, spec, normal(4, (4, 16))).report


def test_a_layer_alone_costs_what_quantizing_it_alone_costs(net: ir.Model, normal: Make) -> None:
    spec, data = QuantSpec(per_channel=False), normal(16, (4, 16))
    rows = quantize(net, spec, data, analyze=True, **options()).report["sensitivity"]
    others = [row["name"] for row in rows if row["name"] != "MatMul_6"]
    alone = quantize(net, spec, data, keep_float=others, **options()).model
    samples = [sample.inputs for sample in data][:16]
    want, have = ([OnnxRunner(m, optimize=False).run(sample) for sample in samples] for m in (net, alone))
    expected = min(parity.sqnr_db for parity in compare_outputs(want, have))
    found = next(row["sqnr_db"] for row in rows if row["name"] == "MatMul_6")
    assert found == pytest.approx(expected, abs=0.1)


BRANCHES = """(float[4,16] x, float[16,16] w, float[16,16] m, float[16,16] v, float[16,16] u, float[16,16] d) => (float[4,16] e, float[4,16] y)
    { a = MatMul(x, w)  e = Tanh(a)  b = MatMul(e, m)  r = Add(b, x)  c = MatMul(e, v)  s = Add(r, c)
      t = MatMul(s, u)  y = Add(t, r)  n = MatMul(x, d) }"""


def test_each_layer_of_a_branching_network_is_judged_on_all_outputs(graph: Make, normal: Make) -> None:
    """What comes before a layer is not computed again, and yet as if it were."""
    rng = np.random.default_rng(1)
    net = graph(BRANCHES, {name: (rng.normal(size=(16, 16)) / 4).astype(np.float32) for name in "wmvud"})
    spec, data = QuantSpec(quantize_outputs=()), normal(8, (4, 16))
    rows = quantize(net, spec, data, analyze=True, **options()).report["sensitivity"]
    names = [row["name"] for row in rows]
    assert len(names) == 5
    samples = [sample.inputs for sample in data]
    for row in rows:
        alone = quantize(net, spec, data, keep_float=[name for name in names if name != row["name"]], **options()).model
        want, have = ([OnnxRunner(m, optimize=False).run(sample) for sample in samples] for m in (net, alone))
        expected = min(parity.sqnr_db for parity in compare_outputs(want, have))
        assert row["sqnr_db"] == (None if np.isinf(expected) else pytest.approx(expected, abs=0.1)), row


def test_the_fewest_layers_go_back(net: ir.Model, normal: Make) -> None:
    spec, data, metric = QuantSpec(per_channel=False), normal(16, (4, 16)), fidelity(net, normal)
    plain = metric(quantize(net, spec, data, **options()).model)
    one = metric(quantize(net, spec, data, keep_float=["MatMul_2"], **options()).model)
    assert one > plain + 1
    made = quantize_within(net, spec, data, metric, max_drop=60 - (plain + one) / 2, **options())
    assert [entry["node"] for entry in made.report["kept_float"]] == ["MatMul_2"]
    assert made.report["search"]["float_metric"] == 60
    assert metric(made.model) == pytest.approx(one)


def test_nothing_goes_back_where_the_metric_holds(net: ir.Model, normal: Make) -> None:
    spec = QuantSpec(per_channel=False)
    made = quantize_within(net, spec, normal(16, (4, 16)), fidelity(net, normal), max_drop=60, **options())
    assert made.report["kept_float"] == [] and len(made.report["search"]["trials"]) == 1


def test_eight_bits_before_float(net: ir.Model, normal: Make) -> None:
    spec, data, metric = with_scheme(QuantSpec(per_channel=False), "w3a8"), normal(16, (4, 16)), fidelity(net, normal)
    names = ["MatMul_0", "MatMul_2", "MatMul_4", "MatMul_6"]
    wide = metric(quantize(net, spec, data, wide=names, **options()).model)
    made = quantize_within(net, spec, data, metric, max_drop=60 - wide + 0.01, **options())
    assert made.report["kept_float"] == []
    assert {row["weight_bits"] for row in made.report["layers"]} <= {3, 8}
    assert metric(made.model) >= wide - 0.02


def test_what_cannot_be_held_is_an_error(net: ir.Model, normal: Make) -> None:
    def metric(model: ir.Model) -> float:
        return 1.0 if model is net else 0.0

    with pytest.raises(QuantizeError, match="cannot quantize within the allowed drop"):
        quantize_within(net, QuantSpec(), normal(4, (4, 16)), metric, max_drop=0.5, **options())


def test_the_fisher_information_foretells_what_is_measured(graph: Make, normal: Make) -> None:
    pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    arrays = {name: (rng.normal(size=(16, 16)) / 4).astype(np.float32) for name in "wmv"}
    arrays["m"][:, 0] *= 20
    net = graph(NET, arrays | {"u": rng.normal(size=(16, 4)).astype(np.float32)})
    spec, data = QuantSpec(per_channel=False), normal(16, (4, 16))
    measured, foretold = (
        {row["name"]: row["sqnr_db"] for row in quantize(net, spec, data, analyze=True, sensitivity=how, **options()).report["sensitivity"]}
        for how in ("sqnr", "fisher")
    )  # fmt: skip
    assert next(iter(measured)) == next(iter(foretold)) == "MatMul_2"
    for name, ratio in measured.items():
        assert abs(ratio - foretold[name]) < 2, name


def test_the_fisher_information_needs_gradients(graph: Make, normal: Make) -> None:
    pytest.importorskip("torch")
    model = graph(
        "(float[4,16] x, float[16,16] w) => (float[4,16] y) { a = MatMul(x, w)  y = Sin(a) }",
        {"w": np.eye(16, dtype=np.float32)},
    )
    with pytest.raises(QuantizeError, match="cannot weigh the layers by the Fisher information") as error:
        quantize(model, QuantSpec(), normal(8, (4, 16)), analyze=True, sensitivity="fisher")
    assert "Sin has no gradient here" in str(error.value)
    with pytest.raises(QuantizeError, match="unknown measure of sensitivity"):
        quantize(model, QuantSpec(), normal(8, (4, 16)), analyze=True, sensitivity="hessian")
