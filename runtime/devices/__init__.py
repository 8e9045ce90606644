"""Devices: where a bundle runs. This machine, one reached over SSH, or one at the end of adb; a ``devices.toml`` names them."""

from __future__ import annotations

from edgewise.runtime.devices.address import Address, parse_address
from edgewise.runtime.devices.errors import DeviceError
from edgewise.runtime.devices.open import open_device
from edgewise.runtime.devices.shell import Finished, Shell

__all__ = ["Address", "DeviceError", "Finished", "Shell", "open_device", "parse_address"]
