"""Weights as integers with their scales: per tensor, per channel, or per group of consecutive inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.quantize.grid import weight_scales
from edgewise.quantize.layers import Layer
from edgewise.quantize.rounding import round_weights
from edgewise.quantize.spec import QuantSpec

Floats = NDArray[np.float32]


@dataclass
class Coding:
    """How the weights of a layer are written down.

    Attributes:
        axis: of the scales: output channels, or with ``group`` the inputs; None: one scale.
        bits: the integers lie within ±(2^(bits−1) − 1).
        group: this many inputs along ``axis`` share a scale; 0: no groups.
        dtype: what they are stored as.
        nearest: round each weight to the nearest integer, whatever the errors add up to.
    """

    axis: int | None
    bits: int
    group: int = 0
    dtype: ir.DataType = ir.DataType.INT8
    nearest: bool = False

    @property
    def top(self) -> int:
        """The greatest integer."""
        return int(2 ** (self.bits - 1) - 1)

    @property
    def coarse(self) -> bool:
        """Whether the steps are so wide that weights cost more than activations of 8 bits do."""
        return self.bits < 7

    @property
    def may_cut(self) -> bool:
        """Whether finer steps may be worth cutting the largest weights for."""
        return self.axis is not None and self.coarse

    @property
    def granularity(self) -> str:
        """In words, for reports."""
        if self.group:
            return f"per-group-{self.group}"
        return "per-tensor" if self.axis is None else "per-channel"

    def scales(self, weights: Floats) -> Floats:
        """Scales that suit the weights: [], [channels], or the weights' shape with a group in place of each of its inputs."""
        if not self.group:
            return weight_scales(weights, self.axis, self.bits)
        rows = self._rows(weights)
        return np.asarray(self._unrows(weight_scales(rows, 0, self.bits)[:, None], weights.shape), dtype=np.float32)

    def round(self, weights: Floats, scales: Floats) -> NDArray[np.int8]:
        """Integers whose errors cancel within a channel or a group, or (``nearest``) each as near as it can be."""
        if self.nearest:
            integers = np.clip(np.rint(weights / self.steps(scales, weights.shape)), -self.top, self.top)
            return np.asarray(integers, dtype=np.int8)
        if not self.group:
            return round_weights(weights, scales, self.axis, self.bits)
        flat = np.moveaxis(scales, self.axis or 0, -1).reshape(-1)
        integers = round_weights(self._rows(weights), flat, 0, self.bits)
        return np.ascontiguousarray(self._unrows(integers, weights.shape), dtype=np.int8)

    def steps(self, scales: Floats, shape: tuple[int, ...]) -> Floats:
        """The scale of each single weight."""
        if self.group:
            return np.repeat(scales, self.group, axis=self.axis)
        if self.axis is None:
            return np.broadcast_to(scales, shape)
        return np.broadcast_to(scales.reshape([-1 if i == self.axis else 1 for i in range(len(shape))]), shape)

    def tensor(self, integers: NDArray[np.int8], name: str | None = None) -> ir.TensorProtocol:
        """As it is stored in the graph."""
        return ir.tensor(integers.astype(self.dtype.numpy()), dtype=self.dtype, name=name)

    def _rows(self, weights: Floats) -> Floats:
        return np.moveaxis(weights, self.axis or 0, -1).reshape(-1, self.group)

    def _unrows(self, rows: NDArray[np.generic], shape: tuple[int, ...]) -> NDArray[np.generic]:
        moved = [size for index, size in enumerate(shape) if index != self.axis]
        return np.moveaxis(rows.reshape(*moved, -1), -1, self.axis or 0)


@dataclass
class StoredWeights:
    """Integers in the graph that a pass may change. ``alone``: one layer reads them."""

    value: ir.Value
    scale: ir.Value
    scales: Floats
    coding: Coding
    alone: bool

    def integers(self) -> NDArray[np.int8]:
        """As they are now."""
        if self.value.const_value is None:
            raise ValueError(self.value.name)
        return np.asarray(self.value.const_value.numpy()).astype(np.int8)

    def steps(self) -> Floats:
        """The scale of each single weight."""
        return self.coding.steps(self.scales, self.integers().shape)

    def rescale(self, factors: NDArray[np.float64]) -> None:
        """Multiply the scales of each output channel; the integers stay as they are."""
        shape = [1] * self.scales.ndim
        outputs = 1 - (self.coding.axis or 0) if self.coding.group else 0
        shape[outputs] = -1
        self.scales = np.asarray(self.scales * factors.reshape(shape), dtype=np.float32)
        self.scale.const_value = ir.tensor(self.scales, name=self.scale.name)

    def write(self, integers: NDArray[np.int8]) -> None:
        """Put others in their place."""
        self.value.const_value = self.coding.tensor(integers, self.value.name)


def coding_for(spec: QuantSpec, layer: Layer, shape: tuple[int, ...], wide: bool) -> Coding:
    """How a layer's weights are written down: in groups where the scheme wants them and they fit, else per channel."""
    bits = (7 if spec.reduce_range else 8) if wide else spec.bits
    dtype = ir.DataType.INT4 if spec.weight_dtype == "int4" and not wide else ir.DataType.INT8
    matrix = layer.node.op_type in ("Gemm", "MatMul") and len(shape) == 2 and layer.channel_axis is not None
    if spec.weight_group and not wide and matrix:
        inputs = 1 - (layer.channel_axis or 0)
        if shape[inputs] % spec.weight_group == 0:
            return Coding(inputs, bits, spec.weight_group, dtype, spec.dynamic)
    return Coding(layer.channel_axis if spec.per_channel else None, bits, 0, dtype, spec.dynamic)
