"""Bundles of the kind ``native``: run, profiled, refused with reasons."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.runtime.bundle import create_bundle
from edgewise.runtime.errors import RunError
from edgewise.runtime.model import load
from edgewise.targets.cpu.native.engine_file import encode
from edgewise.targets.cpu.native.plan import DType, Isa, Op, Plan, Tensor, dim


def sum_plan(isa: Isa = Isa.GENERIC) -> Plan:
    """y = (a + b) · a, with a free batch."""
    a, b, s, y = (Tensor(name, DType.F32, (dim("N"), dim(5))) for name in "absy")
    ops = [
        Op("binary", "sum", [a, b], [s], {"function": "add"}),
        Op("binary", "product", [s, a], [y], {"function": "mul"}),
    ]
    return Plan(isa, [a, b], [y], ops)  # fmt: skip


@pytest.fixture
def make(tmp_path: Path) -> Any:
    def write(data: bytes, names: str = "ab", **settings: Any) -> Path:
        path = tmp_path / "net.edge"
        with create_bundle(path) as (draft, manifest):
            (draft / "net.engine").write_bytes(data)
            port = {"dtype": "float32", "shape": ["N", 5]}
            manifest |= {
                "source": {"sha256": "0" * 64},
                "inputs": [{"name": name, **port} for name in names],
                "outputs": [{"name": "y", **port}],
                "preprocess": None,
                "target": "cpu",
                "device": "generic",
                "engine": {
                    "kind": "native",
                    "files": ["net.engine"],
                    "versions": {},
                    "layers": [],
                    "settings": {"model": "net.engine", **settings},
                    "notes": [],
                },
                "stages": {},
                "parity": {},
            }
        return path

    return write


def pair(batch: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(batch)
    return {name: generator.standard_normal((batch, 5)).astype(np.float32) for name in "ba"}


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("threads", [0, 1, 2])
def test_runs_any_batch(make, threads):
    model = load(make(encode(sum_plan())), threads=threads)
    for batch in (3, 1, 2, 0, 3):
        x = pair(batch)
        np.testing.assert_array_equal(model.run(x)["y"], (x["a"] + x["b"]) * x["a"])


@pytest.mark.usefixtures("native")
def test_a_timed_run_computes_and_is_recorded(make):
    model = load(make(encode(sum_plan())), threads=1, per_layer=True)
    took = [model.timed(pair(100_000))() for _ in range(2)]
    # What the operators took is most of it, and cannot be more.
    recorded_ns = sum(layer.median_ms for layer in model.layer_times()) * 1e6
    assert 0 < recorded_ns <= took[1]
    with pytest.raises(RunError, match="float64"):
        model.timed({name: array.astype(np.float64) for name, array in pair(1).items()})


def test_facts(make, native):
    facts = load(make(encode(sum_plan())), threads=1).facts()
    assert facts["library"] == "libedgewise"
    assert facts["version"] == native.version()
    assert facts["unit"] == "cpu"
    assert facts["isas"].split()[0] == "generic"


@pytest.mark.usefixtures("native")
def test_layer_times(make):
    model = load(make(encode(sum_plan()), macs={"sum": 15}), threads=1, per_layer=True)
    assert model.layer_times() == []
    for _ in range(4):
        model.run(pair(3))
    layers = model.layer_times()
    assert [(layer.name, layer.op, layer.unit) for layer in layers] == [
        ("sum", "binary", "cpu"),
        ("product", "binary", "cpu"),
    ]
    assert [layer.detail["macs"] for layer in layers] == [15, None]
    assert all(layer.detail["runs"] == 3 and layer.detail["kernel"] and layer.median_ms >= 0 for layer in layers)


@pytest.mark.usefixtures("native")
def test_without_per_layer_nothing_is_timed(make):
    model = load(make(encode(sum_plan())), threads=1)
    model.run(pair(3))
    assert model.layer_times() == []


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda data: data[:-1], "cut short"),
        (lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:], "the plan is damaged"),
        (lambda data: data[:8] + b"\x02" + data[9:], "Build the bundle again, or update edgewise"),
        (lambda data: b"", "net.engine"),
    ],
    ids=["cut", "flipped", "newer", "empty"],
)
def test_a_damaged_file_is_an_error_in_five_parts(make, change, expected):
    with pytest.raises(RunError, match="cannot open the engine file") as caught:
        load(make(change(encode(sum_plan()))))
    assert expected in str(caught.value)
    assert caught.value.found
    assert caught.value.expected
    assert caught.value.fix


@pytest.mark.usefixtures("native")
def test_another_networks_file_is_refused(make):
    with pytest.raises(RunError, match="of another network than the manifest"):
        load(make(encode(sum_plan()), names="abc"))


def test_without_the_extension_the_error_says_how_to_get_it(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "edgewise.runtime._native", None)
    with pytest.raises(RunError, match=r"no libedgewise.*g\+\+.*install edgewise again"):
        load(make(encode(sum_plan())))


@pytest.mark.usefixtures("native")
def test_a_run_that_fails_says_why(make, monkeypatch):
    model = load(make(encode(sum_plan())), threads=1)
    monkeypatch.setattr(model, "_checked", lambda inputs: inputs)
    with pytest.raises(RunError, match=r"the engine cannot run.*Pass arrays"):
        model.run({name: array.astype(np.float64) for name, array in pair(1).items()})
    with pytest.raises(RunError, match=r"the engine cannot run.*Pass arrays"):
        model.timed({name: array.astype(np.float64) for name, array in pair(1).items()})()
