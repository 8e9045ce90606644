"""Run a function of a saved package, one operation after the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from coremltools.proto import MIL_pb2

from edgewise.targets.base import Arrays, TargetError
from edgewise.targets.coreml.evaluator.rounding import held
from edgewise.targets.coreml.evaluator.sizes import takes, told
from edgewise.targets.coreml.evaluator.table import operations
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
    """

    def __init__(self, package: Path, name: str = "") -> None:
        spec = read_spec(package)
        described = {function.name: function for function in spec.description.functions}
        chosen = name or function_name(spec)
        if chosen not in spec.mlProgram.functions:
            raise _cannot(f"function {chosen!r}", "no such function", f"one of {', '.join(spec.mlProgram.functions)}")
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
        self._operations = list(block.operations)
        self._weights = Weights(package / WEIGHTS)
        self._constants: dict[str, Any] = {}
        for op in self._operations:
            if op.type == "const":
                self._constants[op.outputs[0].name] = self._weights.value(op.attributes["val"])
            elif op.type.startswith("constexpr"):
                self._run_one(op, self._constants)

    @property
    def used(self) -> set[str]:
        """The types of the program's operations."""
        return {op.type for op in self._operations}

    def run(self, inputs: Arrays, states: Arrays | None = None) -> Arrays:
        """Inputs and outputs by Core ML's names; ``states`` before, and, among the outputs, what they are afterwards.

        Raises:
            TargetError: a missing input, one of a shape that the package does not take, an operation outside the table, or one that fails on these values.
        """
        values = dict(self._constants)
        given = {**inputs, **(states or {})}
        for name, dtype in (self.inputs | self.states).items():
            if name not in given:
                raise _cannot(f"input {name!r}", "no array", f"the inputs {', '.join([*self.inputs, *self.states])}")
            values[name] = np.asarray(given[name], dtype)
            port = self._ports.get(name)
            if port is not None and not takes(port, values[name].shape):
                fix = "Pass that, or build with other build.options.dims"
                raise _cannot(f"input {name!r}", f"the shape {list(values[name].shape)}", told(port), fix)
        readers = self._last_reads()
        for index, op in enumerate(self._operations):
            if not op.type.startswith("const"):
                self._run_one(op, values)
            for name in readers.get(index, ()):
                values.pop(name, None)
        made = {name: np.asarray(values[name]) for name in (*self.outputs, *self.states)}
        return {name: array.astype(np.float16) if name in self._halves else array for name, array in made.items()}

    def _last_reads(self) -> dict[int, list[str]]:
        """Values that no later operation reads, by the operation that reads them last: they are dropped after it."""
        last: dict[str, int] = {}
        for index, op in enumerate(self._operations):
            for argument in op.inputs.values():
                last |= dict.fromkeys((binding.name for binding in argument.arguments if binding.name), index)
        dropped: dict[int, list[str]] = {}
        for name, index in last.items():
            if name not in self.outputs and name not in self.states:
                dropped.setdefault(index, []).append(name)
        return dropped

    def _run_one(self, op: Any, values: dict[str, Any]) -> None:
        if op.type == "classify":
            self._classify(op, values)
            return
        if op.type in ("read_state", "write_state"):
            state = op.inputs["input"].arguments[0].name
            place = op.outputs[0].name if op.outputs else state
            values[place] = self._argument(op.inputs["data"], values) if op.type == "write_state" else values[state]
            values[place] = np.asarray(values[place], self.states[state])
            return
        function = _function(op)
        arguments = {key: self._argument(argument, values) for key, argument in op.inputs.items()}
        arguments |= {key: _wide(self._weights.value(value)) for key, value in op.attributes.items() if key != "name"}
        declared = [numpy_dtype(output.type.tensorType.dataType) for output in op.outputs]
        if len(declared) == 1:
            arguments["result_dtype"] = declared[0]
        if op.type.startswith(("gather", "scatter")):
            arguments["opset"] = self.opset
        try:
            with np.errstate(all="ignore"):
                result = function(**arguments)
        except Exception as error:
            raise _cannot(
                f"operation {op.outputs[0].name!r} ({op.type})", str(error), "values it can compute"
            ) from error
        results = result if isinstance(result, list | tuple) else [result]
        with np.errstate(all="ignore"):
            for output, dtype, array in zip(op.outputs, declared, results, strict=True):
                values[output.name] = held(np.asarray(array), dtype)

    def _classify(self, op: Any, values: dict[str, Any]) -> None:
        """The label of the greatest probability, and each label's: outputs that are no tensors."""
        labels = list(op.inputs["classes"].arguments[0].value.immediateValue.list.values)
        texts = [label.immediateValue.tensor.strings.values[0] for label in labels]
        found = np.ravel(self._argument(op.inputs["probabilities"], values))
        label, each = op.outputs
        values[label.name] = texts[int(np.argmax(found))]
        values[each.name] = np.array(dict(zip(texts, found.tolist(), strict=True)), dtype=object)

    def _argument(self, argument: Any, values: dict[str, Any]) -> Any:
        found = [
            _wide(
                values[binding.name] if binding.WhichOneof("binding") == "name" else self._weights.value(binding.value)
            )
            for binding in argument.arguments
        ]
        return found[0] if len(found) == 1 else found


def _wide(value: Any) -> Any:
    """Float16 as float32, so that an operation rounds once, at its end."""
    is_half = isinstance(value, np.ndarray | np.generic) and value.dtype == np.float16
    return value.astype(np.float32) if is_half else value


def _function(op: Any) -> Callable[..., Any]:
    if op.type not in operations():
        raise _cannot(f"operation type {op.type!r}", "none in the evaluator's table", "one of it", "Report the model")
    return operations()[op.type]


def _cannot(
    where: str, found: str, expected: str, fix: str = "Build the bundle again, or report the model"
) -> TargetError:
    return TargetError("cannot evaluate the Core ML program", where=where, found=found, expected=expected, fix=fix)
