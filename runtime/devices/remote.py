"""Check and measure a bundle on a device."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from edgewise.runtime.bundle import open_bundle
from edgewise.runtime.compare import TensorParity, parity_of_sums
from edgewise.runtime.devices.address import Address
from edgewise.runtime.devices.open import open_device
from edgewise.runtime.devices.runners import Order, runner_for
from edgewise.runtime.energy.account import energy_of
from edgewise.runtime.energy.meter_csv import read_meter
from edgewise.runtime.energy.sensors import IDLE_S
from edgewise.runtime.profile.result import make_profile, summarize
from edgewise.runtime.progress import Progress, silent


class _Watch:
    """Notes on this machine's clock, which a meter's record goes by, when the device rested and when it began to measure."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.idle = (0.0, 0.0)
        self.began: float | None = None

    def rest(self) -> None:
        begin = time.time()
        time.sleep(IDLE_S)
        self.idle = (begin, time.time())

    def __call__(self, task: str, done: int, total: int | None) -> None:
        if task == "measure" and self.began is None:
            self.began = time.time()
        self._progress(task, done, total)


def _metered(address: Address, watch: _Watch, measured: dict[str, Any]) -> dict[str, Any] | str:
    if watch.began is None:
        return "the device did not say when it began to measure"
    # A program that says when it ended knows better than we when it began.
    window = measured.get("host_window") or (watch.began, watch.began + measured["wall_s"])
    samples = read_meter(Path(address.meter))
    method = f"external meter ({Path(address.meter).name}), times of the host to within the connection's delay"
    return energy_of(samples, window, watch.idle, measured["count"], counts=False, method=method)


def profile_remote(
    path: Path | str, address: Address, order: Order, progress: Progress = silent
) -> tuple[dict[str, Any], list[TensorParity]]:
    """Measure there; gives a profile as :func:`edgewise.runtime.profile.profile` does, and how the outputs agree with the reference.

    Raises:
        DeviceError: unreachable, or the device cannot run the bundle.
        RunError: not a bundle.
    """
    bundle = open_bundle(path)
    runner = runner_for(bundle, address)
    progress("connect", 0, None)
    watch = _Watch(progress)
    with open_device(address) as device:
        if address.meter and not order.check_only:
            watch.rest()
        measured = runner.measure(device, address, bundle, order, watch)
    parities = [parity_of_sums(entry, measured["samples"]) for entry in measured["sums"]]
    if order.check_only:
        return {"engine": measured["engine"], "samples": measured["samples"]}, parities
    energy = _metered(address, watch, measured) if address.meter else measured["energy"]
    where = {
        "reached": address.text,
        "triple": measured["triple"],
        "variants": _summarized(measured.get("variants", [])),
        "cold": measured.get("cold"),
    }
    return make_profile(measured, order.threads, energy, bundle) | where, parities


def _summarized(variants: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the engine takes under other settings; those that it refused say why."""
    return [
        variant if "error" in variant else variant | {"latency_ms": summarize(variant.pop("runs_ms"))}
        for variant in variants
    ]
