"""Pairs of linear layers with a GELU between them, found by what they compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.quantize.biases import Bias, bias_of
from edgewise.quantize.layers import Layer, attribute, constant_of, describe
from edgewise.quantize.passes.writing import Writer
from edgewise.quantize.plan import Plan
from edgewise.quantize.stored import coding_for
from edgewise.quantize.walking import Piece

if TYPE_CHECKING:
    from edgewise.quantize.relu_mlp import Mlp

_ELEMENTWISE = {"Add", "Div", "Erf", "Gelu", "Identity", "Mul", "Pow", "Sigmoid", "Sqrt", "Sub", "Tanh"}
_NEAR = 0.03  # tanh's approximation is within 0.0005 of GELU, x·sigmoid(1.702·x) within 0.02

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Site:
    """Two linear layers and a GELU between them.

    Attributes:
        x: what the first reads.
        activation: what the GELU reads and what it gives.
        output: what the second gives, with its bias.
        biases: of the two.
    """

    first: Layer
    second: Layer
    x: ir.Value
    activation: tuple[ir.Value, ir.Value]
    output: ir.Value
    biases: tuple[Bias | None, Bias | None]

    def refusal(self) -> str:
        """Why it is left alone; empty where it need not be."""
        for layer in (self.first, self.second):
            value = layer.node.inputs[layer.weight or 0]
            array = constant_of(value)
            if array is None or array.ndim != 2 or layer.channel_axis is None or attribute(layer.node, "transA", 0):
                return f"{layer.node.name!r} is no product of rows with a matrix"
            if value is not None and len(list(value.uses())) > 1:
                return f"{layer.node.name!r} shares its weights"
        plain = all(layer.bias is None or bias is not None for layer, bias in self._pairs)
        scaled = any(name in layer.node.attributes for layer, _ in self._pairs for name in ("alpha", "beta"))
        return "" if plain and not scaled else "a bias is scaled, shared or no vector of the layer's outputs"

    @property
    def _pairs(self) -> list[tuple[Layer, Bias | None]]:
        return list(zip((self.first, self.second), self.biases, strict=True))

    def mlp(self) -> Mlp:
        """The weights as they are."""
        from edgewise.quantize.relu_mlp import Mlp

        arrays: list[Matrix] = []
        for layer, bias in self._pairs:
            weights = _as_product(layer, np.asarray(_weights(layer), dtype=np.float32))
            arrays += [weights, np.zeros(weights.shape[1], np.float32) if bias is None else bias.values()]
        return Mlp(*arrays)

    def rounded(self, mlp: Mlp, plan: Plan) -> Mlp:
        """With weights rounded as the scheme says."""
        from edgewise.quantize.relu_mlp import Mlp

        made = []
        for (layer, _), product in zip(self._pairs, (mlp.first, mlp.second), strict=True):
            weights = np.ascontiguousarray(_as_product(layer, product))
            coding = coding_for(plan.spec, layer, weights.shape, wide=layer.node in plan.wide)
            scales = coding.scales(weights)
            made.append(_as_product(layer, coding.round(weights, scales) * coding.steps(scales, weights.shape)))
        return Mlp(made[0], mlp.first_bias, made[1], mlp.second_bias)

    def write(self, writer: Writer, mlp: Mlp) -> None:
        """Put the ReLU and the trained weights into the graph."""
        for (layer, bias), product, vector in zip(
            self._pairs, (mlp.first, mlp.second), (mlp.first_bias, mlp.second_bias), strict=True
        ):
            value = layer.node.inputs[layer.weight or 0]
            if value is not None:
                value.const_value = ir.tensor(np.ascontiguousarray(_as_product(layer, product)), name=value.name)
            if bias is not None:
                bias.add((vector - bias.values()).astype(np.float64))
        read, given = self.activation
        name = writer.free_name(f"{given.name}_Relu")
        relu = ir.Value(name=writer.free_name(f"{name}_output"), shape=given.shape, type=given.type)
        writer.graph.insert_before(self.second.node, ir.node("Relu", [read], outputs=[relu], name=name))
        self.second.node.replace_input_with(self.second.activations[0], relu)
        _drop(writer.graph, given)


def site_before(model: ir.Model, second: Layer) -> Site | None:
    """The MLP that ends in a layer; None where no GELU between two layers is."""
    given = second.node.inputs[second.activations[0]] if second.weight is not None else None
    if given is None or second.node.op_type not in ("Gemm", "MatMul") or not _read_by(given, {second.node}):
        return None
    found = _elementwise(given)
    if found is None or not _is_gelu(model, *found, given):
        return None
    maker = found[0].producer()
    candidates = [maker, *([] if maker is None else [v.producer() for v in maker.inputs if v is not None])]
    for node in candidates:
        if node is None or node.op_type not in ("Gemm", "MatMul") or node.domain:
            continue
        first = describe(node)
        bias = bias_of(first) if first.weight is not None else None
        last = node if bias is None else bias.node
        x = node.inputs[first.activations[0]]
        if first.weight is not None and x is not None and last.outputs[0] is found[0]:
            own = bias_of(second)
            output = (second.node if own is None else own.node).outputs[0]
            return Site(first, second, x, (found[0], given), output, (bias, own))
    return None


def _elementwise(value: ir.Value) -> tuple[ir.Value, list[ir.Node]] | None:
    """The tensor that a value is computed from entry by entry, with scalars alone, and the nodes that do it."""
    nodes: set[ir.Node] = set()
    waiting, sources = [value], dict[ir.Value, None]()
    while waiting:
        each = waiting.pop()
        node = each.producer()
        if node is None or node.domain or node.op_type not in _ELEMENTWISE or not _only_scalars(node):
            sources[each] = None
        elif node not in nodes:
            nodes.add(node)
            waiting += [read for read in node.inputs if read is not None and constant_of(read) is None]
    source = next(iter(sources), None)
    inner = [made for node in nodes for made in node.outputs if made is not value]
    if source is None or len(sources) > 1 or not nodes:
        return None
    if not all(_read_by(each, nodes) for each in (*inner, source)):
        return None
    graph = value.producer().graph  # type: ignore[union-attr]
    return source, [node for node in graph or () if node in nodes]


def _only_scalars(node: ir.Node) -> bool:
    arrays = [constant_of(value) for value in node.inputs if value is not None]
    return all(array is None or array.size == 1 for array in arrays)


def _read_by(value: ir.Value, nodes: set[ir.Node]) -> bool:
    return not value.is_graph_output() and all(use.node in nodes for use in value.uses())


def _is_gelu(model: ir.Model, source: ir.Value, nodes: list[ir.Node], given: ir.Value) -> bool:
    from edgewise.quantize.relu_mlp import gelu

    points = np.linspace(-6, 6, 97, dtype=np.float32)
    made = Piece(model, nodes).run({str(source.name): points}, [str(given.name)])[str(given.name)]
    return bool(made.shape == points.shape and np.max(np.abs(made - gelu(points))) < _NEAR)


def _drop(graph: ir.Graph, value: ir.Value) -> None:
    """Remove what computes a value that nobody reads any more."""
    node = value.producer()
    if node is None or any(list(made.uses()) for made in node.outputs):
        return
    inputs = [read for read in node.inputs if read is not None]
    graph.remove(node, safe=True)
    for read in inputs:
        if constant_of(read) is None and not read.is_graph_output() and not list(read.uses()):
            _drop(graph, read)


def _weights(layer: Layer) -> np.ndarray:
    return np.asarray(constant_of(layer.node.inputs[layer.weight or 0]))


def _as_product(layer: Layer, weights: Matrix) -> Matrix:
    """To [inputs, outputs] from the layer's own order, or back."""
    return weights if layer.channel_axis == 1 else np.ascontiguousarray(weights.T)
