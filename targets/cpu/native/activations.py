"""Functions of one number: what ONNX calls them, what libedgewise calls them, and what they are in numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import erf
from typing import TYPE_CHECKING

import numpy as np

from edgewise.targets.cpu.native.context import attribute_float, attribute_text, constant_array

if TYPE_CHECKING:
    import onnx_ir as ir

PRIVATE = "edgewise"  # the domain of operators that our own passes make

# ONNX's operators that have no parameters.
_PLAIN = {
    "Relu": "relu", "Sigmoid": "sigmoid", "HardSwish": "hardswish", "Tanh": "tanh", "Exp": "exp", "Log": "log", "Sqrt": "sqrt",
    "Neg": "neg", "Abs": "abs", "Erf": "erf", "Reciprocal": "reciprocal", "Floor": "floor", "Ceil": "ceil", "Round": "round",
    "Sin": "sin", "Cos": "cos", "Softplus": "softplus", "Sign": "sign", "Mish": "mish",
}  # fmt: skip
# With ONNX's default for each.
_WITH_ALPHA = {"Elu": ("elu", 1.0), "LeakyRelu": ("leakyrelu", 0.01)}
FUSED = {"relu", "clip", "gelu", "gelu_tanh", "silu", "hardswish", "sigmoid", "leakyrelu"}
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Activation:
    """A function of libedgewise's ``unary`` with its parameters."""

    name: str
    parameters: dict[str, float] = field(default_factory=dict)

    @property
    def clip(self) -> tuple[float, float] | None:
        """The bounds when it is nothing but bounds."""
        if self.name == "relu":
            return 0.0, _LARGEST
        return (self.parameters["alpha"], self.parameters["beta"]) if self.name == "clip" else None


def activation_of(node: ir.Node) -> Activation | None:
    """The function that a node computes of its first input, element by element; None when it is no such node."""
    kind = node.op_type
    if node.domain == PRIVATE:
        return Activation("silu") if kind == "Silu" else None
    if node.domain not in ("", "ai.onnx"):
        return None
    if kind in _PLAIN:
        return Activation(_PLAIN[kind])
    if kind in _WITH_ALPHA:
        name, default = _WITH_ALPHA[kind]
        return Activation(name, {"alpha": attribute_float(node, "alpha", default)})
    if kind == "HardSigmoid":
        return Activation(
            "hardsigmoid", {"alpha": attribute_float(node, "alpha", 0.2), "beta": attribute_float(node, "beta", 0.5)}
        )
    if kind == "Gelu":
        return Activation("gelu_tanh" if attribute_text(node, "approximate", "none") == "tanh" else "gelu")
    return _clip(node) if kind == "Clip" else None


def _clip(node: ir.Node) -> Activation | None:
    bounds = []
    for index, fallback in ((1, -_LARGEST), (2, _LARGEST)):
        given = node.inputs[index] if index < len(node.inputs) else None
        name = ("min", "max")[index - 1]
        if given is None:
            bounds.append(attribute_float(node, name, fallback))
            continue
        array = constant_array(given)
        if array is None or array.dtype != np.float32:
            return None
        bounds.append(float(array.reshape(-1)[0]))
    return Activation("clip", {"alpha": bounds[0], "beta": bounds[1]})


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


_ERF = np.vectorize(erf, otypes=[np.float64])
_NUMPY: dict[str, Callable[[np.ndarray, float, float], np.ndarray]] = {
    "relu": lambda x, a, b: np.maximum(x, 0),
    "clip": lambda x, a, b: np.clip(x, a, b),
    "sigmoid": lambda x, a, b: _sigmoid(x),
    "hardsigmoid": lambda x, a, b: np.clip(a * x + b, 0, 1),
    "hardswish": lambda x, a, b: x * np.clip(x / 6 + 0.5, 0, 1),
    "silu": lambda x, a, b: x * _sigmoid(x),
    "gelu": lambda x, a, b: 0.5 * x * (1 + _ERF(x / np.sqrt(2))),
    "gelu_tanh": lambda x, a, b: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "tanh": lambda x, a, b: np.tanh(x),
    "exp": lambda x, a, b: np.exp(x),
    "neg": lambda x, a, b: -x,
    "abs": lambda x, a, b: np.abs(x),
    "elu": lambda x, a, b: np.where(x > 0, x, a * np.expm1(x)),
    "leakyrelu": lambda x, a, b: np.where(x > 0, x, a * x),
    "softplus": lambda x, a, b: np.logaddexp(x, 0),
}


def tabulated(activation: Activation, real: np.ndarray) -> np.ndarray | None:
    """The function of each of these numbers, float32; None for functions that are not worth a table."""
    function = _NUMPY.get(activation.name)
    if function is None:
        return None
    parameters = activation.parameters
    with np.errstate(over="ignore"):
        found = function(real.astype(np.float64), parameters.get("alpha", 0.0), parameters.get("beta", 0.0))
    return np.asarray(found, np.float32)
