"""Targets and devices of a recipe, found by name before any work begins."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgewise.errors import ToolchainError
from edgewise.recipe import Recipe
from edgewise.settings import TargetChoice
from edgewise.tables import refuse_unknown

if TYPE_CHECKING:
    from edgewise.targets import DeviceProfile, Target


_FILE_NAME = re.compile(r"[^\W.][\w.+ -]*")


@dataclass(frozen=True)
class Chosen:
    """One build to make: its own resolved recipe, target and device, and the name of its bundle."""

    recipe: Recipe
    target: Target
    device: DeviceProfile
    name: str


def choose(recipe: Recipe, name: str) -> list[Chosen]:
    """Every build that a recipe asks for; a target that appears twice has its device in its bundles' names.

    Raises:
        ToolchainError: no target, the same build twice, or a name that would leave the output folder.
        EdgewiseError: an unknown target or device.
    """
    from edgewise.targets import find_device, find_target

    if not recipe.targets:
        raise ToolchainError(
            "no target to convert for",
            where="--target",
            found="none",
            expected="at least one",
            fix="Pass --target cpu (repeat it for more), or a recipe with the key 'targets'",
        )
    if not _FILE_NAME.fullmatch(name):
        raise ToolchainError(
            "the name cannot name files",
            where="--name, or the recipe's key 'name'",
            found=repr(name),
            expected="letters and digits, with _ - + . or spaces in between",
            fix="Choose another name",
        )
    _refuse_unknown_options(recipe)
    counts = Counter(choice.target for choice in recipe.targets)
    made = []
    for choice in recipe.targets:
        target = find_target(choice.target)
        device = find_device(choice.device or target.default_device, target.name)
        own = f"{name}-{target.name}" + (f"-{device.name}" if counts[target.name] > 1 else "")
        resolved = _with_own_options(recipe, target).for_target(replace(choice, device=device.name))
        made.append(Chosen(resolved, target, device, own))
    twice = [name for name, count in Counter(chosen.name for chosen in made).items() if count > 1]
    if twice:
        raise ToolchainError(
            "the same build twice",
            where="--target",
            found=f"{twice[0]!r} more than once",
            expected="different targets, or different devices of one target",
            fix="Remove one of them",
        )
    return made


def _refuse_unknown_options(recipe: Recipe) -> None:
    from edgewise.targets import find_target

    known = {option: None for choice in recipe.targets for option in find_target(choice.target).options}
    refuse_unknown(recipe.build.options if recipe.build else {}, known, "recipe, build.options")


def _with_own_options(recipe: Recipe, target: Target) -> Recipe:
    """Of the options that are for all targets, those that this one has."""
    if recipe.build is None:
        return recipe
    own = {key: value for key, value in recipe.build.options.items() if key in target.options}
    return replace(recipe, build=replace(recipe.build, options=own))


def match_devices(targets: Sequence[str], devices: Sequence[str]) -> list[TargetChoice]:
    """``--target`` and ``--device``, both repeated: each device goes to the targets that its profile lists.

    Raises:
        EdgewiseError: an unknown device or target, or a device that none of the targets serves.
    """
    from edgewise.targets import device_profiles, find_device, find_target

    served: set[str] = set()
    choices = []
    for target in targets:
        find_target(target)
        own = [name for name in devices if name in device_profiles() and target in device_profiles()[name].targets]
        served.update(own)
        choices += [TargetChoice(target, name) for name in own] or [TargetChoice(target)]
    for name in devices:
        if name not in served and targets:
            find_device(name, targets[0])
    return choices
