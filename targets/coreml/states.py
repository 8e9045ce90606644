"""Tensors that the package keeps between predictions: the cache of a decoder stays where the network runs (iOS 18)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from edgewise.targets.coreml.building import Values
from edgewise.targets.coreml.names import Namer
from edgewise.targets.coreml.node import dtype_name
from edgewise.targets.coreml.options import Options, wrong_option
from edgewise.targets.coreml.row import FLOATS

_FIRST = 18


@dataclass(frozen=True)
class State:
    """An input that holds what an output gave the time before; neither is a port of the package."""

    past: ir.Value
    present: ir.Value
    coreml: str

    def entry(self) -> dict[str, str]:
        """For the engine's settings."""
        names = {"name": self.past.name or "", "output": self.present.name or ""}
        return {**names, "coreml": self.coreml, "dtype": dtype_name(self.past) or ""}


def find_states(graph: ir.Graph, options: Options, namer: Namer) -> list[State]:
    """The pairs that ``states`` names.

    Raises:
        TargetError: before iOS 18, an unknown name, or an input and an output of different or flexible shapes.
    """
    if options.states and options.ios < _FIRST:
        raise wrong_option("states", f"minimum_deployment_target iOS{options.ios}", f"iOS{_FIRST} or later")
    inputs = {value.name or "": value for value in graph.inputs}
    outputs = {value.name or "": value for value in graph.outputs}
    states = []
    for past, present in options.states.items():
        for name, known, kind in ((past, inputs, "input"), (present, outputs, "output")):
            if name not in known:
                raise wrong_option("states", f"no {kind} {name!r}", f"one of {', '.join(known)}")
        states.append(State(inputs[past], outputs[present], namer(past)))
        _check(states[-1])
    return states


def _check(state: State) -> None:
    past, present = state.past, state.present
    shapes = [list(value.shape or ()) for value in (past, present)]
    fixed = all(isinstance(dim, int) for dim in shapes[0])
    if shapes[0] != shapes[1] or not fixed or not shapes[0] or past.dtype != present.dtype:
        found = f"{past.name} {past.dtype}{past.shape} and {present.name} {present.dtype}{present.shape}"
        raise wrong_option("states", found, "the same dtype and the same fixed shape: a cache that is written in place")
    if dtype_name(past) not in FLOATS:
        raise wrong_option("states", f"{past.name} in {dtype_name(past)}", "float32 or float16")


def placeholders(ct: Any, mb: Any, states: list[State]) -> dict[str, Any]:
    """MIL's placeholders by name; Core ML has states in float16 alone."""
    half = ct.converters.mil.mil.types.fp16
    return {
        state.coreml: mb.state_tensor_placeholder(shape=list(state.past.shape or ()), dtype=half) for state in states
    }


def read_states(function: Any, states: list[State], values: Values) -> None:
    """Give the inputs their variables."""
    for state in states:
        var = values.mb.read_state(input=function.inputs[state.coreml])
        values.put(state.past, var if dtype_name(state.past) == "float16" else values.mb.cast(x=var, dtype="fp32"))


def write_states(function: Any, states: list[State], values: Values) -> None:
    """Keep what the outputs give."""
    for state in states:
        var = values.mb.cast(x=values.var(state.present), dtype="fp16")
        values.mb.coreml_update_state(state=function.inputs[state.coreml], value=var)
