"""A floor for the outputs' signal-to-noise ratio: which layers go back to float, how many, and what is said about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.quantize import QuantSpec, quantize, quantize_above, sparing
from edgewise.quantize.schemes import with_scheme
from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.onnx_runner import OnnxRunner

Make = Callable[..., Any]

# s is small but for one entry: one scale leaves the others few steps. Its reader u has 64 of 1,088 multiply-accumulates a row.
NET = """(float[4,16] x, float[16,32] w, float[32,16] v, float[16,4] u) => (float[4,4] y)
    { a = MatMul(x, w)  r = Tanh(a)  b = MatMul(r, v)  s = Tanh(b)  d = Mul(s, k)  y = MatMul(d, u) }"""
SPEC = QuantSpec(balance=False, quantize_outputs=())
SHARE = 64 / (512 + 512 + 64)


@pytest.fixture(scope="module")
def net(graph: Make) -> ir.Model:
    rng = np.random.default_rng(0)
    arrays = {
        name: (rng.normal(size=shape) / 4).astype(np.float32) for name, shape in (("w", (16, 32)), ("v", (32, 16)))
    }
    wide = np.where(np.arange(16) == 0, 60.0, 1.0).astype(np.float32)
    u = (rng.normal(size=(16, 4)) / wide[:, None] ** 1.5).astype(np.float32)
    text = NET.replace("float[16,4] u)", "float[16,4] u, float[16] k)")
    return graph(text, arrays | {"u": u, "k": wide})


def sqnr_db(net: ir.Model, model: ir.Model, data: Any) -> float:
    want, have = ([OnnxRunner(m, optimize=False).run(sample.inputs) for sample in data] for m in (net, model))
    return min(parity.sqnr_db for parity in compare_outputs(want, have))


def floats(made: Any) -> list[str]:
    return [row["name"] for row in made.report["layers"] if row["precision"] == "float32"]


def test_the_noisy_small_layer_goes_back(net: ir.Model, normal: Make) -> None:
    data, unseen = normal(16, (4, 16)), normal(16, (4, 16), 1)
    plain = quantize(net, SPEC, data)
    made = quantize_above(net, SPEC, data, floor=60)
    assert floats(made) == ["MatMul_5"] and not floats(plain)
    assert sqnr_db(net, made.model, unseen) > sqnr_db(net, plain.model, unseen) + 3
    spared = made.report["spared"]
    assert spared["layers"] == ["MatMul_5"] and spared["float_share"] == pytest.approx(SHARE, abs=1e-4)
    assert spared["before_db"] == pytest.approx(sqnr_db(net, plain.model, data), abs=0.01)
    assert spared["after_db"] == pytest.approx(sqnr_db(net, made.model, data), abs=0.01)
    note = made.report["notes"][-1]
    assert note.startswith(
        "1 of 3 layers (5.9% of the multiply-accumulates) stay in float: all in 8 bits the outputs have"
    )
    assert (
        f"{spared['before_db']:.1f} dB" in note
        and "the floor of 60" in note
        and f"have {spared['after_db']:.1f} dB" in note
    )
    assert "makes much of the noise" in next(
        row["reason"] for row in made.report["layers"] if row["name"] == "MatMul_5"
    )


def test_above_the_floor_and_beyond_the_share_everything_is_integers(net: ir.Model, normal: Make) -> None:
    data = normal(16, (4, 16))
    above = quantize_above(net, SPEC, data, floor=10)
    assert not floats(above) and "spared" not in above.report and "sensitivity" not in above.report
    narrow = quantize_above(net, SPEC, data, floor=60, float_share=0.9 * SHARE)
    assert not floats(narrow) and narrow.report["spared"]["layers"] == []
    assert "no few layers make that noise" in narrow.report["notes"][-1]


def test_biases_are_corrected_where_the_floor_is_out_of_reach(graph: Make, normal: Make, monkeypatch: Any) -> None:
    # Rounding to the nearest shifts most; the default rounding leaves little of it to correct.
    monkeypatch.setattr("edgewise.quantize.rounding._balance", lambda steps, integers, top: integers)
    rng = np.random.default_rng(0)
    arrays = {n: rng.normal(size=s).astype(np.float32) / 4 for n, s in (("w", (16, 32)), ("v", (32, 16)))}
    wide = np.where(np.arange(16) == 0, 60.0, 1.0).astype(np.float32)
    arrays |= {"u": rng.normal(size=(16, 4)).astype(np.float32) / wide[:, None] ** 1.5, "k": wide}
    text = NET.replace("float[16,4] u)", "float[16,4] u, float[16] k, float[16] c)")
    text = text.replace("r = Tanh(a)", "r = Relu(a)").replace("MatMul(r, v)", "MatMul(r, v, c)")
    model = graph(text.replace("MatMul", "Gemm"), arrays | {"c": np.full(16, 0.1, np.float32)})
    tokens = graph(text.replace("MatMul(r, v, c)", "Gemm(r, v, c)"), arrays | {"c": np.full(16, 0.1, np.float32)})
    data, spec = normal(16, (4, 16)), replace(SPEC, weight_bits=4)
    report = quantize(model, spec, data, rounding="squant", floor=60).report
    reach = report["sqnr_db"] + sparing._choose(report["sensitivity"], 60, report["sqnr_db"], 0.15).gain_db
    for net, floor, corrected in ((model, reach - 0.1, 0), (model, 60, 1), (tokens, 60, 0)):
        report = quantize_above(net, spec, data, floor=floor, rounding="squant").report
        assert report["spared"]["layers"] and len(report["biases_corrected"]) == corrected
        assert ("take back the mean" in report["notes"][-1]) == bool(corrected)


@pytest.mark.parametrize(
    ("floor", "chosen"), [(20.5, ["a"]), (21.5, ["a"]), (26.0, ["a", "c"]), (60.0, ["a", "c"])], ids=str
)
def test_no_more_goes_back_than_the_floor_asks_for(floor: float, chosen: list[str]) -> None:
    """At 20 dB: a makes half of the noise, c a third; b's share is no more than its work, d's work is beyond what is allowed."""
    noises = {"a": 0.5, "b": 0.05, "c": 0.35, "d": 0.1}
    macs = {"a": 2, "b": 30, "c": 8, "d": 60}
    rows = [{"name": n, "sqnr_db": 20 - 10 * np.log10(noises[n]), "macs": macs[n]} for n in noises]
    found = sparing._choose(rows, floor, 20.0, 0.5)
    assert list(found.layers) == chosen
    assert found.share == pytest.approx(sum(macs[n] for n in chosen) / 100)
    assert found.gain_db == pytest.approx(-10 * np.log10(1 - sum(noises[n] for n in chosen)))


def test_multiply_accumulates_are_those_of_the_shapes(graph: Make, dataset: Make) -> None:
    model = graph(
        """(float[1,4,9,9] x, float[6,2,3,3] w, float[6,5,2,2] v, float[7,5] u) => (float[1,8,8,7] y)
        { a = Conv<group=2, strides=[2,2]>(x, w)  b = ConvTranspose<strides=[2,2]>(a, v)  t = Transpose<perm=[0,2,3,1]>(b)
          f = Reshape(t, s)  z = Gemm<transB=1>(f, u)  y = Reshape(z, q) }""".replace(
            "float[7,5] u)", "float[7,5] u, int64[2] s, int64[4] q)"
        ),
        {name: np.random.default_rng(0).normal(size=shape).astype(np.float32) for name, shape in (("w", (6, 2, 3, 3)), ("v", (6, 5, 2, 2)), ("u", (7, 5)))}
        | {"s": np.array([64, 5]), "q": np.array([1, 8, 8, 7])},
    )  # fmt: skip
    samples = [{"x": np.random.default_rng(n).normal(size=(1, 4, 9, 9)).astype(np.float32)} for n in range(4)]
    rows = quantize(model, QuantSpec(), dataset(samples), analyze=True).report["sensitivity"]
    assert {row["op"]: row["macs"] for row in rows} == {
        "Conv": 6 * 4 * 4 * 2 * 9, "ConvTranspose": 6 * 4 * 4 * 5 * 4, "Gemm": 64 * 7 * 5,
    }  # fmt: skip


@pytest.mark.parametrize("scheme", ["w4a8", "w8a16", "w8", "w4g32", "palette4", "fp16"])
def test_only_int8_has_a_floor_of_its_own(scheme: str) -> None:
    base = QuantSpec(floor_db=35)
    assert with_scheme(base, "int8").floor_db == 35
    assert with_scheme(base, scheme).floor_db == 0
