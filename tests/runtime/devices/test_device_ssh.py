"""The SSH transport against a real OpenSSH server."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgewise.runtime.devices import DeviceError, Shell, open_device, parse_address
from edgewise.runtime.devices import shell as shell_module
from edgewise.runtime.storage import sha256_of

pytestmark = pytest.mark.slow


@pytest.fixture
def device(sshd: Any) -> Iterator[Shell]:
    with open_device(parse_address(sshd.address())) as opened:
        yield opened


def test_commands_run_as_the_user_and_tell_their_status(device: Shell, sshd: Any) -> None:
    assert device.run(["id", "-un"]).text == sshd.user
    finished = device.run("echo out; echo err >&2; exit 3")
    assert (finished.status, finished.stdout, finished.stderr.strip()) == (3, b"out\n", "err")
    assert device.run(["printf", "%s", "a 'b' $HOME \\ ü"]).stdout.decode() == "a 'b' $HOME \\ ü"


def test_lines_come_while_the_program_runs(device: Shell) -> None:
    lines: list[tuple[str, float]] = []
    device.run("echo one; sleep 1; echo two", on_line=lambda line: lines.append((line, time.monotonic())))
    assert [line for line, _ in lines] == ["one", "two"]
    assert lines[1][1] - lines[0][1] > 0.5


def test_files_lie_under_their_digest_and_go_once(device: Shell, tmp_path: Path) -> None:
    file = tmp_path / "engine"
    file.write_bytes(bytes(range(256)) * 5000)
    told: list[int] = []
    remote = device.push(file, progress=lambda task, done, total: told.append(done))
    assert remote.endswith(f"/store/{sha256_of(file)}")
    assert told[-1] == file.stat().st_size
    told.clear()
    assert device.push(file, progress=lambda task, done, total: told.append(done)) == remote
    assert told == []
    device.pull(remote, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == file.read_bytes()


def test_an_interrupted_transfer_goes_on_where_it_stopped(device: Shell, tmp_path: Path) -> None:
    file = tmp_path / "engine"
    file.write_bytes(b"weights" * 200_000)
    part = f"{device.store}/{sha256_of(file)}.part"
    device.ask(f"printf 'weightsweights' > {part}")
    starts: list[int] = []
    device.push(file, progress=lambda task, done, total: starts.append(done))
    assert starts[0] == 14 + shell_module._CHUNK_BYTES
    # What lies there is not the beginning of the file: found out by the digest, and gone.
    other = tmp_path / "other"
    other.write_bytes(b"other" * 1000)
    device.ask(f"printf 'wrong' > {device.store}/{sha256_of(other)}.part")
    with pytest.raises(DeviceError, match="arrived otherwise"):
        device.push(other)
    assert device.push(other).endswith(sha256_of(other))


def test_a_full_disk_is_said_so(sshd: Any, small_disk: Path, tmp_path: Path) -> None:
    file = tmp_path / "engine"
    file.write_bytes(b"x" * 1_000_000)
    address = replace(parse_address(sshd.address()), folder=str(small_disk))
    with open_device(address) as device, pytest.raises(DeviceError, match="the device is full") as caught:
        device.push(file)
    assert "No space left" in caught.value.found


def running(sshd: Any, what: str) -> list[str]:
    found = subprocess.run(["pgrep", "-u", sshd.user, "-f", what], capture_output=True, text=True, check=False)
    return found.stdout.split()


def test_nothing_is_left_running_when_the_time_is_over(device: Shell, sshd: Any) -> None:
    with pytest.raises(DeviceError, match="the device takes too long"):
        device.run("sleep 1234 & sleep 1235", timeout_s=1)
    sshd.wait_for(lambda: not running(sshd, "sleep 123[45]"))
    assert device.run(["echo", "still there"]).text == "still there"


def test_a_device_that_vanishes_is_an_error_and_leaves_nothing_behind(sshd: Any) -> None:
    with open_device(parse_address(sshd.address())) as device:
        threading.Timer(1, sshd.cut).start()
        with pytest.raises(DeviceError, match="the device is gone"):
            device.run(["sleep", "4321"])
        sshd.wait_for(lambda: not running(sshd, "sleep 432[1]"))
        with pytest.raises(DeviceError, match="the device is gone"):
            device.ask("true")


def test_a_transfer_that_is_cut_goes_on_the_next_time(sshd: Any, tmp_path: Path) -> None:
    file = tmp_path / "engine"
    file.write_bytes(b"0123456789abcdef" * (1 << 19))
    cut = False

    def cut_once(task: str, done: int, total: int | None) -> None:
        nonlocal cut
        if not cut and any(part.stat().st_size for part in sshd.home.rglob("*.part")):  # sent is not yet written
            cut = True
            sshd.cut()

    with open_device(parse_address(sshd.address())) as device, pytest.raises(DeviceError, match="the device is gone"):
        device.push(file, progress=cut_once)
    starts: list[int] = []
    with open_device(parse_address(sshd.address())) as device:
        device.push(file, progress=lambda task, done, total: starts.append(done))
    assert shell_module._CHUNK_BYTES < starts[0] < file.stat().st_size


def test_a_wrong_key_is_refused_in_words(sshd: Any) -> None:
    with pytest.raises(DeviceError, match="the device refuses the key"):
        open_device(parse_address(sshd.address(key="other_key")))


def test_an_unknown_host_key_is_refused_in_words(sshd: Any) -> None:
    with pytest.raises(DeviceError, match="host key is not known") as caught:
        open_device(parse_address(sshd.address(known_hosts="nobody_known")))
    assert "nobody_known" in caught.value.expected and "fingerprint" in caught.value.fix


def test_a_key_that_cannot_be_read_is_said_so(sshd: Any, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="cannot read the private key"):
        open_device(parse_address(sshd.address(key="missing")))
    (sshd.folder / "no_key").write_text("not a key")
    with pytest.raises(DeviceError, match="cannot read the private key"):
        open_device(parse_address(sshd.address(key="no_key")))


def test_nobody_there() -> None:
    with pytest.raises(DeviceError, match="cannot reach the device"):
        open_device(parse_address("ssh://nobody@127.0.0.1:1"))
