"""The stage that removes weights."""

from __future__ import annotations

from dataclasses import asdict

from edgewise.runtime.progress import Progress, silent
from edgewise.settings import PruneSettings
from edgewise.stages.network import Network


def prune_stage(network: Network, settings: PruneSettings, *, progress: Progress = silent) -> Network:
    """Prune by magnitude. The samples keep the source's outputs: what pruning changed shows in the comparison."""
    from edgewise.quantize import prune

    made = prune(
        network.model, pattern=settings.pattern, sparsity=settings.sparsity, skip=settings.skip, progress=progress
    )
    return network.after(made.model, prune={**asdict(settings), **made.report})
