"""What sweeps found: an SQLite file that only grows. Each record is on the disk before the next job's is taken."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgewise.errors import ToolchainError
from edgewise.fleet.jobs import Job

STORE = "sweep.sqlite"
DONE, FAILED = "done", "failed"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS sweeps (id INTEGER PRIMARY KEY, at TEXT NOT NULL, jobs TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS results (
    id INTEGER PRIMARY KEY, sweep INTEGER NOT NULL REFERENCES sweeps, at TEXT NOT NULL, key TEXT NOT NULL, recipe TEXT NOT NULL,
    device TEXT NOT NULL, target TEXT NOT NULL, status TEXT NOT NULL CHECK (status IN ('done', 'failed')), median_ms REAL, result TEXT NOT NULL);
CREATE TRIGGER IF NOT EXISTS results_stay BEFORE UPDATE ON results BEGIN SELECT RAISE(ABORT, 'results only grow'); END;
CREATE TRIGGER IF NOT EXISTS results_remain BEFORE DELETE ON results BEGIN SELECT RAISE(ABORT, 'results only grow'); END;
CREATE TRIGGER IF NOT EXISTS sweeps_stay BEFORE UPDATE ON sweeps BEGIN SELECT RAISE(ABORT, 'sweeps only grow'); END;
CREATE TRIGGER IF NOT EXISTS sweeps_remain BEFORE DELETE ON sweeps BEGIN SELECT RAISE(ABORT, 'sweeps only grow'); END;
"""
_COLUMNS = ("at", "key", "recipe", "device", "target", "status", "median_ms")


class Store:
    """One file. A context manager.

    Raises:
        ToolchainError: (any method) not such a file, or the disk is full.
    """

    def __init__(self, file: Path, *, create: bool = False) -> None:
        self.file = file
        if not create and not file.is_file():
            raise _refused(file, "no such file")
        file.parent.mkdir(parents=True, exist_ok=True)
        with self._explained():
            self._database = sqlite3.connect(file)
            if create:
                self._database.executescript(_SCHEMA)
            self._database.execute("SELECT id, sweep FROM results LIMIT 1")

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def begin(self, jobs: Sequence[Job]) -> int:
        """The sweep to record into: the last one, if it is of these jobs and not all of them are done, else a new one."""
        keys = sorted(job.key for job in jobs)
        with self._explained():
            last = self._database.execute("SELECT id, jobs FROM sweeps ORDER BY id DESC LIMIT 1").fetchone()
            if last and json.loads(last[1]) == keys and set(keys) - self.done(last[0]):
                return int(last[0])
            with self._database:
                made = self._database.execute("INSERT INTO sweeps (at, jobs) VALUES (?, ?)", (_now(), json.dumps(keys)))
        return int(made.lastrowid or 0)

    def done(self, sweep: int) -> set[str]:
        """Keys of the jobs that have been measured in a sweep."""
        with self._explained():
            rows = self._database.execute("SELECT key FROM results WHERE sweep = ? AND status = ?", (sweep, DONE))
            return {key for (key,) in rows}

    def record(self, sweep: int, job: Job, status: str, result: dict[str, Any]) -> None:
        """Append what became of a job, and have it on the disk."""
        median = result["profile"]["latency_ms"]["median"] if status == DONE else None
        values = (sweep, _now(), job.key, job.recipe, job.device, job.target, status, median, json.dumps(result))
        with self._explained(), self._database:
            self._database.execute(
                "INSERT INTO results (sweep, at, key, recipe, device, target, status, median_ms, result) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values
            )  # fmt: skip

    def sweeps(self) -> list[int]:
        """The numbers of all sweeps, the oldest first."""
        with self._explained():
            return [number for (number,) in self._database.execute("SELECT id FROM sweeps ORDER BY id")]

    def rows(self, sweep: int) -> list[dict[str, Any]]:
        """What a sweep found, the latest record of each job: the columns, and ``result``."""
        with self._explained():
            found = self._database.execute(
                f"SELECT {', '.join(_COLUMNS)}, result FROM results WHERE id IN "  # noqa: S608 - our own names
                "(SELECT MAX(id) FROM results WHERE sweep = ? GROUP BY recipe, device, target) ORDER BY recipe, device, target",
                (sweep,),
            )
            return [dict(zip((*_COLUMNS, "result"), (*row[:-1], json.loads(row[-1])), strict=True)) for row in found]

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, ValueError) as error:
            raise _refused(self.file, str(error)) from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _refused(file: Path, found: str) -> ToolchainError:
    return ToolchainError(
        "cannot use the sweep's store", where=str(file), found=found, expected="an SQLite file that `edgewise sweep` made, and room to write",
        fix="Check the path and the disk; what was recorded before is still there",
    )  # fmt: skip
