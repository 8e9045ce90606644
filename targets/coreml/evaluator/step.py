"""One operation of a program, with all that does not depend on the program's inputs looked up once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from edgewise.targets.base import TargetError
from edgewise.targets.coreml.evaluator.rounding import held
from edgewise.targets.coreml.evaluator.table import operations
from edgewise.targets.coreml.evaluator.weights import Weights, numpy_dtype

Values: TypeAlias = dict[str, Any]
_SMALL = 1 << 14  # elements; larger weights of float16 are widened each time, so that they are not held twice


class Step:
    """Reads values by name and adds its own.

    Args:
        op: MIL's protobuf.
        weights: the package's.
        constants: values that are there before the first step.
        opset: the function's, such as ``CoreML7``.

    Raises:
        TargetError: an operation outside the table, or a dtype that the converter never writes.
    """

    def __init__(self, op: Any, weights: Weights, constants: Values, opset: str) -> None:
        self.reads = [name for argument in op.inputs.values() for name in _names(argument)]
        self._told = f"operation {op.outputs[0].name!r} ({op.type})"
        self._function = _function(op.type)
        self._outputs = [(output.name, numpy_dtype(output.type.tensorType.dataType)) for output in op.outputs]
        self._fixed = {key: wide(weights.value(value)) for key, value in op.attributes.items() if key != "name"}
        self._variable: dict[str, list[Callable[[Values], Any]]] = {}
        for key, argument in op.inputs.items():
            known = [_known(binding, weights, constants) for binding in argument.arguments]
            if all(value is not None for value in known):
                self._fixed[key] = _one(known)
            else:
                self._variable[key] = [
                    _reader(binding.name) if value is None else _giver(value)
                    for binding, value in zip(argument.arguments, known, strict=True)
                ]
        if len(self._outputs) == 1:
            self._fixed["result_dtype"] = self._outputs[0][1]
        if op.type.startswith(("gather", "scatter")):
            self._fixed["opset"] = opset

    def __call__(self, values: Values) -> None:
        """Compute. Whoever calls has turned numpy's warnings off.

        Raises:
            TargetError: one that fails on these values.
        """
        arguments = {key: _one([read(values) for read in readers]) for key, readers in self._variable.items()}
        try:
            result = self._function(**arguments, **self._fixed)
        except Exception as error:
            raise cannot(self._told, str(error), "values it can compute") from error
        results = result if isinstance(result, list | tuple) else [result]
        for (name, dtype), array in zip(self._outputs, results, strict=True):
            values[name] = held(np.asarray(array), dtype)


class WriteState:
    """``write_state``: a value becomes the state's, and the operation's if it has an output."""

    def __init__(self, op: Any, dtype: np.dtype[Any]) -> None:
        state, self._data = _state(op), op.inputs["data"].arguments[0].name
        self.reads = [self._data, state]
        self._place, self._dtype = op.outputs[0].name if op.outputs else state, dtype

    def __call__(self, values: Values) -> None:
        """Store."""
        values[self._place] = np.asarray(wide(values[self._data]), self._dtype)


class ReadState:
    """``read_state``."""

    def __init__(self, op: Any, dtype: np.dtype[Any]) -> None:
        self._state, self._name, self._dtype = _state(op), op.outputs[0].name, dtype
        self.reads = [self._state]

    def __call__(self, values: Values) -> None:
        """Load."""
        values[self._name] = np.asarray(values[self._state], self._dtype)


class Classify:
    """``classify``: the label of the greatest probability, and each label's. Outputs that are no tensors."""

    def __init__(self, op: Any) -> None:
        labels = op.inputs["classes"].arguments[0].value.immediateValue.list.values
        self._texts = [label.immediateValue.tensor.strings.values[0] for label in labels]
        self._probabilities = op.inputs["probabilities"].arguments[0].name
        self._label, self._each = (output.name for output in op.outputs)
        self.reads = [self._probabilities]

    def __call__(self, values: Values) -> None:
        """Label."""
        found = np.ravel(wide(values[self._probabilities]))
        values[self._label] = self._texts[int(np.argmax(found))]
        values[self._each] = np.array(dict(zip(self._texts, found.tolist(), strict=True)), dtype=object)


AnyStep: TypeAlias = Step | ReadState | WriteState | Classify


def wide(value: Any) -> Any:
    """Float16 as float32, so that an operation rounds once, at its end."""
    is_half = isinstance(value, np.ndarray | np.generic) and value.dtype == np.float16
    return value.astype(np.float32) if is_half else value


def cannot(
    where: str, found: str, expected: str, fix: str = "Build the bundle again, or report the model"
) -> TargetError:
    """What a program that cannot be computed is refused with."""
    return TargetError("cannot evaluate the Core ML program", where=where, found=found, expected=expected, fix=fix)


def _function(kind: str) -> Callable[..., Any]:
    if kind not in operations():
        raise cannot(f"operation type {kind!r}", "none in the evaluator's table", "one of it", "Report the model")
    return operations()[kind]


def _state(op: Any) -> str:
    return str(op.inputs["input"].arguments[0].name)


def _names(argument: Any) -> list[str]:
    return [binding.name for binding in argument.arguments if binding.WhichOneof("binding") == "name"]


def _known(binding: Any, weights: Weights, constants: Values) -> Any:
    """What a binding gives at every call; None where that is not known, or is better widened at each."""
    if binding.WhichOneof("binding") == "value":
        return wide(weights.value(binding.value))
    value = constants.get(binding.name)
    is_large_half = isinstance(value, np.ndarray) and value.dtype == np.float16 and value.size > _SMALL
    return None if is_large_half else wide(value)


def _reader(name: str) -> Callable[[Values], Any]:
    return lambda values: wide(values[name])


def _giver(value: Any) -> Callable[[Values], Any]:
    return lambda values: value


def _one(found: list[Any]) -> Any:
    return found[0] if len(found) == 1 else found
