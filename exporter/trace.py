"""PyTorch to ONNX with ``torch.onnx.export(dynamo=True)``."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes import common

from edgewise.exporter.clean.names import ORIGIN
from edgewise.exporter.errors import ExportError
from edgewise.exporter.quiet import quiet
from edgewise.exporter.recurrent import RECURRENT, kept_whole
from edgewise.exporter.source import Arrays
from edgewise.exporter.torch_source import TorchSource, named_leaves
from edgewise.exporter.translations import TRANSLATIONS
from edgewise.exporter.untraceable import untraceable

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
            with kept_whole(), source.traceable(args) as traceable:
                program = torch.onnx.export(
                    traceable,
                    args,
                    kwargs=kwargs,
                    dynamic_shapes=_dynamic_shapes(source),
                    opset_version=opset,
                    dynamo=True,
                    optimize=False,
                    verbose=False,
                    custom_translation_table=TRANSLATIONS | RECURRENT,
                )
        except ExportError:
            raise
        except Exception as error:  # the tracer lets through whatever the network's own code raises
            raise untraceable(error, source.kind, source.inputs, _parameters(source)) from error
        outputs = [name for name, _ in named_leaves(source.module(*args, **kwargs))]
    if program is None or program.exported_program is None:
        raise ExportError("PyTorch gave no ONNX program", where=source.kind, fix="Report it with the network")
    model = program.model
    _name_ends(model, source, outputs)
    _own_weights(model)
    return model, program.exported_program, warnings


def _dynamic_shapes(source: TorchSource) -> Any:
    """As ``torch.export`` wants them: by parameter where any input is passed by keyword, else in order."""
    shapes = [{axis: dim for axis, dim in enumerate(spec.shape) if isinstance(dim, str)} for spec in source.inputs]
    if not any(shapes):
        return None
    if not any(source.keywords):
        return tuple(shapes)
    return dict(zip(_parameters(source), shapes, strict=True))


def _parameters(source: TorchSource) -> list[str]:
    """What the module calls its inputs."""
    try:
        signature = inspect.signature(getattr(source.module, "forward", source.module))
    except (TypeError, ValueError):  # TorchScript
        return [key or "" for key in source.keywords]
    names = list(signature.parameters)
    return [key or (names[place] if place < len(names) else "") for place, key in enumerate(source.keywords)]


def _name_ends(model: ir.Model, source: TorchSource, outputs: list[str]) -> None:
    """Inputs as the user named them (PyTorch keeps the order of the arguments, keywords last), outputs as ``outputs``."""
    # A tensor that is returned twice, or an input returned as it is, would have one name; this gives the outputs values of their own.
    common.OutputFixPass()(model)
    inputs = list(model.graph.inputs)
    by_keyword = {str(value.name): value for value in inputs}
    for place, (spec, key) in enumerate(zip(source.inputs, source.keywords, strict=True)):
        value = by_keyword.get(key, inputs[place]) if key else inputs[place]
        value.name = spec.name
    for value, name in zip(model.graph.outputs, outputs, strict=True):
        value.meta[ORIGIN] = value.name
        value.name = name


def _own_weights(model: ir.Model) -> None:
    """Copy weights out of PyTorch's storages: the ONNX model must not change with the module."""
    for value in model.graph.initializers.values():
        if value.const_value is not None:
            array = value.const_value.numpy()
            value.const_value = ir.Tensor(np.array(array), dtype=value.const_value.dtype, name=value.name)
