"""What a page is about: the bundles in some folders, and the results that lie beside them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgewise.errors import ToolchainError
from edgewise.fleet.compare import DEFAULT_MAX_SLOWDOWN, compare
from edgewise.fleet.store import STORE, Store
from edgewise.runtime.bundle import open_bundle
from edgewise.runtime.errors import EdgewiseError
from edgewise.runtime.manifest import MANIFEST
from edgewise.stages.profile import engine_digests

_LARGEST_RESULT_BYTES = 64 << 20
_KINDS = {"profile": "latency_ms", "accuracy": "metric", "parity": "parity"}


@dataclass
class Entry:
    """One bundle: its manifest, the sizes of its files, and results that were measured on this very engine."""

    path: Path
    manifest: dict[str, Any]
    sizes: dict[str, int]
    profile: dict[str, Any] | None = None
    accuracy: list[dict[str, Any]] = field(default_factory=list)
    parity: list[dict[str, Any]] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        """The engine's own files."""
        return sum(self.sizes[name] for name in self.manifest["engine"]["files"])


@dataclass(frozen=True)
class Swept:
    """The last sweep of a store, each row beside the sweep before it (:func:`edgewise.fleet.compare.compare`)."""

    store: Path
    sweep: int
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class Collection:
    """``problems`` are sentences: bundles that cannot be read, targets that failed."""

    entries: list[Entry]
    problems: list[str]
    sweeps: list[Swept] = field(default_factory=list)


def collect(places: Sequence[Path]) -> Collection:
    """Find every bundle in the places (each a bundle, or a folder with some somewhere below it).

    Raises:
        ToolchainError: a place that is not there, or no bundle at all.
    """
    for place in places:
        if not place.exists():
            raise _nothing(str(place), "no such folder", "Check the path")
    entries, problems = [], []
    for path in dict.fromkeys(path for place in places for path in _bundles(place)):
        try:
            entries.append(_read(path))
        except EdgewiseError as error:
            problems.append(str(error))
    results = list(_results({folder for place in places for folder in (place, *_parents(place))}))
    problems += [problem for result in results for problem in _failures(result)]
    sweeps = [swept for place in places for file in sorted(place.rglob(STORE)) for swept in _swept(file)]
    if not entries and not problems and not sweeps:
        raise _nothing(", ".join(map(str, places)), "no bundle in it", "Build one: edgewise build … -o NAME.edge")
    for entry in entries:
        _attach(entry, results)
    return Collection(entries, problems, sweeps)


def _swept(file: Path) -> Iterator[Swept]:
    with Store(file) as store:
        numbers = store.sweeps()
        if numbers:
            before = store.rows(numbers[-2]) if len(numbers) > 1 else []
            yield Swept(file, numbers[-1], compare(store.rows(numbers[-1]), before, DEFAULT_MAX_SLOWDOWN))


def _bundles(place: Path) -> Iterator[Path]:
    if (place / MANIFEST).is_file() or place.is_file():
        yield place
        return
    for path in sorted([*place.rglob("*.edge"), *place.rglob("*.edge.zip")]):
        if not any(part.startswith(".") for part in path.relative_to(place).parts):
            yield path


def _parents(place: Path) -> list[Path]:
    """The folders in which results for a place's bundles may lie."""
    return list(dict.fromkeys(path.parent for path in _bundles(place)))


def _read(path: Path) -> Entry:
    bundle = open_bundle(path)
    sizes = {name: (bundle.path / name).stat().st_size for name in bundle.manifest["files"]}
    return Entry(path, bundle.manifest, sizes)


def _results(folders: Iterable[Path]) -> Iterator[dict[str, Any]]:
    files = {file for folder in folders if folder.is_dir() for file in folder.glob("*.json")}
    for file in sorted(files):
        if file.name == MANIFEST or file.stat().st_size > _LARGEST_RESULT_BYTES:
            continue
        try:
            result = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            continue  # somebody else's file
        if isinstance(result, dict) and "schema_version" in result:
            yield result


def _attach(entry: Entry, results: Iterable[dict[str, Any]]) -> None:
    own = engine_digests(entry.manifest)
    for result in results:
        about = result.get("bundle")
        if not isinstance(about, dict) or about.get("engine_sha256") != own:
            continue
        if _KINDS["profile"] in result:
            entry.profile = result
        elif _KINDS["accuracy"] in result:
            entry.accuracy.append(result)
        elif _KINDS["parity"] in result:
            entry.parity.append(result)


def _failures(result: dict[str, Any]) -> Iterator[str]:
    """What a conversion's result says of targets that failed."""
    targets = result.get("targets")
    for target in targets if isinstance(targets, list) else ():
        for error in target.get("errors", []) if isinstance(target, dict) else ():
            yield f"{target.get('target')} on {target.get('device')}: {error.get('message')}"


def _nothing(where: str, found: str, fix: str) -> ToolchainError:
    return ToolchainError("nothing to report on", where=where, found=found, expected="bundles (NAME.edge)", fix=fix)
