"""CPU seconds of each test file and of the dearest tests, with the processes that they start: ``scripts/test -p tests.cpu_times -m "not slow"``.

A pytest plugin. Wall time says nothing on a machine that others use; a processor's second depends on them too, by up to two.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_SHOWN = 25
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_spent: Counter[str] = Counter()


def _cpu_s() -> float:
    """Of this process, of the children that ended, and of those that still run."""
    times = os.times()
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return times.user + times.system + times.children_user + times.children_system + sum(map(_running_s, children))


def _running_s(process: str) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has just ended
        return 0
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[Any]:
    """A fixture counts for the test that is the first to want it."""
    before = _cpu_s()
    try:
        return (yield)
    finally:
        _spent[item.nodeid] += _cpu_s() - before


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    files: Counter[str] = Counter()
    for name, seconds in _spent.items():
        files[name.partition("::")[0]] += seconds
    total = sum(_spent.values())
    terminalreporter.section(
        f"CPU seconds: {_cpu_s():.0f}, of which tests {total:.0f}, the rest imports and collection"
    )
    for counted in (files, _spent):
        for name, seconds in counted.most_common(_SHOWN):
            terminalreporter.write_line(f"{seconds:8.1f}  {name}")
