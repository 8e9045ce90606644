"""Networks that others trained, through the targets cpu and tensorrt: nothing refused, precision as asked, outputs as the source's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edgewise.quantize import quantize
from edgewise.runtime.compare import compare_outputs
from edgewise.targets import Executor, find_device, targets

pytestmark = [pytest.mark.shared, pytest.mark.slow]


def worst_db(trained: Any, executor: Any) -> float:
    assert isinstance(executor, Executor)
    return min(
        parity.sqnr_db
        for parity in compare_outputs(trained.references, [executor.run(sample) for sample in trained.samples])
    )


@pytest.mark.parametrize(("name", "device", "db"), [("cpu", "x86-64-v3", 100), ("tensorrt", "rtx-4070", 40)])
def test_float(trained: Any, name: str, device: str, db: float, make_bundle: Callable[..., Any]) -> None:
    target = targets()[name]
    assert [entry for entry in target.support(trained.model, find_device(device, name)) if not entry.taken] == []
    bundle, result = make_bundle(target, trained.model, device=device)
    assert not any("Not in" in note for note in result.notes)
    assert worst_db(trained, target.executor(bundle)) > db


@pytest.mark.parametrize(("name", "device"), [("cpu", "x86-64-v4-vnni"), ("tensorrt", "rtx-3060")])
def test_int8(trained: Any, name: str, device: str, make_bundle: Callable[..., Any]) -> None:
    target = targets()[name]
    spec = target.quantization("int8", find_device(device, name))
    model = quantize(trained.model, spec, trained.calib, samples=8, rounding="squant").model  # not how well, but what
    bundle, result = make_bundle(target, model, device=device)
    notes = " ".join(result.notes)
    if name == "cpu":
        assert "100 % of the multiply-accumulates run in int8." in notes, notes
    else:  # joint projections count three times
        assert result.proof["products"]["int8"] >= trained.products and not result.proof["not_as_asked"], notes
    assert worst_db(trained, target.executor(bundle)) > 8, "far from a wrong graph, whatever rounding costs"
