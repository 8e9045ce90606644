"""An ONNX file as a source: passed through, upgraded where that can be verified."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgewise.exporter.clean.pipeline import clean
from edgewise.exporter.errors import ExportError
from edgewise.exporter.finish import infer_shapes
from edgewise.exporter.free_batch import FreeBatch
from edgewise.exporter.in_float32 import FACT, TOLD, widen_specs
from edgewise.exporter.quiet import quiet
from edgewise.exporter.source import Arrays, Source
from edgewise.runtime.errors import RunError
from edgewise.runtime.onnx_file import read_onnx
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.runtime.onnx_widen import widen_bfloat16
from edgewise.runtime.storage import sha256_of
from edgewise.runtime.tensors import TensorSpec

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass
class OnnxSource(Source):
    """An ONNX file. ``path`` is read afresh by :meth:`model`; ``run`` uses the untouched file (in float32 if in bfloat16), not optimised.

    Attributes:
        freed: the inputs whose first dim the file fixes at 1 and ``inputs`` names.
        axes: then, by output, the axis along which the samples of a batch lie; None: it is the same for all.
    """

    path: Path = Path()
    freed: list[str] = field(default_factory=list)
    axes: dict[str, int | None] = field(default_factory=dict)

    def model(self) -> ir.Model:
        """A fresh copy of the model, its batch dynamic where that was asked for.

        Raises:
            ExportError: a node of it mixes the samples of a batch.
        """
        model, _ = _read(self.path)
        if self.freed:
            with quiet():
                clean(model)  # sizes that the file computes are constants for one sample
                infer_shapes(model)
            dim = next(str(spec.shape[0]) for spec in self.inputs if spec.name in self.freed)
            free = FreeBatch(self.freed, dim)
            free(model)
            self.axes = free.axes
        return model

    @cached_property
    def _runner(self) -> OnnxRunner:
        return OnnxRunner(self.path, optimize=False)

    def run(self, inputs: Arrays) -> Arrays:
        """Compute the untouched file in ONNX Runtime, without its optimisations."""
        self.check_inputs(inputs)
        if not self.freed:
            return self._run_once(inputs)
        counts = {len(inputs[name]) for name in self.freed}
        if len(counts) != 1 or 0 in counts:
            raise self.refused(inputs, str(self.path), f"batches of {sorted(counts)}")
        alone = [
            self._run_once(
                {name: array[at : at + 1] if name in self.freed else array for name, array in inputs.items()}
            )
            for at in range(counts.pop())
        ]
        return {name: self._joined(name, [outputs[name] for outputs in alone]) for name in alone[0]}

    def _run_once(self, inputs: Arrays) -> Arrays:
        try:
            return self._runner.run(inputs)
        except RunError as error:
            raise self.refused(inputs, str(self.path), error.found) from error

    def _joined(self, name: str, arrays: list[np.ndarray]) -> np.ndarray:
        axis = self.axes.get(name)
        return arrays[0] if axis is None else np.concatenate(arrays, axis=axis)


def open_onnx(path: Path, inputs: Sequence[TensorSpec] = ()) -> OnnxSource:
    """Open an ONNX file. ``inputs``, when given, must name the file's own; they may fix or name dynamic dims, and name a first dim of 1.

    A first dim that is 1 in the file and has a name in ``inputs`` becomes dynamic, where every node keeps samples apart.

    Raises:
        RunError: missing, cut or not ONNX; external data outside the folder.
        ExportError: ``inputs`` do not fit the file, or a node mixes the samples of a batch.
    """
    model, widened = _read(path)
    own = [_spec(value) for value in model.graph.inputs]
    facts = {
        "opset": model.opset_imports.get("", 0),
        "ir_version": model.ir_version,
        "producer": " ".join(filter(None, (model.producer_name, model.producer_version))),
        "nodes": sum(1 for _ in model.graph),
        **({FACT: TOLD} if widened else {}),
    }
    specs = _merged(own, widen_specs(inputs), path) if inputs else own
    freed = [spec.name for spec, have in zip(specs, own, strict=True) if _frees(have, spec)]
    source = OnnxSource("onnx", sha256_of(path), specs, facts, path=path, freed=freed)
    if freed:
        source.model()  # finds out where the samples lie in each output, or that they do not stay apart
    return source


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


def _read(path: Path) -> tuple[ir.Model, bool]:
    """The file's model, each dynamic dim of an input with a name of its own where it has none; whether bfloat16 became float32 in it."""
    model = read_onnx(path)
    widened = widen_bfloat16(model)
    for value in model.graph.inputs:
        _name_dims(value, f"{value.name}_")
    for value in [*model.graph.outputs, *(out for node in model.graph for out in node.outputs)]:
        _name_dims(value, None)
    return model, widened


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
    """A fixed dim must stay, but for a batch of 1; a dynamic one may be renamed or fixed."""
    return len(own.shape) == len(new.shape) and all(
        isinstance(have, str) or have == want or (axis == 0 and _frees(own, new))
        for axis, (have, want) in enumerate(zip(own.shape, new.shape, strict=True))
    )


def _frees(own: TensorSpec, new: TensorSpec) -> bool:
    """A first dim of 1 that gets a name."""
    return bool(own.shape) and own.shape[0] == 1 and isinstance(new.shape[0], str)


def _misfit(path: Path, spec: TensorSpec, expected: str) -> ExportError:
    return ExportError(
        "an input does not fit the ONNX model",
        where=f"{path}, --input {spec.name}",
        found=f"{spec.dtype}{list(spec.shape)}".replace("'", ""),
        expected=expected.replace("'", ""),
        fix="Leave --input out to take the model's own, name a first dim of 1 to make the batch dynamic, or give a dynamic dim a number",
    )
