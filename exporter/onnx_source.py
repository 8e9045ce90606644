"""An ONNX file as a source: passed through, upgraded where that can be verified."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from edgewise.exporter.errors import ExportError
from edgewise.exporter.source import Arrays, Source
from edgewise.runtime.errors import RunError
from edgewise.runtime.onnx_file import read_onnx
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.runtime.storage import sha256_of
from edgewise.runtime.tensors import TensorSpec

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass
class OnnxSource(Source):
    """An ONNX file. ``path`` is read afresh by :meth:`model`; ``run`` uses the untouched file, not optimised."""

    path: Path = Path()

    def model(self) -> ir.Model:
        """A fresh copy of the model."""
        return _read(self.path)

    @cached_property
    def _runner(self) -> OnnxRunner:
        return OnnxRunner(self.path, optimize=False)

    def run(self, inputs: Arrays) -> Arrays:
        """Compute the untouched file in ONNX Runtime, without its optimisations."""
        self.check_inputs(inputs)
        runner = self._runner
        try:
            return runner.run(inputs)
        except RunError as error:
            raise self.refused(inputs, str(self.path), error.found) from error


def open_onnx(path: Path, inputs: Sequence[TensorSpec] = ()) -> OnnxSource:
    """Open an ONNX file. ``inputs``, when given, must name the file's own; they may fix or name dynamic dims.

    Raises:
        RunError: missing, cut or not ONNX; external data outside the folder.
        ExportError: ``inputs`` do not fit the file.
    """
    model = _read(path)
    own = [_spec(value) for value in model.graph.inputs]
    facts = {
        "opset": model.opset_imports.get("", 0),
        "ir_version": model.ir_version,
        "producer": " ".join(filter(None, (model.producer_name, model.producer_version))),
        "nodes": sum(1 for _ in model.graph),
    }
    specs = _merged(own, inputs, path) if inputs else own
    return OnnxSource("onnx", sha256_of(path), specs, facts, path)


def _spec(value: ir.Value) -> TensorSpec:
    if value.dtype is None or value.shape is None:
        raise ExportError(
            "an input has no type",
            where=f"input {value.name!r}",
            found="no dtype or shape",
            expected="both",
            fix="Export the model again with typed inputs",
        )
    dims = tuple(dim if isinstance(dim, int) else str(dim.value) for dim in value.shape)
    return TensorSpec(str(value.name), value.dtype.numpy().name, dims)


def _read(path: Path) -> ir.Model:
    """The file's model, each dynamic dim of an input with a name of its own where it has none."""
    model = read_onnx(path)
    for value in model.graph.inputs:
        _name_dims(value, f"{value.name}_")
    for value in [*model.graph.outputs, *(out for node in model.graph for out in node.outputs)]:
        _name_dims(value, None)
    return model


def _name_dims(value: ir.Value, prefix: str | None) -> None:
    """Call them by the prefix and their axis; without a prefix they are unknown."""
    if value.shape is not None and any(map(_nameless, value.shape)):
        names = [None if prefix is None else f"{prefix}{axis}" for axis in range(len(value.shape))]
        dims = [name if _nameless(dim) else dim for name, dim in zip(names, value.shape, strict=True)]
        value.shape = type(value.shape)(dims)


def _nameless(dim: int | ir.SymbolicDim) -> bool:
    """Paddle's exporter writes -1 or a question mark for every size that it does not know, whether they are equal or not."""
    return dim < 0 if isinstance(dim, int) else dim.value in (None, "", "?")


def _merged(own: Sequence[TensorSpec], wanted: Sequence[TensorSpec], path: Path) -> list[TensorSpec]:
    given = {spec.name: spec for spec in wanted}
    for spec in own:
        new = given.pop(spec.name, spec)
        if new.dtype != spec.dtype or not _fits(spec, new):
            raise _misfit(path, new, f"{spec.dtype}{list(spec.shape)}")
    if given:
        raise _misfit(path, next(iter(given.values())), f"one of the inputs {', '.join(spec.name for spec in own)}")
    chosen = {spec.name: spec for spec in wanted}
    return [chosen.get(spec.name, spec) for spec in own]


def _fits(own: TensorSpec, new: TensorSpec) -> bool:
    """A fixed dim must stay; a dynamic one may be renamed or fixed."""
    return len(own.shape) == len(new.shape) and all(
        isinstance(have, str) or have == want for have, want in zip(own.shape, new.shape, strict=True)
    )


def _misfit(path: Path, spec: TensorSpec, expected: str) -> ExportError:
    return ExportError(
        "an input does not fit the ONNX model",
        where=f"{path}, --input {spec.name}",
        found=f"{spec.dtype}{list(spec.shape)}".replace("'", ""),
        expected=expected.replace("'", ""),
        fix="Leave --input out to take the model's own, or name a dynamic dim with a number to fix it",
    )
