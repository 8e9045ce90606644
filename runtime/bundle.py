"""The bundle: a folder ``NAME.edge/`` (or the same zipped) that holds an engine and everything needed to trust it."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from edgewise.runtime.errors import RunError
from edgewise.runtime.storage import sha256_of, whole_folder
from edgewise.runtime.tensors import TensorSpec

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
REFERENCE = "reference.npz"


@dataclass(frozen=True)
class Bundle:
    """An opened bundle whose digests hold.

    ``manifest`` has the keys ``schema_version, name, source, inputs, outputs, target, device, engine, stages, quantization,
    sparsity, parity, accuracy, files``; docs/bundle.md describes each.
    """

    path: Path
    manifest: dict[str, Any]

    @property
    def inputs(self) -> list[TensorSpec]:
        """What the network takes, in order."""
        return [TensorSpec.from_json(entry) for entry in self.manifest["inputs"]]

    @property
    def outputs(self) -> list[TensorSpec]:
        """What the network gives, in order."""
        return [TensorSpec.from_json(entry) for entry in self.manifest["outputs"]]

    def file(self, name: str) -> Path:
        """The path of a file that the manifest lists.

        Raises:
            RunError: the manifest does not list it.
        """
        if name not in self.manifest["files"]:
            raise RunError(
                "the bundle lacks a file",
                where=str(self.path),
                found=f"no {name!r}",
                expected="it in the manifest",
                fix="Build it again",
            )
        return self.path / name

    def reference(self) -> tuple[list[dict[str, np.ndarray]], list[dict[str, np.ndarray]]]:
        """Sample inputs and the source network's outputs for them: two lists of the same length, arrays by tensor name."""
        return load_reference(self.file(REFERENCE))

    @property
    def size_bytes(self) -> int:
        """The engine's own files, without reference data and manifest."""
        return sum((self.path / name).stat().st_size for name in self.manifest["engine"]["files"])


def save_reference(path: Path, inputs: list[dict[str, np.ndarray]], outputs: list[dict[str, np.ndarray]]) -> None:
    """Write ``reference.npz``: keys ``INDEX/in/NAME`` and ``INDEX/out/NAME``."""
    arrays = {f"{i}/in/{name}": array for i, sample in enumerate(inputs) for name, array in sample.items()}
    arrays |= {f"{i}/out/{name}": array for i, sample in enumerate(outputs) for name, array in sample.items()}
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def load_reference(path: Path) -> tuple[list[dict[str, np.ndarray]], list[dict[str, np.ndarray]]]:
    """The inverse of :func:`save_reference`."""
    with np.load(path, allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in archive.files}
    count = 1 + max((int(key.split("/", 1)[0]) for key in arrays), default=-1)
    kinds: dict[str, list[dict[str, np.ndarray]]] = {
        "in": [{} for _ in range(count)],
        "out": [{} for _ in range(count)],
    }
    for key, array in arrays.items():
        index, kind, name = key.split("/", 2)
        kinds[kind][int(index)][name] = array
    return kinds["in"], kinds["out"]


@contextmanager
def create_bundle(path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Give a draft folder to fill and a manifest to complete; digests are taken and the folder renamed when the block ends well."""
    with whole_folder(path) as draft:
        manifest: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "name": path.name.removesuffix(".edge")}
        yield draft, manifest
        seal(draft, manifest)


def seal(folder: Path, manifest: dict[str, Any]) -> None:
    """Record the sha256 of every file and write the manifest."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file != folder / MANIFEST)
    manifest["files"] = {file.relative_to(folder).as_posix(): sha256_of(file) for file in files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def open_bundle(path: Path | str) -> Bundle:
    """Open a bundle (folder or zip) and check every digest.

    Raises:
        RunError: not a bundle, another schema version, a missing, added or changed file.
    """
    path = Path(path)
    folder = _unzip(path) if path.is_file() else path
    if not (folder / MANIFEST).is_file():
        raise RunError(
            "cannot open the bundle",
            where=str(path),
            found=f"no {MANIFEST}",
            expected="a folder NAME.edge or a zip of one",
            fix="Check the path",
        )
    manifest = _read_manifest(folder / MANIFEST, path)
    for name, digest in manifest["files"].items():
        place = (folder / name).resolve()
        if not place.is_relative_to(folder.resolve()) or not place.is_file():
            raise _broken(path, f"{name!r} missing")
        if sha256_of(place) != digest:
            raise _broken(path, f"{name!r} changed since the build")
    return Bundle(folder, manifest)


def _read_manifest(file: Path, path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _broken(path, f"{MANIFEST} that is not JSON") from error
    if not isinstance(manifest, dict) or manifest.get("schema_version") != SCHEMA_VERSION:
        version = manifest.get("schema_version") if isinstance(manifest, dict) else None
        raise RunError(
            "cannot open the bundle",
            where=str(path),
            found=f"schema_version {version}",
            expected=str(SCHEMA_VERSION),
            fix="Build it again with this version of edgewise",
        )
    missing = [key for key in ("inputs", "outputs", "target", "engine", "files") if key not in manifest]
    if missing or not isinstance(manifest["files"], dict):
        raise _broken(path, f"{MANIFEST} without {', '.join(missing) or 'a table of files'}")
    return manifest


def _broken(path: Path, found: str) -> RunError:
    return RunError(
        "the bundle is damaged",
        where=str(path),
        found=found,
        expected="the files as they were built",
        fix="Copy or build it again",
    )


def _unzip(path: Path) -> Path:
    if not zipfile.is_zipfile(path):
        raise RunError(
            "cannot open the bundle",
            where=str(path),
            found="a file that is not a zip",
            expected="a folder NAME.edge or a zip of one",
            fix="Check the path",
        )
    folder = Path(tempfile.mkdtemp(prefix="edgewise-"))
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if not (folder / entry.filename).resolve().is_relative_to(folder.resolve()):
                shutil.rmtree(folder)
                raise _broken(path, f"an entry that leaves the folder: {entry.filename!r}")
        archive.extractall(folder)
    inner = [child for child in folder.iterdir() if (child / MANIFEST).is_file()]
    return inner[0] if len(inner) == 1 else folder
