"""Weights rounded for what their block gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from edgewise.quantize.biases import bias_of
from edgewise.quantize.layers import WEIGHTED, constant_of
from edgewise.quantize.partition import PARTITIONS
from edgewise.quantize.plan import Plan
from edgewise.quantize.walking import Arrays, Walk
from edgewise.runtime.extras import needs
from edgewise.runtime.progress import Progress, silent

if TYPE_CHECKING:
    from edgewise.quantize.block_training import Trained
    from edgewise.quantize.rounded_block import Cut

_SPARED = 0.5  # of the activations


class ReconstructBlocks(ir.passes.InPlacePass):
    """Train integers, biases and activation scales of a block together, until it gives what it gave in the float network.

    Before::

        x̂ ─┬─► Q ─► DQ ─► Conv(q) ─► Relu ─► Q ─► DQ ─► Conv(p) ─► Add ─► Relu ─► ŷ
           └──────────────────────────────────────────────────────►┘

    After: the same graph with q′ and p′, with which ŷ is nearer to the float network's y.

    Blocks lie between tensors that alone carry the graph on: residual blocks, attention, MLPs, or several of them
    (``partition.py``). They are taken in order, each on what the rounded blocks before it give: biases and scales first, then all together, when half of the
    activations, drawn anew at each step, are not rounded (X. Wei et al., "QDrop", ICLR 2022). The squared error at the output is
    weighted by the network's Hessian, averaged over samples (Z. Wu et al., "APHQ-ViT", CVPR 2025, after Y. Li et al., "BRECQ",
    ICLR 2021). Gradients pass a rounding as if it were not there (M. Chen et al., "EfficientQAT", 2024): this begins at a
    second-order solution, of which most integers stay. What does not lower the error on held-out samples is taken back. A block
    with an operator that has no gradient is left as it was, with a note.

    Args:
        reference: the float network that the plan was made for, with the same names.
        plan: the plan that was carried out on the model.
        samples: inputs by name, one entry a sample.
        partition: how the network is cut into blocks, one of ``PARTITIONS``.
    """

    def __init__(
        self,
        reference: ir.Model,
        plan: Plan,
        samples: Sequence[Arrays],
        progress: Progress = silent,
        partition: str = "parts",
    ) -> None:
        self._reference, self._plan, self._samples, self._progress = reference, plan, samples, progress
        self._partition = PARTITIONS[partition]
        self.reconstructed: list[dict[str, Any]] = []

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Train block after block; ``reconstructed`` tells where it gained and how much."""
        with needs("export"):
            from edgewise.quantize.block_training import HELD_OUT, importance
        if len(self._samples) < HELD_OUT:
            self._plan.notes.append(f"no block is reconstructed: there are too few samples: {len(self._samples)}")
            return ir.passes.PassResult(model, modified=False)
        floats, rounded = Walk(self._reference, self._samples), Walk(model, self._samples)
        blocks = self._partition(self._reference, self._samples, self._plan.spec)
        try:
            weights = importance(self._reference, [block.output for block in blocks], self._samples)
        except NotImplementedError as error:
            self._plan.notes.append(f"no block is reconstructed: {error}")
            return ir.passes.PassResult(model, modified=False)
        stops: set[str] = set()
        for number, block in enumerate(blocks, start=1):
            stops |= {str(value.name) for value in block.inputs}
            cut = cut_at(model.graph, stops, str(block.output.name))
            stops.add(str(block.output.name))
            wanted = floats.values([block.output])[0]
            given = {str(v.name): arrays for v, arrays in zip(cut.inputs, rounded.values(cut.inputs), strict=True)}
            self._train(cut, given, wanted, weights[block.output])
            self._progress("reconstruct blocks", number, len(blocks))
        return ir.passes.PassResult(model, modified=bool(self.reconstructed))

    def _train(
        self, cut: Cut, given: dict[str, Sequence[np.ndarray]], wanted: Sequence[np.ndarray], weight: Any
    ) -> None:
        from edgewise.quantize.block_training import BlockTraining
        from edgewise.quantize.rounded_block import RoundedBlock, TrainedWeights

        trained = self._trained(cut)
        if not trained:
            return
        training = BlockTraining(RoundedBlock(cut, trained), given, wanted, weight)
        name = str(cut.output.name)
        smooth = [each for each in trained if not isinstance(each, TrainedWeights)]
        try:
            before = training.error()
            if smooth:
                training.improve(smooth)
            after = training.improve(trained, _SPARED)
        except NotImplementedError as error:
            self._plan.notes.append(f"the block that ends at {name!r} is not reconstructed: {error}")
            return
        if after < before:
            for each in trained:
                each.write()
            layers = sum(isinstance(each, TrainedWeights) for each in trained)
            moved = sum(each.moved for each in trained if isinstance(each, TrainedWeights))
            self.reconstructed.append(
                {"block": name, "layers": layers, "error": round(after / before, 4), "moved": moved}
            )

    def _trained(self, cut: Cut) -> list[Trained]:
        from edgewise.quantize.rounded_block import TrainedBias, TrainedScale, TrainedWeights

        originals = {node.name: node for node in self._reference.graph}
        found: list[Trained] = []
        for node in cut.nodes:
            stored = self._plan.stored.get(node)
            if stored is None or not stored.alone:
                continue
            dense = constant_of(originals[node.name].inputs[self._plan.layers[node].weight or 0])
            found.append(TrainedWeights(stored, np.asarray(dense, dtype=np.float32)))
            if (bias := bias_of(self._plan.layers[node])) is not None:
                found.append(TrainedBias(bias))
        return [*found, *map(TrainedScale, _scales(cut))] if found else []


def _scales(cut: Cut) -> list[ir.Value]:
    """Scales of activations that nothing outside reads, and that no bias in int32 is written in."""
    nodes = set(cut.nodes)
    found = dict.fromkeys(node.inputs[1] for node in cut.nodes if node.op_type == "QuantizeLinear")
    return [value for value in found if value is not None and all(_free(use.node, nodes) for use in value.uses())]


def _free(node: ir.Node, nodes: set[ir.Node]) -> bool:
    readers = [use.node for use in node.outputs[0].uses()] if node.op_type == "DequantizeLinear" else []
    return node in nodes and not any(_has_integer_bias(reader) for reader in readers)


def _has_integer_bias(node: ir.Node) -> bool:
    bias = node.inputs[2] if node.op_type in WEIGHTED and len(node.inputs) > 2 else None
    return bias is not None and bias.producer() is not None


def cut_at(graph: ir.Graph, stops: set[str], output: str) -> Cut:
    """The nodes of the quantized graph between tensors of these names and the one named ``output``."""
    from edgewise.quantize.rounded_block import Cut

    end = next(value for node in graph for value in node.outputs if value.name == output)
    wanted, nodes, inputs = {end}, list[ir.Node](), dict[ir.Value, None]()
    for node in reversed(graph):
        if not any(value in wanted for value in node.outputs):
            continue
        nodes.append(node)
        for value in node.inputs:
            if value is None or constant_of(value) is not None:
                continue
            if value.name in stops or value.is_graph_input():
                inputs[value] = None
            else:
                wanted.add(value)
    return Cut(nodes[::-1], list(inputs), end)
