"""``edgewise.export``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgewise.recipe import Recipe
from edgewise.runtime.progress import Progress, silent
from edgewise.runtime.storage import sha256_of
from edgewise.runtime.tensors import TensorSpec
from edgewise.settings import ExportSettings
from edgewise.stages.export import choose_opset, export_stage
from edgewise.stages.facts import tensor_entries
from edgewise.stages.network import write_network
from edgewise.verbs.result import SCHEMA_VERSION, spec_texts


def export(
    source: str | Path,
    output: str | Path,
    *,
    arch: str | None = None,
    arch_args: Mapping[str, Any] | None = None,
    inputs: Sequence[str | TensorSpec] = (),
    data: str | None = None,
    preprocess: str | None = None,
    opset: int | None = None,
    min_sqnr: float = 60.0,
    drop_outputs: Sequence[str] = (),
    fuse: bool = True,
    seed: int = 0,
    trust_pickle: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Export a trained network to ONNX and prove that the ONNX computes the same.

    Args:
        source: ``.pt2``, TorchScript, a state dict (``.pth``, ``.th``, ``.pt``, ``.safetensors``; with ``arch``), or ``.onnx``.
        output: the ONNX file to write, whole or not at all.
        arch: ``module:callable``, ``path.py:callable``, ``timm:NAME`` or ``hf:DIR``.
        arch_args: keyword arguments for the architecture.
        inputs: ``NAME=f32[1,3,224,224]`` or TensorSpecs; a name as a dim makes it dynamic.
        data: DATA to compare on; without it, seeded random inputs.
        preprocess: what to do with the images of DATA, as in ``--preprocess``.
        opset: None is 18.
        min_sqnr: the parity gate, in dB.
        drop_outputs: outputs to leave out, such as those of training.
        fuse: let multi-branch blocks merge where the module offers it.
        seed: of the random inputs.
        trust_pickle: unpickle whatever the checkpoint holds; it can then run any code.
        progress: told how far the work is.

    Returns:
        ``schema_version, output, sha256, inputs, outputs, source, parity`` (threshold, verdict, outputs) and ``report``.

    Raises:
        ExportError: bad input; says what and where.
        GateError: the ONNX does not compute what the source computes; names the first node that diverges.
    """
    recipe = Recipe(
        source=str(source),
        arch=arch,
        arch_args=dict(arch_args or {}),
        inputs=spec_texts(inputs),
        preprocess=preprocess,
        export=ExportSettings(opset, min_sqnr, data, fuse, tuple(drop_outputs), seed),
    )
    network = export_stage(recipe, choose_opset(recipe, ()), trust_pickle=trust_pickle, progress=progress)
    output = Path(output)
    write_network(network, output)
    provenance = network.provenance
    parity = provenance["export"].pop("parity")
    return {
        "schema_version": SCHEMA_VERSION,
        "output": str(output),
        "sha256": sha256_of(output),
        "inputs": tensor_entries(network.inputs),
        "outputs": tensor_entries(network.outputs),
        "source": provenance["source"],
        "parity": parity,
        "report": provenance["export"],
    }
