"""The wheel that is built from the sdist holds everything and imports outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.cross]

_ROOT = Path(__file__).resolve().parents[2]
_PARTS = {"": "toolchain/edgewise", "exporter/": "exporter", "quantize/": "quantize", "targets/": "targets", "runtime/": "runtime"}  # fmt: skip
_FROM_OUTSIDE = """
import importlib, importlib.util, pkgutil, sys
import edgewise
from edgewise.targets import device_profiles, targets
for module in pkgutil.walk_packages(edgewise.__path__, "edgewise."):
    if not module.name.endswith(".__main__"):
        importlib.import_module(module.name)
bare = [name for name in ("exporter", "quantize", "targets", "runtime", "toolchain") if importlib.util.find_spec(name)]
assert not bare, bare
print(edgewise.__file__, len(device_profiles()), *sorted(targets()), sep="|")
"""


def _backend(folder: Path, source: Path, call: str) -> Path:
    """Call scikit-build-core as a build frontend would; gives the file that it made. Without optimisation and symbols: what is in it counts."""
    settings = {"cmake.build-type": "Debug", "cmake.define.CMAKE_CXX_FLAGS_DEBUG": "-O0"}
    code = f"import scikit_build_core.build as backend; print(backend.{call}({str(folder)!r}, {settings!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.splitlines()[-1]


def test_the_wheel_of_the_sdist_holds_everything_and_imports_outside_the_checkout(tmp_path: Path) -> None:
    # One test, so that one process builds the wheel.
    wheel = _wheel_of_the_sdist(tmp_path / "wheel")
    _holds_every_tracked_file_of_the_parts(wheel)
    _imports_outside_the_checkout(wheel, tmp_path)


def _wheel_of_the_sdist(folder: Path) -> Path:
    folder.mkdir()
    sdist = _backend(folder, _ROOT, "build_sdist")
    subprocess.run(["tar", "xzf", sdist, "-C", folder], check=True)
    return _backend(folder, folder / sdist.name.removesuffix(".tar.gz"), "build_wheel")


def _content(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def _tracked() -> set[str]:
    found = set()
    for inside, folder in _PARTS.items():
        listed = subprocess.run(["git", "ls-files", folder], cwd=_ROOT, capture_output=True, text=True, check=True)
        found |= {f"edgewise/{inside}{name.removeprefix(folder + '/')}" for name in listed.stdout.split()}
    return found


def _holds_every_tracked_file_of_the_parts(wheel: Path) -> None:
    native = "edgewise/runtime/native/"
    left_out = {name for name in _tracked() if name.startswith((f"{native}python/", f"{native}tests/"))}
    assert left_out and _tracked() - left_out - _content(wheel) == set()
    assert f"{native}bench/main.cpp" in _content(wheel)  # agents for other processors are built from the sources
    assert any(name.startswith("edgewise/runtime/_native.") and name.endswith(".so") for name in _content(wheel))
    assert "edgewise/runtime/edgewise-bench" in _content(wheel)
    assert "edgewise/py.typed" in _content(wheel)


def _imports_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    install = ["install", "-q", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True)
    # -S leaves out .pth files, and with them the editable install that would come first.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), sysconfig.get_path("purelib")])}
    done = subprocess.run(
        [sys.executable, "-S", "-c", _FROM_OUTSIDE], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    place, devices, *names = done.stdout.strip().split("|")
    assert Path(place).is_relative_to(site)
    assert int(devices) == len(list((_ROOT / "targets" / "devices").glob("*.toml")))
    assert {"cpu", "coreml", "tensorrt", "null"} <= set(names)
