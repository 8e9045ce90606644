"""Which profile a processor gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewise.targets.cpu import TARGET
from edgewise.targets.cpu import host as module
from edgewise.targets.cpu.host import best_profile
from edgewise.targets.devices import device_profiles, find_device

HASWELL = "processor : 0\nflags\t\t: fpu sse2 abm avx avx2 bmi1 bmi2 f16c fma movbe\n"
ICE_LAKE = HASWELL.replace("movbe", "movbe avx512f avx512bw avx512cd avx512dq avx512vl avx512_vnni avx512_bf16")
CORTEX_A76 = "Features\t: fp asimd evtstrm aes asimdhp cpuid asimdrdm lrcpc dcpop asimddp\n"


@pytest.mark.parametrize(
    ("arch", "cpuinfo", "expected"),
    [
        ("x86_64", HASWELL, {"x86-64-v3"}),
        ("x86_64", ICE_LAKE, {"x86-64-v4-vnni"}),
        ("x86_64", ICE_LAKE.replace("avx512bw", ""), {"x86-64-v3"}),
        ("aarch64", CORTEX_A76, {"raspberrypi5"}),
        ("aarch64", CORTEX_A76.replace("asimddp", "asimddp i8mm"), {"pixel-9"}),
        ("x86_64", HASWELL.replace("avx2", ""), {"generic"}),
        ("x86_64", "", {"x86-64-v3"}),
        ("riscv64", "", {"x86-64-v3"}),
    ],
)
def test_the_richest_profile_that_fits(arch: str, cpuinfo: str, expected: set[str]) -> None:
    assert best_profile(arch, cpuinfo, device_profiles()) in expected


def test_the_default_device_is_one_of_the_targets() -> None:
    assert "cpu" in find_device(TARGET.default_device, "cpu").targets


def test_without_cpuinfo_there_is_a_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CPUINFO", tmp_path / "absent")
    assert module.host_device.__wrapped__() == "x86-64-v3"
