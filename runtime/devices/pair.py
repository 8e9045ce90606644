"""Two bundles measured in turns on a device, so that whatever disturbs it meets both."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from edgewise.runtime.bundle import open_bundle
from edgewise.runtime.devices.address import Address
from edgewise.runtime.devices.open import open_device
from edgewise.runtime.devices.runners import Order, runner_for
from edgewise.runtime.profile.pair import compared
from edgewise.runtime.progress import Progress, silent

_TURN_S = 0.1
_ROUNDS = 12


def profile_pair_remote(
    a: Path | str,
    b: Path | str,
    address: Address,
    *,
    threads: int = 0,
    rounds: int | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure two bundles against each other there, over one connection.

    Each turn is a start of its own: load, warm-up until the latency settles, then at least 20 runs and 0.1 s; a round's value is the median
    run of a turn. They take turns in the order a b b a.

    Args:
        a: the bundle that the other is held against.
        b: the other.
        address: the device.
        threads: of both; 0 means all cores.
        rounds: how many turns each gets; None: 12.
        progress: told how far the work is.

    Returns:
        As :func:`edgewise.runtime.profile.pair.profile_pair`, with ``reached``: how the device was named.

    Raises:
        DeviceError: unreachable, or the device cannot run one of them.
        RunError: not a bundle.
    """
    bundles = [open_bundle(path) for path in (a, b)]
    runners = [runner_for(bundle, address) for bundle in bundles]
    order = Order(threads=threads, min_time_s=_TURN_S, energy=False)
    turns: tuple[list[float], list[float]] = ([], [])
    count = rounds or _ROUNDS
    measured: dict[str, Any] = {}
    progress("connect", 0, None)
    with open_device(address) as device:
        for number in range(count):
            progress("measure in turns", number, count)
            for which in (0, 1) if number % 2 == 0 else (1, 0):
                measured = runners[which].measure(device, address, bundles[which], order, silent)
                turns[which].append(median(measured["runs_ms"]))
    return {**compared(a, b, turns, threads, measured["machine"]), "reached": address.text}
