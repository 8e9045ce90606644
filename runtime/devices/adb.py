"""Devices at the end of the Android debug bridge, through the real ``adb`` client."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
from collections.abc import Iterable
from typing import IO, cast

from edgewise.runtime.devices.address import Address
from edgewise.runtime.devices.errors import DeviceError, vanished
from edgewise.runtime.devices.shell import Finished, Lines

FOLDER = "/data/local/tmp/edgewise"  # the one place where Android lets the shell's user start programs
_CONNECT_S = 15
# The client's own exit status is 0 when the device vanishes, so the device says itself that a command has ended.
_ENDED = "edgewise-ended"
_TOLD = "( {command}\n); s=$?; echo {ended} $s >&2; exit $s"


class AdbChannel:
    """The shell of one Android device; each command is a process of the client."""

    def __init__(self, address: Address) -> None:
        self.where = address.text
        self._program = shutil.which("adb") or ""
        self._serial = address.serial
        if not self._program:
            raise DeviceError(
                "cannot reach the device", where=self.where, found="no program adb on this machine",
                expected="the Android debug bridge", fix="Install it (on Debian: apt-get install adb)",
            )  # fmt: skip
        self._check()

    def execute(
        self, command: str, *, feed: Iterable[bytes] | None, on_line: Lines | None, timeout_s: float | None
    ) -> Finished:
        """See :class:`~edgewise.runtime.devices.shell.Channel`."""
        pipe = subprocess.PIPE
        told = _TOLD.format(command=command, ended=_ENDED)
        arguments = [self._program, "-s", self._serial, "shell", "-T", told]
        with subprocess.Popen(arguments, stdin=pipe, stdout=pipe, stderr=pipe) as process:
            late = threading.Event()

            def end() -> None:
                late.set()
                process.kill()

            timer = threading.Timer(timeout_s or threading.TIMEOUT_MAX, end)
            timer.daemon = True
            timer.start()
            try:
                out, err = _converse(process, feed, on_line)
            except BaseException:
                process.kill()
                raise
            finally:
                timer.cancel()
        return self._finished(out, err, timeout_s if late.is_set() else None)

    def close(self) -> None:
        """Nothing stays open between commands."""

    def _finished(self, out: bytes, err: str, over_s: float | None) -> Finished:
        if over_s is not None:
            raise DeviceError(
                "the device takes too long", where=self.where, found=f"no end after {over_s:g} s", expected="an answer by then",
                fix="Check what else runs there, and run the command again",
            )  # fmt: skip
        said, ended, status = err.rpartition(f"{_ENDED} ")
        if not ended or not status.strip().isdecimal():
            raise vanished(self.where, " ".join(err.split()) or "the connection was lost while a command ran")
        return Finished(int(status), out, said)

    def _check(self) -> None:
        try:
            told = subprocess.run(
                [self._program, "-s", self._serial, "get-state"], capture_output=True, text=True, timeout=_CONNECT_S, check=False
            )  # fmt: skip
            found = " ".join((told.stdout if told.returncode == 0 else told.stderr).split())
        except subprocess.TimeoutExpired:
            found = f"no answer from adb in {_CONNECT_S} s"
        if found != "device":
            raise DeviceError(
                "cannot reach the device", where=self.where, found=found or "nothing", expected="state 'device' in `adb devices`",
                fix="Plug it in, allow USB debugging on its screen, and check the serial with `adb devices`",
            )  # fmt: skip


def _converse(
    process: subprocess.Popen[bytes], feed: Iterable[bytes] | None, on_line: Lines | None
) -> tuple[bytes, str]:
    """Feed stdin and drain both outputs at once."""
    said: list[bytes] = []
    stdin, stdout, stderr = (cast(IO[bytes], stream) for stream in (process.stdin, process.stdout, process.stderr))
    helpers = [threading.Thread(target=lambda: said.append(stderr.read()), daemon=True)]
    if feed is not None:
        helpers.append(threading.Thread(target=_write, args=(stdin, feed), daemon=True))
    for helper in helpers:
        helper.start()
    out = b""
    if on_line is None:
        out = stdout.read()
    else:
        for line in stdout:
            on_line(line.decode("utf-8", "replace").rstrip("\r\n"))
    for helper in helpers:
        helper.join()
    return out, b"".join(said).decode("utf-8", "replace")


def _write(stdin: IO[bytes], feed: Iterable[bytes]) -> None:
    # A command that ended before it had read all: its status says why.
    with contextlib.suppress(BrokenPipeError), stdin:
        for chunk in feed:
            stdin.write(chunk)
