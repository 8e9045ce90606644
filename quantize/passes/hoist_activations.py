"""Activations right behind the layers that they can be merged into."""

from __future__ import annotations

import onnx_ir as ir

from edgewise.quantize.layers import WEIGHTED
from edgewise.quantize.movement import moved_inputs
from edgewise.quantize.passes.writing import Writer
from edgewise.quantize.spec import QuantSpec

# Each of these picks or rearranges values, and an activation that never falls commutes with that.
_COMMUTING = ("Concat", "Flatten", "Identity", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


class HoistActivations(ir.passes.InPlacePass):
    """Apply Relu and Clip before values are joined or moved, where they merge into the layers that made them.

    Before::

        Conv ──┐
              Concat ──► Relu ──► …          Conv ──► MaxPool ──► Relu ──► …
        Conv ──┘

    After::

        Conv ──► Relu ──┐
                       Concat ──► …          Conv ──► Relu ──► MaxPool ──► …
        Conv ──► Relu ──┘

    The same function, number for number. Otherwise the layers' outputs would be rounded before the activation, and half of
    the integers spent on values that it removes. Only where every input is made by a layer and read by nothing else.
    """

    def __init__(self, spec: QuantSpec) -> None:
        self._fused = spec.fused_activations

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Move every activation that can be moved."""
        writer = Writer(model.graph)
        found = [node for node in model.graph if self._can_move(node)]
        for node in found:
            _move(writer, node)
        return ir.passes.PassResult(model, modified=bool(found))

    def _can_move(self, node: ir.Node) -> bool:
        value = node.inputs[0] if node.op_type in self._fused and not node.domain else None
        mover = value.producer() if value is not None else None
        if mover is None or mover.op_type not in _COMMUTING or mover.domain or len(mover.outputs) != 1:
            return False
        return _read_once(value) and all(_is_layers_own(mover.inputs[index]) for index in moved_inputs(mover))


def _read_once(value: ir.Value | None) -> bool:
    return value is not None and len(list(value.uses())) == 1 and not value.is_graph_output()


def _is_layers_own(value: ir.Value | None) -> bool:
    maker = value.producer() if value is not None else None
    return maker is not None and maker.op_type in WEIGHTED and not maker.domain and _read_once(value)


def _move(writer: Writer, node: ir.Node) -> None:
    moved = node.inputs[0]
    mover = moved.producer() if moved is not None else None
    if moved is None or mover is None:
        return
    for index in moved_inputs(mover):
        value = mover.inputs[index]
        name = writer.free_name(f"{node.name}_{index}")
        output = ir.Value(
            name=writer.free_name(f"{name}_output"), shape=value.shape if value else None, type=moved.type
        )
        copy = ir.node(node.op_type, [value, *node.inputs[1:]], node.attributes, outputs=[output], name=name)
        writer.graph.insert_before(mover, copy)
        mover.replace_input_with(index, output)
    name = str(node.outputs[0].name)
    node.outputs[0].replace_all_uses_with(moved, replace_graph_outputs=True)
    writer.graph.remove(node, safe=True)
    moved.name = name
