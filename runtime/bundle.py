"""The bundle: a folder ``NAME.edge/`` (or the same zipped) that holds an engine and everything needed to trust it."""

from __future__ import annotations

import json
import os
import re
import shutil
import weakref
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.runtime.errors import RunError
from edgewise.runtime.manifest import MANIFEST, SCHEMA_VERSION, SIGNATURE, damaged, read_manifest
from edgewise.runtime.npy import stored_npz
from edgewise.runtime.signature import check_signature, pinned_key
from edgewise.runtime.storage import check_replaceable, sha256_of, whole_folder
from edgewise.runtime.tensors import TensorSpec
from edgewise.runtime.unpack import unpack

REFERENCE = "reference.npz"
_REFERENCE_KEY = re.compile(r"(?P<index>\d{1,6})/(?P<kind>in|out)/(?P<name>.+)", re.DOTALL)
_LARGEST_REFERENCE_BYTES = 2 << 30
_LITTER = frozenset((".DS_Store", "Thumbs.db"))


@dataclass(frozen=True)
class BundleFunction:
    """Something else that the engine computes: its own inputs and outputs, and the file with its samples."""

    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    reference: str


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

    @property
    def functions(self) -> dict[str, BundleFunction]:
        """What the engine computes beside the network, by name; mostly nothing."""
        return {
            entry["name"]: BundleFunction(
                [TensorSpec.from_json(port) for port in entry["inputs"]],
                [TensorSpec.from_json(port) for port in entry["outputs"]],
                entry["reference"],
            )
            for entry in self.manifest["engine"].get("functions", ())
        }

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

    def reference(self, function: str = "") -> tuple[list[dict[str, np.ndarray]], list[dict[str, np.ndarray]]]:
        """Sample inputs and the source network's outputs for them: two lists of the same length, arrays by tensor name.

        Those of another ``function`` were computed by its ONNX graph.
        """
        return load_reference(self.file(self.functions[function].reference if function else REFERENCE))

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
    """The inverse of :func:`save_reference`.

    Raises:
        RunError: cut, changed, too large, or with other keys.
    """
    arrays = stored_npz(path)
    keys = {name: _REFERENCE_KEY.fullmatch(name) for name in arrays}
    samples = sorted({int(key["index"]) for key in keys.values() if key})
    if not all(keys.values()) or samples != list(range(len(samples))):
        raise _bad_reference(path, "other keys", "INDEX/in/NAME and INDEX/out/NAME, counted from 0")
    size = sum(array.nbytes for array in arrays.values())
    if size > _LARGEST_REFERENCE_BYTES:
        raise _bad_reference(path, f"{size} bytes", f"at most {_LARGEST_REFERENCE_BYTES}")
    kinds: dict[str, list[dict[str, np.ndarray]]] = {kind: [{} for _ in samples] for kind in ("in", "out")}
    for name, key in keys.items():
        if key:
            kinds[key["kind"]][int(key["index"])][key["name"]] = arrays[name].whole()
    return kinds["in"], kinds["out"]


def _bad_reference(path: Path, found: str, expected: str) -> RunError:
    return RunError(
        "cannot read the reference data", where=str(path), found=found, expected=expected, fix="Build the bundle again"
    )


@contextmanager
def create_bundle(path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Give a draft folder to fill and a manifest to complete; digests are taken and the folder renamed when the block ends well.

    Raises:
        RunError: something that is no bundle lies there, or the folder cannot be written.
    """
    check_replaceable(path, MANIFEST, "bundle")
    with whole_folder(path) as draft:
        manifest: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "name": path.name.removesuffix(".edge")}
        yield draft, manifest
        seal(draft, manifest)


def seal(folder: Path, manifest: dict[str, Any]) -> None:
    """Record the sha256 of every file and write the manifest."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name not in _LITTER)
    names = {file.relative_to(folder).as_posix(): file for file in files if file != folder / MANIFEST}
    manifest["files"] = {name: sha256_of(file) for name, file in names.items()}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def open_bundle(path: Path | str) -> Bundle:
    """Open a bundle (folder or zip) and check every digest.

    A zip is unpacked to a temporary folder, which is removed when the bundle is no longer referenced.

    Raises:
        RunError: not a bundle, another schema version, a missing, added or changed file, a hostile zip.
    """
    path = Path(path)
    if path.is_dir():
        return _checked(path, str(path))
    if not path.is_file() or not zipfile.is_zipfile(path):
        raise RunError(
            "cannot open the bundle",
            where=str(path),
            found="a file that is not a zip" if path.is_file() else "no such file or folder",
            expected="a folder NAME.edge or a zip of one",
            fix="Check the path",
        )
    folder = unpack(path)
    try:
        bundle = _checked(_inner(folder), str(path))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(bundle, shutil.rmtree, folder, ignore_errors=True)
    return bundle


def _checked(folder: Path, where: str) -> Bundle:
    if not (folder / MANIFEST).is_file():
        raise RunError(
            "cannot open the bundle",
            where=where,
            found=f"no {MANIFEST}",
            expected="a folder NAME.edge or a zip of one",
            fix="Check the path",
        )
    if (key := pinned_key()) is not None:
        check_signature(folder, key, where)
    manifest = read_manifest(folder / MANIFEST, where)
    wanted, have = manifest["files"], _files_in(folder, where)
    if missing := [name for name in wanted if name not in have]:
        raise damaged(where, f"{missing[0]!r} missing")
    if added := [name for name in have if name not in wanted]:
        raise damaged(where, f"{added[0]!r} added since the build")
    for name, file in have.items():
        if _digest_or_none(file) != wanted[name]:
            raise damaged(where, f"{name!r} changed since the build")
    return Bundle(folder, manifest)


def _files_in(folder: Path, where: str) -> dict[str, Path]:
    """Every file by its name in the manifest, but the manifest itself and what a file manager leaves behind."""
    found = {}
    for parent, folders, files in os.walk(folder):
        for place in (Path(parent, name) for name in sorted(folders + files)):
            if place.is_symlink():
                raise damaged(where, f"a symbolic link: {place.name!r}")
            if place.name in files and place.name not in _LITTER:
                found[place.relative_to(folder).as_posix()] = place
    del found[MANIFEST]
    found.pop(SIGNATURE, None)  # of the manifest, which therefore cannot list it
    return found


def _digest_or_none(file: Path) -> str | None:
    """The file's sha256; None when it cannot be read, or is a pipe or a device."""
    try:
        return sha256_of(file) if file.is_file() else None
    except OSError:
        return None


def _inner(folder: Path) -> Path:
    """A zip holds the bundle's folder, or the bundle itself."""
    inner = [child for child in folder.iterdir() if (child / MANIFEST).is_file()]
    return inner[0] if len(inner) == 1 and not (folder / MANIFEST).is_file() else folder
