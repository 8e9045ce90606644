"""What each layer costs: the float network with one layer quantized, against the float network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgewise.quantize.layers import Layer, macs_of
from edgewise.quantize.passes.writing import Writer
from edgewise.quantize.plan import Plan
from edgewise.quantize.walking import Arrays, Piece, Walk
from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.extras import needs
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.runtime.progress import Progress, silent

JUDGED = 16  # samples
MEASURES = ("sqnr", "fisher")


def sensitivities(
    reference: ir.Model,
    plan: Plan,
    samples: Sequence[Arrays],
    progress: Progress = silent,
    *,
    measure: str = "sqnr",
    most: int = JUDGED,
) -> list[dict[str, Any]]:
    """Per layer the signal-to-noise ratio of the network's outputs when that layer alone is quantized, the worst first.

    Args:
        reference: the float network that the plan was made for.
        plan: the plan, carried out: it knows the layers' integers and scales.
        samples: inputs by name; ``most`` of them are used, spread evenly.
        progress: told how far it is.
        measure: ``sqnr`` runs the network once for each layer; ``fisher`` foretells the ratio from the Fisher information
            of the outputs, in a few passes for all layers (``fisher.py``, extra ``[export]``).
        most: how many samples.

    Returns:
        ``name``, ``op``, ``sqnr_db`` (of the worst output, for ``fisher`` of all together; None when nothing changes),
        ``weight_bits``, ``weights``, ``macs`` (multiply-accumulates of the first sample).

    Raises:
        QuantizeError: ``fisher``, and an operator has no gradient here.
    """
    judged = _spread(samples, most)
    work = _work(reference, plan, judged[0])
    find = _foretold if measure == "fisher" else _measured
    ratios = find(reference, plan, judged, progress)
    rows = []
    for layer, worst in zip(plan.layers.values(), ratios, strict=True):
        stored = plan.stored.get(layer.node)
        rows.append(
            {
                "name": str(layer.node.name),
                "op": layer.node.op_type,
                "sqnr_db": round(float(worst), 2) if np.isfinite(worst) else None,
                "weight_bits": stored.coding.bits if stored else None,
                "weights": int(stored.integers().size) if stored else 0,
                "macs": work[str(layer.node.name)],
            }
        )
    return sorted(rows, key=lambda row: np.inf if row["sqnr_db"] is None else row["sqnr_db"])


def worst_sqnr(reference: ir.Model, model: ir.Model, samples: Sequence[Arrays]) -> float | None:
    """The signal-to-noise ratio in dB of a quantized network's worst output, on 16 samples.

    None where all outputs are exact, or where a reference of zeros gives no ratio.
    """
    judged = _spread(samples, JUDGED)
    worst = min(parity.sqnr_db for parity in compare_outputs(_outputs(reference, judged), _outputs(model, judged)))
    return round(float(worst), 2) if np.isfinite(worst) else None


def _spread(samples: Sequence[Arrays], most: int) -> list[Arrays]:
    return [samples[index] for index in sorted({int(at) for at in np.linspace(0, len(samples) - 1, most)})]


def _work(reference: ir.Model, plan: Plan, sample: Arrays) -> dict[str, int]:
    """Per layer its multiply-accumulates for a sample: shapes may depend on it."""
    names = {layer.node.name for layer in plan.layers.values()}
    nodes = [node for node in reference.graph if node.name in names]
    wanted = [str(value.name) for node in nodes for value in (*node.inputs[:2], node.outputs[0]) if value is not None]
    made = OnnxRunner(reference, outputs=wanted, optimize=False).run(sample)

    def shape(value: ir.Value | None) -> tuple[int, ...]:
        return () if value is None else made[str(value.name)].shape

    return {
        str(node.name): macs_of(node, shape(node.inputs[0]), shape(node.inputs[1]), shape(node.outputs[0]))
        for node in nodes
    }


def _measured(reference: ir.Model, plan: Plan, judged: Sequence[Arrays], progress: Progress) -> list[float]:
    """What comes before a layer is the same for it and all later ones: it is computed once, and kept by a walk."""
    wanted = _outputs(reference, judged)
    walk = Walk(reference, judged)
    places = {node.name: place for place, node in enumerate(reference.graph)}
    order = sorted(plan.layers.values(), key=lambda layer: places[layer.node.name])
    found = {}
    for number, layer in enumerate(order, start=1):
        alone = _alone(reference, layer, plan)
        rest = Piece(alone, list(alone.graph)[places[layer.node.name] :])
        found[layer.node.name] = _worst_behind(rest, reference, walk, wanted)
        progress("analyze", number, len(order))
    return [found[layer.node.name] for layer in plan.layers.values()]


def _worst_behind(rest: Piece, reference: ir.Model, walk: Walk, wanted: Sequence[Arrays]) -> float:
    """The worst output's signal-to-noise ratio when the rest of the graph reads what the float network made; earlier outputs are exact."""
    outputs = [name for value in reference.graph.outputs if (name := str(value.name)) in rest.made]
    if not outputs:
        return math.inf
    values = {
        value.name: value for node in reference.graph for value in [*node.inputs, *node.outputs] if value is not None
    }
    read = dict(zip(rest.read, walk.values([values[name] for name in rest.read]), strict=True))
    made = [rest.run({name: column[index] for name, column in read.items()}, outputs) for index in range(len(wanted))]
    parities = compare_outputs([{name: each[name] for name in outputs} for each in wanted], made)
    return min(parity.sqnr_db for parity in parities)


def _foretold(reference: ir.Model, plan: Plan, judged: Sequence[Arrays], progress: Progress) -> Iterator[float]:
    with needs("export"):
        from edgewise.quantize.fisher import fisher_noise
    noise = fisher_noise(reference, plan, judged, progress)
    for layer in plan.layers.values():
        own = noise[str(layer.node.name)]
        yield -10 * math.log10(own) if own > 0 else math.inf


def _outputs(model: ir.Model, samples: Sequence[Arrays]) -> list[Arrays]:
    runner = OnnxRunner(model, optimize=False)
    return [runner.run(sample) for sample in samples]


def _alone(reference: ir.Model, layer: Layer, plan: Plan) -> ir.Model:
    """The float network with the weights and the inputs of one layer as they are in the quantized one."""
    model = reference.clone()
    writer = Writer(model.graph)
    node = next(node for node in model.graph if node.name == layer.node.name)
    if (stored := plan.stored.get(layer.node)) and layer.weight is not None:
        weights = stored.integers().astype(np.float32) * stored.steps()
        node.replace_input_with(layer.weight, writer.constant("rounded", weights))
    for index in layer.activations:
        value, now = node.inputs[index], layer.node.inputs[index]
        maker = now.producer() if now is not None else None
        if value is None or maker is None or maker.op_type != "DequantizeLinear":
            continue
        scale, point = (
            writer.tensor("grid", ir.tensor(given.const_value.numpy(), dtype=given.dtype))
            for given in maker.inputs[1:3]
            if given is not None and given.const_value is not None
        )
        quantize = writer.quantize(value, scale, point)
        dequantize = writer.dequantize(quantize.outputs[0], scale, point, axis=None)
        model.graph.insert_before(node, [quantize, dequantize])
        node.replace_input_with(index, dequantize.outputs[0])
    return model
