"""``edgewise.prune``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.runtime.progress import Progress, silent
from edgewise.runtime.storage import sha256_of
from edgewise.settings import PruneSettings
from edgewise.stages.network import Network, read_runnable, write_network
from edgewise.stages.prune import prune_stage
from edgewise.stages.reference import with_reference
from edgewise.stages.verify import run_all
from edgewise.verbs.result import SCHEMA_VERSION


def prune(
    model: str | Path,
    output: str | Path,
    *,
    pattern: str,
    sparsity: float,
    skip: Sequence[str] = (),
    criterion: str = "magnitude",
    calib: str | None = None,
    samples: int = 512,
    densities: str = "uniform",
    costs: str | None = None,
    reconstruct: bool = False,
    tables: bool = False,
    preprocess: str | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Remove weights of an ONNX file in a pattern.

    Args:
        model: the ONNX file.
        output: the ONNX file to write, whole or not at all.
        pattern: ``block:RxC``, ``2:4``, ``N:M``, ``unstructured``; or, for smaller tensors, ``channel``, ``head``, ``width``,
            ``low-rank`` or ``slice``.
        sparsity: the fraction of weights to remove.
        skip: names of layers to leave alone.
        criterion: ``magnitude``, ``wanda`` or ``second_order``; the last two need ``calib``.
        calib: DATA to prune by, and on which to measure what the pruning changed.
        samples: how many samples of it to prune by.
        densities: ``uniform``, ``erk``, ``global``, ``sensitivity`` or ``learned`` (which need ``calib``).
        costs: a JSON table of what layers take at a density; with ``sensitivity``.
        reconstruct: then train what stays on ``calib``, towards the tensors of the network before; needs PyTorch.
        tables: embeddings lose that fraction of each row as well; with ``unstructured``.
        preprocess: what to do with the images of DATA.
        progress: told how far the work is.

    Returns:
        ``schema_version, output, sha256, report`` (density per layer, refusals with reasons) and ``parity`` per output
        against the network before, where ``calib`` is given.

    Raises:
        QuantizeError: an unknown pattern or criterion, a sparsity that the pattern does not have, no data for a criterion
            that needs it.
        RunError: the model or DATA cannot be read.
    """
    network = read_runnable(model)
    if calib:
        network = with_reference(network, calib, preprocess, progress=progress)
    settings = PruneSettings(
        pattern, sparsity, tuple(skip), criterion, calib, samples, densities, costs, reconstruct, tables
    )
    pruned = prune_stage(network, settings, preprocess=preprocess, progress=progress)
    output = Path(output)
    write_network(pruned, output)
    result = {
        "schema_version": SCHEMA_VERSION,
        "output": str(output),
        "sha256": sha256_of(output),
        "report": pruned.provenance["prune"],
    }
    return result | ({"parity": _cost(pruned, progress)} if calib else {})


def _cost(pruned: Network, progress: Progress) -> list[dict[str, Any]]:
    outputs = run_all(OnnxRunner(pruned.model).run, pruned.samples, "run the pruned network", progress)
    return [entry.to_json() for entry in compare_outputs(pruned.references, outputs)]
