"""Write the Swift package of a bundle."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.runtime.bundle import Bundle
from edgewise.runtime.core_ml_ports import Port, read_ports, read_states
from edgewise.runtime.preprocess import Preprocess
from edgewise.runtime.storage import check_replaceable, whole_folder
from edgewise.targets.coreml.package import MANIFEST
from edgewise.targets.coreml.swift.code import (
    fill,
    model_parts,
    preprocessing_parts,
    sample_parts,
    swift_name,
    swift_type,
)
from edgewise.targets.errors import TargetError

_TEMPLATES = Path(__file__).parent / "templates"
_ROUNDING = 0.01  # of a step between two pixels
_MACOS = {15: 12, 16: 13, 17: 14, 18: 15, 26: 26}


def write_swift(bundle: Bundle, folder: Path) -> None:
    """Write ``Package.swift``, the sources and a test to ``folder``, whole or not at all.

    Raises:
        TargetError: a bundle whose inputs Swift cannot name.
        RunError: a damaged bundle, or a folder that holds something else.
    """
    settings = bundle.manifest["engine"]["settings"]
    where = f"{bundle.path}, engine.settings"
    inputs, outputs = (read_ports(settings.get(kind), f"{where}.{kind}") for kind in ("inputs", "outputs"))
    states = read_states(settings.get("states"), f"{where}.states")
    name = _type_name(str(bundle.manifest.get("name") or bundle.path.stem))
    ios = int(str(settings["minimum_deployment_target"]).removeprefix("iOS"))
    check_replaceable(folder, "Package.swift", "Swift package")
    with whole_folder(folder) as draft:
        sources, tests = draft / "Sources" / name, draft / "Tests" / f"{name}Tests"
        package = bundle.file(f"{settings['package']}/{MANIFEST}").parent
        shutil.copytree(package, sources / "Resources" / "model.mlpackage")
        tests.mkdir(parents=True)
        missing = _why_no_samples(bundle, inputs, bool(states))
        resources = ', resources: [.copy("Resources")]' if not missing else ""
        platforms = f".iOS(.v{ios}), .macOS(.v{_MACOS[ios]})"
        _write(draft / "Package.swift", "Package.swift", name, {"PLATFORMS": platforms, "TEST_RESOURCES": resources})
        shapes = {entry["name"]: entry["shape"] for entry in bundle.manifest["inputs"]}
        sizes = {port.name: (shapes[port.name][-2], shapes[port.name][-1]) for port in inputs if port.image is not None}
        parts = model_parts(name, inputs, outputs, bool(states), sizes, settings.get("classifier", {}))
        _write(sources / f"{name}.swift", "Model.swift", name, parts)
        preprocess = bundle.manifest.get("preprocess")
        picture = _picture_input(inputs, bundle)
        if preprocess is not None and picture is not None:
            parts = preprocessing_parts(Preprocess.from_json(preprocess), picture)
            _write(sources / "Preprocessing.swift", "Preprocessing.swift", name, parts)
        if not missing:
            (tests / "Resources").mkdir()
            _write_samples(bundle, inputs, outputs, tests / "Resources")
            _write(tests / f"{name}Tests.swift", "Tests.swift", name, sample_parts(inputs, outputs, _least_db(bundle)))
        else:
            (tests / f"{name}Tests.swift").write_text(f"// No samples: {missing}.\n", encoding="utf-8")


def _write(path: Path, template: str, name: str, parts: dict[str, str]) -> None:
    text = (_TEMPLATES / template).read_text(encoding="utf-8")
    path.write_text(fill(text, {"NAME": name, **parts}), encoding="utf-8")


def _type_name(text: str) -> str:
    """``my-net.v2`` → ``MyNetV2``: a Swift type's name.

    Raises:
        TargetError: no letter in it.
    """
    words = re.findall(r"[A-Za-z0-9]+", text)
    made = "".join(word[0].upper() + word[1:] for word in words)
    if not made or not made[0].isalpha():
        made = f"Net{made}"
    if not words:
        raise TargetError(
            "cannot write a Swift package", where="the bundle's name", found=repr(text), expected="letters or digits",
            fix="Name the bundle otherwise",
        )  # fmt: skip
    return made


def _picture_input(inputs: list[Port], bundle: Bundle) -> tuple[int, int] | None:
    """Height and width of the one input that is a picture; None without one."""
    shapes = {spec.name: spec.shape for spec in bundle.inputs}
    found = [
        shape[2:]
        for port in inputs
        if len(shape := shapes[port.name]) == 4
        and shape[1] in (1, 3)
        and all(isinstance(dim, int) for dim in shape[1:])
    ]
    return (int(found[0][0]), int(found[0][1])) if len(found) == 1 else None


def _least_db(bundle: Bundle) -> float:
    """What the test demands: 3 dB below what the evaluator found, for the device rounds otherwise; at least 10."""
    outputs = bundle.manifest.get("parity", {}).get("outputs", [])
    found = [float(entry["sqnr_db"]) for entry in outputs if isinstance(entry.get("sqnr_db"), int | float)]
    return round(max(10.0, min(40.0, min(found, default=30.0) - 3)), 1)


def _why_no_samples(bundle: Bundle, inputs: list[Port], has_states: bool) -> str:
    """Empty where a test can give the bundle's samples to the package: images have pixels of 8 bits."""
    if has_states:
        return "what a call returns depends on the calls before it"
    for sample in bundle.reference()[0]:
        for port in inputs:
            if port.image is not None:
                array, steps = sample[port.name], replace(port.image, resize=None, crop=None)
                step = 1 / (port.image.scale * np.reshape(port.image.std, (1, -1, 1, 1)))
                if np.any(np.abs(steps(port.given(array)) - array) > _ROUNDING * step):
                    return f"those of the bundle are no images of 8 bits, which {port.name} takes"
    return ""


def _write_samples(bundle: Bundle, inputs: list[Port], outputs: list[Port], folder: Path) -> None:
    """``reference.json`` and a file per tensor: an image, or little-endian numbers as Core ML has them."""
    listed = []
    for index, (given, made) in enumerate(zip(*bundle.reference(), strict=True)):
        entry: dict[str, Any] = {"inputs": {}, "outputs": {}}
        for kind, ports, arrays in (("inputs", inputs, given), ("outputs", outputs, made)):
            for port in ports:
                array = np.atleast_1d(arrays[port.name]).astype(_STORED[swift_type(port)])
                name = f"{index}_{kind[:-1]}_{swift_name(port).strip('`')}.{'bin' if port.image is None else 'png'}"
                if port.image is None:
                    (folder / name).write_bytes(np.ascontiguousarray(array).tobytes())
                else:
                    port.given(array).save(folder / name)
                entry[kind][port.coreml] = {"file": name, "shape": list(array.shape)}
        listed.append(entry)
    (folder / "reference.json").write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")


_STORED = {"Float": "<f4", "Float16": "<f2", "Int32": "<i4"}
