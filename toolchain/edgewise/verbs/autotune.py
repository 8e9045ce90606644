"""``edgewise.autotune``, which is ``edgewise build --autotune``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewise.errors import ToolchainError
from edgewise.runtime.bundle import open_bundle
from edgewise.runtime.cuda import Gpu
from edgewise.runtime.devices.address import LOCAL
from edgewise.runtime.errors import GateError, RunError
from edgewise.runtime.manifest import MANIFEST
from edgewise.runtime.onnx_file import read_onnx
from edgewise.runtime.progress import Progress, silent
from edgewise.runtime.storage import check_replaceable, sha256_of
from edgewise.stages.identity import key_of
from edgewise.stages.tuning import PRODUCTS, Candidate, Measured, Memory, Stand, choose, pattern_of, times_by_node
from edgewise.verbs.build import build
from edgewise.verbs.evaluate import evaluate
from edgewise.verbs.profile import profile
from edgewise.verbs.quantize import quantize
from edgewise.verbs.result import SCHEMA_VERSION
from edgewise.verbs.verify import verify

if TYPE_CHECKING:
    import onnx_ir as ir

FLOAT16, EVERYWHERE, FASTER = "float16 everywhere", "int8 everywhere", "int8 where it is faster"


@dataclass(frozen=True)
class ProfiledAt:
    """The device at an address, measured by ``edgewise profile``."""

    address: str = LOCAL

    @property
    def name(self) -> str:
        """The address; of this machine also its GPU, where it has one."""
        if self.address != LOCAL:
            return self.address
        try:
            gpu = Gpu()
        except RunError:
            return self.address  # measuring says so
        return f"{self.address} {gpu.name} SM{gpu.sm}"

    def measure(self, bundle: Path) -> Measured:
        """Median, its interval and the layers."""
        told = profile(bundle, device=self.address, per_layer=True)
        latency = told["latency_ms"]
        low, high = latency["median_interval"] or (latency["median"],) * 2
        layers = {layer["name"]: layer["median_ms"] for layer in told["layers"] or []}
        return Measured(latency["median"], low, high, layers)


@dataclass(frozen=True)
class _Search:
    """One search: what is tuned, for what, where it is measured, and by what it is judged."""

    model: Path
    target: str
    device: str | None
    options: dict[str, Any]
    calib: str
    preprocess: str | None
    judge: str | None
    metric: str
    max_drop: float
    stand: Stand
    memory: Memory
    folder: Path
    progress: Progress
    built_by: dict[str, str] = field(default_factory=dict)

    def stand_key(self) -> str:
        """What times hold for: the target, the device, where it is measured, and the library that builds for it."""
        built_by = " ".join(f"{library} {version}" for library, version in sorted(self.built_by.items()))
        return f"{self.target} {self.device or 'default'} {self.stand.name} {built_by}"

    def try_one(self, placement: str, keep_float: list[str], quantized: bool) -> Candidate:
        """Build, judge, measure; what was measured before is not measured again."""
        self.progress(f"try {placement}", 0, None)
        source = self.model
        if quantized:
            source = self.folder / f"{placement.replace(' ', '-')}.onnx"
            quantize(
                self.model, source, target=self.target, device=self.device, calib=self.calib, preprocess=self.preprocess, keep_float=keep_float,
                floor=0,
            )  # fmt: skip
        candidate = Candidate(placement, self.folder / f"{placement.replace(' ', '-')}.edge", keep_float)
        try:
            build(
                source,
                candidate.bundle,
                target=self.target,
                device=self.device,
                options=self.options,
                preprocess=self.preprocess,
            )
            self.built_by.update(open_bundle(candidate.bundle).manifest["engine"]["versions"])
            self._judge(candidate)
        except GateError as error:
            candidate.refused = str(error)
            return candidate
        told = {"network": sha256_of(source), "options": self.options, "stand": self.stand_key()}
        key = key_of("autotune", told)
        candidate.measured = self.memory.measured(key)
        candidate.remembered = candidate.measured is not None
        if candidate.measured is None:
            candidate.measured = self.stand.measure(candidate.bundle)
            self.memory.keep(key, candidate.measured)
        return candidate

    def _judge(self, candidate: Candidate) -> None:
        """Parity with the float network, and the metric where there are labels."""
        verify(candidate.bundle, against=self.model, data=self.judge or self.calib, preprocess=self.preprocess)
        if self.judge is None:
            return
        told = evaluate(
            candidate.bundle, data=self.judge, metric=self.metric, against=self.model, preprocess=self.preprocess, max_drop=self.max_drop
        )  # fmt: skip
        candidate.accuracy = told["value"]

    def learn(self, candidate: Candidate, precision: str, patterns: Mapping[str, str]) -> None:
        """Remember what each product took; ``patterns`` by node."""
        if candidate.measured is None:
            return
        times = times_by_node(candidate.measured.layers_ms, _nodes_of(candidate.bundle), set(patterns))
        self.memory.learn(self.stand_key(), precision, ((patterns[node], took) for node, took in times.items()))


def autotune(
    model: str | Path,
    output: str | Path,
    *,
    target: str,
    calib: str,
    device: str | None = None,
    at: str = LOCAL,
    stand: Stand | None = None,
    options: Mapping[str, Any] | None = None,
    preprocess: str | None = None,
    judge: str | None = None,
    metric: str = "top1",
    max_drop: float = 0.01,
    memory: str | Path | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Try float16 everywhere, int8 everywhere and int8 where it is faster on a device, and keep the fastest that passes the gates.

    float16 is kept unless an int8 build is certainly faster: its 95 % interval ends before float16's begins. Where all of a network's
    patterns (operator, shapes, attributes) are remembered for the device, int8 everywhere is not tried again.

    Args:
        model: the float ONNX file.
        output: the bundle to write.
        target: one whose builds take the option ``precision``.
        calib: DATA to calibrate int8 on.
        device: a device profile; None is the target's default.
        at: where to measure: ``local``, ``ssh://user@host[:port][?key=FILE]``, or a name out of ``devices.toml``.
        stand: what measures instead of ``edgewise profile`` at that address.
        options: for the target, in every build.
        preprocess: what to do with the images of DATA.
        judge: labelled DATA for the accuracy gate, apart from ``calib``; None: parity with the float network alone, on ``calib``
            (40 dB for float16, 10 dB for int8).
        metric: ``top1``, ``top5``, ``agreement`` or ``module:function``.
        max_drop: how much of the metric, a fraction, an engine may lose against the float network on ``judge``.
        memory: the JSON file that remembers; None: ``autotune.json`` beside the bundle.
        progress: told how far the work is.

    Returns:
        ``schema_version, bundle, chosen`` (the placement), ``candidates`` (each with its times, accuracy and the gate that refused
        it), ``patterns`` (by pattern the ms in float16 and in int8) and ``memory``.

    Raises:
        ToolchainError: a target without precisions to choose from, or a memory file that is none.
        GateError: no placement passed its gates.
        RunError, DeviceError: the device cannot be measured, or something that is no bundle lies where the bundle goes.
    """
    _check_target(target)
    path = Path(output)
    check_replaceable(path, MANIFEST, "bundle")
    remembered = Memory.open(Path(memory) if memory is not None else path.with_name("autotune.json"))
    folder = path.with_name(f"{path.name}.tuning")
    folder.mkdir(parents=True, exist_ok=True)
    search = _Search(
        Path(model), target, device, {"precision": "float16", **(options or {})}, calib, preprocess, judge, metric, max_drop,
        stand or ProfiledAt(at), remembered, folder, progress,
    )  # fmt: skip
    patterns = {node.name or "": pattern_of(node) for node in read_onnx(model).graph if _has_weights(node)}
    candidates = _tried(search, patterns)
    best = choose(candidates)
    if best is None:
        raise _none_passed(path, candidates)
    shutil.rmtree(path, ignore_errors=True)
    best.bundle.replace(path)
    shutil.rmtree(folder)
    times = search.memory.patterns.get(search.stand_key(), {})
    return {
        "schema_version": SCHEMA_VERSION,
        "bundle": str(path),
        "chosen": best.placement,
        "candidates": [each.to_json() for each in candidates],
        "patterns": {pattern: times[pattern] for pattern in sorted(set(patterns.values())) if pattern in times},
        "memory": str(search.memory.path),
    }


def _tried(search: _Search, patterns: dict[str, str]) -> list[Candidate]:
    """All placements worth trying, float16 first."""
    first = search.try_one(FLOAT16, [], quantized=False)
    search.learn(first, "float16", patterns)
    tried = [first]
    decided = _slower(search, patterns)
    if None in decided.values() or not any(decided.values()):
        whole = search.try_one(EVERYWHERE, [], quantized=True)
        search.learn(whole, "int8", patterns)
        tried.append(whole)
        decided = _slower(search, patterns)
    keep = sorted(node for node, slower in decided.items() if slower)
    if keep and len(keep) < len(patterns):
        tried.append(search.try_one(FASTER, keep, quantized=True))
    return tried


def _slower(search: _Search, patterns: dict[str, str]) -> dict[str, bool | None]:
    stand = search.stand_key()
    return {node: search.memory.slower_in_int8(stand, pattern) for node, pattern in patterns.items()}


def _nodes_of(bundle: Path) -> dict[str, list[str]]:
    """The ONNX nodes of each layer, by the engine's name for it, from the listing that the build read back."""
    opened = open_bundle(bundle)
    listing = opened.manifest["engine"]["settings"].get("listing")
    if listing is None:
        return {}
    told = json.loads(opened.file(listing).read_text(encoding="utf-8"))
    return {layer["name"]: layer["nodes"] for layer in (told["layers"] if isinstance(told, dict) else told)}


def _has_weights(node: ir.Node) -> bool:
    return node.op_type in PRODUCTS and any(
        value is not None and value.const_value is not None for value in node.inputs[:2]
    )


def _check_target(target: str) -> None:
    from edgewise.targets import find_target

    option = find_target(target).options.get("precision")
    if option is None or "float16" not in (option.choices or ()):
        raise ToolchainError(
            "cannot autotune for this target", where=f"--autotune, --target {target}", found="builds without the option precision",
            expected="a target that computes in float16 or int8 as it is told, such as tensorrt", fix="Leave --autotune out",
        )  # fmt: skip


def _none_passed(path: Path, candidates: list[Candidate]) -> GateError:
    return GateError(
        "no placement of precision passed its gates", where=str(path), found="; ".join(f"{each.placement}: {each.refused}" for each in candidates),
        expected="one that computes what the network computes", fix="Calibrate on better data, set --max-drop higher, or build with precision: float32",
    )  # fmt: skip
