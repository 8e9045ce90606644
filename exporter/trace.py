"""PyTorch to ONNX with ``torch.onnx.export(dynamo=True)``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from edgewise.exporter.errors import ExportError
from edgewise.exporter.quiet import quiet
from edgewise.exporter.source import Arrays
from edgewise.exporter.torch_source import TorchSource, first_line, named_leaves

if TYPE_CHECKING:
    import onnx_ir as ir

LOWEST_OPSET = 18


def trace(source: TorchSource, example: Arrays, opset: int) -> tuple[ir.Model, torch.export.ExportedProgram, list[str]]:
    """Trace a source to ONNX.

    Args:
        source: what to trace.
        example: inputs to trace with; a dynamic dim must not be 1 here, or it would be taken for a constant.
        opset: ONNX opset, at least 18.

    Returns:
        The model as PyTorch wrote it, with inputs and outputs named; the program it was translated from; warnings.

    Raises:
        ExportError: the network has control flow that depends on data, an operator without an ONNX form, or a dynamic dim that it
            fixes.
    """
    if opset < LOWEST_OPSET:
        raise ExportError(
            "cannot export to this opset",
            where=f"opset {opset}",
            found=str(opset),
            expected=f"{LOWEST_OPSET} or later",
            fix=f"Leave --opset out, or pass {LOWEST_OPSET}",
        )
    args, kwargs = source.arguments(example)
    with quiet() as warnings, torch.no_grad():
        try:
            program = torch.onnx.export(
                source.traceable,
                args,
                kwargs=kwargs,
                dynamic_shapes=_dynamic_shapes(source, bool(kwargs)),
                opset_version=opset,
                dynamo=True,
                optimize=False,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise _untraceable(source, error) from error
        outputs = [name for name, _ in named_leaves(source.module(*args, **kwargs))]
    if program is None or program.exported_program is None:
        raise ExportError("PyTorch gave no ONNX program", where=source.kind, fix="Report it with the network")
    model = program.model
    _name_ends(model, source, outputs)
    _own_weights(model)
    return model, program.exported_program, warnings


def _dynamic_shapes(source: TorchSource, by_name: bool) -> Any:
    shapes = {
        spec.name: {axis: dim for axis, dim in enumerate(spec.shape) if isinstance(dim, str)} for spec in source.inputs
    }
    if not any(shapes.values()):
        return None
    return shapes if by_name else tuple(shapes.values())


def _name_ends(model: ir.Model, source: TorchSource, outputs: list[str]) -> None:
    graph = model.graph
    specs = {spec.name: spec for spec in source.inputs}
    by_name = set(specs) == {value.name for value in graph.inputs}
    for value, spec in zip(list(graph.inputs), source.inputs, strict=True):
        value.name = value.name if by_name else spec.name
    for value, name in zip(graph.outputs, outputs, strict=True):
        value.name = name


def _own_weights(model: ir.Model) -> None:
    """Copy weights out of PyTorch's storages: the ONNX model must not change with the module."""
    import onnx_ir as ir

    for value in model.graph.initializers.values():
        if value.const_value is not None:
            array = value.const_value.numpy()
            value.const_value = ir.Tensor(np.array(array), dtype=value.const_value.dtype, name=value.name)


def _untraceable(source: TorchSource, error: Exception) -> ExportError:
    cause = error.__cause__ or error
    return ExportError(
        "the network cannot be traced",
        where=source.kind,
        found=f"{type(cause).__name__}: {first_line(cause)}",
        expected="a network whose control flow does not depend on its data",
        fix="Rewrite that part with tensor operations (torch.where, torch.cond)",
    )
