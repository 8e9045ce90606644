"""Reference samples for an ONNX graph that came without: the graph's own outputs, computed node by node."""

from __future__ import annotations

from edgewise.runtime.progress import Progress, silent
from edgewise.stages.inputs import find_data
from edgewise.stages.network import Network

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
        references.append(runner.run(sample))
        progress("compute reference outputs", index + 1, len(samples))
    return Network(network.model, samples, references)
