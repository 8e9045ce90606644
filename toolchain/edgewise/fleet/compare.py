"""Two sweeps side by side: what became slower, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgewise.runtime.errors import GateError

Row = dict[str, Any]
DEFAULT_MAX_SLOWDOWN = 0.1


def compare(now: Sequence[Row], before: Sequence[Row], max_slowdown: float) -> list[Row]:
    """For each job of the sweep: ``recipe, device, target, status, median_ms, before_ms, change, regressed``.

    ``change`` is the median against that of before, −0.1 for a tenth faster; None where one of them was not measured. Regressed is what is
    slower by more than ``max_slowdown``, or failed now and did not before.
    """
    earlier = {_name(row): row for row in before}
    return [_compared(row, earlier.get(_name(row)), max_slowdown) for row in now]


def regressions(rows: Sequence[Row], max_slowdown: float) -> list[GateError]:
    """The gate: an error for each job that regressed."""
    return [_regressed(row, max_slowdown) for row in rows if row["regressed"]]


def _compared(row: Row, earlier: Row | None, max_slowdown: float) -> Row:
    before = earlier["median_ms"] if earlier else None
    change = row["median_ms"] / before - 1 if row["median_ms"] is not None and before else None
    broke = before is not None and row["median_ms"] is None
    told = {key: row[key] for key in ("recipe", "device", "target", "status", "median_ms")}
    failure = (row["result"].get("error") or {}).get("message")
    regressed = broke or (change is not None and change > max_slowdown)
    return {**told, "before_ms": before, "change": change, "regressed": regressed, "error": failure}


def _name(row: Row) -> tuple[str, str, str]:
    return row["recipe"], row["device"], row["target"]


def _regressed(row: Row, max_slowdown: float) -> GateError:
    now = f"{row['median_ms']:.4g} ms" if row["median_ms"] is not None else f"a failure ({row['error']})"
    return GateError(
        "a regression", where=f"{row['recipe']} ({row['target']}) on {row['device']}", found=now,
        expected=f"at most {max_slowdown:.0%} above {row['before_ms']:.4g} ms", fix="Compare the two profiles; a larger --max-slowdown allows it",
    )  # fmt: skip
