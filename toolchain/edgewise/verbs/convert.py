"""``edgewise.convert``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgewise.recipe import Recipe, read_recipe
from edgewise.runtime.progress import Progress, silent
from edgewise.stages.cache import Cache, no_empty_folders
from edgewise.stages.choices import match_devices
from edgewise.stages.pipeline import CACHE, Conversion
from edgewise.verbs.report import report


def convert(
    source: str | Path | None,
    output: str | Path,
    *,
    target: str | Sequence[str] = (),
    device: str | Sequence[str] = (),
    recipe: str | Path | Recipe | None = None,
    options: Mapping[str, Any] | None = None,
    cache: bool = True,
    trust_pickle: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """All of it in one go: export once; for each target quantize, build, verify and profile; then the report page.

    Args:
        source: what ``export`` takes; None: the recipe's.
        output: the folder for ``NAME.onnx``, ``NAME-TARGET.edge``, ``NAME-TARGET.profile.json``, ``report.html``.
        target: one or several; none: the recipe's.
        device: device profiles; each goes to the targets that it lists.
        recipe: a YAML file (docs/recipe.md), or a :class:`edgewise.recipe.Recipe`.
        options: keys over the recipe, such as ``{"arch": "timm:resnet18", "quantize.scheme": "int8"}``.
        cache: reuse what an earlier run into the same folder left under ``.cache``.
        trust_pickle: as in ``export``; a recipe cannot grant it.
        progress: told how far the work is.

    Returns:
        ``schema_version, name, source, output, model, targets, report, exit_code``. A target that fails is an entry
        with ``errors`` and does not stop the others: look at ``exit_code``.

    Raises:
        EdgewiseError: what concerns every target: an unknown name or key, a source that cannot be exported.
    """
    base = recipe if isinstance(recipe, Recipe) else read_recipe(recipe) if recipe else Recipe()
    targets = [target] if isinstance(target, str) else list(target)
    devices = [device] if isinstance(device, str) else list(device)
    if devices and not targets:
        targets = list(dict.fromkeys(choice.target for choice in base.targets))
    told = {"source": str(source) if source else None, **(options or {})}
    if targets:
        told["targets"] = [{"target": c.target, "device": c.device} for c in match_devices(targets, devices)]
    output = Path(output)
    conversion = Conversion(base.with_options(told), output, Cache(output / CACHE, cache), trust_pickle, progress)
    with no_empty_folders(output, output / CACHE):
        result = conversion.run()
    if all(entry["bundle"] is None and not entry["errors"] for entry in result["targets"]):
        return {**result, "report": None}  # the recipe skips the build: nothing to report on
    page = output / "report.html"
    report([output], page)
    return {**result, "report": str(page)}
