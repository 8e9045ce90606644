"""``edgewise.inspect``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewise.errors import ToolchainError
from edgewise.runtime.bundle import Bundle, open_bundle
from edgewise.runtime.errors import RunError
from edgewise.runtime.model import load
from edgewise.runtime.progress import Progress, silent
from edgewise.runtime.tensors import TensorSpec
from edgewise.stages.build import support_entry, support_of
from edgewise.stages.facts import network_entry, tensor_entries
from edgewise.stages.inputs import find_source
from edgewise.stages.network import Network, read_network
from edgewise.verbs.opened import SourceOptions
from edgewise.verbs.result import SCHEMA_VERSION, is_bundle

if TYPE_CHECKING:
    from edgewise.targets import Target

_FROM_MANIFEST = (
    "source", "inputs", "outputs", "preprocess", "target", "device", "network", "quantization", "sparsity", "support",
    "engine", "parity", "accuracy", "versions",
)  # fmt: skip


def inspect(
    source: str | Path,
    *,
    arch: str | None = None,
    arch_args: Mapping[str, Any] | None = None,
    inputs: Sequence[str | TensorSpec] = (),
    target: str | Sequence[str] = (),
    device: str | None = None,
    dynamic: int = 1,
    trust_pickle: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Say what is in a network.

    Args:
        source: a checkpoint, an ONNX file or a bundle.
        arch: as in ``export``; likewise the following two.
        arch_args: keyword arguments for the architecture.
        inputs: ``NAME=f32[1,3,224,224]`` or TensorSpecs.
        target: targets to ask for support; none: all.
        device: a device profile; None is each target's default.
        dynamic: what to take dynamic dims for when counting multiply-accumulates.
        trust_pickle: as in ``export``.
        progress: told how far the work is.

    Returns:
        ``schema_version, kind, inputs, outputs, network`` (ops by count, parameters, macs and what was assumed for them,
        weight_dtypes), ``sparsity`` (``layers``: density and pattern of each one's weights), ``targets`` (taken, total, refused with reasons).
        Of a bundle: its manifest, and ``memory``: what an engine of libedgewise takes here (``Model.memory``).

    Raises:
        RunError, ExportError: it cannot be read.
        ToolchainError: a target for a bundle, which has its own.
    """
    if is_bundle(source):
        if target or device:
            raise ToolchainError(
                "a bundle has its target already",
                where=str(source),
                found="--target or --device",
                expected="neither",
                fix="Leave them out, or inspect the ONNX file",
            )
        return _of_bundle(source)
    if Path(source).suffix == ".onnx":
        kind, network = "onnx", read_network(source)
    else:
        options = SourceOptions(arch, arch_args or {}, inputs, trust_pickle)
        kind, network = _exported(options, source, progress)
    from edgewise.quantize import sparsity_of

    return {
        "schema_version": SCHEMA_VERSION,
        "source": str(source),
        "kind": kind,
        "inputs": tensor_entries(network.inputs),
        "outputs": tensor_entries(network.outputs),
        "network": network_entry(network.model, dynamic),
        "sparsity": {"layers": sparsity_of(network.model)},
        "targets": _support(network, [target] if isinstance(target, str) else target, device),
    }


def _exported(options: SourceOptions, source: str | Path, progress: Progress) -> tuple[str, Network]:
    """A checkpoint has no graph of its own: it is exported, without the comparison that ``export`` makes."""
    from edgewise.exporter import export

    opened = find_source(options.recipe(source), trust_pickle=options.trust_pickle)
    return opened.kind, Network(export(opened, verify=False, progress=progress).model)


def _support(network: Network, names: Sequence[str], device: str | None) -> dict[str, Any]:
    from edgewise.targets import find_target, targets

    chosen = [find_target(name) for name in names] if names else [targets()[name] for name in sorted(targets())]
    return {target.name: _support_entry(network, target, device) for target in chosen}


def _support_entry(network: Network, target: Target, device: str | None) -> dict[str, Any]:
    from edgewise.targets import find_device

    profile = find_device(device or target.default_device, target.name)
    return {"device": profile.name, **support_entry(support_of(network, target, profile))}


def _of_bundle(path: str | Path) -> dict[str, Any]:
    bundle = open_bundle(path)
    told = {key: bundle.manifest.get(key) for key in _FROM_MANIFEST}
    head = {"schema_version": SCHEMA_VERSION, "source_path": str(path), "kind": "bundle"}
    sizes = {"size_bytes": bundle.size_bytes, "memory": _memory(bundle)}
    return {**head, **told, **sizes, "files": bundle.manifest["files"]}


def _memory(bundle: Bundle) -> dict[str, Any] | None:
    """What its engine takes here, or why that is not known; None for engines that do not say."""
    if bundle.manifest["engine"]["kind"] != "native":
        return None
    try:
        return dict(load(bundle.path, threads=1).memory())
    except RunError as error:
        return {"not_known": str(error.found)}
