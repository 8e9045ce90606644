"""What PyTorch computes as an ONNX model before it is cleaned."""

from __future__ import annotations

from collections.abc import Sequence

from edgewise.exporter.draft import Draft
from edgewise.exporter.samples import trace_example
from edgewise.exporter.source import Arrays
from edgewise.exporter.torch_source import TorchSource, compute_traced
from edgewise.exporter.trace import trace
from edgewise.exporter.traced_values import of_program
from edgewise.runtime.onnx_widen import widen_bfloat16


def draft_of_torch(
    source: TorchSource, samples: Sequence[Arrays], references: list[Arrays], opset: int, seed: int
) -> Draft:
    """See :func:`edgewise.exporter.draft.draft_of`."""
    model, program, warnings = trace(source, trace_example(source, samples, seed), opset)
    if widen_bfloat16(model):
        compute_traced(source, program)
        references[:] = [source.run(sample) for sample in samples]
        return Draft(model, _no_intermediates, warnings)
    order = [str(value.name) for value in model.graph.inputs]
    return Draft(model, of_program(program, order), warnings)


def _no_intermediates(names: Sequence[str], inputs: Arrays) -> Arrays:
    """Of a program whose roundings are left out."""
    return {}
