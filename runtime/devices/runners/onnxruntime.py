"""ONNX Runtime bundles on a device that has a Python with onnxruntime."""

from __future__ import annotations

from typing import Any

from edgewise.runtime.bundle import Bundle
from edgewise.runtime.devices.address import Address
from edgewise.runtime.devices.python import run_there
from edgewise.runtime.devices.runners import Order
from edgewise.runtime.devices.shell import Shell
from edgewise.runtime.progress import Progress


def measure(device: Shell, _: Address, bundle: Bundle, order: Order, progress: Progress) -> dict[str, Any]:
    """See :class:`~edgewise.runtime.devices.runners.Runner`."""
    measured = run_there(device, bundle, order, [], progress, modules=("onnxruntime",))
    return measured | {"triple": device.ask("uname -sm")}
