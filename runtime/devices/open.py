"""From an address to a device that answers."""

from __future__ import annotations

from edgewise.runtime.devices.adb import FOLDER as ADB_FOLDER
from edgewise.runtime.devices.adb import AdbChannel
from edgewise.runtime.devices.address import Address
from edgewise.runtime.devices.shell import Channel, Shell
from edgewise.runtime.devices.ssh import SshChannel


def open_device(address: Address) -> Shell:
    """Connect; close it, or use it as a context manager.

    Raises:
        DeviceError: unreachable, an unknown host key, a key that is refused.
        MissingExtraError: asyncssh is not installed.
    """
    channel: Channel = AdbChannel(address) if address.kind == "adb" else SshChannel(address)
    folder = address.folder or (ADB_FOLDER if address.kind == "adb" else "")
    return Shell(channel, folder=folder, runner=address.runner)
