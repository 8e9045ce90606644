"""``edgewise.devices``."""

from __future__ import annotations

from typing import Any

from edgewise.local import this_machine
from edgewise.runtime.devices.address import LOCAL, Address, known_devices
from edgewise.verbs.result import SCHEMA_VERSION


def devices() -> dict[str, Any]:
    """List the device profiles and targets that are known, and what this machine is.

    Returns:
        ``schema_version``, ``targets`` (name, summary, schemes, default_device), ``profiles`` (name, summary, targets,
        facts) and ``reachable``: this machine, and what ``devices.toml`` names (``device``, ``address``, ``profile``).

    Raises:
        DeviceError: a ``devices.toml`` that cannot be read.
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
        "reachable": [{"device": LOCAL, **this_machine()}, *(_named(name) for name in known_devices().values())],
    }


def _named(address: Address) -> dict[str, Any]:
    place = f"adb:{address.serial}" if address.kind == "adb" else f"{address.user}@{address.host}".removeprefix("@")
    told = {"device": address.text, "address": place, "profile": address.profile, "runner": " ".join(address.runner)}
    return {key: value for key, value in told.items() if value}
