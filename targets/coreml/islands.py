"""Where the network makes much of float16's rounding: tried in ONNX Runtime, before anything is built.

A softmax over scores in the thousands picks single places: scores that are right to three digits pick others. What leads to it then has to
compute in float32, and not the softmax alone, for the error is made before.

    … a, b, c, softmax, d …  (float16: 34 dB)   ->   … a, [b, c, softmax in float32], d …  (47 dB)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import onnx_ir as ir

from edgewise.runtime.compare import Arrays, compare_outputs
from edgewise.runtime.onnx_runner import OnnxRunner

_LEAST_DB = 40.0  # that a float16 network keeps
_WANTED_DB = 46.0  # with an island, for other data than these
_GRAIN = 16  # parts of the network by which an island grows
_LARGEST = 65504.0


def amplified(model: ir.Model, kept: Collection[str], samples: Sequence[Arrays]) -> set[str]:
    """Tensors whose nodes have to compute in float32 for the outputs to be within 40 dB of the float network's.

    They are neighbours in the order of the graph: as few casts as can be. Empty when float16 is near enough as it is, and when the
    graph quantizes activations, where a rounding that tips an integer says nothing.

    Args:
        model: prepared, in float32; ONNX Runtime computes it.
        kept: tensors whose nodes compute in float32 anyway.
        samples: inputs by name.
    """
    if any(node.op_type == "QuantizeLinear" for node in model.graph):
        return set()
    names = [str(node.outputs[0].name) for node in model.graph]
    outputs = [str(value.name) for value in model.graph.outputs if value.dtype == ir.DataType.FLOAT]
    if not outputs or not names:
        return set()
    want = _run(model, outputs, samples)

    def decibels(island: Collection[str]) -> float:
        have = _run(rounded(model, {*kept, *island}), outputs, samples)
        return min(parity.sqnr_db for parity in compare_outputs(want, have))

    if decibels(()) >= _LEAST_DB or decibels(names) < _WANTED_DB:
        return set()
    end = _nearest(0, len(names), lambda place: decibels(names[:place]) >= _WANTED_DB)
    start = _nearest(end, 0, lambda place: decibels(names[place:end]) >= _WANTED_DB)
    return set(names[start:end])


def _nearest(bad: int, good: int, holds: Callable[[int], bool]) -> int:
    """By halving, where it still holds; at most a 16th part of the way from where it does not."""
    grain = max(1, abs(good - bad) // _GRAIN)
    while abs(good - bad) > grain:
        middle = (bad + good) // 2
        if holds(middle):
            good = middle
        else:
            bad = middle
    return good


def _run(model: ir.Model, outputs: Sequence[str], samples: Sequence[Arrays]) -> list[Arrays]:
    runner = OnnxRunner(model, optimize=False)
    return [{name: array for name, array in runner.run(sample).items() if name in outputs} for sample in samples]


def rounded(model: ir.Model, kept: Collection[str]) -> ir.Model:
    """A copy that computes in float32 and rounds to float16 what nodes hand over, but from one to another of ``kept`` (by first output)."""
    model = model.clone()
    graph = model.graph
    wide = {node for node in graph if node.outputs[0].name in kept}
    for value in graph.initializers.values():
        tensor = value.const_value
        if (
            tensor is not None
            and value.dtype == ir.DataType.FLOAT
            and any(use.node not in wide for use in value.uses())
        ):
            array = np.clip(tensor.numpy(), -_LARGEST, _LARGEST)
            value.const_value = ir.tensor(array.astype(np.float16).astype(np.float32), name=value.name)
    first = graph[0]
    for value in [*graph.inputs, *(output for node in list(graph) for output in node.outputs)]:
        if value.dtype == ir.DataType.FLOAT and not value.is_initializer():
            _round(graph, value, wide, first)
    return model


def _round(graph: ir.Graph, value: ir.Value, wide: set[ir.Node], first: ir.Node) -> None:
    """Two casts after the value, for all who read it in float16, or for all where it was computed in float16."""
    maker = value.producer()
    stays = maker is None or maker in wide
    uses = [use for use in value.uses() if not stays or use.node not in wide]
    if not uses and (stays or not value.is_graph_output()):
        return
    narrow = ir.node("Cast", [value], attributes={"to": int(ir.DataType.FLOAT16)})
    back = ir.node("Cast", [narrow.outputs[0]], attributes={"to": int(ir.DataType.FLOAT)})
    for node, index in uses:
        node.replace_input_with(index, back.outputs[0])
    if maker is None:
        graph.insert_before(first, [narrow, back])
    else:
        graph.insert_after(maker, [narrow, back])
    if not stays and value.is_graph_output():
        name, value.name = str(value.name), f"{value.name}/wide"
        back.outputs[0].name, back.outputs[0].type, back.outputs[0].shape = name, value.type, value.shape
        for place, output in enumerate(graph.outputs):
            if output is value:
                graph.outputs[place] = back.outputs[0]
