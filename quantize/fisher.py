"""What each layer costs, from a backward pass for all of them at once: the Fisher information of the outputs. Needs PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from edgewise.quantize.errors import QuantizeError
from edgewise.quantize.layers import Layer, constant_of
from edgewise.quantize.plan import Plan
from edgewise.quantize.pruning.torch_ops import run_node
from edgewise.quantize.spec import LIMITS
from edgewise.quantize.walking import Arrays
from edgewise.runtime.progress import Progress, silent

_PROBES = 4  # random directions per sample: the estimate then lies within about a decibel on 16 samples
_SEED = 0
_LEAST = 1e-30  # of what is divided by

Tensor = torch.Tensor
Errors = dict[ir.Value, Tensor]


def fisher_noise(
    reference: ir.Model, plan: Plan, samples: Sequence[Arrays], progress: Progress = silent
) -> dict[str, float]:
    """Per layer the noise that it alone makes in the network's outputs, of the outputs' power.

    With J the derivative of the outputs by a layer's weights and inputs, and e the error that rounding makes in these, the
    outputs move by J·e. Its mean square is eᵀ·JᵀJ·e, and JᵀJ is the Fisher information of outputs with Gaussian noise
    (Martens 2020). A product of the outputs with random signs r has the gradient Jᵀr, and (rᵀJ·e)² has that mean: a few
    backward passes serve all layers, where running the network once for each takes as many passes as there are layers.
    HAWQ-V2 (Dong et al. 2020) takes the trace of the Hessian in place of eᵀ·H·e.

    Args:
        reference: the float network that the plan was made for.
        plan: the plan, carried out: it knows the layers' integers and scales.
        samples: inputs by name.
        progress: told how far it is.

    Returns:
        per layer name the noise; 0 where nothing changes.

    Raises:
        QuantizeError: an operator of the network has no gradient here.
    """
    nodes = {str(node.name): node for node in reference.graph}
    signs = torch.Generator().manual_seed(_SEED)
    total = dict.fromkeys((str(layer.node.name) for layer in plan.layers.values()), 0.0)
    for number, sample in enumerate(samples, start=1):
        try:
            values = derivable(reference.graph, sample)
        except NotImplementedError as error:
            raise _no_gradient(reference.graph, str(error)) from error
        errors = {str(layer.node.name): _errors(layer, nodes, plan, values) for layer in plan.layers.values()}
        for name, noise in _noise(reference.graph, values, errors, signs).items():
            total[name] += noise / len(samples)
        progress("analyze", number, len(samples))
    return total


def derivable(graph: ir.Graph, sample: Arrays) -> dict[ir.Value, Tensor]:
    """Every tensor of the network for a sample; floats can be derived by."""
    read = [*graph.inputs, *(value for node in graph for value in node.inputs if value is not None)]
    found: dict[ir.Value, Tensor] = {}
    for value in dict.fromkeys(read):
        array = constant_of(value) if value not in graph.inputs else sample[str(value.name)]
        if array is not None:
            tensor = torch.from_numpy(np.array(array))
            found[value] = tensor.requires_grad_() if tensor.is_floating_point() else tensor
    for node in graph:
        given = [None if value is None else found[value] for value in node.inputs]
        found.update(zip(node.outputs, run_node(node, given), strict=False))
    return found


def _errors(layer: Layer, nodes: Mapping[str, ir.Node], plan: Plan, values: Mapping[ir.Value, Tensor]) -> Errors:
    """What rounding adds to the weights and to the inputs of one layer."""
    node = nodes[str(layer.node.name)]
    found: Errors = {}
    if (stored := plan.stored.get(layer.node)) and layer.weight is not None:
        weight = node.inputs[layer.weight]
        rounded = stored.integers().astype(np.float32) * stored.steps()
        if weight is not None:
            found[weight] = torch.from_numpy(np.array(rounded)) - values[weight].detach()
    for index in layer.activations:
        value, now = node.inputs[index], layer.node.inputs[index]
        maker = now.producer() if now is not None else None
        if value is not None and maker is not None and maker.op_type == "DequantizeLinear":
            exact = values[value].detach()
            found[value] = found.get(value, torch.zeros(())) + _round_trip(exact, maker) - exact
    return found


def _round_trip(exact: Tensor, dequantize: ir.Node) -> Tensor:
    scale, point = dequantize.inputs[1:3]
    step, zero = (float(_number(value)) for value in (scale, point))
    low, high = LIMITS[str(point.dtype).lower()] if point is not None else LIMITS["uint8"]
    return ((exact / step + zero).round().clamp(low, high) - zero) * step


def _number(value: ir.Value | None) -> NDArray[np.float32]:
    return np.asarray(constant_of(value)).astype(np.float32)


def _noise(
    graph: ir.Graph, values: Mapping[ir.Value, Tensor], errors: Mapping[str, Errors], signs: torch.Generator
) -> dict[str, float]:
    wanted = list(dict.fromkeys(value for each in errors.values() for value in each))
    found = dict.fromkeys(errors, 0.0)
    outputs = [values[value] for value in graph.outputs if values[value].requires_grad]
    for probe in range(_PROBES):
        directions = [2.0 * torch.randint(0, 2, each.shape, generator=signs) - 1.0 for each in outputs]
        sizes = [float(each.detach().square().sum().clamp(min=_LEAST)) ** 0.5 for each in outputs]
        sums = [(each * way).sum() / size for each, way, size in zip(outputs, directions, sizes, strict=True)]
        slopes = torch.autograd.grad(
            sums, [values[value] for value in wanted], retain_graph=probe + 1 < _PROBES, allow_unused=True
        )
        by = dict(zip(wanted, slopes, strict=True))
        for name, parts in errors.items():
            moved = [(slope * error).sum() for value, error in parts.items() if (slope := by[value]) is not None]
            found[name] += float(sum(moved)) ** 2 / _PROBES
    return found


def _no_gradient(graph: ir.Graph, reason: str) -> QuantizeError:
    return QuantizeError(
        "cannot weigh the layers by the Fisher information",
        where=f"graph {graph.name!r}",
        found=reason,
        expected="operators that can be derived",
        fix="Leave `sensitivity: fisher` out: the signal-to-noise ratio is then measured layer by layer",
    )
