"""How a device runs a bundle, without edgewise there: one file per engine kind, found by the name in the manifest."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edgewise.runtime.bundle import Bundle
from edgewise.runtime.devices.address import Address
from edgewise.runtime.devices.errors import DeviceError
from edgewise.runtime.devices.reference import Arrays
from edgewise.runtime.devices.shell import Shell
from edgewise.runtime.progress import Progress


@dataclass(frozen=True)
class Order:
    """What is to be measured; as the options of ``edgewise profile``.

    Attributes:
        check_only: outputs alone, no measurement.
        cold: time a start with the bundle's files out of the page cache as well.
        concurrency: numbers of contexts to run at once.
        energy: read the device's own power sensors, if it has any.
        samples: inputs and the outputs that are wanted for them (or none); None: those in the bundle, or random inputs.
    """

    threads: int = 0
    runs: int | None = None
    warmup: int | None = None
    min_time_s: float = 2.0
    duration_s: float = 0.0
    per_layer: bool = False
    check_only: bool = False
    cold: bool = False
    concurrency: tuple[int, ...] = ()
    energy: bool = True
    samples: tuple[Sequence[Arrays], Sequence[Arrays]] | None = None


class Runner(Protocol):
    """A module of this folder.

    Attributes:
        not_over_adb: why a phone cannot run this, unless devices.toml names a ``runner`` there; empty where it can.
    """

    not_over_adb: str

    def measure(
        self, device: Shell, address: Address, bundle: Bundle, order: Order, progress: Progress
    ) -> dict[str, Any]:
        """Check and measure there.

        Returns:
            What ``edgewise.runtime.profile.worker`` brings back, with ``sums`` (``edgewise.runtime.compare.parity_of_sums``)
            and ``samples``; ``energy``: as :func:`edgewise.runtime.energy.energy_of` gives it, of the device's own sensors; ``cold`` and ``concurrency`` where the order asks for them; ``peak`` where the layers' roof is known.

        Raises:
            DeviceError: the device cannot run it, or vanishes.
        """


def runner_for(bundle: Bundle, address: Address) -> Runner:
    """The module that runs this kind of engine on a device.

    Raises:
        DeviceError: there is none, or none for a phone.
    """
    kind, kinds = bundle.manifest["engine"]["kind"], sorted(module.name for module in pkgutil.iter_modules(__path__))
    if kind not in kinds:
        raise DeviceError(
            "a device cannot run this bundle from here", where=str(bundle.path), found=f"engine kind {kind!r}",
            expected=f"one of {', '.join(kinds)}",
            fix="Build it with --target cpu --engine native, or copy it there and profile it there",
        )  # fmt: skip
    runner: Runner = importlib.import_module(f"{__name__}.{kind}")
    if address.kind == "adb" and not address.runner and runner.not_over_adb:
        raise DeviceError(
            "a phone cannot run this bundle over adb", where=f"{address.text}, {bundle.path}",
            found=f"engine kind {kind!r}: {runner.not_over_adb}", expected="an engine of libedgewise, which brings all that it needs",
            fix="Build it with --target cpu --engine native, or name a Python on the phone as `runner` in devices.toml (docs/devices.md)",
        )  # fmt: skip
    return runner
