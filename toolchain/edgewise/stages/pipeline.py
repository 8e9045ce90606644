"""All stages in one go: export once, then each target by itself, then the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewise.places import split_place
from edgewise.recipe import Recipe
from edgewise.runtime.progress import Progress, silent
from edgewise.runtime.storage import sha256_of, whole_file
from edgewise.stages.cache import Cache
from edgewise.stages.choices import Chosen, choose
from edgewise.stages.export import choose_opset, export_parts, export_stage
from edgewise.stages.inputs import source_of
from edgewise.stages.network import write_network
from edgewise.stages.target_run import Step, TargetRun, say

if TYPE_CHECKING:
    from edgewise.quantize import Observations

SCHEMA_VERSION = 1
CACHE = ".cache"
RESULT = "convert.json"


@dataclass(frozen=True)
class Conversion:
    """One run of ``convert``."""

    recipe: Recipe
    output: Path
    cache: Cache
    trust_pickle: bool = False
    progress: Progress = silent

    def run(self) -> dict[str, Any]:
        """Convert for every target; gives the object that ``--json`` prints, written to ``convert.json`` as well.

        A target that fails does not stop the others; ``exit_code`` is the worst of theirs.

        Raises:
            EdgewiseError: what concerns all targets: an unknown name, a source that cannot be exported.
        """
        name = self.recipe.name or default_name(source_of(self.recipe))
        chosen = choose(self.recipe, name)
        opset = choose_opset(self.recipe, [one.target for one in chosen])
        start = self._export(opset)
        model = self.output / f"{name}.onnx"
        write_network(start.network, model)
        observations = _shared(chosen)
        outcomes = [self._target_run(one, start, observations).run() for one in chosen]
        exit_code = max(outcome["exit_code"] for outcome in outcomes)
        result = {
            "schema_version": SCHEMA_VERSION,
            "name": name,
            "source": start.network.provenance.get("source"),
            "output": str(self.output),
            "model": str(model),
            "targets": outcomes,
            "exit_code": exit_code,
        }
        with whole_file(self.output / RESULT) as draft:
            draft.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        if exit_code == 0:
            self.cache.sweep()
        return result

    def _export(self, opset: int) -> Step:
        make = partial(export_stage, self.recipe, opset, trust_pickle=self.trust_pickle, progress=self.progress)
        network, record = self.cache.network("export", export_parts(self.recipe, opset), make)
        say(self.progress, record)
        return Step(network, sha256_of(self.cache.model_of(record)), [record])

    def _target_run(self, chosen: Chosen, start: Step, observations: Observations | None) -> TargetRun:
        def progress(task: str, done: int, total: int | None) -> None:
            self.progress(f"{chosen.name}: {task}", done, total)

        return TargetRun(chosen, start, self.output, self.cache, self.trust_pickle, progress, observations)


def _shared(chosen: Sequence[Chosen]) -> Observations | None:
    """What several targets' quantizations see in common; None where there is nothing to share."""
    if sum(one.recipe.quantize is not None for one in chosen) < 2:
        return None
    from edgewise.quantize import Observations

    return Observations()


def default_name(source: str) -> str:
    """What the files are named after a source: the file without its suffix, or the folder."""
    _, path, _ = split_place(source)
    return Path(path or source).resolve().stem
