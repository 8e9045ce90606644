"""Channels of like range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.quantize.balance import ChannelStatistics, Reader, best_factors
from edgewise.quantize.grid import Grid
from edgewise.quantize.layers import Layer, attribute, constant_of
from edgewise.quantize.passes.select_layers import SelectLayers
from edgewise.quantize.passes.writing import Writer, before_readers
from edgewise.quantize.plan import Plan
from edgewise.quantize.pruning.matrices import as_matrices
from edgewise.quantize.scaling import Makers
from edgewise.quantize.streaming import watch
from edgewise.runtime.progress import Progress, silent

if TYPE_CHECKING:
    from edgewise.quantize.spec import QuantSpec
    from edgewise.runtime.data import Dataset

_LEAST_GAIN_DB = 0.5
_LEAST_GAIN_OF_MUL_DB = 2.0  # one more pass over the tensor has to be worth it


@dataclass(frozen=True)
class _Site:
    """A tensor and the layers that read it channel by channel. ``last``: along the last axis, else along axis 1."""

    value: ir.Value
    layers: list[Layer]
    last: bool
    channels: int


class BalanceChannels(ir.passes.InPlacePass):
    """Divide wide channels of a tensor by factors, and multiply the weights that read them: the same function.

    Before::

        Conv(w, b) ──► Relu ──► x ──► Conv(v)            LayerNormalization ──► x ──┬──► MatMul(v)
                                                                                    └──► Add

    After::

        Conv(w/f, b/f) ──► Relu ──► x/f ──► Conv(v·f)    LayerNormalization ──► x ──┬──► Mul(1/f) ──► MatMul(v·f)
                                                                                    └──► Add

    One scale for the whole tensor then suits all of its channels. The factors go into what makes the tensor (weights and
    biases, a normalization's scale, a constant that it is multiplied by), through operators that keep channels apart and
    through Concat. Where others read the tensor too, linear layers get a Mul, if that gains enough. The gain is estimated
    from calibration data; without one, nothing changes.
    """

    def __init__(
        self, spec: QuantSpec, data: Dataset, *, keep_float: Sequence[str] = (), progress: Progress = silent
    ) -> None:
        self._spec, self._data, self._keep_float, self._progress = spec, data, keep_float, progress
        self.balanced: list[dict[str, str | float]] = []

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Balance every tensor that gains by it; ``balanced`` tells which."""
        plan = Plan(self._spec)
        SelectLayers(plan, self._keep_float)(model)
        balances = self._spec.balance and self._spec.per_channel and not self._spec.weights_only
        sites = _sites(plan) if balances else []
        seen = {site.value: ChannelStatistics(-1 if site.last else 1) for site in sites}
        watchers = {value: statistics.update for value, statistics in seen.items()}
        watch(model, watchers, self._data, task="balance", progress=self._progress)
        writer = Writer(model.graph)
        for site in sites:
            self._balance(writer, site, seen[site.value])
        return ir.passes.PassResult(model, modified=bool(self.balanced))

    def _balance(self, writer: Writer, site: _Site, seen: ChannelStatistics) -> None:
        grid = Grid(self._spec.activation_dtype, self._spec.activation_symmetric, one_sided=self._spec.one_sided)
        readers = [_reader(layer) for layer in site.layers]
        factors, gain = best_factors(seen, readers, grid, self._spec.bits)
        if gain < _LEAST_GAIN_DB:
            return
        makers = Makers(site.last)
        alone = len(list(site.value.uses())) == len(site.layers) and not site.value.is_graph_output()
        if alone and makers.find(site.value, 0, site.channels):
            for absorber in makers.absorbers:
                absorber.divide(writer, factors, site.last)
            how = "in what makes it"
        elif site.last and gain >= _LEAST_GAIN_OF_MUL_DB:
            _insert_mul(writer, site, factors)
            how = "by a Mul"
        else:
            return
        _multiply_weights(writer, site, factors)
        self.balanced.append({"tensor": str(site.value.name), "how": how, "gain_db": round(gain, 2)})


def _sites(plan: Plan) -> list[_Site]:
    """Tensors whose quantized readers all see the same channels, in the order of the graph."""
    readers: dict[ir.Value, list[Layer]] = {}
    for layer in plan.layers.values():
        value = layer.node.inputs[layer.activations[0]]
        if layer.weight is not None and value is not None:
            readers.setdefault(value, []).append(layer)
    found = []
    for value, layers in readers.items():
        counts = {_channels(layer) for layer in layers}
        kinds = {layer.node.op_type in ("Gemm", "MatMul") for layer in layers}
        own = all(_only_of(layer, layers) for layer in layers)
        if len(counts) == 1 and len(kinds) == 1 and own and (count := counts.pop()):
            found.append(_Site(value, layers, kinds.pop(), count))
    return found


def _channels(layer: Layer) -> int:
    """How many channels a layer reads; 0 when they cannot be scaled one by one."""
    array = np.asarray(constant_of(layer.node.inputs[layer.weight or 0]))
    groups = attribute(layer.node, "group", 1)
    if layer.node.op_type == "Conv":
        depthwise = groups == array.shape[0] and array.shape[1] == 1
        return int(array.shape[1] if groups == 1 else array.shape[0] if depthwise else 0)
    if array.ndim != 2 or layer.channel_axis is None or attribute(layer.node, "transA", 0):
        return 0
    return 0 if layer.node.op_type == "ConvTranspose" else int(array.shape[1 - layer.channel_axis])


def _only_of(layer: Layer, layers: list[Layer]) -> bool:
    """Whether a layer's weights are read by these layers alone, in the same way."""
    value = layer.node.inputs[layer.weight or 0]
    uses = list(value.uses()) if value is not None else []
    return len(uses) == 1 and any(uses[0].node is other.node for other in layers)


def _reader(layer: Layer) -> Reader:
    array: NDArray[np.float32] = np.asarray(constant_of(layer.node.inputs[layer.weight or 0]), dtype=np.float32)
    return Reader(
        as_matrices(layer, array), depthwise=layer.node.op_type == "Conv" and attribute(layer.node, "group", 1) > 1
    )


def _multiply_weights(writer: Writer, site: _Site, factors: NDArray[np.float64]) -> None:
    for layer in site.layers:
        index = layer.weight or 0
        value = layer.node.inputs[index]
        array = np.asarray(constant_of(value), dtype=np.float32)
        depthwise = attribute(layer.node, "group", 1) > 1
        axis = 1 - (layer.channel_axis or 0) if array.ndim == 2 else 0 if depthwise else 1
        scaled = array * factors.reshape([-1 if i == axis else 1 for i in range(array.ndim)])
        name = f"{value.name}_balanced" if value is not None else "balanced"
        layer.node.replace_input_with(index, writer.constant(name, scaled.astype(np.float32)))


def _insert_mul(writer: Writer, site: _Site, factors: NDArray[np.float64]) -> None:
    constant = writer.constant(f"{site.value.name}_factors", (1 / factors).astype(np.float32))
    name = writer.free_name(f"{site.value.name}_Mul")
    output = ir.Value(name=writer.free_name(f"{name}_output"), shape=site.value.shape, type=site.value.type)
    before_readers(writer.graph, site.value, [ir.node("Mul", [site.value, constant], outputs=[output], name=name)])
    for layer in site.layers:
        layer.node.replace_input_with(layer.activations[0], output)
