"""``edgewise devices``."""

from __future__ import annotations

from edgewise.cli import options as o
from edgewise.cli.show import show_devices
from edgewise.cli.work import perform


def run(*, as_json: o.Json = False) -> None:
    """List the targets and device profiles that are known, and the devices that can be reached."""
    from edgewise.verbs.devices import devices

    perform(lambda progress: devices(), show_devices, as_json=as_json)
