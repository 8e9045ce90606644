"""The first stage: from a checkpoint to a verified ONNX graph."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewise.errors import ToolchainError
from edgewise.places import place_name
from edgewise.recipe import Recipe
from edgewise.runtime.progress import Progress, silent
from edgewise.runtime.storage import sha256_of
from edgewise.stages.identity import place_digest
from edgewise.stages.inputs import find_data, find_source, source_of
from edgewise.stages.network import Network, read_network
from edgewise.stages.reference import with_reference
from edgewise.stages.verify import judge

if TYPE_CHECKING:
    from edgewise.targets import Target

LOWEST_OPSET = 18


def choose_opset(recipe: Recipe, targets: Iterable[Target]) -> int:
    """The recipe's opset, or the lowest from 18 up that every target takes."""
    if recipe.export and recipe.export.opset:
        return recipe.export.opset
    return max([LOWEST_OPSET, *(target.min_opset for target in targets)])


def source_parts(recipe: Recipe) -> dict[str, Any]:
    """What the source network depends on."""
    return {
        "source": place_digest(source_of(recipe)),
        "arch": [recipe.arch, place_digest(recipe.arch), recipe.arch_args],
        "inputs": recipe.inputs,
        "fuse": recipe.export is None or recipe.export.fuse,
    }


def export_parts(recipe: Recipe, opset: int) -> dict[str, Any]:
    """What the stage's result depends on."""
    return {
        "settings": replace(recipe.export, data=None) if recipe.export else None,
        "opset": opset,
        "preprocess": recipe.preprocess,
        "data": place_digest(_data_of(recipe)),
        **source_parts(recipe),
    }


def export_stage(recipe: Recipe, opset: int, *, trust_pickle: bool = False, progress: Progress = silent) -> Network:
    """Export and verify the recipe's source; with the stage skipped, read it as the ONNX file that it then must be.

    Raises:
        ExportError: bad input.
        GateError: the ONNX graph does not compute what the source computes.
    """
    if recipe.export is None:
        return _as_it_is(recipe)
    from edgewise.exporter import export

    source = find_source(recipe, trust_pickle=trust_pickle)
    text = _data_of(recipe)
    exported = export(
        source,
        data=find_data(text, source.inputs, recipe.preprocess) if text else None,
        opset=opset,
        min_sqnr_db=recipe.export.min_sqnr,
        drop_outputs=recipe.export.drop_outputs,
        seed=recipe.export.seed,
        progress=progress,
    )
    return Network(exported.model, exported.samples, exported.references).after(
        exported.model,
        source={
            "file": place_name(source_of(recipe)),
            "sha256": source.sha256,
            "kind": source.kind,
            "facts": {**source.facts, **({"arch": place_name(recipe.arch)} if recipe.arch else {})},
        },
        export={
            **exported.report,
            "opset": opset,
            "parity": judge(exported.parity, recipe.export.min_sqnr, "the ONNX against the source"),
        },
    )


def _as_it_is(recipe: Recipe) -> Network:
    path = Path(source_of(recipe))
    if path.suffix != ".onnx":
        raise ToolchainError(
            "cannot skip the export",
            where=str(path),
            found=f"a source of the form {path.suffix or 'without a suffix'}",
            expected="an ONNX file",
            fix="Remove `export: null` from the recipe",
        )
    network = read_network(path)
    network = network.after(network.model, **({} if "source" in network.provenance else source_entry(path)))
    return with_reference(network, _data_of(recipe), recipe.preprocess)


def source_entry(path: Path) -> dict[str, Any]:
    """The provenance of an ONNX file that is used as it is."""
    return {"source": {"file": path.name, "sha256": sha256_of(path), "kind": "onnx", "facts": {}}}


def _data_of(recipe: Recipe) -> str | None:
    """Real inputs, where the recipe has some, make the better comparison."""
    own = recipe.export.data if recipe.export else None
    calib = recipe.quantize.calib if recipe.quantize else None
    return own or calib or (recipe.verify.data if recipe.verify else None)
