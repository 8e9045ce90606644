"""Energy of an inference: what this machine's own sensors or an external meter say, less what it takes when idle."""

from __future__ import annotations

from edgewise.runtime.energy.account import Account, energy_of
from edgewise.runtime.energy.meter_csv import read_meter
from edgewise.runtime.energy.sources import Source, find_source

__all__ = ["Account", "Source", "energy_of", "find_source", "read_meter"]
