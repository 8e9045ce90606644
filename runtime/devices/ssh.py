"""Devices over SSH, with asyncssh: keys, agent, ``~/.ssh/config`` and ``known_hosts`` as OpenSSH has them; never a password."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any, TypeVar

from edgewise.runtime.devices.address import Address
from edgewise.runtime.devices.errors import DeviceError, vanished
from edgewise.runtime.devices.shell import Finished, Lines
from edgewise.runtime.extras import needs

_CONNECT_S, _ALIVE_EVERY_S, _ALIVE_MISSES = 15, 5, 3
_CLOSE_S = 5
T = TypeVar("T")


class SshChannel:
    """An SSH connection. asyncssh lives on an event loop in a thread of its own, so that callers need none."""

    def __init__(self, address: Address) -> None:
        self.where = address.text
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="edgewise-ssh", daemon=True)
        self._thread.start()
        self._connection: Any = None
        try:
            self._connection = self._wait(_connect(address))
        except BaseException:
            self._stop()
            raise

    def execute(
        self, command: str, *, feed: Iterable[bytes] | None, on_line: Lines | None, timeout_s: float | None
    ) -> Finished:
        """See :class:`~edgewise.runtime.devices.shell.Channel`."""
        return self._wait(self._execute(command, feed, on_line, timeout_s))

    def close(self) -> None:
        """End the connection; programs that still run there end with it."""
        if self._connection is not None:
            self._connection, connection = None, self._connection
            self._wait(_close(connection))
        self._stop()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError as error:
            raise vanished(self.where, "the connection was closed") from error
        except BaseException:
            future.cancel()
            raise

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _execute(
        self, command: str, feed: Iterable[bytes] | None, on_line: Lines | None, timeout_s: float | None
    ) -> Finished:
        import asyncssh

        try:
            async with asyncio.timeout(timeout_s), self._connection.create_process(command, encoding=None) as process:
                writing = asyncio.ensure_future(_feed(process.stdin, feed))
                out, err = await asyncio.gather(_read(process.stdout, on_line), process.stderr.read())
                await process.wait_closed()
                writing.cancel()
                status = process.returncode
        except TimeoutError as error:
            raise DeviceError(
                "the device takes too long", where=self.where, found=f"no end after {timeout_s:g} s", expected="an answer by then",
                fix="Check what else runs there, and run the command again",
            ) from error  # fmt: skip
        except (asyncssh.Error, OSError) as error:
            raise vanished(self.where, _reason(error)) from error
        if status is None:
            raise vanished(self.where, "the connection was lost while a command ran")
        return Finished(status, out, err.decode("utf-8", "replace"))


async def _connect(address: Address) -> Any:
    with needs("devices"):
        import asyncssh
    options: dict[str, Any] = {"port": address.port, "username": address.user, "known_hosts": address.known_hosts}
    if address.key:
        # Only this key: an agent full of others would use up the server's patience.
        options |= {"client_keys": [address.key], "agent_path": None}
    try:
        return await asyncssh.connect(
            address.host,
            **{key: value for key, value in options.items() if value or key == "agent_path"},
            preferred_auth="publickey",
            connect_timeout=_CONNECT_S,
            login_timeout=_CONNECT_S,
            keepalive_interval=_ALIVE_EVERY_S,
            keepalive_count_max=_ALIVE_MISSES,
        )
    except (asyncssh.Error, OSError, ValueError) as error:
        raise _refused(address, error) from error


def _refused(address: Address, error: Exception) -> DeviceError:
    import asyncssh

    known = address.known_hosts or "~/.ssh/known_hosts"
    where, found = address.text, _reason(error)
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return DeviceError(
            "the device's host key is not known", where=where, found=found, expected=f"its key in {known}",
            fix=f"Connect once with `ssh -p {address.port or 22} {address.host}` and compare the fingerprint, or add the key with ssh-keyscan",
        )  # fmt: skip
    if isinstance(error, asyncssh.PermissionDenied):
        return DeviceError(
            "the device refuses the key", where=where, found=found, expected="a key that its authorized_keys lists",
            fix="Name another with ?key=FILE, or add the public key there with ssh-copy-id",
        )  # fmt: skip
    if isinstance(error, asyncssh.KeyImportError | asyncssh.KeyEncryptionError) or _concerns_key(error, address):
        return DeviceError(
            "cannot read the private key", where=address.key or "~/.ssh", found=found, expected="a private key without a passphrase",
            fix="Check the path; load a key with a passphrase into ssh-agent and leave ?key= out",
        )  # fmt: skip
    return DeviceError(
        "cannot reach the device", where=where, found=found, expected="an SSH server there",
        fix="Check that it is on, its name and port, and that `ssh` gets through",
    )  # fmt: skip


def _concerns_key(error: Exception, address: Address) -> bool:
    """Whether it is the key's file that cannot be read."""
    name = getattr(error, "filename", None)
    return bool(address.key) and name is not None and Path(str(name)) == Path(address.key)


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (
        " ".join((getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)).split())
        or type(error).__name__
    )


async def _feed(stdin: Any, feed: Iterable[bytes] | None) -> None:
    """Write, then end stdin; with None leave it open."""
    if feed is None:
        return
    try:
        for chunk in feed:
            stdin.write(chunk)
            await stdin.drain()
        stdin.write_eof()
    except (OSError, asyncio.IncompleteReadError):
        return  # the command ended before it had read all: its status says why


async def _read(stdout: Any, on_line: Lines | None) -> bytes:
    if on_line is None:
        data: bytes = await stdout.read()
        return data
    pending = b""
    while chunk := await stdout.read(1 << 16):
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            on_line(line.decode("utf-8", "replace"))
    if pending:
        on_line(pending.decode("utf-8", "replace"))
    return b""


async def _close(connection: Any) -> None:
    connection.close()
    try:
        await asyncio.wait_for(connection.wait_closed(), _CLOSE_S)
    except TimeoutError:
        connection.abort()
