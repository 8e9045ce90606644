"""Mixed precision under a budget: it is kept, it is used well, and what does not fit is said."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.quantize import QuantizeError, QuantSpec, quantize, quantize_to_budget
from edgewise.quantize.schemes import with_scheme
from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.onnx_runner import OnnxRunner

Make = Callable[..., Any]
NET = """(float[4,16] x, float[16,32] w, float[32,16] v, float[16,8] u) => (float[4,8] y)
    { a = MatMul(x, w)  r = Relu(a)  b = MatMul(r, v)  s = Relu(b)  y = MatMul(s, u) }"""
SIZES = {"MatMul_0": 512, "MatMul_2": 512, "MatMul_4": 128}


@pytest.fixture(scope="module")
def net(graph: Make) -> ir.Model:
    rng = np.random.default_rng(3)
    # Of one output a single weight is large: with few bits the others of it are lost.
    w, v, u = (rng.normal(size=shape).astype(np.float32) for shape in ((16, 32), (32, 16), (16, 8)))
    v[0] *= 20
    return graph(NET, {"w": w, "v": v, "u": u})


def sqnr_db(model: ir.Model, made: ir.Model, data: Any) -> float:
    want, have = ([OnnxRunner(m, optimize=False).run(sample.inputs) for sample in data] for m in (model, made))
    return min(parity.sqnr_db for parity in compare_outputs(want, have))


@pytest.fixture(scope="module")
def sqnr_of(net: ir.Model, normal: Make) -> Callable[[tuple[str, ...]], float]:
    """What a choice of layers with 8 bits gives on unseen data."""
    spec, data, unseen = with_scheme(QuantSpec(), "w4a16"), normal(32, (4, 16)), normal(16, (4, 16), 1)

    @cache
    def quantized(names: tuple[str, ...]) -> float:
        return sqnr_db(net, quantize(net, spec, data, wide=names, rounding="squant").model, unseen)

    return quantized


@pytest.mark.parametrize("room", [0, 64, 256, 320, 576])
def test_the_budget_is_kept_and_used_well(
    net: ir.Model, normal: Make, sqnr_of: Callable[[tuple[str, ...]], float], room: int
) -> None:
    spec, data, unseen = with_scheme(QuantSpec(), "w4a16"), normal(32, (4, 16)), normal(16, (4, 16), 1)
    least = sum(SIZES.values()) // 2
    made = quantize_to_budget(net, spec, data, max_bytes=least + room, rounding="squant")
    bits = {row["name"]: row["weight_bits"] for row in made.report["layers"]}
    assert made.report["budget"]["weight_bytes"] == sum(SIZES[name] * bits[name] // 8 for name in SIZES) <= least + room
    found = sqnr_db(net, made.model, unseen)
    fitting = [
        names
        for count in range(4)
        for names in itertools.combinations(SIZES, count)
        if sum(SIZES[name] // 2 for name in names) <= room
    ]
    every = [sqnr_of(names) for names in fitting]
    assert found >= max(every) - 1
    assert found > every[0] + (1 if room >= 256 else 0) or room == 0


def test_what_does_not_fit_is_an_error(net: ir.Model, normal: Make) -> None:
    with pytest.raises(QuantizeError, match=r"the weights do not fit the budget .*found 576 bytes with 4 bits"):
        quantize_to_budget(net, with_scheme(QuantSpec(), "w4a8"), normal(8, (4, 16)), max_bytes=500)


def test_eight_bits_leave_nothing_to_choose(net: ir.Model, normal: Make) -> None:
    with pytest.raises(QuantizeError, match="there is no mixed precision to choose"):
        quantize_to_budget(net, QuantSpec(), normal(8, (4, 16)), max_bytes=5000)
