"""Building over SSH: a real OpenSSH server on loopback. The GPU's driver and trtexec there are stand-ins, and say that they are."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgewise.runtime.devices import DeviceError
from edgewise.runtime.errors import GateError
from edgewise.targets.errors import TargetError
from edgewise.targets.tensorrt import TARGET

DRIVER = r"""
#include <string.h>
int cuInit(unsigned flags) { return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = 0; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Orin (a stand-in)", size); return 0; }
int cuDeviceGetAttribute(int *value, int what, int device) { *value = what == 75 ? 8 : 7; return 0; }
"""
TRTEXEC = """#!{python}
import json, pathlib, sys
given = dict(item.removeprefix("--").partition("=")[::2] for item in sys.argv[1:])
if "help" in given:
    print("&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # a stand-in")
else:
    pathlib.Path(given["saveEngine"]).write_bytes(b"not an engine: a stand-in made it from " + pathlib.Path(given["onnx"]).read_bytes()[:8])
    nodes = json.loads((pathlib.Path(given["onnx"]).parent / "build_settings.json").read_text())["products"]
    dtype = pathlib.Path(__file__).with_name("dtype").read_text()
    layers = [dict(Name=name, LayerType="CaskConvolution", Inputs=[dict(Name="x", Datatype=dtype)], Outputs=[],
                   Metadata="[ONNX Layer: " + name + "]", TacticName="stand-in") for name in nodes]
    pathlib.Path(given["exportLayerInfo"]).write_text(json.dumps(dict(Layers=layers)))
"""
CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PidFile none
PermitRootLogin prohibit-password
SetEnv LD_LIBRARY_PATH={folder} PATH={folder}:/usr/bin:/bin XDG_CACHE_HOME={folder}/cache TMPDIR={folder}/scratch
"""

pytestmark = pytest.mark.slow


def program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if not found:
        pytest.skip(f"needs {name}")
    return found


@pytest.fixture
def stand_ins(tmp_path: Path) -> Path:
    """A folder with a GPU's driver and ``trtexec``; ``dtype`` is what its layers read."""
    folder = tmp_path / "host"
    (folder / "scratch").mkdir(parents=True)
    (folder / "driver.c").write_text(DRIVER)
    subprocess.run([program("cc"), "-shared", "-fPIC", "-o", folder / "libcuda.so.1", folder / "driver.c"], check=True)
    (folder / "trtexec").write_text(TRTEXEC.format(python=sys.executable))
    (folder / "trtexec").chmod(0o755)
    (folder / "dtype").write_text("Half")
    return folder


@pytest.fixture
def host(stand_ins: Path) -> Iterator[tuple[str, Path]]:
    """The address of an SSH server, and the folder where its stand-ins lie."""
    folder = stand_ins
    for key in ("host_key", "user_key"):
        subprocess.run([program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host_key.pub').read_text()}")
    (folder / "config").write_text(CONFIG.format(port=port, folder=folder))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen([program("sshd"), "-D", "-e", "-f", str(folder / "config")], stderr=subprocess.DEVNULL)
    try:
        _wait_for(port)
        key, known = folder / "user_key", folder / "known_hosts"
        yield f"ssh://{getpass.getuser()}@127.0.0.1:{port}?key={key}&known_hosts={known}", folder
    finally:
        server.terminate()
        server.wait()


def _wait_for(port: int) -> None:
    end = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.05)
        else:
            return


@pytest.fixture
def build(small_graph: Any, make_bundle: Any) -> Callable[..., Any]:
    def make(address: str, **options: Any) -> Any:
        options = {"build_on": address, "trtexec": True} | options
        return make_bundle(TARGET, small_graph("conv_net"), device="jetson-agx-orin", options=options)

    return make


def test_the_engine_comes_back_under_its_version_gpu_and_driver(host: tuple[str, Path], build: Any) -> None:
    address, folder = host
    bundle, result = build(address)
    assert bundle.file("model.engine").read_bytes().startswith(b"not an engine: a stand-in")
    settings = result.settings
    assert (settings["engine_built"], settings["model"], settings["version"], settings["sm"]) == (
        True,
        "model.engine",
        "10.3.0",
        87,
    )
    assert settings["driver"] and result.versions["tensorrt"] == "10.3.0"
    assert "Orin (a stand-in), SM87" in result.proof["device"] and result.proof["layers"] == 4
    assert result.proof["products"] == {"float16": 4} and result.proof["not_as_asked"] == []
    assert {layer["precision"] for layer in result.layers} == {"FP16"}
    assert json.loads(bundle.file("model.engine.json").read_text())["gpu"]["sm"] == 87
    assert not any(folder.joinpath("scratch").iterdir()), "nothing is left behind"


def test_a_precision_that_did_not_happen_there_fails_here(host: tuple[str, Path], build: Any) -> None:
    address, folder = host
    (folder / "dtype").write_text("Float")
    with pytest.raises(GateError, match="4 of 4 products run in another precision") as caught:
        build(address)
    assert caught.value.exit_code == 1
    assert not any(folder.joinpath("scratch").iterdir())


def test_what_the_host_refuses_is_told(host: tuple[str, Path], build: Any) -> None:
    address, folder = host
    (folder / "trtexec").write_text("#!/bin/sh\necho '[TensorRT v8601]'\n")
    with pytest.raises(TargetError, match="is too old: found"):
        build(address)
    (folder / "libcuda.so.1").unlink()
    with pytest.raises(TargetError, match="this machine has no NVIDIA driver"):
        build(address)


def test_this_machine_builds_for_itself(stand_ins: Path, build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(stand_ins))
    monkeypatch.setenv("PATH", f"{stand_ins}:/usr/bin:/bin")
    bundle, result = build("local")
    assert bundle.file("model.engine").read_bytes().startswith(b"not an engine: a stand-in")
    assert result.settings["engine_built"] and result.proof["products"] == {"float16": 4}
    (stand_ins / "dtype").write_text("Float")
    with pytest.raises(GateError, match="4 of 4 products run in another precision"):
        build("local")


def test_a_host_that_is_not_there(build: Any) -> None:
    with pytest.raises(DeviceError, match="cannot reach the device"):
        build("ssh://nobody@127.0.0.1:1")
