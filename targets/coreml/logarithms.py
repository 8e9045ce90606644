"""What stands before a logarithm: it makes small numbers large, so they have to be there still.

float16 has no digits below 6e-5 and nothing below 6e-8. Spectrograms are squared and then taken the logarithm of: what is lost between
is most of the picture.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from edgewise.targets.coreml.node import constant

_SQUARES = frozenset({"Pow", "ReduceSumSquare", "ReduceL2"})
_ELEMENTWISE = frozenset({
    "Abs", "Add", "Clip", "Div", "Exp", "Max", "Min", "Mul", "Neg", "Reciprocal", "Relu", "ReduceMax", "ReduceMean", "ReduceSum", "Sigmoid",
    "Softmax", "Softplus", "Sqrt", "Sub", "Sum", *_SQUARES,
})  # fmt: skip
_MOVES = frozenset({
    "Concat", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze", "Where",
})  # fmt: skip
_PRODUCTS = frozenset({"MatMul", "Gemm"})


def before_logarithms(graph: ir.Graph) -> list[str]:
    """The tensors whose nodes compute in float32: logarithms and what leads to them, as far as it works element by element.

    A product with constant weights (a filter bank) is among them when squares lead to it.
    """
    found: dict[ir.Node, None] = {}
    for node in graph:
        if node.op_type == "Log":
            found |= dict.fromkeys([node, *_before(node, set())])
    return [str(node.outputs[0].name) for node in graph if node in found]


def _before(node: ir.Node, seen: set[ir.Node]) -> Iterator[ir.Node]:
    for value in node.inputs:
        made = None if value is None else value.producer()
        if made is None or made in seen or value is None or value.dtype != ir.DataType.FLOAT:
            continue
        seen.add(made)
        if made.op_type in _ELEMENTWISE | _MOVES:
            yield from [made, *_before(made, seen)]
        elif made.op_type in _PRODUCTS and any(constant(each) is not None for each in made.inputs):
            leading = list(_before(made, set(seen)))  # what is left out here may still be met on another way
            if any(_squares(each) for each in leading):
                seen.update(leading)
                yield from [made, *leading]


def _squares(node: ir.Node) -> bool:
    return node.op_type in _SQUARES or (node.op_type == "Mul" and node.inputs[0] is node.inputs[1])
