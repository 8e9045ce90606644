"""Check and measure a bundle on a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgewise.runtime.bundle import open_bundle
from edgewise.runtime.compare import TensorParity, parity_of_sums
from edgewise.runtime.devices.address import Address
from edgewise.runtime.devices.open import open_device
from edgewise.runtime.devices.runners import Order, runner_for
from edgewise.runtime.profile.result import make_profile
from edgewise.runtime.progress import Progress, silent


def profile_remote(
    path: Path | str, address: Address, order: Order, progress: Progress = silent
) -> tuple[dict[str, Any], list[TensorParity]]:
    """Measure there; gives a profile as :func:`edgewise.runtime.profile.profile` does, and how the outputs agree with the reference.

    Raises:
        DeviceError: unreachable, or the device cannot run the bundle.
        RunError: not a bundle.
    """
    bundle = open_bundle(path)
    runner = runner_for(bundle)
    progress("connect", 0, None)
    with open_device(address) as device:
        measured = runner.measure(device, address, bundle, order, progress)
    parities = [parity_of_sums(entry, measured["samples"]) for entry in measured["sums"]]
    if order.check_only:
        return {"engine": measured["engine"], "samples": measured["samples"]}, parities
    return make_profile(measured, order.threads) | {"reached": address.text, "triple": measured["triple"]}, parities
