"""The recipe: everything that a conversion is told, as YAML. Resolved, it goes into each bundle; run again, it gives the same build."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgewise.errors import ToolchainError
from edgewise.places import moved, moved_options
from edgewise.runtime.extras import needs
from edgewise.runtime.storage import whole_file
from edgewise.settings import (
    STAGES,
    BuildSettings,
    ExportSettings,
    ProfileSettings,
    PruneSettings,
    QuantizeSettings,
    TargetChoice,
    VerifySettings,
)
from edgewise.tables import read_table, read_value, refuse_unknown, write_table

VERSION = 1
_KINDS: dict[str, type[Any]] = {
    "export": ExportSettings,
    "prune": PruneSettings,
    "quantize": QuantizeSettings,
    "build": BuildSettings,
    "verify": VerifySettings,
    "profile": ProfileSettings,
}
_PLACES = (
    ("export", "data"), ("prune", "calib"), ("prune", "costs"), ("quantize", "calib"), ("quantize", "judge"),
    ("verify", "data"),
)  # fmt: skip
_FILES = (("quantize", "metric"), ("verify", "metric"), ("build", "options"))
_HEAD: dict[str, Any] = {
    "source": str | None,
    "name": str | None,
    "arch": str | None,
    "arch_args": dict[str, Any],
    "inputs": tuple[str, ...],
    "preprocess": str | None,
}


@dataclass(frozen=True)
class Recipe:
    """A stage that is None is skipped. Paths are relative to the working folder; in a file, to the file's folder."""

    source: str | None = None
    name: str | None = None
    arch: str | None = None
    arch_args: dict[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    preprocess: str | None = None
    targets: tuple[TargetChoice, ...] = ()
    export: ExportSettings | None = field(default_factory=ExportSettings)
    prune: PruneSettings | None = None
    quantize: QuantizeSettings | None = None
    build: BuildSettings | None = field(default_factory=BuildSettings)
    verify: VerifySettings | None = field(default_factory=VerifySettings)
    profile: ProfileSettings | None = field(default_factory=ProfileSettings)

    @classmethod
    def from_json(cls, table: Any, where: str = "recipe") -> Recipe:
        """Read the table that a YAML file holds.

        Raises:
            ToolchainError: says which key is unknown, missing or of a wrong type, and the nearest name.
        """
        if not isinstance(table, dict):
            raise ToolchainError(
                "cannot read the recipe",
                where=where,
                found=type(table).__name__,
                expected="a table of keys",
                fix="See docs/recipe.md",
            )
        if table.get("schema_version", VERSION) != VERSION:
            raise ToolchainError(
                "cannot read the recipe",
                where=where,
                found=f"schema_version {table['schema_version']!r}",
                expected=str(VERSION),
                fix="Use the edgewise that wrote it",
            )
        refuse_unknown(table, ["schema_version", *_HEAD, "targets", *STAGES], where)
        made = {key: read_value(hint, table[key], f"{where}, {key}") for key, hint in _HEAD.items() if key in table}
        made |= {stage: _read_stage(stage, table[stage], where) for stage in STAGES if stage in table}
        if "targets" in table:
            made["targets"] = _read_targets(table["targets"], where)
        return cls(**made)

    def to_json(self) -> dict[str, Any]:
        """Every key written out, stages that are skipped as null."""
        head = {key: getattr(self, key) for key in _HEAD} | {"inputs": list(self.inputs)}
        targets = [{"target": t.target, "device": t.device, **t.overrides} for t in self.targets]
        stages = {stage: None if (own := getattr(self, stage)) is None else write_table(own) for stage in STAGES}
        return {"schema_version": VERSION, **head, "targets": targets, **stages}

    def with_options(self, options: Mapping[str, Any]) -> Recipe:
        """Options of the command line over the recipe: keys such as ``arch`` or ``quantize.scheme``; None and () say nothing.

        A key of a stage that is skipped turns the stage on; a mapping goes over the one that is there.
        """
        table = self.to_json()
        for key, value in options.items():
            if value is None or value == () or value == []:
                continue
            stage, _, name = key.rpartition(".")
            if stage and table[stage] is None:
                table[stage] = {}
            part = table[stage] if stage else table
            if isinstance(value, Mapping):
                value = {**(part.get(name) or {}), **value}
            part[name] = list(value) if isinstance(value, tuple) else value
        return Recipe.from_json(table, "options")

    def for_target(self, choice: TargetChoice) -> Recipe:
        """The recipe of one target: its own stage keys merged in, nothing left to choose."""
        table = self.to_json()
        for stage, own in choice.overrides.items():
            table[stage] = None if own is None else {**(table[stage] or {}), **own}
        table["targets"] = [{"target": choice.target, "device": choice.device}]
        return Recipe.from_json(table, f"targets, {choice.target}")

    def relocated(self, start: Path, end: Path) -> Recipe:
        """The same recipe with its relative paths, so far relative to ``start``, made relative to ``end``."""
        made = replace(self, source=moved(self.source, start, end), arch=moved(self.arch, start, end))
        for stage in STAGES:
            own = getattr(made, stage)
            if own is not None:
                made = replace(made, **{stage: replace(own, **_moved_stage(stage, vars(own), start, end))})
        targets = tuple(
            replace(
                choice,
                device=moved_options(choice.device, start, end),
                overrides={
                    stage: None if own is None else {**own, **_moved_stage(stage, own, start, end)}
                    for stage, own in choice.overrides.items()
                },
            )
            for choice in made.targets
        )
        return replace(made, targets=targets)


def _moved_stage(stage: str, table: Mapping[str, Any], start: Path, end: Path) -> dict[str, Any]:
    """The keys of a stage's table that hold paths, moved: DATA always, the others where they name a file."""
    made = {key: moved(table[key], start, end) for own, key in _PLACES if own == stage and key in table}
    files = {key: moved_options(table[key], start, end) for own, key in _FILES if own == stage and key in table}
    return made | files


def _read_stage(stage: str, table: Any, where: str) -> Any:
    return None if table is None else read_table(_KINDS[stage], table, f"{where}, {stage}")


def _read_targets(entries: Any, where: str) -> tuple[TargetChoice, ...]:
    if not isinstance(entries, list):
        raise ToolchainError(
            "wrong value in the recipe",
            where=f"{where}, targets",
            found=repr(entries),
            expected="a list of targets",
            fix="Write `targets: [cpu]`",
        )
    return tuple(_read_target(entry, f"{where}, targets[{i}]") for i, entry in enumerate(entries))


def _read_target(entry: Any, where: str) -> TargetChoice:
    if isinstance(entry, str):
        return TargetChoice(entry)
    overrides = {key: entry[key] for key in STAGES[1:] if key in entry} if isinstance(entry, dict) else {}
    plain = {key: value for key, value in entry.items() if key not in overrides} if isinstance(entry, dict) else entry
    if isinstance(plain, dict):
        refuse_unknown(plain, ["target", "device", *STAGES[1:]], where)
    for stage, table in overrides.items():
        if table is not None:
            fields = [field.name for field in dataclasses.fields(_KINDS[stage])]
            refuse_unknown(table if isinstance(table, dict) else {str(table): None}, fields, f"{where}, {stage}")
    return replace(read_table(TargetChoice, plain, where), overrides=overrides)


def read_recipe(path: Path | str) -> Recipe:
    """Read a recipe file; its relative paths become relative to the working folder.

    Raises:
        ToolchainError: missing, not YAML (with the line), or not a recipe.
    """
    with needs("cli"):
        import yaml
    path = Path(path)
    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        found = getattr(error, "strerror", None) or "bytes that are not UTF-8"
        raise ToolchainError(
            "cannot read the recipe", where=str(path), found=found, expected="a YAML file", fix="Check the path"
        ) from error
    except yaml.YAMLError as error:
        found = " ".join(str(error).split())
        raise ToolchainError(
            "cannot read the recipe", where=str(path), found=found, expected="YAML", fix="Correct that line"
        ) from error
    return Recipe.from_json(table, str(path)).relocated(path.parent, Path())


def recipe_text(recipe: Recipe, folder: Path) -> str:
    """The YAML text of a recipe for a file in ``folder``."""
    with needs("cli"):
        import yaml
    text: str = yaml.safe_dump(recipe.relocated(Path(), folder).to_json(), sort_keys=False, allow_unicode=True)
    return text


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe file, whole or not at all."""
    with whole_file(path) as draft:
        draft.write_text(recipe_text(recipe, path.parent), encoding="utf-8")
