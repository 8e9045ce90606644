"""Export: trace, clean, verify."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from edgewise.exporter.clean.pipeline import clean
from edgewise.exporter.draft import draft_of
from edgewise.exporter.finish import (
    check_outputs,
    infer_shapes,
    output_specs,
    remove_outputs,
    strip,
)
from edgewise.exporter.in_float32 import FACT
from edgewise.exporter.locations import location_of
from edgewise.exporter.opening import open_source
from edgewise.exporter.quiet import quiet
from edgewise.exporter.samples import at_another_size, choose_samples
from edgewise.exporter.source import Arrays, Source
from edgewise.exporter.verify import Trail
from edgewise.exporter.verify import verify as verify_model
from edgewise.runtime.compare import TensorParity, empty_promises
from edgewise.runtime.data import Dataset
from edgewise.runtime.errors import EdgewiseError
from edgewise.runtime.progress import Progress, silent
from edgewise.runtime.tensors import TensorSpec

if TYPE_CHECKING:
    import torch

_PACKAGES = ("edgewise", "torch", "onnx", "onnx_ir", "onnxscript", "onnxruntime")


@dataclass
class Exported:
    """An ONNX model that was compared with its source.

    Attributes:
        model: the model; weights inside, no metadata.
        inputs: what it takes; strings are dynamic dims.
        outputs: what it gives.
        parity: one entry per output, over all samples; empty when it was not verified.
        samples: the inputs that were compared.
        references: the source's outputs for them.
        report: JSON: ``versions``, ``passes`` with counts, ``warnings``, ``nodes``, and for an ONNX source ``opset``.
        source: what was exported.
        locations: by node name the line of the network's code that it comes from, where that is known; in memory alone.
    """

    model: ir.Model
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    parity: list[TensorParity]
    samples: list[Arrays]
    references: list[Arrays]
    report: dict[str, Any]
    source: Source
    locations: dict[str, str] = field(default_factory=dict)


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
    """Export a network to ONNX and prove that it computes the same.

    Args:
        source: what :func:`open_source` takes, or what it gave; then the arguments up to ``fuse`` are not looked at.
        arch: see :func:`open_source`; so are the next four.
        arch_args: keyword arguments of the architecture.
        inputs: names, dtypes and shapes; strings are dynamic dims and get just those names in the graph.
        trust_pickle: run the code in a pickle.
        fuse: merge the branches of modules that offer it.
        data: real inputs to compare on, one of them also at another size of the dynamic dims that have one size in all of them;
            without it seeded random ones, at two sizes of the dynamic dims.
        opset: ONNX opset, at least 18; an older ONNX file is upgraded to it where that can be verified.
        verify: compare with the source on at least three inputs.
        min_sqnr_db: the gate, in dB; integer and boolean outputs must be equal.
        drop_outputs: outputs to leave out.
        seed: of the random inputs.
        progress: called with each step.

    Raises:
        ExportError, RunError: bad input; the network cannot be traced.
        GateError: the exported network computes something else; names the first node that diverges and its source line. Or it does
            not run at a size at which the source does.
        MissingExtraError: a package of an extra is not installed.
    """
    if not isinstance(source, Source):
        progress("open", 0, None)
        source = open_source(
            source, arch=arch, arch_args=arch_args, inputs=inputs, trust_pickle=trust_pickle, fuse=fuse
        )
    samples = choose_samples(source, data, seed)
    references = []
    for index, sample in enumerate(samples):
        progress("run the source", index, len(samples))
        references.append(source.run(sample))
    check_outputs(list(references[0]), drop_outputs)
    progress("trace", 0, None)
    draft = draft_of(source, samples, references, opset, min_sqnr_db, seed)
    remove_outputs(draft.model, drop_outputs)
    references = [
        {name: array for name, array in outputs.items() if name not in drop_outputs} for outputs in references
    ]
    progress("clean", 0, None)
    with quiet():
        passes = clean(draft.model)
        infer_shapes(draft.model)
    locations = {str(node.name): line for node in draft.model.graph if (line := location_of(node))}
    strip(draft.model)
    parity: list[TensorParity] = []
    if verify:
        trail = Trail(draft.intermediates, locations)
        other = _other_size(source, samples, drop_outputs, draft.warnings)
        pairs = [*zip(samples, references, strict=True), *other]
        parity = verify_model(draft.model, pairs, trail, min_sqnr_db=min_sqnr_db, progress=progress)
    report = {
        "versions": _versions(),
        "passes": passes,
        "warnings": [*_widened(source), *draft.warnings, *empty_promises(references)],
    } | draft.facts
    report["nodes"] = sum(1 for _ in draft.model.graph)
    outputs = output_specs(draft.model)
    return Exported(draft.model, source.inputs, outputs, parity, samples, references, report, source, locations)


def _other_size(
    source: Source, samples: Sequence[Arrays], dropped: Sequence[str], warnings: list[str]
) -> list[tuple[Arrays, Arrays]]:
    """One more sample to compare on, with what the source gives, where a dynamic dim has one size in all samples."""
    sample = at_another_size(source.inputs, samples)
    if sample is None:
        return []
    try:
        outputs = source.run(sample)
    except EdgewiseError as error:
        warnings.append(f"compared at the data's sizes alone, for the source does not run at another: {error.found}")
        return []
    return [(sample, {name: array for name, array in outputs.items() if name not in dropped})]


def _widened(source: Source) -> list[str]:
    return [f"bfloat16 is {source.facts[FACT]}"] if FACT in source.facts else []


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # onnxruntime has builds of other names
            found[package] = "unknown"
    return found
