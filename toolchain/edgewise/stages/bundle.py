"""Build, verify and seal: from a network to a bundle, published whole with all that is known about it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewise.recipe import Recipe, recipe_text
from edgewise.runtime.bundle import REFERENCE, Bundle, create_bundle, open_bundle, save_reference, seal
from edgewise.runtime.errors import EdgewiseError
from edgewise.runtime.progress import Progress, silent
from edgewise.settings import BuildSettings
from edgewise.stages.build import build_engine, require_full_delegation, support_entry, support_of
from edgewise.stages.cache import StageRecord
from edgewise.stages.facts import network_entry, tensor_entries
from edgewise.stages.identity import digested, key_of, place_digest, versions
from edgewise.stages.inputs import preprocess_of
from edgewise.stages.network import Network
from edgewise.stages.reference import with_dims
from edgewise.stages.verify import source_threshold, verify_engine, verify_functions

if TYPE_CHECKING:
    from edgewise.targets import DeviceProfile, Executor, Target

RECIPE = "recipe.yaml"
Measure = Callable[["Executor"], dict[str, Any]]


@dataclass(frozen=True)
class Order:
    """What a bundle is made of. ``recipe`` is one target's, resolved; ``digest`` is the network's; ``measure`` gives its accuracy."""

    network: Network
    digest: str
    recipe: Recipe
    target: Target
    device: DeviceProfile
    path: Path
    records: list[StageRecord] = field(default_factory=list)
    reuse: bool = True
    measure: Measure | None = None

    @property
    def build_key(self) -> str:
        """What the engine depends on."""
        told = {"network": self.digest, "target": self.target.name, "device": asdict(self.device)}
        options = digested(self.recipe.build.options) if self.recipe.build else {}
        return key_of("build", {**told, "options": options, "preprocess": self.recipe.preprocess})

    @property
    def verify_key(self) -> str:
        """What the verdict depends on, besides the engine."""
        data = place_digest(self.recipe.verify.data) if self.recipe.verify else None
        return key_of("verify", {"build": self.build_key, "settings": self.recipe.verify, "data": data})


def make_bundle(order: Order, progress: Progress = silent) -> tuple[dict[str, Any], list[StageRecord]]:
    """Build what is not there yet, verify it, and publish the bundle; gives its manifest and how build and verify went.

    A gate that does not hold is written into the manifest; the caller raises it.

    Raises:
        GateError: the target does not take the whole graph and full delegation is required; nothing is built.
        TargetError: the build fails.
    """
    support = support_entry(support_of(order.network, order.target, order.device))
    if order.recipe.build and order.recipe.build.require_full_delegation:
        require_full_delegation(support, order.target.name)
    old = _previous(order)
    if old is not None and old.manifest.get("keys") == {"build": order.build_key, "verify": order.verify_key}:
        stages = old.manifest["stages"]
        return old.manifest, [
            StageRecord("build", order.build_key, stages["build"]["seconds"], reused=True),
            StageRecord("verify", order.verify_key, stages["verify"]["seconds"], reused=True),
        ]
    with create_bundle(order.path) as (draft, manifest):
        manifest |= _head(order) | {"support": support}
        build = _build(order, draft, manifest, old, progress)
        order, told = _with_dims(order, manifest["engine"].get("dims", {}), progress)
        manifest |= {"inputs": tensor_entries(order.network.inputs), "outputs": tensor_entries(order.network.outputs)}
        _add_companions(order, draft)
        seal(draft, manifest)
        verify = _verify(order, Bundle(draft, manifest), manifest, progress)
        if told:
            manifest["parity"]["reference"] = told
        manifest["stages"] = _stages(order, [*order.records, build, verify])
    return manifest, [build, verify]


def _previous(order: Order) -> Bundle | None:
    """The bundle that lies there already, if it is whole and its engine is the one we would build."""
    if not order.reuse or not order.path.is_dir():
        return None
    with suppress(EdgewiseError, OSError):
        bundle = open_bundle(order.path)
        if bundle.manifest.get("keys", {}).get("build") == order.build_key:
            return bundle
    return None


def _head(order: Order) -> dict[str, Any]:
    from edgewise.quantize import sparsity_of

    provenance = order.network.provenance
    preprocess = preprocess_of(order.recipe.preprocess)
    return {
        "keys": {"build": order.build_key, "verify": order.verify_key},
        "source": provenance.get("source"),
        "preprocess": preprocess.to_json() if preprocess else None,
        "target": order.target.name,
        "device": order.device.name,
        "network": network_entry(order.network.model),
        "quantization": provenance.get("quantize"),
        "sparsity": {"prune": provenance.get("prune"), "layers": sparsity_of(order.network.model)},
        "versions": versions(),
    }


def _build(order: Order, draft: Path, manifest: dict[str, Any], old: Bundle | None, progress: Progress) -> StageRecord:
    if old is not None:
        for name in (*old.manifest["engine"]["files"], *(own.reference for own in old.functions.values())):
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(old.file(name), draft / name)
        manifest["engine"] = old.manifest["engine"]
        return StageRecord("build", order.build_key, old.manifest["stages"]["build"]["seconds"], reused=True)
    progress(f"build for {order.target.name}", 0, None)
    start = time.perf_counter()
    settings = order.recipe.build or BuildSettings()
    manifest["engine"] = build_engine(
        order.network, order.target, order.device, settings, draft, manifest["preprocess"]
    )
    return StageRecord("build", order.build_key, _since(start), reused=False)


def _with_dims(order: Order, dims: dict[str, int], progress: Progress) -> tuple[Order, str]:
    """The order for a network of the engine's sizes; and, where no sample of the source has them, what stands in."""
    sized = with_dims(order.network, dims, progress)
    own = not order.network.samples or any(sample is sized.samples[0] for sample in order.network.samples)
    told = "" if own else "the ONNX graph's outputs on random samples: none of the source's has the engine's sizes"
    return replace(order, network=sized), told


def _add_companions(order: Order, draft: Path) -> None:
    save_reference(draft / REFERENCE, order.network.samples, order.network.references)
    # The paths in it are relative to where the bundle will lie, not to the draft.
    (draft / RECIPE).write_text(recipe_text(order.recipe, order.path), encoding="utf-8")


def _verify(order: Order, bundle: Bundle, manifest: dict[str, Any], progress: Progress) -> StageRecord:
    start = time.perf_counter()
    manifest["parity"], manifest["accuracy"] = _judge(order, bundle, progress)
    return StageRecord("verify", order.verify_key, _since(start), reused=False)


def _judge(order: Order, bundle: Bundle, progress: Progress) -> tuple[dict[str, Any], dict[str, Any] | None]:
    settings = order.recipe.verify
    if settings is None:
        return {"skipped": "the recipe skips verification (verify: null)"}, None
    executor = order.target.executor(bundle)
    if isinstance(executor, str):
        return {"skipped": executor}, None
    threshold = source_threshold(settings, order.network.provenance)
    parity = verify_engine(order.network, executor, threshold, progress)
    if executor.functions:
        least = parity["against_onnx"]["min_sqnr_db"]
        parity["functions"] = verify_functions(bundle, executor, least, progress)
    accuracy = order.measure(executor) if order.measure else None
    return parity, accuracy


def _stages(order: Order, records: list[StageRecord]) -> dict[str, Any]:
    provenance = order.network.provenance
    export = {"report": provenance["export"]} if "export" in provenance else {}
    return {
        record.stage: {"seconds": record.seconds, "key": record.key, **(export if record.stage == "export" else {})}
        for record in records
    }


def _since(start: float) -> float:
    return round(time.perf_counter() - start, 3)
