"""Results of stages, kept under ``DIR/.cache`` by content hash, so that a conversion that was interrupted or changed resumes."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgewise.runtime.storage import sha256_of, whole_folder
from edgewise.stages.identity import key_of, user_sources
from edgewise.stages.network import MODEL, Network, load_network, save_network

_ENTRY = "entry.json"
_VALUE = "value.json"


@dataclass(frozen=True)
class StageRecord:
    """How a stage's result came to be: computed in ``seconds``, or found (``reused``; then the seconds of that time)."""

    stage: str
    key: str
    seconds: float
    reused: bool


@dataclass
class Cache:
    """One folder of results. ``reuse`` False computes everything anew (and keeps it for the next time)."""

    folder: Path
    reuse: bool = True
    used: set[str] = field(default_factory=set)

    def network(self, stage: str, parts: dict[str, Any], make: Callable[[], Network]) -> tuple[Network, StageRecord]:
        """The network of a stage. Always as read back from its file: found or computed, the bytes are the same."""
        place, record = self._entry(stage, parts, lambda folder: save_network(make(), folder))
        return load_network(place), record

    def value(self, stage: str, parts: dict[str, Any], make: Callable[[], Any]) -> tuple[Any, StageRecord]:
        """A result that is JSON."""

        def save(folder: Path) -> list[str]:
            (folder / _VALUE).write_text(json.dumps(make(), allow_nan=False), encoding="utf-8")
            return [_VALUE]

        place, record = self._entry(stage, parts, save)
        return json.loads((place / _VALUE).read_text(encoding="utf-8")), record

    def model_of(self, record: StageRecord) -> Path:
        """The file of a stage's network."""
        return self._place(record.stage, record.key) / MODEL

    def sweep(self) -> None:
        """Remove what this run did not use, so that the folder does not grow."""
        for place in self.folder.iterdir() if self.folder.is_dir() else ():
            if place.name not in self.used:
                shutil.rmtree(place, ignore_errors=True)

    def _place(self, stage: str, key: str) -> Path:
        return self.folder / f"{stage}-{key[:16]}"

    def _entry(self, stage: str, parts: dict[str, Any], save: Callable[[Path], list[str]]) -> tuple[Path, StageRecord]:
        key = key_of(stage, parts)
        place = self._place(stage, key)
        first = place.name not in self.used  # what this very run made is always good
        self.used.add(place.name)
        entry = _read_entry(place, key)
        if entry is not None and (self.reuse or not first):
            return place, StageRecord(stage, key, entry["seconds"], reused=True)
        start = time.perf_counter()
        with whole_folder(place) as draft:
            files = save(draft)
            seconds = round(time.perf_counter() - start, 3)
            entry = {
                "key": key,
                "seconds": seconds,
                "files": {name: sha256_of(draft / name) for name in files},
                "sources": user_sources(),
            }
            (draft / _ENTRY).write_text(json.dumps(entry, indent=1), encoding="utf-8")
        return place, StageRecord(stage, key, seconds, reused=False)


@contextmanager
def no_empty_folders(*folders: Path) -> Iterator[None]:
    """Remove the folders that were made meanwhile and are still empty, outermost first, when the block ends badly."""
    made = [folder for folder in folders if not folder.exists()]
    try:
        yield
    except BaseException:
        for folder in reversed(made):
            with suppress(OSError):  # not there, or not empty: finished stages stay for the next run
                folder.rmdir()
        raise


def _read_entry(place: Path, key: str) -> dict[str, Any] | None:
    """An entry that is whole, and whose Python sources are still the same; else None."""
    try:
        entry = json.loads((place / _ENTRY).read_text(encoding="utf-8"))
        same = entry["key"] == key
        whole = all(sha256_of(place / name) == digest for name, digest in entry["files"].items())
        current = all(sha256_of(Path(name)) == digest for name, digest in entry["sources"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return entry if same and whole and current else None
