"""What a sweep consists of: one job per recipe, device and target."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgewise.errors import ToolchainError
from edgewise.recipe import Recipe, read_recipe
from edgewise.runtime.devices.address import LOCAL, Address, parse_address
from edgewise.runtime.storage import sha256_of
from edgewise.settings import ProfileSettings, TargetChoice


@dataclass(frozen=True)
class Job:
    """Build a recipe for one target, then measure it on a device.

    Attributes:
        recipe: the recipe's name.
        device: as it was named to the sweep.
        target: what is built.
        table: the recipe resolved for it, as JSON, without its profile stage.
        settings: that stage, with the device.
        output: the folder for the bundle.
        key: a digest of all that; another recipe, network or device gives another.
    """

    recipe: str
    device: str
    target: str
    table: dict[str, Any]
    settings: dict[str, Any]
    output: str
    key: str

    @property
    def resource(self) -> str:
        """What of Dask's resources it takes, so that a device has one job at a time."""
        return resource_of(self.device)


def resource_of(device: str) -> str:
    """The name of a device among Dask's resources: two names for one machine share it."""
    address = parse_address(device)
    if address.kind == LOCAL:
        return LOCAL
    return address.serial or f"{address.host}:{address.port or 22}"


def jobs_of(recipes: Sequence[str | Path], devices: Sequence[str], output: Path) -> list[Job]:
    """Every job; refuses what could not run before anything runs.

    Raises:
        ToolchainError: two recipes of one name, a recipe without targets, a device that none of its targets serves.
        EdgewiseError: a recipe or device that cannot be read, an unknown target or profile.
    """
    named: dict[str, Recipe] = {}
    for path in recipes:
        name = Path(path).stem
        if name in named:
            raise _refused(str(path), f"a second recipe {name!r}", "recipes whose files have different names")
        named[name] = read_recipe(path)
    if len(set(devices)) != len(devices) or not devices:
        raise _refused("--devices", ", ".join(devices) or "none", "each device once")
    return [
        job
        for name, recipe in named.items()
        for device in devices
        for job in _jobs(name, recipe, parse_address(device), device, output)
    ]


def _jobs(name: str, recipe: Recipe, address: Address, device: str, output: Path) -> list[Job]:
    choices = _choices(recipe, address)
    if not choices:
        raise _refused(
            f"recipe {name}, device {device}", "no target that serves the device", "one among the recipe's targets"
        )
    settings = asdict(replace(recipe.profile or ProfileSettings(), device=device))
    folder = str(output / name / "".join(c if c.isalnum() or c in "-_." else "_" for c in device))
    made = []
    for choice in choices:
        table = replace(recipe, targets=(choice,), profile=None).to_json()
        parts = [table, settings, asdict(address), _digest(recipe)]
        key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
        made.append(Job(name, device, choice.target, table, settings, folder, key))
    return made


def _choices(recipe: Recipe, address: Address) -> list[TargetChoice]:
    """The recipe's targets; for a device with a profile those that serve it, built for it."""
    if not address.profile:
        return list(recipe.targets)
    from edgewise.targets import device_profiles, find_device
    from edgewise.targets.devices import read_profile

    name, known = address.profile, device_profiles()
    if name.endswith(".toml"):
        served = read_profile(Path(name)).targets
    else:
        served = (known.get(name) or find_device(name, recipe.targets[0].target if recipe.targets else "cpu")).targets
    fitting = [choice for choice in recipe.targets if choice.target in served]
    return list({choice.target: replace(choice, device=name) for choice in fitting}.values())


def _digest(recipe: Recipe) -> str:
    """Of the network's file, where it is one."""
    source = Path(recipe.source or "")
    return sha256_of(source) if recipe.source and source.is_file() else ""


def _refused(where: str, found: str, expected: str) -> ToolchainError:
    return ToolchainError("cannot plan the sweep", where=where, found=found, expected=expected, fix="Correct it")
