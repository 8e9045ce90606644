"""Last steps on a model: only what a stranger may see, the same bytes in every run."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import onnx_ir as ir
from onnx_ir.passes import common

from edgewise.exporter.errors import ExportError
from edgewise.exporter.source import Arrays
from edgewise.exporter.upgrade import set_ir_version
from edgewise.runtime.tensors import TensorSpec


def check_outputs(have: Sequence[str], dropped: Sequence[str]) -> None:
    """Refuse to drop an output that is not there, or all of them.

    Raises:
        ExportError: names it and what there is.
    """
    unknown = [name for name in dropped if name not in have]
    if unknown or set(dropped) >= set(have):
        raise ExportError(
            "cannot drop an output",
            where=f"--drop-output {(unknown or list(dropped))[0]}",
            found=f"no output {unknown[0]!r}" if unknown else "every output to be dropped",
            expected=f"some of {', '.join(have)}",
            fix="Check the names; at least one output must stay",
        )


def remove_outputs(model: ir.Model, names: Sequence[str]) -> None:
    """Remove outputs that only training needs, such as auxiliary heads; cleaning then removes what computed them."""
    for value in [value for value in model.graph.outputs if value.name in names]:
        model.graph.outputs.remove(value)


def fix_dims(model: ir.Model, inputs: Sequence[TensorSpec]) -> None:
    """Give the graph's inputs the dims of ``inputs``: a dynamic one may have been fixed or renamed."""
    renamed: dict[str, int | str] = {}
    specs = {spec.name: spec for spec in inputs}
    for value in model.graph.inputs:
        spec = specs[str(value.name)]
        for old, new in zip(value.shape or (), spec.shape, strict=True):
            if isinstance(old, ir.SymbolicDim) and old.value is not None and old.value != new:
                renamed[str(old.value)] = new
        value.shape = ir.Shape(spec.shape)
    if renamed:
        for value in [*model.graph.outputs, *(out for node in model.graph for out in node.outputs)]:
            if value.shape is not None:
                value.shape = ir.Shape([renamed.get(str(getattr(dim, "value", dim)), dim) for dim in value.shape])


def mend_outputs(model: ir.Model, references: Sequence[Arrays]) -> list[str]:
    """Take back declared shapes of outputs that the file's own results contradict; tell which.

    ONNX Runtime warns about them and goes on; passes that read shapes would compute something else.
    """
    found = []
    for value in model.graph.outputs:
        shapes = {outputs[str(value.name)].shape for outputs in references}
        if value.shape is None or all(_agrees(value.shape, shape) for shape in shapes):
            continue
        shape = sorted(shapes)[0]
        found.append(f"output {value.name!r} is declared {_written(value.shape)} and comes as {list(shape)}")
        value.shape = ir.Shape([None] * len(shape))
    return found


def _agrees(declared: ir.Shape, shape: Sequence[int]) -> bool:
    return len(declared) == len(shape) and all(
        not isinstance(dim, int) or dim == size for dim, size in zip(declared, shape, strict=True)
    )


def _written(shape: ir.Shape) -> str:
    return f"[{', '.join(str(getattr(dim, 'value', dim)) for dim in shape)}]"


def infer_shapes(model: ir.Model) -> None:
    """Shapes and dtypes of every value, as far as ONNX can tell; targets read them."""
    common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)


def strip(model: ir.Model) -> None:
    """Take out metadata (PyTorch's stack traces hold paths of this machine) and sign the model."""
    common.ClearMetadataAndDocStringPass()(model)
    for value in [*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()]:
        value.metadata_props.clear()
        value.doc_string = None
    model.graph.name = "main_graph"
    model.metadata_props.clear()
    model.producer_name, model.producer_version = "edgewise", version("edgewise")
    model.domain, model.model_version, model.doc_string = None, None, None
    set_ir_version(model)


def output_specs(model: ir.Model) -> list[TensorSpec]:
    """What the model gives.

    Raises:
        ExportError: an output has no dtype or rank.
    """
    specs = []
    for value in model.graph.outputs:
        if value.dtype is None or value.shape is None:
            raise ExportError(
                "an output has no type",
                where=f"output {value.name!r}",
                found="no dtype or rank",
                expected="both",
                fix="Drop it with --drop-output, or export the network again with typed outputs",
            )
        dims = tuple(
            dim if isinstance(dim, int) else str(dim.value or f"{value.name}_{axis}")
            for axis, dim in enumerate(value.shape)
        )
        specs.append(TensorSpec(str(value.name), value.dtype.numpy().name, dims))
    return specs
