"""Core ML packages on a Mac: Core ML itself runs them, through coremltools in a Python there."""

from __future__ import annotations

from typing import Any

from edgewise.runtime.bundle import Bundle
from edgewise.runtime.devices.address import Address
from edgewise.runtime.devices.errors import DeviceError
from edgewise.runtime.devices.python import run_there
from edgewise.runtime.devices.runners import Order
from edgewise.runtime.devices.shell import Shell
from edgewise.runtime.progress import Progress

# Each is measured beside the bundle's own choice, so that a profile says what every unit would take.
_UNITS = ("CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE")
not_over_adb = "Core ML is Apple's"


def measure(device: Shell, address: Address, bundle: Bundle, order: Order, progress: Progress) -> dict[str, Any]:
    """See :class:`~edgewise.runtime.devices.runners.Runner`."""
    system = device.ask("uname -sm")
    if not system.startswith("Darwin") and not device.runner:
        raise DeviceError(
            "the device has no Core ML", where=device.where, found=f"uname says {system!r}", expected="a Mac (Darwin)",
            fix="Name a Mac; on other systems leave --device out, and the package is evaluated operation by operation",
        )  # fmt: skip
    measured = run_there(device, address, bundle, order, [{"compute_units": units} for units in _UNITS], progress)
    return measured | {"triple": system}
