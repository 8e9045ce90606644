"""Export: trace, clean, verify."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch
from edgewise.exporter.clean.pipeline import clean
from edgewise.exporter.errors import ExportError
from edgewise.exporter.onnx_source import OnnxSource
from edgewise.exporter.opening import open_source
from edgewise.exporter.samples import choose_samples, trace_example
from edgewise.exporter.source import Arrays, Source
from edgewise.exporter.torch_source import TorchSource
from edgewise.exporter.trace import trace
from edgewise.runtime.compare import TensorParity, compare_outputs, require_parity
from edgewise.runtime.data import Dataset
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.runtime.progress import Progress, silent
from edgewise.runtime.tensors import TensorSpec


@dataclass
class Exported:
    """A verified ONNX model."""

    model: ir.Model
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    parity: list[TensorParity]
    samples: list[Arrays]
    references: list[Arrays]
    report: dict[str, Any]
    source: Source


def export(
    source: str | Path | Source | torch.nn.Module,
    *,
    arch: str | None = None,
    arch_args: Mapping[str, Any] | None = None,
    inputs: Sequence[TensorSpec] = (),
    trust_pickle: bool = False,
    fuse: bool = True,
    data: Dataset | None = None,
    opset: int = 18,
    verify: bool = True,
    min_sqnr_db: float = 60.0,
    drop_outputs: Sequence[str] = (),
    seed: int = 0,
    progress: Progress = silent,
) -> Exported:
    """Export a network to ONNX and prove that it computes the same."""
    if not isinstance(source, Source):
        source = open_source(
            source, arch=arch, arch_args=arch_args, inputs=inputs, trust_pickle=trust_pickle, fuse=fuse
        )
    samples = choose_samples(source, data, seed)
    warnings: list[str] = []
    if isinstance(source, OnnxSource):
        model = source.model()
    elif isinstance(source, TorchSource):
        model, _, warnings = trace(source, trace_example(source, samples, seed), opset)
    else:
        raise ExportError("unknown source")
    passes = clean(model)
    parity: list[TensorParity] = []
    references = [{k: v for k, v in source.run(sample).items() if k not in drop_outputs} for sample in samples]
    if verify:
        runner = OnnxRunner(model)
        parity = compare_outputs(references, [runner.run(sample) for sample in samples])
        require_parity(parity, min_sqnr_db=min_sqnr_db, where="export")
    outputs = [
        TensorSpec(str(v.name), v.dtype.numpy().name, tuple(d if isinstance(d, int) else str(d.value) for d in v.shape))
        for v in model.graph.outputs
    ]
    report = {"versions": {"torch": version("torch")}, "passes": passes, "warnings": warnings}
    return Exported(model, source.inputs, outputs, parity, samples, references, report, source)
