"""The profiler as a whole: what comes back, from a process of its own, and what happens when that process fails."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgewise.runtime.errors import RunError
from edgewise.runtime.profile import local, profile, result, worker


def test_a_whole_profile(make_bundle):
    steps = []
    path = make_bundle()
    result = profile(path, threads=1, runs=12, warmup=1, per_layer=True, progress=lambda *step: steps.append(step))
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["schema_version"] == 1
    latency = result["latency_ms"]
    assert len(latency["samples"]) == 12
    assert latency["min"] == min(latency["samples"]) <= latency["median"] <= latency["p90"] <= latency["p99"]
    assert latency["median"] == pytest.approx(np.median(latency["samples"]))
    assert result["load_ms"] > 0
    assert result["first_run_ms"] > 0
    assert len(result["warmup_ms"]) == 1
    assert result["threads"] == 1
    assert result["versions"].keys() >= {"edgewise", "python", "numpy", "onnxruntime"}
    assert result["engine"]["unit"] == "cpu"
    assert result["input_shapes"] == {"x": [1, 3, 8, 8]}
    assert result["energy"] is None
    assert result["energy_reason"]
    assert result["device"]["cpu"]
    assert result["os"]
    assert result["clocks"].keys() == {"min_mhz", "max_mhz", "before_mhz", "after_mhz"}
    assert "few runs: with 12 of them" in " ".join(result["warnings"])
    assert steps[0] == ("load", 0, None)
    assert ("measure", 12, 12) in steps
    # A fresh process: its memory is its own, however much this one holds.
    assert 10 << 20 < result["memory_before_load_bytes"] < result["peak_memory_bytes"] < 1 << 30


def test_the_layers_of_a_profile(make_bundle):
    result = profile(make_bundle(), threads=1, runs=3, warmup=0, per_layer=True)
    layers = {layer["op"]: layer for layer in result["layers"]}
    assert sum(layer["share"] for layer in layers.values()) == pytest.approx(1)
    product = layers["MatMul"]
    assert product["macs"] == 256 * 5
    if product["median_ms"]:
        assert product["gmacs_per_s"] == pytest.approx(256 * 5 / product["median_ms"] / 1e6)
    assert all(layer["unit"] == "cpu" for layer in result["layers"])


def test_samples_of_ones_own_and_no_layers(make_bundle):
    samples = [{"x": np.ones((batch, 3, 8, 8), np.float32)} for batch in (4, 2)]
    result = profile(make_bundle(), threads=1, runs=2, warmup=0, samples=samples)
    assert result["input_shapes"] == {"x": [4, 3, 8, 8]}
    assert result["layers"] is None


def test_a_bundle_without_reference_data_runs_on_random_inputs(make_bundle):
    from edgewise.runtime.bundle import open_bundle, seal

    path = make_bundle(engine={"kind": "null"})
    manifest = open_bundle(path).manifest
    (path / "reference.npz").unlink()
    seal(path, manifest)
    result = profile(path, runs=2, warmup=0, per_layer=True)
    assert result["engine"]["library"] == "none"
    assert result["input_shapes"] == {"x": [1, 3, 8, 8]}
    assert result["layers"] == []


def test_errors_of_the_worker_come_through(make_bundle, tmp_path):
    with pytest.raises(RunError, match=r"cannot open the bundle \(.*nowhere\.edge\): found no such file or folder"):
        profile(tmp_path / "nowhere.edge")
    samples = [{"x": np.ones((1, 2, 8, 8), np.float32)}]
    with pytest.raises(RunError, match=r"float32\[1, 2, 8, 8\]"):
        profile(make_bundle(), runs=1, samples=samples)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "found signal 11, Segmentation fault"),
        ("import sys; sys.stderr.write('out of luck'); sys.exit(3)", r"found exit status 3 \(out of luck\)"),
        ("print('{\"progress\": [\"half', end='')", "found exit status 0"),
        ("import sys; sys.stdin.read(); raise MemoryError('too big')", "found exit status 1 .*MemoryError: too big"),
        ("import os; os.close(0); os.close(1)", "found exit status 0"),
    ],
)  # fmt: skip
def test_a_worker_that_crashes(make_bundle, tmp_path: Path, monkeypatch, body, says):
    (tmp_path / "crashing_worker.py").write_text(body)
    monkeypatch.setattr(local, "_WORKER", "crashing_worker")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RunError, match=rf"the process that measures crashed \(.*net\.edge\): {says}"):
        profile(make_bundle())


def test_files_in_the_current_folder_are_not_imported(make_bundle, tmp_path, monkeypatch):
    path = make_bundle()
    monkeypatch.chdir(tmp_path)
    for name in ("numpy", "onnxruntime", "edgewise"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong file')")
    assert profile(path.name, threads=1, runs=1, warmup=0)["latency_ms"]["samples"]


def test_an_interrupted_caller_leaves_no_worker_behind(make_bundle, monkeypatch):
    started = []

    class Recorded(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)

    def interrupt(task, done, total):
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    with pytest.raises(KeyboardInterrupt):
        profile(make_bundle(), progress=interrupt)
    assert started
    assert all(process.returncode is not None for process in started)


@pytest.mark.parametrize(
    "numbers",
    [
        {"threads": -1},
        {"runs": 0},
        {"warmup": -1},
        {"min_time_s": 0},
        {"min_time_s": float("nan")},
        {"min_time_s": float("inf")},
    ],
)
def test_numbers_out_of_range(make_bundle, numbers):
    with pytest.raises(RunError, match=rf"cannot measure \({next(iter(numbers))}\)"):
        profile(make_bundle(), **numbers)


def test_what_libraries_print_does_not_get_into_the_answer(make_bundle, capfd, monkeypatch):
    import io

    order = {
        "path": str(make_bundle()), "function": None, "threads": 1, "runs": 1, "warmup": 0, "min_time_s": 1, "duration_s": 0.0, "per_layer": False,
        "samples": None,
    }  # fmt: skip
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(order)))
    noisy = worker.load

    def load(*args, **options):
        os.write(1, b"a library says hello")
        return noisy(*args, **options)

    monkeypatch.setattr(worker, "load", load)
    saved = os.dup(1)
    try:
        worker.main()
    finally:
        os.dup2(saved, 1)
        os.close(saved)
    out, err = capfd.readouterr()
    assert "hello" in err
    lines = [json.loads(line) for line in out.splitlines()]
    assert len(lines[-1]["result"]["runs_ms"]) == 1


def test_the_summary():
    summary = result.summarize([4.0, 1.0, 3.0, 2.0])
    assert summary == {
        "min": 1.0, "median": 2.5, "median_interval": None, "mean": 2.5, "p90": pytest.approx(3.7), "p99": pytest.approx(3.97),
        "std": pytest.approx(np.std([1, 2, 3, 4], ddof=1)), "samples": [4.0, 1.0, 3.0, 2.0],
    }  # fmt: skip
    assert result.summarize([2.0])["std"] == 0
