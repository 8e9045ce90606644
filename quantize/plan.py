"""What placement decides about a graph and the rewriting passes carry out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgewise.quantize.grid import Grid
from edgewise.quantize.layers import Layer
from edgewise.quantize.spec import QuantSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from edgewise.quantize.grid import Scale
    from edgewise.quantize.stored import StoredWeights

Use = tuple["ir.Node", int]


@dataclass
class Plan:
    """Which tensors are rounded to integers, for whom, and which of them share a scale.

    Attributes:
        spec: what the target wants.
        layers: the layers that will compute on integers.
        uses: per rounded value, the uses that read integers; the others read the float tensor.
        whole: values that are rounded for every use, because the operator that makes them makes integers.
        refused: per node that stays in float though it could be quantized, the reason.
        already: per layer that came quantized, what is done about it.
        notes: sentences for the user.
        scales: per group (see ``group``), its scale, once calibrated.
        wide: layers that get 8 bits where the spec has fewer.
        stored: per layer, its weights as integers, once written.
    """

    spec: QuantSpec
    layers: dict[ir.Node, Layer] = field(default_factory=dict)
    uses: dict[ir.Value, list[Use]] = field(default_factory=dict)
    whole: set[ir.Value] = field(default_factory=set)
    refused: dict[ir.Node, str] = field(default_factory=dict)
    already: dict[ir.Node, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    scales: dict[ir.Value, Scale] = field(default_factory=dict)
    wide: set[ir.Node] = field(default_factory=set)
    stored: dict[ir.Node, StoredWeights] = field(default_factory=dict)
    _parents: dict[ir.Value, ir.Value] = field(default_factory=dict)
    _joined: set[ir.Value] = field(default_factory=set)

    def round_use(self, node: ir.Node, index: int) -> None:
        """Let one input of a node read integers."""
        value = node.inputs[index]
        if value is not None and (node, index) not in self.uses.setdefault(value, []):
            self.uses[value].append((node, index))

    def round_whole(self, value: ir.Value) -> None:
        """Let every use of a value read integers."""
        self.uses.setdefault(value, [])
        self.whole.add(value)

    def is_rounded(self, value: ir.Value) -> bool:
        """Whether some use of the value reads integers."""
        return value in self.uses

    def share(self, first: ir.Value, second: ir.Value) -> None:
        """Give two values one scale."""
        joined = self.group(first) in self._joined or self.group(second) in self._joined
        self._parents[self.group(second)] = self.group(first)
        if joined:
            self._joined.add(self.group(first))

    def may_join(self, values: Sequence[ir.Value]) -> bool:
        """Whether a Concat may give these values one scale: none of them shares one with another Concat yet. Then it does."""
        if any(self.group(value) in self._joined for value in values):
            return False
        for value in values[1:]:
            self.share(values[0], value)
        self._joined.add(self.group(values[0]))
        return True

    def group(self, value: ir.Value) -> ir.Value:
        """The value that stands for all those with the same scale."""
        while (parent := self._parents.get(value, value)) is not value:
            value = parent
        return value

    def scale(self, value: ir.Value) -> Scale:
        """A rounded value's scale, after calibration."""
        return self.scales[self.group(value)]

    def grid(self, value: ir.Value) -> Grid:
        """The integers of a rounded value: 8 bits where a wide layer reads its group, else as many as the spec says."""
        dtype = self.spec.activation_dtype
        if dtype in ("uint4", "int4") and self._read_widely(self.group(value)):
            dtype = dtype.replace("4", "8")
        return Grid(dtype, self.spec.activation_symmetric, self.spec.power_of_two, self.spec.one_sided)

    def _read_widely(self, group: ir.Value) -> bool:
        return any(
            node in self.wide for value, uses in self.uses.items() if self.group(value) is group for node, _ in uses
        )

    def input_scale(self, layer: Layer) -> np.float32:
        """The scale of a layer's (only) activation, while the layer still reads the float tensor."""
        value = layer.node.inputs[layer.activations[0]]
        if value is None:
            raise ValueError(layer.node.name)
        return self.scale(value).scale
