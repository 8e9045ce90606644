"""Run a function of a saved package, one operation after the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from coremltools.proto import MIL_pb2

from edgewise.targets.base import Arrays
from edgewise.targets.coreml.evaluator.sizes import takes, told
from edgewise.targets.coreml.evaluator.step import AnyStep, Classify, ReadState, Step, WriteState, cannot
from edgewise.targets.coreml.evaluator.weights import Weights, numpy_dtype
from edgewise.targets.coreml.package import WEIGHTS, function_name, read_spec

_HALF = MIL_pb2.DataType.FLOAT16


class EvaluatedProgram:
    """A package that is ready to compute.

    Values are rounded between operations to the dtype that the program declares; those of float16 are held in float32, in which
    the arithmetic inside an operation is too. (What the Neural Engine accumulates in is not documented.)

    Args:
        package: the folder ``.mlpackage``.
        name: which function; empty: the one that the package computes by default.

    Raises:
        TargetError: a package that is cut, no such function, or an operation outside the table.
    """

    def __init__(self, package: Path, name: str = "") -> None:
        spec = read_spec(package)
        described = {function.name: function for function in spec.description.functions}
        chosen = name or function_name(spec)
        if chosen not in spec.mlProgram.functions:
            raise cannot(f"function {chosen!r}", "no such function", f"one of {', '.join(spec.mlProgram.functions)}")
        function = spec.mlProgram.functions[chosen]
        block = function.block_specializations[function.opset]
        self.opset = str(function.opset)
        kinds = {entry.name: entry.type for entry in function.inputs}
        self.states = {
            name: numpy_dtype(kind.stateType.wrappedType.tensorType.dataType)
            for name, kind in kinds.items()
            if kind.WhichOneof("type") == "stateType"
        }
        self.inputs = {
            name: numpy_dtype(kind.tensorType.dataType) for name, kind in kinds.items() if name not in self.states
        }
        self._halves = {
            output.name for op in block.operations for output in op.outputs if output.type.tensorType.dataType == _HALF
        }
        self.outputs = list(block.outputs)
        description = described.get(chosen, spec.description)
        self.described = [entry.name for entry in description.output]
        self._ports = {entry.name: entry for entry in description.input}
        self.used = {op.type for op in block.operations}  # types of operations
        weights = Weights(package / WEIGHTS)
        constants: dict[str, Any] = {}
        steps: list[AnyStep] = []
        for op in block.operations:
            if op.type == "const":
                constants[op.outputs[0].name] = weights.value(op.attributes["val"])
            elif op.type.startswith("constexpr"):
                with np.errstate(all="ignore"):
                    Step(op, weights, constants, self.opset)(constants)
            else:
                steps.append(self._step(op, weights, constants))
        self._constants = constants
        self._steps = list(zip(steps, self._last_reads(steps), strict=True))

    def _step(self, op: Any, weights: Weights, constants: dict[str, Any]) -> AnyStep:
        if op.type == "classify":
            return Classify(op)
        if op.type in ("read_state", "write_state"):
            kind = ReadState if op.type == "read_state" else WriteState
            return kind(op, self.states[op.inputs["input"].arguments[0].name])
        return Step(op, weights, constants, self.opset)

    def run(self, inputs: Arrays, states: Arrays | None = None) -> Arrays:
        """Inputs and outputs by Core ML's names; ``states`` before, and, among the outputs, what they are afterwards.

        Raises:
            TargetError: a missing input, one of a shape that the package does not take, or an operation that fails on these values.
        """
        values = dict(self._constants)
        given = {**inputs, **(states or {})}
        for name, dtype in (self.inputs | self.states).items():
            if name not in given:
                raise cannot(f"input {name!r}", "no array", f"the inputs {', '.join([*self.inputs, *self.states])}")
            values[name] = np.asarray(given[name], dtype)
            port = self._ports.get(name)
            if port is not None and not takes(port, values[name].shape):
                fix = "Pass that, or build with other build.options.dims"
                raise cannot(f"input {name!r}", f"the shape {list(values[name].shape)}", told(port), fix)
        with np.errstate(all="ignore"):
            for step, dropped in self._steps:
                step(values)
                for name in dropped:
                    del values[name]
        made = {name: np.asarray(values[name]) for name in (*self.outputs, *self.states)}
        return {name: array.astype(np.float16) if name in self._halves else array for name, array in made.items()}

    def _last_reads(self, steps: Sequence[AnyStep]) -> list[list[str]]:
        """Values that no later step reads, by the step that reads them last: they are dropped after it."""
        last = {name: index for index, step in enumerate(steps) for name in step.reads}
        dropped: list[list[str]] = [[] for _ in steps]
        for name, index in last.items():
            if name not in self.outputs and name not in self.states:
                dropped[index].append(name)
        return dropped
