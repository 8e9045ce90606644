"""What goes wrong with a device."""

from __future__ import annotations

from edgewise.runtime.errors import RunError


class DeviceError(RunError):
    """A device that cannot be reached, refuses, or vanished."""


def vanished(where: str, found: str) -> DeviceError:
    """The connection broke in the middle."""
    return DeviceError(
        "the device is gone", where=where, found=found, expected="a connection that holds until the work is done",
        fix="Check power and network, then run the command again: what was sent already is not sent again",
    )  # fmt: skip
