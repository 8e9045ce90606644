"""The stage that removes weights."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from edgewise.places import place_name
from edgewise.runtime.progress import Progress, silent
from edgewise.settings import PruneSettings
from edgewise.stages.identity import place_digest
from edgewise.stages.inputs import find_data
from edgewise.stages.network import Network

if TYPE_CHECKING:
    from edgewise.recipe import Recipe


def prune_settings(recipe: Recipe) -> PruneSettings | None:
    """The recipe's settings, with the quantize stage's calibration data where pruning has none of its own."""
    if recipe.prune is None or recipe.prune.calib or recipe.quantize is None:
        return recipe.prune
    return replace(recipe.prune, calib=recipe.quantize.calib)


def prune_parts(settings: PruneSettings, preprocess: str | None) -> dict[str, Any]:
    """What the stage's result depends on, besides the network."""
    own = {"settings": asdict(replace(settings, calib=None, costs=None)), "costs": place_digest(settings.costs)}
    return own | {"data": place_digest(settings.calib), "preprocess": preprocess} if _needs_data(settings) else own


def prune_stage(
    network: Network, settings: PruneSettings, *, preprocess: str | None = None, progress: Progress = silent
) -> Network:
    """Prune. The samples keep the source's outputs: what pruning changed shows in the comparison.

    Raises:
        QuantizeError: a request that cannot be carried out, or data that does not serve.
    """
    from edgewise.quantize import prune

    told = asdict(replace(settings, calib=None, costs=settings.costs and place_name(settings.costs)))
    data = None
    if _needs_data(settings) and settings.calib:
        data = find_data(settings.calib, network.inputs, preprocess)
        told["calib"] = place_name(data.source)
    made = prune(
        network.model,
        pattern=settings.pattern,
        sparsity=settings.sparsity,
        skip=settings.skip,
        criterion=settings.criterion,
        data=data,
        samples=settings.samples,
        densities=settings.densities,
        costs=settings.costs,
        reconstruct=settings.reconstruct,
        tables=settings.tables,
        multiple=settings.multiple,
        progress=progress,
    )
    return network.after(made.model, prune={**told, **made.report})


def _needs_data(settings: PruneSettings) -> bool:
    looks = settings.criterion != PruneSettings.criterion or settings.densities in ("sensitivity", "learned")
    return looks or settings.reconstruct
