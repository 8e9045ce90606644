"""What a worker of the cluster does for a job. Results and errors are plain tables, so that they pass between machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgewise.errors import error_entry
from edgewise.fleet.jobs import Job
from edgewise.runtime.errors import EdgewiseError
from edgewise.runtime.storage import whole_file


def build(job: Job) -> dict[str, Any]:
    """Convert; gives ``bundle``, ``size_bytes``, ``parity`` and ``accuracy``, or ``error``."""
    from edgewise.recipe import Recipe
    from edgewise.verbs.convert import convert

    try:
        (told,) = convert(None, job.output, recipe=Recipe.from_json(job.table))["targets"]
    except EdgewiseError as error:
        return {"error": error_entry(error)}
    if told["errors"]:
        return {"error": told["errors"][0]}
    return {key: told[key] for key in ("bundle", "size_bytes", "parity", "accuracy")}


def measure(job: Job, built: dict[str, Any]) -> dict[str, Any]:
    """Profile the bundle on the job's device; gives ``built`` with ``profile``, or with ``error`` too."""
    from edgewise.settings import ProfileSettings
    from edgewise.stages.gates import device_gates, latency_gates
    from edgewise.stages.profile import profile_stage

    bundle, settings = Path(built["bundle"]), ProfileSettings(**job.settings)
    try:
        profile = profile_stage(bundle, settings)
        with whole_file(bundle.with_suffix(".profile.json")) as draft:
            draft.write_text(json.dumps(profile, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except EdgewiseError as error:
        return {**built, "error": error_entry(error)}
    failures = [*device_gates(profile, settings), *latency_gates(profile, settings, str(bundle))]
    return {**built, "profile": profile, **({"error": error_entry(failures[0])} if failures else {})}
