"""How a bundle is computed on this machine: by Core ML on macOS, else by the evaluator."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import numpy as np

from edgewise.runtime.bundle import Bundle
from edgewise.runtime.core_ml_ports import Port, function_settings, read_ports, read_states
from edgewise.targets.base import Arrays, Executor
from edgewise.targets.coreml.images import pixels_of
from edgewise.targets.coreml.package import MANIFEST
from edgewise.targets.coreml.quiet import load_coremltools, quietly
from edgewise.targets.local import local_executor

_EVALUATED = (
    "the saved package, read back and evaluated operation by operation in numpy with values held in the program's dtypes; "
    "not run by Core ML, which needs macOS"
)


def executor(bundle: Bundle) -> Executor | str:
    """See ``CoreMLTarget.executor``."""
    if platform.system() == "Darwin":
        return local_executor(bundle)
    load_coremltools()
    others = {name: _function(bundle, name) for name in bundle.functions}
    return Executor(_function(bundle, ""), _EVALUATED, functions=others)


def _function(bundle: Bundle, name: str) -> Callable[[Arrays], Arrays]:
    """One function of the package; empty: the network itself."""
    from edgewise.targets.coreml.evaluator.program import EvaluatedProgram

    settings, where = function_settings(bundle, name)
    inputs, outputs = (read_ports(settings.get(kind), f"{where}.{kind}") for kind in ("inputs", "outputs"))
    states = read_states(settings.get("states"), f"{where}.states")
    package = bundle.manifest["engine"]["settings"]["package"]
    with quietly():
        program = EvaluatedProgram(bundle.file(f"{package}/{MANIFEST}").parent, name)

    def run(arrays: Arrays) -> Arrays:
        kept = {state.coreml: np.asarray(arrays[state.name]) for state in states}
        made = program.run({port.coreml: _given(port, arrays) for port in inputs}, kept)
        after = {state.output: made[state.coreml].astype(state.dtype) for state in states}
        return {port.name: port.made(made.get(port.coreml)) for port in outputs} | after

    return run


def _given(port: Port, arrays: Arrays) -> Any:
    array = arrays[port.name]
    return port.given(array) if port.image is None else pixels_of(array, port.image)
