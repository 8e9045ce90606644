"""Reference samples for an ONNX graph that came without: the graph's own outputs, computed node by node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgewise.runtime.errors import RunError
from edgewise.runtime.progress import Progress, silent
from edgewise.stages.inputs import find_data
from edgewise.stages.network import Network, tensor_spec

if TYPE_CHECKING:
    import onnx_ir as ir

SAMPLES = 4
_DYNAMIC_SIZE = 2
_SEED = 0


def with_reference(
    network: Network, data: str | None, preprocess: str | None, *, count: int = SAMPLES, progress: Progress = silent
) -> Network:
    """The network with ``count`` samples of DATA (seeded random ones without it) and its outputs for them, in ONNX Runtime without optimisation."""
    from edgewise.runtime.data import random_data
    from edgewise.runtime.onnx_runner import OnnxRunner

    inputs = network.inputs
    if data is None:
        chosen = random_data(inputs, count, seed=_SEED, dynamic=_DYNAMIC_SIZE)
    else:
        chosen = find_data(data, inputs, preprocess, limit=count)
    runner = OnnxRunner(network.model, optimize=False)
    samples = [sample.inputs for sample in chosen]
    references = []
    for index, sample in enumerate(samples):
        try:
            references.append(runner.run(sample))
        except RunError as error:
            if data is not None:
                raise
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in sample.items())
            raise RunError(
                "the network does not run on random inputs",
                where=f"inputs {shapes}",
                found=error.found,
                expected="sizes and values that it takes, which nothing tells",
                fix="Pass samples with --data DATA, or fix sizes by exporting with --input NAME=f32[1,3,224,224]",
            ) from error
        progress("compute reference outputs", index + 1, len(samples))
    return Network(network.model, samples, references)


def with_dims(network: Network, dims: Mapping[str, int], progress: Progress = silent) -> Network:
    """The network with these symbolic dims as numbers, as an engine has them that takes no other size.

    Samples of other sizes are dropped. Where none is left, seeded random ones take their place, and the graph's own outputs
    that of the source's.
    """
    if not dims:
        return network
    sized = Network(_sized(network.model, dims), network.samples, network.references)
    pairs = list(zip(sized.samples, sized.references, strict=True))
    kept = [pair for pair in pairs if all(spec.fits(pair[0][spec.name]) for spec in sized.inputs)]
    if kept:
        return Network(sized.model, [pair[0] for pair in kept], [pair[1] for pair in kept])
    return with_reference(sized, None, None, progress=progress)


def _sized(model: ir.Model, dims: Mapping[str, int]) -> ir.Model:
    import onnx_ir as ir

    sized = model.clone()
    for value in (*sized.graph.inputs, *sized.graph.outputs):
        shape = tensor_spec(value).shape
        value.shape = ir.Shape([dims.get(dim, dim) if isinstance(dim, str) else dim for dim in shape])
    return sized
