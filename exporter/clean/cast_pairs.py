"""A cast to a wider type and on to another is one cast."""

from __future__ import annotations

import onnx_ir as ir

from edgewise.exporter.clean.base import GraphPass, is_op

_D = ir.DataType
# For each type those that hold all of its values exactly.
_WIDER: dict[ir.DataType, frozenset[ir.DataType]] = {
    _D.FLOAT16: frozenset({_D.FLOAT, _D.DOUBLE}),
    _D.BFLOAT16: frozenset({_D.FLOAT, _D.DOUBLE}),
    _D.FLOAT: frozenset({_D.DOUBLE}),
    _D.BOOL: frozenset(
        {
            _D.INT8,
            _D.UINT8,
            _D.INT16,
            _D.UINT16,
            _D.INT32,
            _D.UINT32,
            _D.INT64,
            _D.UINT64,
            _D.FLOAT16,
            _D.FLOAT,
            _D.DOUBLE,
        }
    ),
    _D.UINT8: frozenset(
        {_D.INT16, _D.UINT16, _D.INT32, _D.UINT32, _D.INT64, _D.UINT64, _D.FLOAT16, _D.FLOAT, _D.DOUBLE}
    ),
    _D.INT8: frozenset({_D.INT16, _D.INT32, _D.INT64, _D.FLOAT16, _D.FLOAT, _D.DOUBLE}),
    _D.INT16: frozenset({_D.INT32, _D.INT64, _D.FLOAT, _D.DOUBLE}),
    _D.INT32: frozenset({_D.INT64, _D.DOUBLE}),
}


class MergeCasts(GraphPass):
    """Skip a cast that loses nothing when its result is cast again.

    Before::

        x:f32 ── Cast(f64) ── Cast(f32) ── y

    After (the no-op pass takes the rest out)::

        x:f32 ── Cast(f32) ── y

    Left alone: a first cast that rounds or cuts, such as f32 to f16 or to an integer.
    """

    def rewrite(self, graph: ir.Graph, opset: int) -> int:
        """Merge in a graph."""
        count = 0
        for node in graph:
            value = node.inputs[0] if is_op(node, "Cast") else None
            first = value.producer() if value is not None else None
            if value is None or first is None or not is_op(first, "Cast") or first.graph is not graph:
                continue
            source = first.inputs[0]
            if source is not None and source.dtype is not None and value.dtype in _WIDER.get(source.dtype, ()):
                node.replace_input_with(0, source)
                count += 1
        return count
