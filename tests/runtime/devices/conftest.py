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
import tempfile
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
from edgewise.targets.base import BuildRequest
from edgewise.targets.cpu.native.build import build_native
from edgewise.targets.devices import find_device

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
