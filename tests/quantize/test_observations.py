"""What was seen for one target serves the next: the same bytes, and nothing is computed twice; what differs in anything is seen anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.quantize import Observations, QuantSpec, quantize
from edgewise.quantize.balance import ChannelStatistics
from edgewise.runtime.data import Dataset
from edgewise.runtime.onnx_file import to_bytes
from edgewise.runtime.progress import silent

NET = """(float[1,3,10,10] x, float[8,3,3,3] w, float[6,8,3,3] v) => (float[1,6,6,6] y)
    { a = Conv(x, w)  r = Relu(a)  y = Conv(r, v) }"""
SPEC, SEVEN_BITS = QuantSpec(), QuantSpec(reduce_range=True)


@pytest.fixture
def network(graph: Callable[..., ir.Model]) -> Callable[[int], ir.Model]:
    """By a seed; channels of very different range, which balancing narrows."""

    def make(seed: int) -> ir.Model:
        rng = np.random.default_rng(seed)
        wide = np.array([100, 1, 0.5, 2, 1, 0.1, 30, 1], np.float32).reshape(-1, 1, 1, 1)
        weights = {"w": rng.normal(size=(8, 3, 3, 3)) * wide, "v": rng.normal(size=(6, 8, 3, 3))}
        return graph(NET, {name: array.astype(np.float32) for name, array in weights.items()})

    return make


def quantized(
    model: ir.Model, spec: QuantSpec, data: Dataset, observations: Observations | None
) -> tuple[bytes, set[str]]:
    """The bytes, and what was computed on the way."""
    tasks = set()
    made = quantize(model, spec, data, observations=observations, progress=lambda task, done, total: tasks.add(task))
    return to_bytes(made.model, "made"), tasks


def test_specs_that_differ_in_the_weights_share_what_balancing_sees(network: Any, normal: Any) -> None:
    model, data, shared = network(0), normal(8, (1, 3, 10, 10)), Observations()
    alone = [quantized(model, spec, data, None) for spec in (SPEC, SEVEN_BITS)]
    together = [quantized(model, spec, data, shared) for spec in (SPEC, SEVEN_BITS)]
    assert [made for made, _ in together] == [made for made, _ in alone]
    assert [tasks >= {"balance", "calibrate"} for _, tasks in alone] == [True, True]
    # Their factors differ, and with them the graphs that are calibrated.
    assert ["balance" in tasks for _, tasks in together] == [True, False]
    assert ["calibrate" in tasks for _, tasks in together] == [True, True]
    again, tasks = quantized(model, SPEC, normal(8, (1, 3, 10, 10)), shared)
    assert again == alone[0][0] and not tasks & {"balance", "calibrate"}


def test_a_question_that_differs_is_answered_anew(network: Any, normal: Any) -> None:
    shape = (1, 3, 10, 10)
    shared, runs = Observations(), []

    def watch(model: ir.Model, data: Dataset, name: str = "r", axis: int = 1) -> ChannelStatistics:
        value = next(value for node in model.graph for value in node.outputs if value.name == name)
        (seen,) = shared.watch(
            model, {value: ChannelStatistics(axis)}, data, task="watch", progress=lambda *told: runs.append(told)
        ).seen
        return seen

    first = watch(network(0), normal(3, shape))
    assert watch(network(0), normal(3, shape)) is first and len(runs) == 3
    others = [
        watch(network(1), normal(3, shape)),
        watch(network(0), normal(3, shape, seed=1)),
        watch(network(0), normal(2, shape)),
        watch(network(0), normal(3, shape), name="a"),
        watch(network(0), normal(3, shape), axis=2),
    ]
    assert len(runs) == 3 + 3 + 3 + 2 + 3 + 3
    assert all(other is not first for other in others)


def test_calibration_by_another_method_is_seen_anew(network: Any, normal: Any) -> None:
    model, data, shared = network(0), normal(4, (1, 3, 10, 10)), Observations()
    by_method = {
        method: to_bytes(quantize(model, SPEC, data, method=method, observations=shared, progress=silent).model, "made")
        for method in ("minmax", "percentile")
    }
    assert by_method == {
        method: to_bytes(quantize(model, SPEC, data, method=method, progress=silent).model, "made")
        for method in by_method
    }
    assert by_method["minmax"] != by_method["percentile"]
