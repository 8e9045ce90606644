"""What LSTM, GRU and RNN have in common: directions, layouts, initial states, and how the outputs are put together."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.node import NodeView
from edgewise.targets.coreml.refusal import Refusal

_DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
_DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


def check_sequences(node: NodeView) -> Refusal | None:
    """What holds for all three: default activations, no clipping, a batch that is known or states of its size."""
    names = [item.decode() if isinstance(item, bytes) else item for item in node.attribute("activations", ())]
    usual = _DEFAULTS[node.node.op_type]
    if names and names != usual * (len(names) // len(usual)):
        return Refusal(", ".join(names), ", ".join(usual), "Use the default ones", "attribute activations")
    for name in ("input_forget", "clip"):
        if node.attribute(name, 0):
            return Refusal(f"{name} {node.attribute(name)}", f"{name} 0", f"Export without {name}", f"attribute {name}")
    if steps_and_batch(node)[1] is None and not all(node.given(index) for index in states_of(node)):
        return Refusal("a batch known at run time only, and no initial states", "a fixed batch", "Export with one")
    return None


def states_of(node: NodeView) -> tuple[int, ...]:
    """The inputs that are initial states."""
    return (5, 6) if node.node.op_type == "LSTM" else (5,)


def ways(node: NodeView) -> tuple[bool, ...]:
    """Whether each direction goes backwards."""
    return _DIRECTIONS[node.text("direction", "forward")]


def steps_and_batch(node: NodeView) -> tuple[int | None, int | None]:
    """The length of the sequences and how many there are; ``layout`` 1 has the batch first."""
    first, second = node.dims(0)[:2]
    return (second, first) if node.integer("layout") else (first, second)


def steps_first(b: Building) -> Any:
    """X as [steps, batch, features]."""
    return b.mb.transpose(x=b.x(), perm=[1, 0, 2]) if b.integer("layout") else b.x()


def initial(b: Building, index: int, place: int) -> Any:
    """The state of one direction before the first step, [batch, hidden]; zeros when it is left out."""
    if not b.given(index):
        return b.array(np.zeros((int(steps_and_batch(b)[1] or 1), b.integer("hidden_size")), b.dtype(0)))
    state, axis = b.x(index), 1 if b.integer("layout") else 0
    if b.dims(index)[axis] == 1:
        return b.mb.squeeze(x=state, axes=[axis])
    begin, size = [0, 0, 0], [-1, -1, -1]
    begin[axis], size[axis] = place, 1
    return b.mb.squeeze(x=b.mb.slice_by_size(x=state, begin=begin, size=size), axes=[axis])


def joined(b: Building, parts: list[tuple[Any, ...]]) -> list[Any]:
    """ONNX's outputs from those of each direction: Y [steps, batch, hidden], then states [batch, hidden]."""
    outputs = []
    for place, of_ways in enumerate(zip(*parts, strict=True)):
        axis = 1 if place == 0 else 0
        spread = [b.mb.expand_dims(x=part, axes=[axis]) for part in of_ways]
        whole = spread[0] if len(spread) == 1 else b.mb.concat(values=spread, axis=axis)
        if b.integer("layout"):
            whole = b.mb.transpose(x=whole, perm=[2, 0, 1, 3] if place == 0 else [1, 0, 2])
        outputs.append(whole)
    return outputs[: len(b.node.outputs)]
