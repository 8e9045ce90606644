"""libedgewise's own tests (runtime/native/tests) under sanitizers: misuse, failing allocations, damaged files of every operator."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[3]
_FUZZED_S = 60

pytestmark = [pytest.mark.slow, pytest.mark.sanitize]


def program(name: str) -> str:
    """Beside this Python, or of the system."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if not found or not shutil.which(os.environ.get("CXX", "c++")):
        if "CI" in os.environ:
            pytest.fail(f"CI has {name} and a C++ compiler")
        pytest.skip(f"needs {name} and a C++ compiler")
    return found


def build(folder: Path, targets: Sequence[str], *options: str) -> None:
    """The test programs alone: the libraries and the agent are built elsewhere."""
    ninja = program("ninja")
    define = ["-DEDGEWISE_TESTS=ON", f"-DCMAKE_MAKE_PROGRAM={ninja}", *options]
    run(program("cmake"), "-G", "Ninja", "-S", str(_ROOT / "runtime" / "native"), "-B", str(folder), *define)
    run(program("cmake"), "--build", str(folder), "--parallel", "2", "--target", *targets)


def run(*command: str, cwd: Path | None = None) -> str:
    env = {name: value for name, value in os.environ.items() if name != "EDGEWISE_ISA"}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}\n{(done.stdout + done.stderr)[-6000:]}"
    return done.stdout + done.stderr


def kept_plans(folder: Path) -> list[str]:
    """An engine file of each sort that the other tests of this folder make."""
    folder.mkdir()
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-n",
        "0",
        "-p",
        "no:cacheprovider",
        "-m",
        "not slow",
        str(Path(__file__).parent),
    ]
    env = os.environ | {"EDGEWISE_KEEP_PLANS": str(folder)}
    done = subprocess.run(command, cwd=_ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    return sorted(str(file) for file in folder.glob("*.engine"))


@pytest.mark.usefixtures("native")
def test_under_address_and_undefined_behaviour_sanitizers(tmp_path):
    folder = _ROOT / ".cache" / "native-asan-clang"  # libFuzzer comes with Clang
    names = [f"{name}_test" for name in ("image", "api", "pool", "memory", "fuzz")]
    build(folder, names, "-DEDGEWISE_SANITIZE=ON", f"-DCMAKE_CXX_COMPILER={program('clang++')}")
    said = run(program("ctest"), "--test-dir", str(folder), "--output-on-failure", "--parallel", "2")
    assert "100% tests passed" in said
    files = kept_plans(tmp_path / "plans")
    assert len(files) > 100
    fuzz(folder / "fuzz_test", tmp_path)
    said = run(str(folder / "memory_test"), *files[:: max(1, len(files) // 100)])
    assert said.count("each made to fail") >= 100


def fuzz(fuzzer: Path, folder: Path) -> None:
    """Every operator's engine files and what libFuzzer makes of them; what fails lies in the folder, and in the message."""
    (folder / "found").mkdir()
    limits = [
        f"-max_total_time={_FUZZED_S}",
        "-timeout=60",
        "-rss_limit_mb=4096",
        "-max_len=65536",
        "-print_final_stats=1",
    ]
    said = run(str(fuzzer), *limits, str(folder / "found"), str(folder / "plans"), cwd=folder)
    executed = re.search(r"stat::number_of_executed_units: (\d+)", said)
    assert executed is not None
    assert int(executed[1]) > 10_000


def test_under_thread_sanitizer():
    folder = _ROOT / ".cache" / "native-tsan"
    programs = ("api_test", "pool_test")
    build(folder, programs, "-DEDGEWISE_SANITIZE=thread")
    for name in programs:
        assert "all well" in run(str(folder / name))
