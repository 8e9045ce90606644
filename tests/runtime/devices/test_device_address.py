"""What ``--device`` takes, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewise.runtime.devices import DeviceError, parse_address
from edgewise.runtime.devices.address import known_devices

_LIST = """
[pi]
address = "ssh://pi@board?key=/keys/pi"
triple = "aarch64-linux-musl"
runner = "qemu-aarch64-static -cpu max"
meter = "meter.csv"

[phone]
address = "adb:R58M12345"
"""


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "devices.toml"
    file.write_text(_LIST)
    monkeypatch.setenv("EDGEWISE_DEVICES", str(file))
    return file


def test_ssh_addresses_are_taken_apart() -> None:
    address = parse_address("ssh://pi@board.local:2222?key=~/id&known_hosts=/etc/known")
    assert (address.kind, address.user, address.host, address.port) == ("ssh", "pi", "board.local", 2222)
    assert address.key == str(Path.home() / "id")
    assert address.known_hosts == "/etc/known"
    short = parse_address("ssh://board")
    assert (short.user, short.port, short.key) == ("", None, "")


def test_local_and_adb() -> None:
    assert parse_address("local").kind == "local"
    assert parse_address("adb:192.168.1.2:5555").serial == "192.168.1.2:5555"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ssh://pi:secret@board", "a password, which others would see"),
        ("ssh://", "no host"),
        ("ssh://board:70000", "Port out of range"),
        ("ssh://board/etc", "a path '/etc'"),
        ("ssh://board?pass=1", "the unknown key 'pass'"),
        ("adb:", "the serial ''"),
        ("adb:a b", "the serial 'a b'"),
        ("nowhere", "'nowhere'"),
    ],
)
def test_other_forms_are_refused(text: str, found: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(DeviceError) as caught:
        parse_address(text)
    assert found in caught.value.found
    assert caught.value.expected and caught.value.fix
    assert "secret" not in str(caught.value)


def test_a_list_names_devices(listed: Path) -> None:
    pi = parse_address("pi")
    assert (pi.text, pi.kind, pi.host, pi.key) == ("pi", "ssh", "board", "/keys/pi")
    assert pi.runner == ("qemu-aarch64-static", "-cpu", "max")
    assert pi.meter == str(listed.parent / "meter.csv")
    assert list(known_devices()) == ["pi", "phone"]
    with pytest.raises(DeviceError, match="one of pi, phone"):
        parse_address("tablet")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("pi = 3", "no address"),
        ("[pi]\naddress = 'ssh://b'\ncolour = 'red'", "the unknown key 'colour'"),
        ("[pi]\naddress = 'ssh://b'\nrunner = 3", "runner = 3"),
        ("[pi]\naddress = 'other'", "the address 'other'"),
        ("[pi", "Expected ']'"),
    ],
)
def test_a_bad_list_is_refused_by_its_place(listed: Path, text: str, found: str) -> None:
    listed.write_text(text)
    with pytest.raises(DeviceError) as caught:
        known_devices()
    assert found in caught.value.found
    assert str(listed) in caught.value.where


def test_a_list_that_is_not_there_is_said_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEWISE_DEVICES", str(tmp_path / "none.toml"))
    with pytest.raises(DeviceError, match="No such file"):
        known_devices()
