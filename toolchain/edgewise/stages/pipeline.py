"""All stages in one go: export once, then each target by itself, then the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewise.errors import error_entry
from edgewise.recipe import Recipe
from edgewise.runtime.errors import EdgewiseError
from edgewise.runtime.progress import Progress, silent
from edgewise.runtime.storage import sha256_of, whole_file
from edgewise.stages.accuracy import measure_for
from edgewise.stages.bundle import Order, make_bundle
from edgewise.stages.cache import Cache, StageRecord
from edgewise.stages.choices import Chosen, choose
from edgewise.stages.export import choose_opset, export_parts, export_stage
from edgewise.stages.gates import bundle_gates, latency_gates
from edgewise.stages.inputs import source_of
from edgewise.stages.network import Network, write_network
from edgewise.stages.profile import profile_parts, profile_stage
from edgewise.stages.prune import prune_stage
from edgewise.stages.quantize import quantize_parts, quantize_stage

if TYPE_CHECKING:
    from edgewise.quantize import QuantSpec

SCHEMA_VERSION = 1
CACHE = ".cache"
RESULT = "convert.json"


@dataclass(frozen=True)
class Step:
    """A network with the digest of its file and how each stage so far went."""

    network: Network
    digest: str
    records: list[StageRecord]


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
        name = self.recipe.name or Path(source_of(self.recipe)).stem
        chosen = choose(self.recipe, name)
        opset = choose_opset(self.recipe, [one.target for one in chosen])
        start = self._export(opset)
        model = self.output / f"{name}.onnx"
        write_network(start.network, model)
        outcomes = [self._attempt(one, start) for one in chosen]
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
        return self._step("export", export_parts(self.recipe, opset), make, [])

    def _attempt(self, chosen: Chosen, start: Step) -> dict[str, Any]:
        path = self.output / f"{chosen.name}.edge"
        outcome: dict[str, Any] = {"target": chosen.target.name, "device": chosen.device.name, "bundle": str(path)}
        try:
            done = self._one(chosen, start, path)
        except EdgewiseError as error:
            done = {"bundle": None, "errors": [error]}
        errors = done.pop("errors")
        code = max([error.exit_code for error in errors], default=0)
        self.progress(f"{chosen.name}: {'done' if code == 0 else 'failed'}", 1, 1)
        return outcome | done | {"exit_code": code, "errors": [error_entry(error) for error in errors]}

    def _one(self, chosen: Chosen, start: Step, path: Path) -> dict[str, Any]:
        recipe = chosen.recipe
        step = self._quantize(chosen, self._prune(recipe, start))
        if recipe.build is None:
            model = path.with_suffix(".onnx")
            write_network(step.network, model)
            return {"bundle": None, "model": str(model), "stages": _told(step.records), "errors": []}
        measure = measure_for(recipe, step.network, self.cache, self.trust_pickle, self.progress)
        order = Order(
            step.network,
            step.digest,
            recipe,
            chosen.target,
            chosen.device,
            path,
            step.records,
            self.cache.reuse,
            measure,
        )
        manifest, records = make_bundle(order, self.progress)
        for record in records:
            self._say(record)
        errors = bundle_gates(manifest, recipe)
        profile, profiled = self._profile(recipe, path, manifest)
        errors += latency_gates(profile, recipe.profile, chosen.name)
        return {
            "parity": manifest["parity"],
            "accuracy": manifest["accuracy"],
            "support": manifest["support"],
            "notes": manifest["engine"]["notes"],
            "size_bytes": sum((path / name).stat().st_size for name in manifest["engine"]["files"]),
            "profile": profile,
            "stages": _told([*step.records, *records, *profiled]),
            "errors": errors,
        }

    def _prune(self, recipe: Recipe, step: Step) -> Step:
        settings = recipe.prune
        if settings is None:
            return step
        parts = {"network": step.digest, "settings": asdict(settings)}
        make = partial(prune_stage, step.network, settings, progress=self.progress)
        return self._step("prune", parts, make, step.records)

    def _quantize(self, chosen: Chosen, step: Step) -> Step:
        settings, preprocess = chosen.recipe.quantize, chosen.recipe.preprocess
        if settings is None:
            return step
        spec: QuantSpec = chosen.target.quantization(settings.scheme, chosen.device)
        parts = {"network": step.digest, **quantize_parts(settings, spec, preprocess)}
        make = partial(quantize_stage, step.network, settings, spec, preprocess=preprocess, progress=self.progress)
        return self._step("quantize", parts, make, step.records)

    def _step(self, stage: str, parts: dict[str, Any], make: Callable[[], Network], before: list[StageRecord]) -> Step:
        network, record = self.cache.network(stage, parts, make)
        self._say(record)
        return Step(network, sha256_of(self.cache.model_of(record)), [*before, record])

    def _profile(
        self, recipe: Recipe, path: Path, manifest: dict[str, Any]
    ) -> tuple[dict[str, Any], list[StageRecord]]:
        settings = recipe.profile
        beside = path.with_suffix(".profile.json")
        if settings is None:
            beside.unlink(missing_ok=True)
            return {"skipped": "the recipe skips profiling (profile: null)"}, []
        try:
            make = partial(profile_stage, path, settings, progress=self.progress)
            result, record = self.cache.value("profile", profile_parts(manifest, settings), make)
        except EdgewiseError as error:
            beside.unlink(missing_ok=True)
            return {"skipped": str(error)}, []
        self._say(record)
        with whole_file(beside) as draft:
            draft.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return result, [record]

    def _say(self, record: StageRecord) -> None:
        if record.reused:
            self.progress(f"{record.stage}: reused from an earlier run", 1, 1)


def _told(records: list[StageRecord]) -> list[dict[str, Any]]:
    return [{"stage": r.stage, "seconds": r.seconds, "reused": r.reused} for r in records]
