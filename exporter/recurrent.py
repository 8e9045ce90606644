"""LSTM, GRU and RNN of any number of steps: PyTorch's export writes their steps out, which fixes how many there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from onnxscript import opset18
from torch.nn.modules import rnn

op: Any = opset18  # its type stubs know no graph values

Tensor = torch.Tensor
# Per kind the ONNX operator, and where its gates lie among PyTorch's: iofc among ifgo, zrh among rzn.
_KINDS: dict[str, tuple[str, tuple[int, ...]]] = {
    "lstm": ("LSTM", (0, 3, 1, 2)),
    "gru": ("GRU", (1, 0, 2)),
    "rnn_tanh": ("RNN", (0,)),
    "rnn_relu": ("RNN", (0,)),
}
_SCHEMA = (
    "(Tensor read, Tensor[] states, Tensor[] weights, bool biases, int layers, bool both, bool batch_first) -> Tensor[]"
)
_ATTRIBUTES: dict[str, dict[str, Any]] = {"gru": {"linear_before_reset": 1}}


@contextmanager
def kept_whole() -> Iterator[None]:
    """Let ``torch.nn``'s recurrent layers be traced as one operator each, of shapes that follow their inputs'."""
    with mock.patch.object(rnn, "_VF", _Functions(torch._VF)):
        yield


class _Functions:
    """PyTorch's functions, but for those of recurrent layers."""

    def __init__(self, own: Any) -> None:
        self._own = own

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._own, name)
        return _whole(name, function) if name in _KINDS else function


def _whole(kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of a layer; ours where it takes a tensor [batch, steps, size] or [steps, batch, size]."""

    def call(read: Tensor, *rest: Any) -> Any:
        states, weights, *options = rest
        if not isinstance(weights, list):  # a packed sequence
            return function(read, *rest)
        biases, layers, _dropout, _training, both, batch_first = options
        if len(weights) != layers * (2 if both else 1) * (4 if biases else 2):
            raise NotImplementedError("an LSTM with a projection (proj_size), which ONNX does not have")
        states = list(states) if isinstance(states, tuple) else [states]
        return tuple(_OPERATORS[kind](read, states, weights, biases, layers, both, batch_first))

    return call


def _operator(kind: str) -> Callable[..., list[Tensor]]:
    """``edgewise::KIND``: outputs, then the last states; no state is given twice."""
    function = getattr(torch._VF, kind)

    def compute(read: Tensor, states: list[Tensor], weights: list[Tensor], *options: Any) -> list[Tensor]:
        biases, layers, both, batch_first = options
        given = tuple(states) if kind == "lstm" else states[0]
        return [each.clone() for each in function(read, given, weights, biases, layers, 0.0, False, both, batch_first)]

    def shapes(read: Tensor, states: list[Tensor], weights: list[Tensor], *options: Any) -> list[Tensor]:
        directions = 2 if options[2] else 1
        return [read.new_empty([*read.shape[:2], states[0].shape[2] * directions]), *map(torch.empty_like, states)]

    made: Any = torch.library.custom_op(f"edgewise::{kind}", compute, mutates_args=(), schema=_SCHEMA)
    made.register_fake(shapes)
    return made  # type: ignore[no-any-return]


_OPERATORS = {kind: _operator(kind) for kind in _KINDS}


def _joined(parts: Sequence[Any]) -> Any:
    """Along the first axis."""
    return parts[0] if len(parts) == 1 else op.Concat(*parts, axis=0)


def _translation(kind: str) -> Callable[..., Any]:
    name, order = _KINDS[kind]
    operator, attributes = getattr(op, name), dict(_ATTRIBUTES.get(kind, {}))

    def gates(weights: Any) -> Any:
        """Weights or biases of one direction in ONNX's order, [1, gates * size, ...]."""
        size = int(weights.shape[0]) // len(order)
        bounds = [op.Constant(value_ints=[size * place]) for place in range(len(order) + 1)]
        parts = (
            [op.Slice(weights, bounds[place], bounds[place + 1]) for place in order] if len(order) > 1 else [weights]
        )
        return op.Unsqueeze(_joined(parts), op.Constant(value_ints=[0]))

    def translate(
        read: Any,
        states: Sequence[Any],
        weights: Sequence[Any],
        biases: bool,
        layers: int,
        both: bool,
        batch_first: bool,
    ) -> Any:
        """All layers; ``states`` [layers * directions, batch, size] each."""
        ways = 2 if both else 1
        size, each = int(weights[1].shape[1]), 4 if biases else 2
        told = attributes | {"hidden_size": size, "direction": "bidirectional" if both else "forward"}
        if name == "RNN":
            told["activations"] = [kind.removeprefix("rnn_").capitalize()] * ways
        value = op.Transpose(read, perm=[1, 0, 2]) if batch_first else read
        ends: list[list[Any]] = [[] for _ in states]
        for layer in range(layers):
            own = [weights[each * place : each * (place + 1)] for place in range(layer * ways, (layer + 1) * ways)]
            w, r = (_joined([gates(part[index]) for part in own]) for index in (0, 1))
            b = _joined([op.Concat(gates(part[2]), gates(part[3]), axis=1) for part in own]) if biases else None
            bounds = [op.Constant(value_ints=[place]) for place in (layer * ways, (layer + 1) * ways, 0)]
            begin = [state if layers == 1 else op.Slice(state, *bounds) for state in states]
            made, *last = operator(value, w, r, b, None, *begin, **told)
            for found, end in zip(ends, last, strict=True):
                found.append(end)
            # [steps, directions, batch, size] → [steps, batch, directions * size]
            turned = op.Transpose(made, perm=[0, 2, 1, 3])
            value = op.Reshape(turned, op.Constant(value_ints=[0, 0, ways * size]))
        outputs = op.Transpose(value, perm=[1, 0, 2]) if batch_first else value
        return (outputs, *(_joined(found) for found in ends))

    return translate


RECURRENT: dict[Callable[..., Any], Callable[..., Any]] = {
    getattr(torch.ops.edgewise, kind).default: _translation(kind) for kind in _KINDS
}
