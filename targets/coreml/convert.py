"""The walk over the graph: ONNX nodes in, a MIL program out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from edgewise.runtime.progress import Progress, silent
from edgewise.targets.base import TargetError
from edgewise.targets.coreml.building import Building, Values
from edgewise.targets.coreml.classifier import LABEL, PROBABILITIES, probabilities, read_labels, scores_of
from edgewise.targets.coreml.collapse import build_collapsed, is_tall
from edgewise.targets.coreml.flattened import build_flat, takes_flat
from edgewise.targets.coreml.interface import Interface
from edgewise.targets.coreml.names import Namer
from edgewise.targets.coreml.options import Options
from edgewise.targets.coreml.prepare import nodes_of, opset_of
from edgewise.targets.coreml.table import table
from edgewise.targets.coreml.widen import NOTES


@dataclass
class Converted:
    """A MIL program and what it is to the outside.

    Attributes:
        program: coremltools' ``Program``, one function ``main``.
        input_types: coremltools' ``TensorType`` or ``ImageType`` per input.
        interface: inputs and outputs, ONNX's side and Core ML's.
        names: MIL name by ONNX tensor.
        labels: of the classes; empty: no classifier.
        probabilities: MIL name of the output that the classes' probabilities are.
        notes: what the user should know.
    """

    program: Any
    input_types: list[Any]
    interface: Interface
    names: dict[str, str]
    labels: list[str] = field(default_factory=list)
    probabilities: str = ""
    notes: list[str] = field(default_factory=list)


def convert(ready: ir.Model, options: Options, interface: Interface, progress: Progress = silent) -> Converted:
    """Convert a prepared graph whose nodes were all judged.

    Raises:
        TargetError: a node that coremltools refuses nevertheless.
    """
    import coremltools as ct
    from coremltools.converters.mil import converter
    from coremltools.converters.mil.mil import Builder, Function, Program

    converter._reset_conversion_state()  # names count on from a conversion that failed before
    labels = read_labels(options)
    target = ct.target[f"iOS{options.ios}"]
    inputs, input_types = interface.placeholders(ct, Builder)
    values = Values(Builder, options.ios, options.half)
    namer = interface.namer
    for taken in (LABEL, PROBABILITIES) if labels else ():
        namer.fresh(taken)
    with Function(inputs, opset_version=target) as function:
        interface.read_inputs(function, values)
        _build_nodes(ready, values, namer, options, progress)
        outputs = interface.write_outputs(function, values)
        scores = _with_probabilities(ready, outputs, labels, namer) if labels else ""
        function.set_outputs(outputs)
    program = Program()
    program.add_function("main", function)
    notes = [*interface.notes, *ready.meta.get(NOTES, [])]
    if values.clamped:
        notes.append(
            f"{len(values.clamped)} constants at the border of float32 (masks) became ±65504, the border of float16"
        )
    return Converted(program, input_types, interface, namer.given, labels, scores, notes)


def _with_probabilities(ready: ir.Model, outputs: list[Any], labels: list[str], namer: Namer) -> str:
    """One output more; its name."""
    from coremltools.converters.mil.mil import Builder

    place = scores_of(ready.graph, labels)
    made = probabilities(Builder, outputs[place], ready.graph.outputs[place])
    made.set_name(namer.fresh("probabilities"))
    outputs.append(made)
    return str(made.name)


def _build_nodes(ready: ir.Model, values: Values, namer: Namer, options: Options, progress: Progress) -> None:
    opset, nodes = opset_of(ready), nodes_of(ready)
    for done, node in enumerate(nodes):
        progress("converting to ML Program", done, len(nodes))
        building = Building(node, opset, values)
        made = _build_node(building)
        outputs = made if isinstance(made, list | tuple) else [made]
        for output, held in zip(node.outputs, outputs, strict=False):
            values.put(output, held)
            if options.half and output.name in options.keep_float32:
                values.keep(held, building)
            values.name(held, namer(output.name or "value"))


def _build_node(building: Building) -> Any:
    row = table()[building.node.domain, building.node.op_type]
    try:
        if row.elementwise and is_tall(building):
            return build_collapsed(building, row)
        return build_flat(building, row) if takes_flat(building, row) else row.build(building)
    except Exception as error:  # coremltools raises ValueError, TypeError, AssertionError, KeyError, …
        raise TargetError(
            "coremltools refuses a node",
            where=f"node {building.label!r}, operator {building.op}",
            found=str(error).strip() or type(error).__name__,
            expected="a node that MIL's builder takes",
            fix="Report the model: the support check should have named this",
        ) from error
