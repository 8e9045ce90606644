"""Whether to trust the measurement: each thing that speaks against it is a sentence.

The manner is hyperfine's (David Peter); the tests are our own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from edgewise.runtime.profile.machine import Glance

_FEW_RUNS = 10
_RUNS_FOR_P99 = 100
_DRIFT = 0.05
_SIGMAS = 4.0
_FAR_OUT = 5.0
_SHARE_FAR_OUT = 0.05
_WIDE = 0.25
_CLOCK_DROP = 0.9
_OTHERS_SHARE = 0.1
_FEW_PACES = 8
_SLOW_PACE, _SHARE_SLOW = 1.2, 0.2
_TICKS_PER_RUN = 100
_NAMED_AT_MOST = 5
# The median absolute deviation of a normal distribution, times this, is its standard deviation.
_MAD_TO_SIGMA = 1.4826
# Of a median over n normal values: σ times this / √n.
_MEDIAN_ERROR = 1.2533


@dataclass(frozen=True)
class Evidence:
    """What is judged.

    Attributes:
        runs_ms: warm runs in the order of measurement.
        stable: whether the warm-up settled.
        glances: the machine before, during and after the warm runs.
        own_cpu_s: time that this process itself worked between the first and the last glance, over all its threads.
        resolution_ms: the clock's smallest step.
        governor: the frequency governor.
        layers: per-layer entries, with ``unit``.
        unit: the unit that was asked to run everything.
    """

    runs_ms: Sequence[float]
    stable: bool = True
    glances: Sequence[Glance] = ()
    own_cpu_s: float = 0.0
    resolution_ms: float = 0.0
    governor: str | None = None
    layers: Sequence[dict[str, Any]] = field(default_factory=list)
    unit: str = ""


def judge(evidence: Evidence) -> list[str]:
    """Every warning that applies, each beginning with its kind."""
    found = [
        few_runs(evidence.runs_ms),
        unsettled(evidence.stable),
        drift(evidence.runs_ms),
        noise(evidence.runs_ms),
        throttling(evidence.glances),
        other_load(evidence.glances, evidence.own_cpu_s),
        shared_core(evidence.glances),
        slow_governor(evidence.governor),
        coarse_timer(evidence.runs_ms, evidence.resolution_ms),
        fallback(evidence.layers, evidence.unit),
    ]
    return [warning for warning in found if warning]


def few_runs(runs_ms: Sequence[float]) -> str:
    """Too few runs for the percentiles that are printed."""
    if len(runs_ms) < _FEW_RUNS:
        return f"few runs: {len(runs_ms)} warm runs say little; use --runs {_FEW_RUNS} or more"
    if len(runs_ms) < _RUNS_FOR_P99:
        return f"few runs: with {len(runs_ms)} of them, p99 is only about the slowest one; it takes {_RUNS_FOR_P99}"
    return ""


def unsettled(stable: bool) -> str:
    """The warm-up ran into its limit."""
    return "" if stable else "warm-up: the latency had not settled when measuring began; try a larger --warmup"


def drift(runs_ms: Sequence[float]) -> str:
    """The last third is slower or faster than the first, by more than chance gives."""
    third = len(runs_ms) // 3
    if third < 3:
        return ""
    early, late = runs_ms[:third], runs_ms[-third:]
    change = median(late) - median(early)
    chance = _MEDIAN_ERROR * math.hypot(_sigma(early), _sigma(late)) / math.sqrt(third)
    if abs(change) <= max(_DRIFT * median(early), _SIGMAS * chance):
        return ""
    word = "slower" if change > 0 else "faster"
    return f"drift: the last third of the runs is {abs(change) / median(early):.0%} {word} than the first; measure longer, or let the device cool down first"


def noise(runs_ms: Sequence[float]) -> str:
    """Many outliers, or a wide spread."""
    if len(runs_ms) < _FEW_RUNS:
        return ""
    middle, sigma = median(runs_ms), _sigma(runs_ms)
    far = [run for run in runs_ms if run > middle + max(_FAR_OUT * sigma, 0.1 * middle)]
    if len(far) > _SHARE_FAR_OUT * len(runs_ms):
        return f"noise: {len(far)} of {len(runs_ms)} runs are outliers (the slowest takes {max(far) / middle:.1f} times the median); close other programs"
    if sigma > _WIDE * middle:
        return f"noise: the runs spread by {sigma / middle:.0%} of the median; close other programs, or pin the clock"
    return ""


def throttling(glances: Sequence[Glance]) -> str:
    """The clock fell while measuring, or the processor says that it was cut for heat."""
    counts = [glance.throttles for glance in glances if glance.throttles is not None]
    if counts and counts[-1] > counts[0]:
        return f"throttling: the processor cut its clock for heat {counts[-1] - counts[0]} times; let it cool down"
    clocks = [glance.clock_mhz for glance in glances if glance.clock_mhz is not None]
    third = len(clocks) // 3
    if third and median(clocks[-third:]) < _CLOCK_DROP * median(clocks[:third]):
        return f"throttling: the clock fell from {median(clocks[:third]):.0f} to {median(clocks[-third:]):.0f} MHz; let the device cool down"
    return ""


def other_load(glances: Sequence[Glance], own_cpu_s: float) -> str:
    """Other processes kept the processor busy."""
    seen = [(glance.busy_s, glance.total_s) for glance in glances if glance.busy_s is not None and glance.total_s]
    if len(seen) < 2:
        return ""
    busy = (seen[-1][0] or 0) - (seen[0][0] or 0)
    total = (seen[-1][1] or 0) - (seen[0][1] or 0)
    others = busy - own_cpu_s
    if total <= 0 or others <= _OTHERS_SHARE * total:
        return ""
    return f"load: other programs used {others / total:.0%} of the processor while measuring; close them"


def slow_paces(glances: Sequence[Glance]) -> tuple[int, int, float]:
    """At how many looks the core was clearly slower than at its best, of how many, and how many times as long the slowest took."""
    paces = [glance.pace_us for glance in glances if glance.pace_us]
    if not paces:
        return 0, 0, 1.0
    return sum(pace > _SLOW_PACE * min(paces) for pace in paces), len(paces), max(paces) / min(paces)


def shared_core(glances: Sequence[Glance]) -> str:
    """The core itself had two speeds: a hyperthread of another program or another virtual machine, which this system cannot see."""
    slow, looks, worst = slow_paces(glances)
    if looks < _FEW_PACES or slow <= _SHARE_SLOW * looks:
        return ""
    return (
        f"core: the same work took up to {worst:.1f} times as long at {slow} of {looks} looks: something shares the core (another virtual "
        "machine, the other hyperthread) or its clock changes; compare with `edgewise profile A B`, which takes turns"
    )


def slow_governor(name: str | None) -> str:
    """The system may lower the clock while measuring."""
    if name in (None, "performance"):
        return ""
    return (
        f"clock: the frequency governor is {name!r}, so the clock may change while measuring; 'performance' keeps it up"
    )


def coarse_timer(runs_ms: Sequence[float], resolution_ms: float) -> str:
    """A run is hardly longer than the clock's step."""
    if not runs_ms or median(runs_ms) >= _TICKS_PER_RUN * resolution_ms:
        return ""
    return f"timer: a run of {median(runs_ms):.2g} ms is only {median(runs_ms) / resolution_ms:.0f} steps of this machine's clock"


def fallback(layers: Sequence[dict[str, Any]], unit: str) -> str:
    """Layers that something else ran than the unit that was asked for."""
    elsewhere = [layer for layer in layers if unit and layer["unit"] != unit]
    if not elsewhere:
        return ""
    named = ", ".join(f"{layer['name']} on {layer['unit']}" for layer in elsewhere[:_NAMED_AT_MOST])
    more = f" and {len(elsewhere) - _NAMED_AT_MOST} more" if len(elsewhere) > _NAMED_AT_MOST else ""
    return f"fallback: {len(elsewhere)} of {len(layers)} layers did not run on {unit}: {named}{more}"


def _sigma(values: Sequence[float]) -> float:
    """The spread without regard to outliers."""
    middle = median(values)
    return _MAD_TO_SIGMA * median(abs(value - middle) for value in values)
