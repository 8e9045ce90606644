"""``profile`` and ``verify`` with ``--device``: through a real OpenSSH server, with this machine's agent."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import edgewise
from edgewise.runtime.devices import DeviceError
from edgewise.runtime.errors import GateError
from edgewise.runtime.profile import profile as local_profile
from edgewise.verbs.profile import profile_two

pytestmark = [pytest.mark.slow, pytest.mark.e2e]


@pytest.fixture(autouse=True)
def built_agents(agents: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWISE_AGENTS", str(agents))


def test_a_profile_from_a_device_is_like_one_from_here(sshd: Any, native_bundle: Any) -> None:
    bundle = native_bundle()
    there = edgewise.profile(bundle, device=sshd.address(), threads=1, runs=30, per_layer=True)
    here = local_profile(bundle, threads=1, runs=30, per_layer=True)
    assert set(here) <= set(there)
    assert there["parity"]["passed"] and there["parity"]["outputs"][0]["sqnr_db"] > 100
    assert [layer["name"] for layer in there["layers"]] == [layer["name"] for layer in here["layers"]]
    assert [layer["macs"] for layer in there["layers"]] == [layer["macs"] for layer in here["layers"]]
    assert there["device"] == here["device"]
    assert len(there["latency_ms"]["samples"]) == 30
    assert there["triple"] == "x86_64-linux-musl"


def test_the_second_profile_sends_nothing_and_starts_within_a_second(sshd: Any, native_bundle: Any) -> None:
    bundle = native_bundle(classes=5200)
    assert (bundle / "model.engine").stat().st_size > 5 << 20
    tasks: list[tuple[str, float]] = []

    def tell(task: str, done: int, total: int | None) -> None:
        tasks.append((task, time.monotonic()))

    for _ in range(2):
        tasks.clear()
        edgewise.profile(bundle, device=sshd.address(), runs=5, warmup=0, progress=tell)
    assert "send to the device" not in {task for task, _ in tasks}
    connected, measured = (next(at for task, at in tasks if task == wanted) for wanted in ("connect", "measure"))
    assert measured - connected < 1


def test_two_bundles_take_turns_there(sshd: Any, native_bundle: Any) -> None:
    small, large = native_bundle(), native_bundle(classes=4000)
    told = profile_two(small, large, device=sshd.address(), threads=1, rounds=5)
    assert told["reached"] == sshd.address() and told["device"]["cores"] >= 1
    assert len(told["a"]["latency_ms"]["samples"]) == len(told["b"]["latency_ms"]["samples"]) == 5
    assert told["ratio"]["low"] > 1 and told["differs"], "eight hundred times the weights"
    assert told["a"]["bundle"] != told["b"]["bundle"]
    with pytest.raises(edgewise.EdgewiseError, match="found --per-layer"):
        profile_two(small, large, device=sshd.address(), alone={"per_layer": True})


def test_an_agent_that_is_killed_is_said_so(sshd: Any, native_bundle: Any) -> None:
    store = str(sshd.home / ".cache" / "edgewise" / "store")

    def kill() -> bool:
        for place in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if str((place / "exe").readlink()).startswith(store):
                    os.kill(int(place.name), signal.SIGKILL)
                    return True
        return False

    killer = threading.Thread(target=lambda: sshd.wait_for(kill))
    killer.start()
    with pytest.raises(DeviceError, match=r"the agent ended without an answer.*signal 9"):
        edgewise.profile(native_bundle(), device=sshd.address(), duration_s=60)
    killer.join()
    assert edgewise.verify(native_bundle(), device=sshd.address())["parity"]["passed"]


def test_outputs_that_differ_there_fail_the_gate(sshd: Any, native_bundle: Any) -> None:
    spoiled = native_bundle(spoil=3.0)
    with pytest.raises(GateError, match="do not agree"):
        edgewise.profile(spoiled, device=sshd.address(), runs=3, warmup=0)
    with pytest.raises(GateError, match="do not agree"):
        edgewise.verify(spoiled, device=sshd.address())


def test_verify_there(sshd: Any, native_bundle: Any) -> None:
    result = edgewise.verify(native_bundle(), device=sshd.address())
    assert result["parity"]["passed"] and result["samples"] == 3
    assert "127.0.0.1" in result["how"] and "libedgewise" in result["how"]


def test_an_instruction_set_that_is_missing_is_said_so(
    sshd: Any, native_bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = tmp_path / "devices.toml"
    devices.write_text(f'[old]\naddress = "{sshd.address()}"\nrunner = "env EDGEWISE_ISA=generic"\n')
    monkeypatch.setenv("EDGEWISE_DEVICES", str(devices))
    with pytest.raises(DeviceError, match="built for avx2, this processor has generic") as caught:
        edgewise.profile(native_bundle("x86-64-v3"), device="old")
    assert "--device" in caught.value.fix


def test_an_agent_for_another_processor_is_said_so(
    sshd: Any, native_bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "agents" / "riscv64-linux-musl"
    folder.mkdir(parents=True)
    (folder / "edgewise-bench").write_bytes(b"\x7fELF\2\1\1" + bytes(9) + b"\2\0\xf3\0" + bytes(200))
    monkeypatch.setenv("EDGEWISE_AGENTS", str(tmp_path / "agents"))
    devices = tmp_path / "devices.toml"
    devices.write_text(f'[wrong]\naddress = "{sshd.address()}"\ntriple = "riscv64-linux-musl"\n')
    monkeypatch.setenv("EDGEWISE_DEVICES", str(devices))
    with pytest.raises(DeviceError, match="cannot start the agent") as caught:
        edgewise.profile(native_bundle(), device="wrong")
    assert "triple" in caught.value.fix


def test_a_bundle_of_another_engine_is_refused(sshd: Any, native_bundle: Any) -> None:
    with pytest.raises(DeviceError, match="engine kind 'null'"):
        edgewise.profile(native_bundle(kind="null"), device=sshd.address())


def test_what_cannot_be_compared_elsewhere_is_refused(sshd: Any, native_bundle: Any) -> None:
    with pytest.raises(edgewise.EdgewiseError, match="cannot compare that on another device"):
        edgewise.verify(native_bundle(), device=sshd.address(), per_layer=True)


def test_cold_starts_several_contexts_and_the_roof_of_a_device(
    sshd: Any, native_bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bundle, tasks = native_bundle(), []
    options: dict[str, Any] = {"threads": 1, "runs": 5, "per_layer": True}

    def tell(task: str, done: int, total: int | None) -> None:
        tasks.append(task)

    there = edgewise.profile(
        bundle, device=sshd.address(), cold=True, concurrency_sweep=[1, 3], progress=tell, **options
    )
    assert there["cold"]["load_ms"] > 0 and there["cold"]["first_run_ms"] > 0
    assert there["cold"]["page_cache"].startswith(("dropped for the engine's file", "kept: "))
    assert [level["contexts"] for level in there["concurrency_sweep"]] == [1, 3]
    for level in there["concurrency_sweep"]:
        # So many at once, each one after the other: throughput times mean latency is their number (Little's law), less what threads wait.
        assert 0 < level["throughput_per_s"] * level["median_ms"] / 1e3 < 1.5 * level["contexts"]
        assert level["median_ms"] <= level["p90_ms"] <= level["p99_ms"] and level["runs"] >= 3 * level["contexts"]
    assert "measure the processor's peaks" in tasks
    peak = there["peak"]
    assert peak["threads"] == 1 and peak["f32_gmacs_per_s"] > 0.1 and peak["memory_gb_per_s"] > 0.1
    conv = next(layer for layer in there["layers"] if layer["op"] == "conv")
    assert conv["of_attainable"] == pytest.approx(conv["gmacs_per_s"] / conv["attainable_gmacs_per_s"])
    assert 0 < conv["attainable_gmacs_per_s"] <= peak["f32_gmacs_per_s"] and conv["bound"] in ("compute", "memory")
    # The same processor: what was kept for the device serves here too.
    tasks.clear()
    here = edgewise.profile(bundle, progress=tell, concurrency_sweep=[2], **options)
    assert here["peak"] == peak and "measure the processor's peaks" not in tasks
    assert here["concurrency_sweep"][0]["contexts"] == 2 and here["concurrency_sweep"][0]["throughput_per_s"] > 0
    with pytest.raises(edgewise.EdgewiseError, match="cannot run several contexts at once"):
        edgewise.profile(native_bundle(kind="null"), runs=2, concurrency_sweep=[2])
