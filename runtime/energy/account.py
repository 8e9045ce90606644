"""From samples of a sensor to joules per inference."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType
from typing import Any

from edgewise.runtime.energy.sensors import IDLE_S
from edgewise.runtime.energy.sources import Source

EVERY_S = 0.05
_LEAST_SAMPLES = 3


@dataclass(frozen=True)
class Sample:
    """``value``: joules so far or watts, as the source says; ``at_s`` of ``time.monotonic()``, or of the meter's clock."""

    at_s: float
    value: float


class Account:
    """Reads a source every 50 ms, in a thread, while the block lasts; begin with a second of idleness."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.samples: list[Sample] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="edgewise-energy", daemon=True)

    def __enter__(self) -> Account:
        self._thread.start()
        time.sleep(IDLE_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self.source.close()

    def _watch(self) -> None:
        while not self._over.is_set():
            value = self.source.read()
            if value is not None:
                self.samples.append(Sample(time.monotonic(), value))
            self._over.wait(EVERY_S)


def energy_of(
    samples: Sequence[Sample],
    window: tuple[float, float],
    idle: tuple[float, float],
    runs: int,
    *,
    counts: bool,
    method: str,
) -> dict[str, Any] | str:
    """What the runs in ``window`` took beyond idleness; or the reason why it cannot be said.

    Args:
        samples: in the order of time.
        window: begin and end of the runs, on the samples' clock.
        idle: begin and end of a time without work, likewise.
        runs: inferences in the window.
        counts: whether samples are joules so far (else watts).
        method: for the record.

    Returns:
        ``joules_per_inference`` and ``mean_w`` with idleness taken off, ``total_w`` and ``idle_w`` as measured, ``method``, ``sampling_hz``,
        ``window_s``, ``inferences``.
    """
    busy_w, resting_w = _mean_w(samples, window, counts), _mean_w(samples, idle, counts)
    if busy_w is None or resting_w is None:
        which = "the runs (--duration makes them last)" if busy_w is None else "the idle time before them"
        return f"{method}: fewer than {_LEAST_SAMPLES} readings during {which}"
    length_s = window[1] - window[0]
    net_w = busy_w - resting_w
    if net_w <= 0:
        return f"{method}: {busy_w:.3g} W during the runs, {resting_w:.3g} W when idle: other work hides the engine's"
    inside = [sample for sample in samples if window[0] <= sample.at_s <= window[1]]
    return {
        "joules_per_inference": net_w * length_s / runs,
        "mean_w": net_w,
        "total_w": busy_w,
        "idle_w": resting_w,
        "method": method,
        "sampling_hz": (len(inside) - 1) / (inside[-1].at_s - inside[0].at_s),
        "window_s": length_s,
        "inferences": runs,
    }


def _mean_w(samples: Sequence[Sample], window: tuple[float, float], counts: bool) -> float | None:
    """Mean power between the first and the last reading inside."""
    inside = [sample for sample in samples if window[0] <= sample.at_s <= window[1]]
    if len(inside) < _LEAST_SAMPLES:
        return None
    length_s = inside[-1].at_s - inside[0].at_s
    if counts:
        return (inside[-1].value - inside[0].value) / length_s
    area = sum((b.at_s - a.at_s) * (a.value + b.value) / 2 for a, b in pairwise(inside))
    return area / length_s
