"""Tensors inside the network that the engine shall give out, so that it can be compared layer by layer on its GPU."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from edgewise.targets.errors import TargetError

if TYPE_CHECKING:
    import onnx_ir as ir


def find_marked(model: ir.Model, patterns: Sequence[Any]) -> tuple[str, ...]:
    """The inner tensors in floats whose name fits one of the patterns (``*`` is any text), in the graph's order.

    Raises:
        TargetError: a pattern that fits none.
    """
    outputs = set(model.graph.outputs)
    names = [
        str(value.name)
        for node in model.graph
        for value in node.outputs
        if value.name and value not in outputs and (value.dtype is None or value.dtype.is_floating_point())
    ]
    for pattern in patterns:
        if not isinstance(pattern, str) or not any(fnmatchcase(name, pattern) for name in names):
            raise TargetError(
                "no tensor to mark",
                where="target tensorrt, build.options.marked_tensors",
                found=repr(pattern),
                expected="names of float tensors inside the network, or patterns such as '*' that fit some",
                fix="See their names in the ONNX file; outputs of the network need no mark",
            )
    return tuple(name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns))


def give_out(model: ir.Model, names: Collection[str]) -> list[str]:
    """Make inner tensors outputs of a prepared graph, after its own; gives the names of those that it has.

    Outputs are what every builder keeps: a tensor that is only marked for TensorRT's debug listener is not in the builder's listing.
    """
    have = {str(value.name): value for node in model.graph for value in node.outputs}
    marked = [name for name in names if name in have and not have[name].is_graph_output()]
    model.graph.outputs.extend(have[name] for name in marked)
    return marked


def marked_notes(wanted: Sequence[str], marked: Sequence[str]) -> list[str]:
    """What was marked, and how many are not in the network that the builder got."""
    if not wanted:
        return []
    gone = len(set(wanted) - set(marked))
    missing = f"; {gone} are not in the graph as it was prepared" if gone else ""
    return [
        f"{len(marked)} tensors are marked{missing}. `edgewise verify --per-layer` reads them on the GPU. Their kernels "
        "write them to memory, so build without them to measure and to ship."
    ]
