"""``edgewise.build``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgewise.errors import ToolchainError
from edgewise.recipe import Recipe
from edgewise.runtime.bundle import Bundle, open_bundle
from edgewise.runtime.progress import Progress, silent
from edgewise.runtime.storage import sha256_of
from edgewise.settings import BuildSettings, TargetChoice, VerifySettings
from edgewise.stages.bundle import Order, make_bundle
from edgewise.stages.choices import choose
from edgewise.stages.export import source_entry
from edgewise.stages.gates import bundle_gates
from edgewise.stages.network import read_runnable
from edgewise.stages.reference import with_reference
from edgewise.verbs.result import SCHEMA_VERSION, require


def build(
    model: str | Path,
    output: str | Path,
    *,
    target: str,
    device: str | None = None,
    require_full_delegation: bool = False,
    options: Mapping[str, Any] | None = None,
    data: str | None = None,
    preprocess: str | None = None,
    min_sqnr: float | None = None,
    swift: str | Path | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Build an ONNX file into a bundle, and check the engine against it.

    Args:
        model: the ONNX file.
        output: the bundle to write, ``NAME.edge``, whole or not at all.
        target: ``edgewise devices`` lists them.
        device: a device profile; None is the target's default.
        require_full_delegation: a node that the target does not take is an error, and nothing is built.
        options: for the target, which refuses those it does not know.
        data: DATA for the reference samples; without it, seeded random inputs.
        preprocess: what the app does with images; recorded in the manifest, and done to the images of DATA.
        min_sqnr: the parity gate in dB; None: 40 for a float engine, 10 for a quantized one.
        swift: a folder for a Swift package around the bundle, from a target that writes one.
        progress: told how far the work is.

    Returns:
        ``schema_version, bundle, target, device, size_bytes, support, engine, parity``.

    Raises:
        TargetError: an unknown target or device, or a graph that the target refuses.
        GateError: nodes that the target does not take (nothing is built), or an engine that does not compute what the
            ONNX computes (the bundle stays, for looking into it).
    """
    recipe = Recipe(
        source=str(model),
        preprocess=preprocess,
        export=None,
        build=BuildSettings(require_full_delegation, dict(options or {})),
        verify=VerifySettings(min_sqnr=min_sqnr),
        profile=None,
        targets=(TargetChoice(target, device),),
    )
    path = Path(output)
    chosen = choose(recipe, path.stem)[0]
    network = read_runnable(model)
    if "source" not in network.provenance:
        network = network.after(network.model, **source_entry(Path(model)))
    network = with_reference(network, data, preprocess, progress=progress)
    write_app = None if swift is None else _app_writer(chosen.target)
    order = Order(network, sha256_of(Path(model)), chosen.recipe, chosen.target, chosen.device, path, reuse=False)
    manifest, _ = make_bundle(order, progress)
    result = {
        "schema_version": SCHEMA_VERSION,
        "bundle": str(path),
        "size_bytes": open_bundle(path).size_bytes,
        **{key: manifest[key] for key in ("target", "device", "support", "engine", "parity")},
    }
    if write_app is not None and swift is not None:
        write_app(open_bundle(path), Path(swift))
    return require(bundle_gates(manifest, chosen.recipe), result)


def _app_writer(target: Any) -> Callable[[Bundle, Path], None]:
    """What writes an app's package around a bundle; asked for before anything is built.

    Raises:
        ToolchainError: the target has no such thing.
    """
    writer: Callable[[Bundle, Path], None] | None = getattr(target, "write_app", None)
    if writer is None:
        raise ToolchainError(
            "cannot write a Swift package",
            where="--swift",
            found=f"the target {target.name}, which has no Swift package",
            expected="a target that writes one",
            fix="Build for --target coreml, or leave --swift out",
        )
    return writer
