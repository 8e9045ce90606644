"""``edgewise sweep``: recipes on devices, one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgewise.errors import ToolchainError
from edgewise.fleet.cluster import Outcome, cluster_for, each
from edgewise.fleet.compare import DEFAULT_MAX_SLOWDOWN, Row, compare, regressions
from edgewise.fleet.jobs import Job, jobs_of
from edgewise.fleet.store import DONE, FAILED, STORE, Store
from edgewise.fleet.work import build, measure
from edgewise.runtime.errors import EdgewiseError
from edgewise.runtime.progress import Progress, silent
from edgewise.verbs.report import report
from edgewise.verbs.result import SCHEMA_VERSION, require


def sweep(
    recipes: Sequence[str | Path],
    output: str | Path,
    *,
    devices: Sequence[str],
    scheduler: str | None = None,
    against: str | Path | None = None,
    max_slowdown: float = DEFAULT_MAX_SLOWDOWN,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Build every recipe for every device and measure it there; go on where an earlier run of the same command stopped.

    Everything is built first, then measured, one job per device at a time: a build on this machine does not disturb a measurement.

    Args:
        recipes: YAML files (docs/recipe.md); their targets that serve a device are built for it.
        output: the folder for bundles, profiles, ``sweep.sqlite`` and ``report.html``.
        devices: as ``profile`` takes them.
        scheduler: of a lab's Dask cluster, whose workers own devices (``--resources device:HOST:PORT=1``) and see the same folder; None: a
            cluster of this process.
        against: the folder of an earlier sweep, to be held against; None: the sweep before in the same folder, if there is one.
        max_slowdown: a median may be slower by this fraction.
        progress: told how many jobs are done.

    Returns:
        ``schema_version, output, store, sweep, against, rows, report, exit_code``; a row has ``recipe, device, target, status, median_ms,
        before_ms, change, regressed, error``. A job that fails is a row and does not stop the others: look at ``exit_code``.

    Raises:
        GateError: a regression.
        ToolchainError: what concerns all jobs: a bad recipe, no scheduler, a store that cannot be written.
        MissingExtraError: Dask is not installed.
    """
    folder = Path(output)
    jobs = jobs_of(recipes, devices, folder)
    earlier = Store(Path(against) / STORE) if against else None
    with Store(folder / STORE, create=True) as store:
        number = store.begin(jobs)
        left = [job for job in jobs if job.key not in store.done(number)]
        progress("jobs", len(jobs) - len(left), len(jobs))
        if left:
            _work(
                left, store, number, scheduler, lambda done: progress("jobs", len(jobs) - len(left) + done, len(jobs))
            )
        rows, held = _held(store, number, earlier, max_slowdown)
    page = folder / "report.html"
    report([folder], page)
    result = {
        "schema_version": SCHEMA_VERSION,
        "output": str(folder),
        "store": str(store.file),
        "sweep": number,
        "against": held,
        "rows": rows,
        "report": str(page),
        "exit_code": 1 if any(row["status"] == FAILED for row in rows) else 0,
    }
    errors: list[EdgewiseError] = list(regressions(rows, max_slowdown))
    return require(errors, result)


def _work(left: Sequence[Job], store: Store, number: int, scheduler: str | None, tell: Any) -> None:
    finished = 0

    def record(outcome: Outcome) -> None:
        nonlocal finished
        job, result = outcome
        store.record(number, job, FAILED if "error" in result else DONE, result)
        finished += 1
        tell(finished)

    with cluster_for([job.resource for job in left], scheduler) as client:
        built = []
        for job, result in each(client, build, [(job, ()) for job in left]):
            if "error" in result:
                record((job, result))
            else:
                built.append((job, (result,)))
        for outcome in each(client, measure, built):
            record(outcome)


def _held(
    store: Store, number: int, earlier: Store | None, max_slowdown: float
) -> tuple[list[Row], dict[str, Any] | None]:
    """The rows of this sweep beside those of an earlier one."""
    now, numbers = store.rows(number), store.sweeps()
    other, before = (earlier, earlier.sweeps()) if earlier else (store, [own for own in numbers if own < number])
    if not before:
        if earlier:
            raise ToolchainError(
                "nothing to hold the sweep against", where=str(earlier.file), found="no sweep", expected="one at least",
                fix="Name the folder of a sweep with --against",
            )  # fmt: skip
        return compare(now, [], max_slowdown), None
    return compare(now, other.rows(before[-1]), max_slowdown), {"store": str(other.file), "sweep": before[-1]}
