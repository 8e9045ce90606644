"""A real OpenSSH server on loopback, with a user of its own where we may make one, and bundles of libedgewise to send there."""

from __future__ import annotations

import contextlib
import getpass
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import pytest

from edgewise.runtime.bundle import create_bundle, save_reference
from edgewise.runtime.devices import trtexec as trtexec_module
from edgewise.targets.base import BuildRequest
from edgewise.targets.cpu.native.build import build_native
from edgewise.targets.devices import find_device

# SHLVL: bash takes no connection for a first shell then, and does not read ~/.bashrc, which at a developer's takes 0.2 s for each command.
_CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PidFile none
SetEnv SHLVL=1
"""
_NET = """
<ir_version: 8, opset_import: ["" : 18]>
net (float[1, 3, 8, 8] x) => (float[1, CLASSES] y)
{
   a = Conv <pads=[1,1,1,1]> (x, w, b)
   r = Relu (a)
   g = Flatten (r)
   y = MatMul (g, f)
}
"""


_TRTEXEC = """#!{python} -SE
import array, json, pathlib, sys, time
print("&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # a stand-in")
given = dict(item.removeprefix("--").partition("=")[::2] for item in sys.argv[1:])
engine = pathlib.Path(given["loadEngine"]).read_bytes()
compatible = "versionCompatible" in given
if engine != (b"engine with code" if compatible else b"engine"):
    print("[09/01/2026-10:00:00] [E] Error[1]: the engine plan file is not compatible (a stand-in)")
    sys.exit(1)
print("[I] Engine deserialized in 0.0125 sec.")
name, file = given["loadInputs"].split(":")
x = array.array("f", pathlib.Path(file).read_bytes())
assert name == "x" and given.get("shapes", "x:2x3") == "x:2x3"
if "exportOutput" in given:
    told = [dict(name="y", dimensions="2x3", values=[2 * value for value in x])]
    pathlib.Path(given["exportOutput"]).write_text(json.dumps(told))
if "exportTimes" in given:
    runs = int(given.get("iterations", 50))
    times = [dict(startH2dMs=10.0 * i, endD2hMs=10.0 * i + 1.5, computeMs=1.0, latencyMs=1.5 + i / 1000) for i in range(runs)]
    print("[I] Starting inference", flush=True)
    time.sleep(0.3 + runs / 100)
    print("[I] Warmup completed 30 queries over 200 ms\\n[I] Timing trace has", runs, "queries", flush=True)
    time.sleep(0.2) # writes its files
    pathlib.Path(given["exportTimes"]).write_text(json.dumps(times))
if "exportProfile" in given:
    layers = [dict(count=50), dict(name="conv + relu", timeMs=50.0, averageMs=1.0, medianMs=0.9, percentage=100.0)]
    pathlib.Path(given["exportProfile"]).write_text(json.dumps(layers))
"""


def sibling(name: str) -> Any:
    """A module of this folder."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def program(name: str) -> str:
    """A system program that CI installs; elsewhere the test skips without it."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if not found:
        if "CI" in os.environ:
            pytest.fail(f"CI has {name}")
        pytest.skip(f"needs {name}")
    return found


@dataclass
class Server:
    """An sshd with a user's home as the device."""

    process: subprocess.Popen[bytes]
    port: int
    user: str
    home: Path
    folder: Path

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def address(self, key: str = "user_key", known_hosts: str = "known_hosts") -> str:
        where = f"ssh://{self.user}@127.0.0.1:{self.port}"
        return f"{where}?key={self.folder / key}&known_hosts={self.folder / known_hosts}"

    @staticmethod
    def wait_for(done: Callable[[], bool], seconds: float = 10) -> None:
        """Until it is so, or fail."""
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError):
                if done():
                    return
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.05)

    def sessions(self) -> list[int]:
        """The processes that serve one connection each."""
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False)
        return [int(line) for line in found.stdout.split()]

    def cut(self) -> None:
        """Break every connection, as a device does that loses power."""
        for session in self.sessions():
            children = subprocess.run(["pgrep", "-P", str(session)], capture_output=True, text=True, check=False).stdout
            for process in (*map(int, children.split()), session):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)


@contextlib.contextmanager
def user_of_its_own() -> Iterator[tuple[str, Path]]:
    """A second user where we may make one, else ourselves with another folder; the name, and the home."""
    if os.geteuid() != 0:
        with tempfile.TemporaryDirectory(prefix="edgewise-home-") as home:
            yield getpass.getuser(), Path(home)
        return
    name = f"ew{os.getpid()}"
    home = Path(tempfile.gettempdir()) / f"edgewise-{name}"
    useradd = [
        program("useradd"),
        "--create-home",
        "--home-dir",
        str(home),
        "--shell",
        "/bin/sh",
        "--password",
        "*",
        name,
    ]
    subprocess.run(useradd, check=True, capture_output=True)
    try:
        yield name, home
    finally:
        subprocess.run(["pkill", "-KILL", "-u", name], check=False)
        subprocess.run([program("userdel"), "--remove", name], check=False, capture_output=True)
        shutil.rmtree(home, ignore_errors=True)


def keygen(file: Path) -> str:
    subprocess.run([program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)
    return file.with_suffix(".pub").read_text()


@pytest.fixture(scope="session")
def sshd() -> Iterator[Server]:
    server = program("sshd")
    with user_of_its_own() as (user, home), tempfile.TemporaryDirectory(prefix="edgewise-sshd-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        host, public = keygen(folder / "host_key"), keygen(folder / "user_key")
        keygen(folder / "other_key")
        (folder / "authorized_keys").write_text(public)
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host}")
        (folder / "nobody_known").write_text("")
        (folder / "config").write_text(_CONFIG.format(port=port, folder=folder))
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        process = subprocess.Popen([server, "-D", "-e", "-f", str(folder / "config")], stderr=subprocess.DEVNULL)
        try:
            Server.wait_for(lambda: socket.create_connection(("127.0.0.1", port), 1).close() is None)
            yield Server(process, port, user, home, folder)
        finally:
            process.terminate()
            process.wait()


@pytest.fixture(scope="session")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as EDGEWISE_AGENTS names it: the agent that was installed with libedgewise, as that of x86-64."""
    spec = importlib.util.find_spec("edgewise.runtime._native")
    if spec is None or spec.origin is None:
        pytest.skip("edgewise was installed without libedgewise")
    folder = tmp_path_factory.mktemp("agents")
    (folder / "x86_64-linux-musl").mkdir()
    shutil.copy2(Path(spec.origin).with_name("edgewise-bench"), folder / "x86_64-linux-musl")
    return folder


@pytest.fixture(scope="session")
def native_bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make a bundle of a small network for a device profile; ``spoil`` is added to the reference outputs."""

    def make(device: str = "generic", spoil: float = 0.0, classes: int = 5, **engine: Any) -> Path:
        path = tmp_path_factory.mktemp("bundles") / "net.edge"
        model = onnx.parser.parse_model(_NET.replace("CLASSES", str(classes)))
        generator = np.random.default_rng(0)
        for name, shape in (("w", (4, 3, 3, 3)), ("b", (4,)), ("f", (256, classes))):
            values = generator.standard_normal(shape).astype(np.float32)
            model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
        inputs = [{"x": generator.standard_normal((1, 3, 8, 8)).astype(np.float32)} for _ in range(3)]
        run = onnx.reference.ReferenceEvaluator(model).run
        outputs = [{"y": run(["y"], sample)[0] + np.float32(spoil)} for sample in inputs]
        with create_bundle(path) as (draft, manifest):
            built = build_native(BuildRequest(ir.from_proto(model), draft, find_device(device, "cpu")))
            save_reference(draft / "reference.npz", inputs, outputs)
            manifest |= {
                "inputs": [{"name": "x", "dtype": "float32", "shape": [1, 3, 8, 8]}],
                "outputs": [{"name": "y", "dtype": "float32", "shape": [1, classes]}],
                "target": "cpu",
                "device": device,
                "engine": {
                    "kind": built.kind, "files": built.files, "versions": built.versions, "layers": built.layers,
                    "settings": built.settings, "notes": built.notes,
                } | engine,
            }  # fmt: skip
        return path

    return make


@pytest.fixture
def doubling_bundle(tmp_path: Path) -> Callable[..., Path]:
    """y = 2x as an engine of a kind, with ``spoil`` added to the reference."""

    def make(
        kind: str, spoil: float = 0.0, content: bytes = b"engine", name: str = "model.engine", **more: Any
    ) -> Path:
        path = tmp_path / f"{kind}.edge"
        inputs = [{"x": np.full((2, 3), index, np.float32)} for index in range(1, 3)]
        outputs = [{"y": sample["x"] * 2 + np.float32(spoil)} for sample in inputs]
        with create_bundle(path) as (draft, manifest):
            (draft / name).write_bytes(content)
            save_reference(draft / "reference.npz", inputs, outputs)
            manifest |= {
                "inputs": [{"name": "x", "dtype": "float32", "shape": ["N", 3]}],
                "outputs": [{"name": "y", "dtype": "float32", "shape": ["N", 3]}],
                "target": kind,
                "engine": {"kind": kind, "files": [name], "settings": {"model": name, **more}},
            }
        return path

    return make


@pytest.fixture
def host(sshd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Name a device with this Python, which another user may not read: the server lets ourselves in."""

    def name(python: str = sys.executable, **entry: object) -> str:
        script = tmp_path / "python3"
        script.write_text(f'#!/bin/sh\nexec {python} "$@"\n')
        script.chmod(0o755)
        address = sshd.address().replace(f"//{sshd.user}@", f"//{getpass.getuser()}@")
        devices = tmp_path / "devices.toml"
        told = {"address": address, "runner": script, "folder": tmp_path / "sent", **entry}
        devices.write_text("\n".join(["[host]", *(f'{key} = "{value}"' for key, value in told.items())]))
        monkeypatch.setenv("EDGEWISE_DEVICES", str(devices))
        return "host"

    return name


@pytest.fixture
def trtexec(agents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for NVIDIA's program, where edgewise looks for it."""
    monkeypatch.setenv("EDGEWISE_AGENTS", str(agents))
    program = tmp_path / "trtexec"
    program.write_text(_TRTEXEC.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setitem(trtexec_module._PROGRAMS, "tensorrt", (str(program),))
    return program


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    adb = shutil.which("adb")
    if adb is None:
        if "CI" in os.environ:
            pytest.fail("CI has adb")
        pytest.skip("needs adb")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
    monkeypatch.setenv("HOME", str(tmp_path))
    device = sibling("adbd").Adbd()
    try:
        subprocess.run([adb, "connect", f"127.0.0.1:{device.port}"], check=True, capture_output=True, timeout=60)
        yield device
    finally:
        device.close()
        subprocess.run([adb, "kill-server"], check=False, capture_output=True, timeout=60)


@pytest.fixture
def power() -> Iterator[Any]:
    """The module ``power``, with ``begin(sign, sensor)``: lets a device take power while a process with that word runs; gives its folder."""
    module, over = sibling("power"), threading.Event()
    threads: list[threading.Thread] = []
    root = Path(tempfile.mkdtemp(prefix="edgewise-board-"))
    root.chmod(0o755)  # the device's user is another

    def begin(sign: str, sensor: str) -> Path:
        tell = getattr(module, sensor)
        tell(root, module.IDLE_W, 100.0)
        threads.append(threading.Thread(target=module.live, args=(root, sign, tell, over)))
        threads[0].start()
        return root

    module.begin, module.root = begin, root
    yield module
    over.set()
    for thread in threads:
        thread.join()
    shutil.rmtree(root)


@pytest.fixture
def small_disk(sshd: Server) -> Iterator[Path]:
    """A folder of the device with room for 64 KiB."""
    folder = sshd.home / "small"
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,mode=777", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)
