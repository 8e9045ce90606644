"""The agent by itself: what it prints, what it compares, what it refuses."""

from __future__ import annotations

import json
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from edgewise.runtime.bundle import open_bundle
from edgewise.runtime.compare import compare_outputs, parity_of_sums
from edgewise.runtime.devices.reference import write_plain_reference
from edgewise.runtime.model import load

Bench = Callable[..., dict[str, Any]]
_LARGEST_BYTES = 1_500_000


@pytest.fixture(scope="session")
def agent(agents: Path) -> Path:
    return agents / "x86_64-linux-musl" / "edgewise-bench"


@pytest.fixture
def bench(agent: Path, native_bundle: Any, tmp_path: Path) -> Bench:
    def run(
        *options: str, engine: Path | None = None, reference: Path | None = None, bundle: Path | None = None
    ) -> Any:
        opened = open_bundle(bundle or native_bundle())
        plain = tmp_path / "reference.bin"
        write_plain_reference(plain, *opened.reference())
        command = [agent, engine or opened.file("model.engine"), reference or plain, *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        assert done.returncode == int("error" in answer)
        return answer

    return run


def test_it_is_small(agent: Path) -> None:
    assert agent.stat().st_size <= _LARGEST_BYTES


def test_it_measures_and_describes(bench: Bench) -> None:
    result = bench("--runs", "30", "--warmup", "3", "--threads", "1", "--per-layer")["result"]
    assert (len(result["runs_ms"]), len(result["warmup_ms"]), result["samples"]) == (30, 3, 3)
    assert 0 < min(result["runs_ms"]) < 50
    assert result["machine"]["cores"] >= 1
    assert result["machine"]["memory_bytes"] > 1 << 28
    assert result["peak_memory_bytes"] > result["memory_before_load_bytes"] > 0
    assert result["input_shapes"] == {"x": [1, 3, 8, 8]}
    assert "conv" in {layer["op"] for layer in result["layers"]}
    assert all(layer["kernel"] and layer["median_ms"] > 0 for layer in result["layers"])


def test_it_warms_up_until_settled_and_sustains(bench: Bench) -> None:
    result = bench("--threads", "1", "--duration", "2.2")["result"]
    assert len(result["warmup_ms"]) >= 10
    assert [round(point["at_s"]) for point in result["series"]] == [1, 2]
    assert result["count"] > 100


def test_its_sums_are_those_of_the_comparison_here(bench: Bench, native_bundle: Any) -> None:
    path = native_bundle(spoil=0.25)
    bundle = open_bundle(path)
    inputs, references = bundle.reference()
    model = load(path, threads=1)
    wanted = compare_outputs(references, [model.run(sample) for sample in inputs])[0]
    result = bench("--check-only", "--threads", "1", bundle=path)["result"]
    found = parity_of_sums(result["sums"][0], result["samples"])
    assert found.sqnr_db == pytest.approx(wanted.sqnr_db, abs=1e-3)
    assert found.cosine == pytest.approx(wanted.cosine, abs=1e-9)
    assert (found.samples, found.argmax_agreement) == (3, wanted.argmax_agreement)
    assert found.max_abs_error == pytest.approx(0.25, abs=1e-3)
    assert result["runs_ms"] == []


def test_infinities_and_nan_agree_only_with_themselves(bench: Bench, native_bundle: Any, tmp_path: Path) -> None:
    inputs, outputs = open_bundle(native_bundle()).reference()
    broken = [{"y": output["y"].copy()} for output in outputs]
    broken[1]["y"][0, 2] = np.nan
    write_plain_reference(tmp_path / "broken.bin", inputs, broken)
    result = bench("--check-only", reference=tmp_path / "broken.bin")["result"]
    assert parity_of_sums(result["sums"][0], 3).sqnr_db == -np.inf


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_floats_are_written_as_they_are(dtype: str, tmp_path: Path) -> None:
    array = np.array([1.5, -2.0], ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    write_plain_reference(tmp_path / "r", [{"é": array}], [])
    data = (tmp_path / "r").read_bytes()
    assert data.startswith(b"EWREF\0\0\1" + struct.pack("<III", 1, 1, 0) + struct.pack("<I", 2) + "é".encode())
    assert data.endswith(array.tobytes())


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda data: data[:-1], "stops before its end"),
        (lambda data: data[:40], "stops before its end"),
        (lambda data: b"X" + data[1:], "another kind of file"),
        (lambda data: data[:8] + b"\0\0\0\0" + data[12:], "no samples"),
        (lambda data: data.replace(struct.pack("<q", 8), struct.pack("<q", 9), 1), "does not fit its dims"),
        (lambda data: data.replace(struct.pack("<q", 8), struct.pack("<q", -8), 1), "a dim out of range"),
        (lambda data: data.replace(b"\1\0\0\0x\0\0\0\0", b"\1\0\0\0z\0\0\0\0", 1), "no input x"),
        (lambda data: data.replace(b"\1\0\0\0y\0\0\0\0", b"\1\0\0\0z\0\0\0\0"), "an output z"),
        (lambda data: data.replace(b"\1\0\0\0x\0\0\0\0", b"\1\0\0\0x\5\0\0\0", 1), "another dtype"),
    ],
)  # fmt: skip
def test_a_bad_reference_is_refused(bench: Bench, native_bundle: Any, tmp_path: Path, spoil: Any, found: str) -> None:
    write_plain_reference(tmp_path / "good", *open_bundle(native_bundle()).reference())
    bad = tmp_path / "bad"
    bad.write_bytes(spoil((tmp_path / "good").read_bytes()))
    error = bench(reference=bad)["error"]
    assert found in error["found"]


def test_a_bad_engine_and_bad_options_are_refused(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"EDGEWISE" + bytes(100))
    assert bench(engine=tmp_path / "bad")["error"]["status"] == 3
    assert bench(engine=tmp_path / "none")["error"]["status"] == 2
    assert bench("--runs", "0")["error"] == bench("--runs", "0.0")["error"] | {"found": "--runs 0"}
    assert bench("--threads", "1.5")["error"]["status"] == 64
    assert "--fast" in bench("--fast")["error"]["found"]


def test_bad_numbers_of_contexts_and_peaks_are_refused(bench: Bench, agent: Path) -> None:
    for text in ("0", "1,", "1,x", "1000"):
        assert "--concurrency" in bench("--concurrency", text)["error"]["found"], text
    done = subprocess.run([agent, "--peak", "0", "65536"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and json.loads(done.stdout)["error"]["status"] == 64


def test_it_reads_files_and_lines_beside_a_program(agent: Path, tmp_path: Path) -> None:
    (tmp_path / "power").write_text("-1500000\n")
    begin = time.monotonic()
    command = [
        agent,
        "--watch",
        "0.2",
        "0.01",
        tmp_path / "power",
        tmp_path / "none",
        "--lines",
        "echo a; echo b",
        "--",
    ]
    done = subprocess.run(
        [*command, "sh", "-c", "sleep 0.2; echo said; exit 3"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    clock, said, last = done.stdout.splitlines()
    watched = json.loads(last)["watched"]
    assert said == "said" and begin < json.loads(clock)["clock"] == watched["idle"][1] < time.monotonic()
    assert watched["idle"][1] - watched["idle"][0] >= 0.2
    assert len(watched["at_s"]) > 10 and watched["at_s"] == sorted(watched["at_s"])
    assert watched["values"][0] == [-1500000, None] and watched["at_s"][-1] > watched["idle"][1]
    assert [line for _, line in watched["lines"]] == ["a", "b"]


def test_what_it_watches_ends_with_it(agent: Path, tmp_path: Path) -> None:
    assert subprocess.run([agent, "--watch", "0", "x", "--", "true"], capture_output=True, check=False).returncode == 64
    assert subprocess.run([agent, "--watch", "0", "1", "f"], capture_output=True, check=False).returncode == 64
    missing = subprocess.run([agent, "--watch", "0", "1", "--", "no/such"], capture_output=True, text=True, check=False)
    assert missing.returncode == 127 and "no/such: No such file" in missing.stderr
    killed = subprocess.run(
        [agent, "--watch", "0", "1", "--", "sh", "-c", "kill -9 $$"], capture_output=True, check=False
    )
    assert killed.returncode == 128 + 9
    line = f"while :; do touch {tmp_path / 'lives'}; sleep 0.05; done"
    with subprocess.Popen([agent, "--watch", "0", "1", "--", "sh", "-c", line], stdout=subprocess.DEVNULL) as watching:
        while not (tmp_path / "lives").exists():
            time.sleep(0.02)
        watching.kill()
    time.sleep(0.2)
    (tmp_path / "lives").unlink()
    time.sleep(0.3)
    assert not (tmp_path / "lives").exists()


@pytest.mark.parametrize("level", ["generic", "avx2", "avx512", "avx512vnni", "avx512bf16"])
def test_peaks_of_every_level_that_is_here(agent: Path, level: str) -> None:
    if level not in subprocess.run([agent, "--version"], capture_output=True, text=True, check=True).stdout.split():
        pytest.skip(f"this processor has no {level}")
    command = ["env", f"EDGEWISE_ISA={level}", agent, "--peak", "1", "65536"]
    peak = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["result"]
    assert peak["isas"].split()[-1] == level
    assert 0.1 < peak["f32_gmacs_per_s"] < 1000 and 0.1 < peak["int8_gmacs_per_s"] < 5000
    assert (peak["bf16_gmacs_per_s"] is not None) == (level == "avx512bf16")
    assert 0.1 < peak["memory_gb_per_s"] < 2000
