"""Weights as they will be written."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgewise.exporter.clean.base import GraphPass


class MakeContiguous(GraphPass):
    """Lay out constants in row-major order: folding a Transpose leaves a view, which later passes cannot hash.

    The graph is the same before and after; only the memory behind its constants changes.
    """

    def rewrite(self, graph: ir.Graph, opset: int) -> int:
        """Lay out the constants of a graph."""
        count = 0
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.Tensor) and not tensor.numpy().flags.c_contiguous:
                array = np.asarray(tensor.numpy(), order="C")
                value.const_value = ir.Tensor(array, dtype=tensor.dtype, name=tensor.name)
                count += 1
        return count
