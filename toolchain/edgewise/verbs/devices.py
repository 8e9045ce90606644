"""``edgewise.devices``."""

from __future__ import annotations

from typing import Any

from edgewise.local import this_machine
from edgewise.verbs.result import SCHEMA_VERSION


def devices() -> dict[str, Any]:
    """List the device profiles and targets that are known, and what this machine is.

    Returns:
        ``schema_version``, ``targets`` (name, summary, schemes, default_device), ``profiles`` (name, summary, targets,
        facts) and ``reachable``: one entry, this machine.
    """
    from edgewise.targets import device_profiles, targets

    found = [targets()[name] for name in sorted(targets())]
    return {
        "schema_version": SCHEMA_VERSION,
        "targets": [
            {"name": t.name, "summary": t.summary, "schemes": list(t.schemes), "default_device": t.default_device}
            for t in found
        ],
        "profiles": [
            {"name": p.name, "summary": p.summary, "targets": list(p.targets), "facts": p.facts}
            for p in device_profiles().values()
        ],
        "reachable": [{"device": "local", **this_machine()}],
    }
