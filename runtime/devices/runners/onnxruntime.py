"""ONNX Runtime bundles on a device that has a Python with onnxruntime."""

from __future__ import annotations

from typing import Any

from edgewise.runtime.bundle import Bundle
from edgewise.runtime.devices.address import Address
from edgewise.runtime.devices.python import run_there
from edgewise.runtime.devices.runners import Order
from edgewise.runtime.devices.shell import Shell
from edgewise.runtime.progress import Progress

not_over_adb = "ONNX Runtime runs in a Python there, and Android has none"


def measure(device: Shell, address: Address, bundle: Bundle, order: Order, progress: Progress) -> dict[str, Any]:
    """See :class:`~edgewise.runtime.devices.runners.Runner`."""
    measured = run_there(device, address, bundle, order, [], progress, modules=("onnxruntime",))
    return measured | {"triple": device.ask("uname -sm")}
