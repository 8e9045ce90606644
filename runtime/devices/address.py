"""What ``--device`` takes: ``local``, ``ssh://user@host[:port][?key=FILE]``, ``adb:SERIAL``, or a name out of ``devices.toml``."""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from edgewise.runtime.devices.errors import DeviceError

LOCAL = "local"
_FILE = "devices.toml"
_SERIAL = re.compile(r"[\w.:\[\]-]+")
_SSH_KEYS = ("key", "known_hosts")
# What an entry of devices.toml may say beside its address.
_ENTRY_KEYS = ("address", "summary", "triple", "runner", "folder", "profile", "meter", "sensors")


@dataclass(frozen=True)
class Address:
    """Where a device is, and what is known about it.

    Attributes:
        text: as it was given; how it is named to the user.
        kind: ``local``, ``ssh`` or ``adb``.
        host: of ssh: name or number.
        port: of ssh; None: what ~/.ssh/config says, else 22.
        user: of ssh; empty: what ~/.ssh/config says, else the own name.
        key: of ssh: file of the private key; empty: those of ~/.ssh and of the agent.
        known_hosts: of ssh: file; empty: ~/.ssh/known_hosts.
        serial: of adb, as ``adb devices`` lists it.
        triple: for which the agent is built, such as ``aarch64-linux-musl``; empty: what the device's ``uname -m`` says.
        runner: what starts a program there, such as ``("qemu-aarch64-static",)``.
        folder: where files go on the device; empty: ``~/.cache/edgewise``, on Android ``/data/local/tmp/edgewise``.
        profile: the device profile that engines are built for.
        meter: a CSV file of an external power meter, on this machine.
        sensors: the folder on the device that holds ``sys`` with its power sensors; empty: ``/``.
    """

    text: str
    kind: str
    host: str = ""
    port: int | None = None
    user: str = ""
    key: str = ""
    known_hosts: str = ""
    serial: str = ""
    triple: str = ""
    runner: tuple[str, ...] = ()
    folder: str = ""
    profile: str = ""
    meter: str = ""
    sensors: str = ""


def parse_address(text: str) -> Address:
    """Read what ``--device`` was given.

    >>> parse_address("ssh://pi@board:2222?key=~/.ssh/pi").port
    2222

    Raises:
        DeviceError: none of the forms, a name that no ``devices.toml`` has, a password, or an unknown key.
    """
    if text == LOCAL:
        return Address(text, LOCAL)
    if text.startswith("ssh://"):
        return _ssh(text)
    if text.startswith("adb:"):
        serial = text.removeprefix("adb:")
        if not _SERIAL.fullmatch(serial):
            raise _malformed(text, f"the serial {serial!r}", "adb:SERIAL, as `adb devices` lists it")
        return Address(text, "adb", serial=serial)
    return _named(text)


def known_devices() -> dict[str, Address]:
    """Every entry of the ``devices.toml`` that counts, by name; empty without one.

    Raises:
        DeviceError: the file cannot be read, or says something that it may not.
    """
    file = devices_file()
    if file is None:
        return {}
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DeviceError(
            "cannot read the list of devices", where=str(file), found=str(error), expected="TOML, one table per device",
            fix="Correct the file; docs/devices.md shows one",
        ) from error  # fmt: skip
    return {name: _entry(name, entry, file) for name, entry in table.items()}


def devices_file() -> Path | None:
    """``$EDGEWISE_DEVICES``; else ``devices.toml`` here, else in ~/.config/edgewise; None where there is none."""
    if asked := os.environ.get("EDGEWISE_DEVICES"):
        return Path(asked)
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return next((file for file in (Path(_FILE), config / "edgewise" / _FILE) if file.is_file()), None)


def _ssh(text: str) -> Address:
    form = "ssh://user@host[:port][?key=FILE]"
    try:
        parts = urlsplit(text)
        port, host = parts.port, parts.hostname
    except ValueError as error:
        raise _malformed(text, str(error), form) from error
    if parts.password is not None:
        hidden = text.replace(f":{parts.password}@", ":…@")
        raise _malformed(hidden, "a password, which others would see on the command line", f"{form} with a key")
    if not host or parts.path not in ("", "/"):
        raise _malformed(text, "no host" if not host else f"a path {parts.path!r}", form)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := [key for key in options if key not in _SSH_KEYS]:
        raise _malformed(text, f"the unknown key {unknown[0]!r}", f"keys among {', '.join(_SSH_KEYS)}")
    files = {key: str(Path(value).expanduser()) for key, value in options.items() if value}
    key, known_hosts = files.get("key", ""), files.get("known_hosts", "")
    user = unquote(parts.username or "")
    return Address(text, "ssh", host=host, port=port, user=user, key=key, known_hosts=known_hosts)


def _named(text: str) -> Address:
    known = known_devices()
    if text not in known:
        listed = f", or one of {', '.join(known)} from {devices_file()}" if known else ""
        raise DeviceError(
            "unknown device", where=f"--device {text}", found=repr(text),
            expected=f"local, ssh://user@host[:port][?key=FILE], adb:SERIAL{listed}",
            fix="Correct it, or name it in a devices.toml (docs/devices.md)",
        )  # fmt: skip
    return known[text]


def _entry(name: str, entry: Any, file: Path) -> Address:
    where = f"{file}, [{name}]"
    if not isinstance(entry, Mapping) or not isinstance(entry.get("address"), str):
        raise _bad_entry(where, "no address", 'address = "ssh://user@host"')
    if unknown := [key for key in entry if key not in _ENTRY_KEYS]:
        raise _bad_entry(where, f"the unknown key {unknown[0]!r}", f"keys among {', '.join(_ENTRY_KEYS)}")
    if wrong := [key for key in _ENTRY_KEYS if not isinstance(entry.get(key, ""), str)]:
        raise _bad_entry(where, f"{wrong[0]} = {entry[wrong[0]]!r}", "a string")
    if not entry["address"].startswith(("ssh://", "adb:")) and entry["address"] != LOCAL:
        raise _bad_entry(where, f"the address {entry['address']!r}", "local, ssh://… or adb:SERIAL")
    told = {key: entry.get(key, "") for key in ("triple", "folder", "profile", "sensors")}
    runner = tuple(shlex.split(entry.get("runner", "")))
    meter = str(file.parent / entry["meter"]) if entry.get("meter") else ""
    return replace(parse_address(entry["address"]), text=name, runner=runner, meter=meter, **told)


def _malformed(text: str, found: str, expected: str) -> DeviceError:
    return DeviceError(
        "cannot read the device's address", where=f"--device {text}", found=found, expected=expected, fix="Correct it"
    )


def _bad_entry(where: str, found: str, expected: str) -> DeviceError:
    return DeviceError(
        "cannot read the list of devices", where=where, found=found, expected=expected,
        fix="Correct the file; docs/devices.md shows one",
    )  # fmt: skip
