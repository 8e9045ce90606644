"""A phone for the real adb client: the device's side of the adb protocol over TCP, whose shell is this machine's ``sh``.

After AOSP's protocol.txt and the shell protocol v2: 24-byte headers, one stream per OPEN, every WRTE answered by an OKAY.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import threading
from typing import IO, cast

_VERSION, _MAX_DATA = 0x01000001, 1 << 18
_BANNER = b"device::ro.product.name=edgewise;ro.product.model=Test;ro.product.device=test;features=shell_v2,cmd"
_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)


class Adbd:
    """Listens on loopback; ``port`` is for ``adb connect``."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def vanish(self) -> None:
        """Break every connection, and with them the shells."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._connections.clear()

    def close(self) -> None:
        self._listener.close()
        self.vanish()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                threading.Thread(target=Connection(connection).serve, daemon=True).start()


class Connection:
    def __init__(self, line: socket.socket) -> None:
        self._line, self._lock = line, threading.Lock()
        self._streams: dict[int, ShellStream] = {}

    def send(self, command: bytes, a: int, b: int, data: bytes = b"") -> None:
        word = int.from_bytes(command, "little")
        with self._lock:
            self._line.sendall(
                struct.pack("<6I", word, a, b, len(data), sum(data) & 0xFFFFFFFF, word ^ 0xFFFFFFFF) + data
            )

    def serve(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                command, a, b, length, _, _ = struct.unpack("<4s5I", self._exactly(24))
                self._handle(command, a, b, self._exactly(length))
        for stream in self._streams.values():
            stream.end()

    def _handle(self, command: bytes, a: int, b: int, data: bytes) -> None:
        if command == b"CNXN":
            self.send(b"CNXN", _VERSION, _MAX_DATA, _BANNER)
        elif command == b"OPEN":
            service = data.rstrip(b"\0").decode()
            if not service.startswith("shell,v2"):
                self.send(b"CLSE", 0, a)
                return
            self.send(b"OKAY", a, a)
            self._streams[a] = ShellStream(self, a, service.partition(":")[2])
        elif command == b"WRTE":
            self._streams[b].feed(data)
            self.send(b"OKAY", b, a)
        elif command == b"OKAY" and b in self._streams:
            self._streams[b].acknowledged.release()
        elif command == b"CLSE" and b in self._streams:
            self._streams.pop(b).end()

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._line.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data


class ShellStream:
    """One command. Its id is the same on both sides."""

    def __init__(self, connection: Connection, number: int, command: str) -> None:
        self._connection, self._number, self._pending = connection, number, b""
        self.acknowledged = threading.Semaphore(1)
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            ["sh", "-c", command], stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
        )
        threading.Thread(target=self._relay, daemon=True).start()

    def feed(self, data: bytes) -> None:
        stdin = cast(IO[bytes], self._process.stdin)
        self._pending += data
        while len(self._pending) >= 5:
            kind, length = struct.unpack("<BI", self._pending[:5])
            if len(self._pending) < 5 + length:
                return
            payload, self._pending = self._pending[5 : 5 + length], self._pending[5 + length :]
            with contextlib.suppress(BrokenPipeError, ValueError):
                if kind == _STDIN:
                    stdin.write(payload)
                    stdin.flush()
                elif kind == _CLOSE_STDIN:
                    stdin.close()

    def end(self) -> None:
        """The other side is gone: stdin ends, and the shell's own process, as adbd does it."""
        with contextlib.suppress(OSError, ValueError):
            cast(IO[bytes], self._process.stdin).close()
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGHUP)

    def _relay(self) -> None:
        outputs = ((_STDOUT, self._process.stdout), (_STDERR, self._process.stderr))
        helpers = [threading.Thread(target=self._pump, args=output, daemon=True) for output in outputs]
        for helper in helpers:
            helper.start()
        for helper in helpers:
            helper.join()
        status = self._process.wait()
        with contextlib.suppress(OSError):
            self._write(_EXIT, bytes([status & 0xFF if status >= 0 else 128 - status]))
            self._connection.send(b"CLSE", self._number, self._number)

    def _pump(self, kind: int, stream: IO[bytes]) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(stream.fileno(), 1 << 15):
                self._write(kind, data)

    def _write(self, kind: int, data: bytes) -> None:
        self.acknowledged.acquire()
        self._connection.send(b"WRTE", self._number, self._number, struct.pack("<BI", kind, len(data)) + data)
