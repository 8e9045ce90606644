"""How a bundle is computed on this machine: by Core ML on macOS, else by the evaluator."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np

from edgewise.runtime.bundle import Bundle
from edgewise.runtime.core_ml_ports import Port, read_ports, read_states
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
    from edgewise.targets.coreml.evaluator.program import EvaluatedProgram

    settings = bundle.manifest["engine"]["settings"]
    where = f"{bundle.path}, engine.settings"
    inputs, outputs = (read_ports(settings.get(kind), f"{where}.{kind}") for kind in ("inputs", "outputs"))
    states = read_states(settings.get("states"), f"{where}.states")
    with quietly():
        program = EvaluatedProgram(bundle.file(f"{settings['package']}/{MANIFEST}").parent)

    def run(arrays: Arrays) -> Arrays:
        kept = {state.coreml: np.asarray(arrays[state.name]) for state in states}
        made = program.run({port.coreml: _given(port, arrays) for port in inputs}, kept)
        after = {state.output: made[state.coreml].astype(state.dtype) for state in states}
        return {port.name: port.made(made.get(port.coreml)) for port in outputs} | after

    return Executor(run, _EVALUATED)


def _given(port: Port, arrays: Arrays) -> Any:
    array = arrays[port.name]
    return port.given(array) if port.image is None else pixels_of(array, port.image)
