"""One target's part of a conversion: prune, quantize, build, verify, profile."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewise.errors import error_entry
from edgewise.recipe import Recipe
from edgewise.runtime.errors import EdgewiseError
from edgewise.runtime.progress import Progress
from edgewise.runtime.storage import sha256_of, whole_file
from edgewise.stages.accuracy import measure_for
from edgewise.stages.bundle import Order, make_bundle
from edgewise.stages.cache import Cache, StageRecord
from edgewise.stages.choices import Chosen
from edgewise.stages.gates import bundle_gates, device_gates, latency_gates
from edgewise.stages.network import Network, write_network
from edgewise.stages.profile import profile_parts, profile_stage
from edgewise.stages.prune import prune_parts, prune_settings, prune_stage
from edgewise.stages.quantize import quantize_parts, quantize_stage

if TYPE_CHECKING:
    from edgewise.quantize import Observations, QuantSpec

_PROFILED = ("load_ms", "first_run_ms", "latency_ms", "peak_memory_bytes", "threads", "warnings", "reached", "parity")


@dataclass(frozen=True)
class Step:
    """A network with the digest of its file and how each stage so far went."""

    network: Network
    digest: str
    records: list[StageRecord]


@dataclass(frozen=True)
class TargetRun:
    """What is done for one target, starting from the exported network; ``observations`` are what the targets share."""

    chosen: Chosen
    start: Step
    output: Path
    cache: Cache
    trust_pickle: bool
    progress: Progress
    observations: Observations | None = None

    @property
    def path(self) -> Path:
        """Where the bundle goes."""
        return self.output / f"{self.chosen.name}.edge"

    def run(self) -> dict[str, Any]:
        """Do it; an error becomes part of the outcome, so that the other targets get their turn."""
        try:
            done = self._stages()
        except EdgewiseError as error:
            done = {"bundle": None, "errors": [error]}
        errors: list[EdgewiseError] = done["errors"]
        code = max([error.exit_code for error in errors], default=0)
        self.progress("done" if code == 0 else "failed", int(code == 0), 1)
        head = {"target": self.chosen.target.name, "device": self.chosen.device.name, "bundle": str(self.path)}
        return head | done | {"exit_code": code, "errors": [error_entry(error) for error in errors]}

    def _stages(self) -> dict[str, Any]:
        recipe = self.chosen.recipe
        step = self._quantize(self._prune(self.start))
        if recipe.build is None:
            model = self.path.with_suffix(".onnx")
            write_network(step.network, model)
            return {"bundle": None, "model": str(model), "stages": _told(step.records), "errors": []}
        manifest, records = make_bundle(self._order(step), self.progress)
        for record in records:
            say(self.progress, record)
        errors: list[EdgewiseError] = list(bundle_gates(manifest, recipe))
        profile, profiled = self._profile(manifest)
        errors += device_gates(profile, recipe.profile)
        errors += latency_gates(profile, recipe.profile, self.chosen.name)
        return {
            **{key: manifest[key] for key in ("parity", "accuracy", "support")},
            "notes": [*_spared(step.network.provenance), *manifest["engine"]["notes"]],
            "size_bytes": sum((self.path / name).stat().st_size for name in manifest["engine"]["files"]),
            "profile": profile,
            "stages": _told([*step.records, *records, *profiled]),
            "errors": errors,
        }

    def _order(self, step: Step) -> Order:
        recipe, chosen = self.chosen.recipe, self.chosen
        return Order(
            step.network,
            step.digest,
            recipe,
            chosen.target,
            chosen.device,
            self.path,
            step.records,
            self.cache.reuse,
            measure_for(recipe, step.network, self.cache, self.trust_pickle, self.progress),
        )

    def _prune(self, step: Step) -> Step:
        recipe = self.chosen.recipe
        settings = prune_settings(recipe)
        if settings is None:
            return step
        parts = {"network": step.digest, **prune_parts(settings, recipe.preprocess)}
        make = partial(prune_stage, step.network, settings, preprocess=recipe.preprocess, progress=self.progress)
        return self._step("prune", parts, make, step)

    def _quantize(self, step: Step) -> Step:
        recipe: Recipe = self.chosen.recipe
        if recipe.quantize is None:
            return step
        spec: QuantSpec = self.chosen.target.quantization(recipe.quantize.scheme, self.chosen.device)
        parts = {"network": step.digest, **quantize_parts(recipe.quantize, spec, recipe.preprocess)}
        make = partial(
            quantize_stage, step.network, recipe.quantize, spec,
            preprocess=recipe.preprocess, observations=self.observations, progress=self.progress,
        )  # fmt: skip
        return self._step("quantize", parts, make, step)

    def _step(self, stage: str, parts: dict[str, Any], make: Callable[[], Network], before: Step) -> Step:
        network, record = self.cache.network(stage, parts, make)
        say(self.progress, record)
        return Step(network, sha256_of(self.cache.model_of(record)), [*before.records, record])

    def _profile(self, manifest: dict[str, Any]) -> tuple[dict[str, Any], list[StageRecord]]:
        """The profile without its raw samples, which go to the file beside the bundle; or why there is none."""
        settings = self.chosen.recipe.profile
        beside = self.path.with_suffix(".profile.json")
        if settings is None:
            beside.unlink(missing_ok=True)
            return {"skipped": "the recipe skips profiling (profile: null)"}, []
        make = partial(profile_stage, self.path, settings, progress=self.progress)
        try:
            result, record = self.cache.value("profile", profile_parts(manifest, settings), make)
        except EdgewiseError as error:
            beside.unlink(missing_ok=True)
            return {"skipped": str(error)}, []
        say(self.progress, record)
        with whole_file(beside) as draft:
            draft.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        told = {key: result[key] for key in _PROFILED if key in result}
        latency = {key: value for key, value in result["latency_ms"].items() if key != "samples"}
        return {**told, "latency_ms": latency, "file": str(beside)}, [record]


def say(progress: Progress, record: StageRecord) -> None:
    """Tell that a stage was not done again."""
    if record.reused:
        progress(f"{record.stage} reused", 1, 1)


def _spared(provenance: dict[str, Any]) -> list[str]:
    """What a conversion must not keep to itself: that not all layers that could be are integers."""
    spared = (provenance.get("quantize") or {}).get("spared")
    return [spared["told"]] if spared else []


def _told(records: list[StageRecord]) -> list[dict[str, Any]]:
    return [{"stage": r.stage, "seconds": r.seconds, "reused": r.reused} for r in records]
