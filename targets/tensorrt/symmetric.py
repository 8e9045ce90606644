"""Grids with a zero point, as other tools write them, made symmetric: TensorRT's integers have none."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

_TYPES = {ir.DataType.UINT8: (0, 255), ir.DataType.INT8: (-128, 127)}
_MIDDLE = 128
_STEPS = 127
_CLIPS = 11  # the first opset whose Clip takes its limits as inputs


class SymmetricGrids(ir.passes.InPlacePass):
    """Replace zero points of 8-bit grids by none.

    Before::

        x ─► QuantizeLinear(s, z: u8) ─► DequantizeLinear(s, z) ─► Conv

    After::

        x ─► QuantizeLinear(s', 0: i8) ─► DequantizeLinear(s', 0) ─► Conv

    uint8 around 128 is int8 around 0, value by value: nothing changes. Any other grid is made anew, as wide as its longer side:
    s' = s · max(|least − z|, |greatest − z|) / 127, up to twice as coarse; ``widened`` names these. A Relu or Clip before them keeps
    what the shorter end of the old grid cut off. Stored integers (weights) are
    moved to the new grid; where they fit it as they are, exactly.
    """

    def __init__(self) -> None:
        self.widened: list[str] = []

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Treat every QuantizeLinear and DequantizeLinear of the main graph whose zero point is constant."""
        found = [
            node for node in model.graph if node.op_type in ("QuantizeLinear", "DequantizeLinear") and _asymmetric(node)
        ]
        for node in found:
            self._settle(node, model.graph)
        return ir.passes.PassResult(model, modified=bool(found))

    def _settle(self, node: ir.Node, graph: ir.Graph) -> None:
        scale, zero = _array(node.inputs[1]), _array(node.inputs[2])
        least, greatest = _TYPES[_dtype(node.inputs[2])]
        offset = zero.astype(np.int64)
        stored = node.inputs[0] if node.op_type == "DequantizeLinear" else None
        integers = _array(stored).astype(np.int64) if stored is not None and stored.const_value is not None else None
        shifted = None if integers is None else integers - _along(offset, integers, node)
        exact = bool(np.all(offset == _MIDDLE) and greatest == 255)
        if shifted is not None and np.abs(shifted).max(initial=0) <= _STEPS:
            exact = True
        longer = (
            np.ones_like(scale) if exact else np.maximum(np.abs(least - offset), np.abs(greatest - offset)) / _STEPS
        )
        if not exact:
            self.widened.append(node.name or "")
        node.replace_input_with(1, _stored(f"{node.name}_scale", (scale * longer).astype(scale.dtype), graph))
        node.replace_input_with(2, _stored(f"{node.name}_zero", np.zeros(zero.shape, np.int8), graph))
        if shifted is not None:
            moved = np.clip(np.rint(shifted / _along(longer, shifted, node)), -_MIDDLE, _STEPS).astype(np.int8)
            node.replace_input_with(0, _stored(f"{node.name}_integers", moved, graph))
        if node.op_type == "QuantizeLinear":
            node.outputs[0].type = ir.TensorType(ir.DataType.INT8)
            if not exact and zero.size == scale.size == 1:
                low, high = ((end - offset.item()) * scale.item() for end in (least, greatest))
                _keep_the_limit(node, low, high, graph)


def _keep_the_limit(quantize: ir.Node, low: float, high: float, graph: ir.Graph) -> None:
    """Cut off what lay beyond the shorter end of the old grid, as it did: other tools leave a Relu out where the grid cuts."""
    value = quantize.inputs[0]
    producer = value.producer() if value is not None else None
    cut_already = producer is not None and producer.op_type == "Relu" and low <= 0.0
    if value is None or value.dtype is None or cut_already or graph.opset_imports.get("", _CLIPS) < _CLIPS:
        return
    name = f"{quantize.name}_limit"
    if low == 0.0:
        cut = ir.node("Relu", [value], name=name)
    else:
        at_low = -low < high
        limit = _stored(f"{name}_value", np.array(low if at_low else high).astype(value.dtype.numpy()), graph)
        cut = ir.node("Clip", [value, limit] if at_low else [value, None, limit], name=name)
    made = cut.outputs[0]
    made.name, made.type, made.shape = f"{quantize.name}_limited", ir.TensorType(value.dtype), value.shape
    graph.insert_before(quantize, cut)
    quantize.replace_input_with(0, made)


def _asymmetric(node: ir.Node) -> bool:
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    if zero is None or zero.const_value is None or node.inputs[1] is None or node.inputs[1].const_value is None:
        return False
    return _dtype(zero) in _TYPES and bool(np.any(_array(zero)) or _dtype(zero) == ir.DataType.UINT8)


def _along(values: np.ndarray, array: np.ndarray, node: ir.Node) -> np.ndarray:
    """Per-channel values against the array's axis."""
    if values.ndim == 0 or values.size == 1:
        return values.reshape(())
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    shape = [1] * array.ndim
    shape[axis] = -1
    return values.reshape(shape)


def _dtype(value: ir.Value | None) -> ir.DataType:
    dtype = value.const_value.dtype if value is not None and value.const_value is not None else None
    return dtype if dtype is not None else ir.DataType.UNDEFINED


def _array(value: ir.Value | None) -> np.ndarray:
    return value.const_value.numpy() if value is not None and value.const_value is not None else np.zeros(0)


def _stored(name: str, array: np.ndarray, graph: ir.Graph) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    graph.register_initializer(value)
    return value
