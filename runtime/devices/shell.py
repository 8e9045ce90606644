"""A device as a POSIX shell: run programs there that do not outlive us, send files by their content, fetch files."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgewise.runtime.devices.errors import DeviceError
from edgewise.runtime.progress import Progress, silent
from edgewise.runtime.storage import sha256_of, whole_file

Lines = Callable[[str], None]

_CHUNK_BYTES = 1 << 18
_QUICK_S = 30.0
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127
# stdin stays open for as long as we are there. When it ends early, the program and all that it started are ended: nothing
# is left behind when the connection breaks. `setsid` (util-linux, busybox, toybox) or job control (macOS) makes the group.
_SUPERVISED = """exec 3<&0
if command -v setsid >/dev/null 2>&1; then setsid sh -c {command} </dev/null 3<&- & else set -m; sh -c {command} </dev/null 3<&- & fi
p=$!
( while read -r _ <&3; do :; done; kill -9 -$p || kill -9 $p ) >/dev/null 2>&1 &
w=$!
exec 3<&-
wait $p
s=$?
kill $w >/dev/null 2>&1
exit $s"""


@dataclass(frozen=True)
class Finished:
    """A program that ended: exit status (negative: a signal), what it wrote."""

    status: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        """stdout, without white space around it."""
        return self.stdout.decode("utf-8", "replace").strip()


class Channel(Protocol):
    """A way to have a command line interpreted by the device's ``sh``."""

    where: str

    def execute(
        self, command: str, *, feed: Iterable[bytes] | None, on_line: Lines | None, timeout_s: float | None
    ) -> Finished:
        """Run a command. ``feed`` goes to its stdin, which then ends; None: stdin is empty and open until the command has ended.

        Lines of stdout go to ``on_line`` as they come, and are not kept then.

        Raises:
            DeviceError: the connection breaks, or the time is over.
        """

    def close(self) -> None:
        """Let go of the device."""


class Shell:
    """A device through a channel. A context manager: leaving it closes the channel.

    Attributes:
        where: how the device is named to the user.
        runner: what starts programs that were pushed, such as an emulator; usually nothing.
    """

    def __init__(self, channel: Channel, *, folder: str, runner: Sequence[str] = ()) -> None:
        self.where, self.runner = channel.where, tuple(runner)
        self._channel, self._folder, self._store = channel, folder, ""

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the device."""
        self._channel.close()

    def run(
        self, command: Sequence[str] | str, *, on_line: Lines | None = None, timeout_s: float | None = None
    ) -> Finished:
        """Run a program (a list of words) or a line of shell; it is killed with all its children when we go or the time is over.

        Raises:
            DeviceError: the device vanishes, or the time is over. A status other than 0 is the caller's affair.
        """
        line = command if isinstance(command, str) else shlex.join(command)
        supervised = _SUPERVISED.format(command=shlex.quote(line))
        return self._channel.execute(supervised, feed=None, on_line=on_line, timeout_s=timeout_s)

    def ask(self, command: str) -> str:
        """What a short line of shell prints.

        Raises:
            DeviceError: the device vanishes, or the line fails.
        """
        finished = self._channel.execute(command, feed=(), on_line=None, timeout_s=_QUICK_S)
        if finished.status != 0:
            raise self.failed(command, finished)
        return finished.text

    def push(self, file: Path, *, executable: bool = False, progress: Progress = silent) -> str:
        """Send a file, unless the device has it: files lie under their digest. An interrupted transfer is taken up where it stopped.

        Returns:
            The path on the device.

        Raises:
            DeviceError: the device vanishes, is full, or what arrived is something else.
        """
        digest = sha256_of(file)
        target = f"{self.store}/{digest}"
        quoted, mode = shlex.quote(target), "700" if executable else "600"
        if self.ask(f"test -f {quoted} && echo there || echo missing") == "there":
            return target
        self._send(file, f"{target}.part", progress)
        check = f"(sha256sum {quoted}.part 2>/dev/null || shasum -a 256 {quoted}.part) | cut -c 1-64"
        if (arrived := self.ask(check)) != digest:
            self.ask(f"rm -f {quoted}.part")
            raise DeviceError(
                "a file arrived otherwise than it was sent", where=f"{self.where}, {target}", found=f"sha256 {arrived or 'unknown'}",
                expected=digest, fix="Run the command again; if it happens again, check the device's disk and its sha256sum",
            )  # fmt: skip
        self.ask(f"chmod {mode} {quoted}.part && mv -f {quoted}.part {quoted}")
        return target

    def pull(self, remote: str, local: Path) -> None:
        """Fetch a file.

        Raises:
            DeviceError: it is not there, or the device vanishes.
        """
        finished = self._channel.execute(f"cat {shlex.quote(remote)}", feed=(), on_line=None, timeout_s=None)
        if finished.status != 0:
            raise self.failed(f"cat {remote}", finished)
        with whole_file(local) as draft:
            draft.write_bytes(finished.stdout)

    @property
    def store(self) -> str:
        """The folder on the device where files lie under their digest; made when it is first asked for."""
        if not self._store:
            wanted = self._folder or '"${XDG_CACHE_HOME:-$HOME/.cache}/edgewise"'
            folder = shlex.quote(self._folder) if self._folder else wanted
            self._store = self.ask(f"umask 077; mkdir -p {folder}/store && cd {folder}/store && pwd")
        return self._store

    def failed(self, command: str, finished: Finished) -> DeviceError:
        """The error for a command that should have worked."""
        said = " ".join(finished.stderr.split()) or f"exit status {finished.status}"
        if "No space left" in said or "ENOSPC" in said or "quota exceeded" in said:
            return DeviceError(
                "the device is full", where=self.where, found=said, expected="room for the engine and its reference data",
                fix="Remove files there (what edgewise sent lies in ~/.cache/edgewise), or name another folder in devices.toml",
            )  # fmt: skip
        return DeviceError(
            "the device refuses a command", where=f"{self.where}, {command.splitlines()[0][:80]}", found=said,
            expected="exit status 0", fix="Run the command there by hand to see what is missing",
        )  # fmt: skip

    def _send(self, file: Path, target: str, progress: Progress) -> None:
        size, quoted = file.stat().st_size, shlex.quote(target)
        start = int(self.ask(f"cat {quoted} 2>/dev/null | wc -c"))
        if start > size:  # not ours: begin anew
            self.ask(f"rm -f {quoted}")
            start = 0
        finished = self._channel.execute(
            f"umask 077; cat >> {quoted}",
            feed=_chunks(file, start, lambda sent: progress("send to the device", sent, size)),
            on_line=None,
            timeout_s=None,
        )
        if finished.status != 0:
            raise self.failed(f"cat >> {target}", finished)


def _chunks(file: Path, start: int, tell: Callable[[int], None]) -> Iterator[bytes]:
    with file.open("rb") as source:
        source.seek(start)
        while chunk := source.read(_CHUNK_BYTES):
            tell(source.tell())
            yield chunk


def cannot_start(finished: Finished) -> bool:
    """Whether a shell says that a program could not be started at all: not found, or built for another processor."""
    return finished.status in (_NOT_EXECUTABLE, _NOT_FOUND)
