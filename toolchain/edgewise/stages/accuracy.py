"""Accuracy of an engine beside that of the source network, over the same samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgewise.places import place_name
from edgewise.recipe import Recipe
from edgewise.runtime.progress import Progress, silent
from edgewise.settings import VerifySettings
from edgewise.stages.cache import Cache
from edgewise.stages.export import source_parts
from edgewise.stages.identity import place_digest
from edgewise.stages.inputs import find_data, find_source
from edgewise.stages.network import Network, only

if TYPE_CHECKING:
    import numpy as np

    from edgewise.targets import Executor

_NO_METRIC = "none"  # the data is there to compare outputs on
Measure = Callable[["Executor"], dict[str, Any]]


@dataclass(frozen=True)
class Accuracy:
    """Measures an executor; the source's own accuracy is computed once per conversion, and kept."""

    recipe: Recipe
    settings: VerifySettings
    network: Network
    cache: Cache
    trust_pickle: bool
    progress: Progress

    def __call__(self, executor: Executor) -> dict[str, Any]:
        """The manifest's ``accuracy``: metric, value (a fraction for metrics with a name), n, how, source_value."""
        from edgewise.runtime.metrics import evaluate

        data = find_data(str(self.settings.data), self.network.inputs, self.recipe.preprocess, self.settings.limit)
        source, _ = self.cache.value("accuracy", self._parts(), self._source)
        own = evaluate(executor.run, data, self.settings.metric, classes=source.get("classes"), progress=self.progress)
        return {**own, "data": place_name(data.source), "how": executor.how, "source_value": source["value"]}

    def _parts(self) -> dict[str, Any]:
        settings = self.settings
        told = [settings.metric, place_digest(settings.metric), settings.limit, place_digest(settings.data)]
        return {"source": source_parts(self.recipe), "told": told, "preprocess": self.recipe.preprocess}

    def _source(self) -> dict[str, Any]:
        from edgewise.runtime.metrics import AGREEMENT, classes_of, evaluate

        source = find_source(self.recipe, trust_pickle=self.trust_pickle)
        names = [spec.name for spec in self.network.outputs]
        data = find_data(str(self.settings.data), source.inputs, self.recipe.preprocess, self.settings.limit)
        self.progress("accuracy of the source", 0, None)

        def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return only(source.run(inputs), names, "the source")

        with source.running():
            if self.settings.metric == AGREEMENT:
                return {"value": 1.0, "classes": classes_of(run, data, progress=self.progress)}
            return evaluate(run, data, self.settings.metric, progress=self.progress)


def measure_for(
    recipe: Recipe, network: Network, cache: Cache, trust_pickle: bool = False, progress: Progress = silent
) -> Measure | None:
    """What measures the accuracy that a recipe asks for; None when it asks for none."""
    if recipe.verify is None or recipe.verify.data is None or recipe.verify.metric == _NO_METRIC:
        return None
    return Accuracy(recipe, recipe.verify, network, cache, trust_pickle, progress)
