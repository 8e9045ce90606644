"""Dask's side of a sweep: workers that own devices, tasks that take them, and what is left when one of them dies."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from edgewise.errors import ToolchainError
from edgewise.fleet.jobs import Job
from edgewise.runtime.extras import needs

_CONNECT_S = 15
_PREFIX = "device:"

Outcome = tuple[Job, dict[str, Any]]


def _dask() -> Any:
    """The package, which has no types of its own."""
    with needs("fleet"):
        return importlib.import_module("distributed")


@contextmanager
def cluster_for(resources: Sequence[str], scheduler: str | None) -> Iterator[Any]:
    """A client of the cluster: one in this process's care with a worker per device, or that of a lab.

    Raises:
        ToolchainError: no such scheduler, or devices that none of its workers has.
        MissingExtraError: Dask is not installed.
    """
    distributed = _dask()
    if scheduler is None:
        with _own(sorted(set(resources))) as own, distributed.Client(own) as client:
            yield client
        return
    try:
        client = distributed.Client(scheduler, timeout=_CONNECT_S)
    except (OSError, ValueError) as error:
        raise ToolchainError(
            "cannot reach the scheduler", where=f"--scheduler {scheduler}", found=" ".join(str(error).split()),
            expected="a Dask scheduler, tcp://HOST:PORT", fix="Start one with `dask scheduler`, or leave --scheduler out",
        ) from error  # fmt: skip
    with client:
        _check_workers(client, resources, scheduler)
        yield client


@contextmanager
def _own(resources: Sequence[str]) -> Iterator[Any]:
    """Workers as processes, each the owner of a device; one that dies is started again, and keeps its device."""
    distributed = _dask()
    quiet = logging.CRITICAL
    options = {"nthreads": 1, "memory_limit": 0, "silence_logs": quiet, "dashboard": False}
    workers = {
        name: {"cls": distributed.Nanny, "options": {**options, "resources": {f"{_PREFIX}{name}": 1}}}
        for name in resources
    }
    head = {"cls": distributed.Scheduler, "options": {"host": "127.0.0.1", "dashboard": False}}
    with distributed.SpecCluster(workers=workers, scheduler=head, silence_logs=quiet) as cluster:
        yield cluster


def _check_workers(client: Any, resources: Sequence[str], scheduler: str) -> None:
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    owned = {name for worker in workers for name in worker.get("resources", {})}
    if missing := sorted({name for name in resources if f"{_PREFIX}{name}" not in owned}):
        raise ToolchainError(
            "no worker has a device", where=f"--scheduler {scheduler}", found=f"nobody with {_PREFIX}{missing[0]}",
            expected=f"a worker for each of {', '.join(sorted(set(resources)))}",
            fix=f"Start it with `dask worker {scheduler} --nthreads 1 --resources '{_PREFIX}{missing[0]}=1'`",
        )  # fmt: skip


def each(
    client: Any, work: Callable[..., dict[str, Any]], arguments: Sequence[tuple[Job, tuple[Any, ...]]]
) -> Iterator[Outcome]:
    """Have every job's work done by the worker that has its device, as they end; a table with ``error`` where that failed.

    Raises:
        ToolchainError: the scheduler is gone.
    """
    distributed = _dask()
    jobs = {}
    for job, rest in arguments:
        # Not pure: a second sweep measures again.
        future = client.submit(work, job, *rest, resources={f"{_PREFIX}{job.resource}": 1}, pure=False)
        jobs[future] = job
    for future in distributed.as_completed(list(jobs)):
        job = jobs.pop(future)
        try:
            yield job, future.result()
        except (distributed.CancelledError, OSError) as error:
            raise ToolchainError(
                "the scheduler is gone", where=f"recipe {job.recipe} on {job.device}", found=" ".join(str(error).split()),
                expected="a scheduler that lives until the sweep is done", fix="Run the same command again: it goes on with what is left",
            ) from error  # fmt: skip
        except Exception as error:  # noqa: BLE001 - whatever a worker died of is this job's outcome, and no other's
            yield job, {"error": _error(error)}


def _error(error: Exception) -> dict[str, Any]:
    """As ``error_entry`` has it: a worker that died again and again, or a bug in it."""
    died = type(error).__name__ == "KilledWorker"
    what = "the worker died each time that it tried" if died else f"{type(error).__name__}: {error}"
    return {"message": " ".join(what.split())}
