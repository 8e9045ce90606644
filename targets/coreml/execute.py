"""How a bundle is computed on this machine: by Core ML on macOS, else by the evaluator."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import numpy as np
from edgewise.runtime.bundle import Bundle
from edgewise.targets.base import Arrays, Executor
from edgewise.targets.coreml.interface import Port, to_coreml, to_onnx
from edgewise.targets.coreml.package import MANIFEST
from edgewise.targets.coreml.quiet import load_coremltools, quietly

_EVALUATED = (
    "the saved package, read back and evaluated operation by operation in numpy with values held in the program's dtypes; "
    "not run by Core ML, which needs macOS"
)


def executor(bundle: Bundle) -> Executor:
    """See ``CoreMLTarget.executor``."""
    ct = load_coremltools()
    settings = bundle.manifest["engine"]["settings"]
    package = bundle.file(f"{settings['package']}/{MANIFEST}").parent
    inputs, outputs = ([Port.from_json(entry) for entry in settings[kind]] for kind in ("inputs", "outputs"))
    if platform.system() == "Darwin":
        model = ct.models.MLModel(str(package))
        return Executor(_through(inputs, outputs, _predict(model, inputs)), f"Core ML on macOS {platform.mac_ver()[0]}")
    from edgewise.targets.coreml.evaluator.program import EvaluatedProgram

    with quietly():
        program = EvaluatedProgram(package)
    return Executor(_through(inputs, outputs, program.run), _EVALUATED, stand_in=True)


def _through(inputs: list[Port], outputs: list[Port], compute: Callable[[Arrays], Any]) -> Callable[[Arrays], Arrays]:
    def run(arrays: Arrays) -> Arrays:
        given = {}
        for port in inputs:
            array = to_coreml(arrays[port.name], port)
            given[port.coreml] = array if port.image is None else port.image.pixels(array)
        made = compute(given)
        return {port.name: to_onnx(made[port.coreml], port) for port in outputs}

    return run


def _predict(model: Any, inputs: list[Port]) -> Callable[[Arrays], Any]:
    """Core ML takes images as images: pixels are rounded to 8 bits."""

    def predict(given: Arrays) -> Any:
        ready: dict[str, Any] = dict(given)
        for port in inputs:
            if port.image is not None:
                ready[port.coreml] = _picture(given[port.coreml], port.image.color)
        return model.predict(ready)

    return predict


def _picture(pixels: np.ndarray, color: str) -> Any:
    """A PIL image of [1, channels, height, width]; PIL has RGB, whatever the layout."""
    from PIL import Image as Pillow

    rounded = np.clip(np.round(pixels[0]), 0, 255).astype(np.uint8)
    if color == "gray":
        return Pillow.fromarray(rounded[0])
    return Pillow.fromarray((rounded[::-1] if color == "bgr" else rounded).transpose(1, 2, 0))
