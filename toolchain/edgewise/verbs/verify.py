"""``edgewise.verify``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgewise.errors import ToolchainError
from edgewise.runtime.bundle import Bundle, open_bundle
from edgewise.runtime.compare import TensorParity, compare_outputs
from edgewise.runtime.devices.address import LOCAL, Address, parse_address
from edgewise.runtime.devices.runners import Order
from edgewise.runtime.errors import GateError
from edgewise.runtime.preprocess import Preprocess
from edgewise.runtime.progress import Progress, silent
from edgewise.runtime.tensors import TensorSpec
from edgewise.settings import VerifySettings
from edgewise.stages.gates import precision_gates
from edgewise.stages.inputs import find_data
from edgewise.stages.network import Arrays, only
from edgewise.stages.profile import identify
from edgewise.stages.verify import judge, provenance_of, run_all, source_threshold
from edgewise.verbs.layers import compare_layers
from edgewise.verbs.opened import SourceOptions, open_any, open_runnable
from edgewise.verbs.result import SCHEMA_VERSION, require


def verify(
    bundle: str | Path,
    *,
    against: str | Path | None = None,
    device: str = LOCAL,
    data: str | None = None,
    samples: int = 16,
    preprocess: str | None = None,
    per_layer: bool = False,
    min_sqnr: float | None = None,
    threads: int = 0,
    arch: str | None = None,
    arch_args: Mapping[str, Any] | None = None,
    inputs: Sequence[str | TensorSpec] = (),
    trust_pickle: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Prove that a bundle computes what its source computes.

    Args:
        bundle: ``NAME.edge`` or a zip of one.
        against: the source: a checkpoint, an ONNX file or another bundle. None: the reference outputs in the bundle.
        device: where the engine computes: ``local``, ``ssh://user@host[:port][?key=FILE]``, ``adb:SERIAL``, or a name out of
            ``devices.toml``.
        data: DATA to compare on; needs ``against``. None: the reference inputs in the bundle.
        samples: how many samples of DATA.
        preprocess: what to do with images; None: what the manifest says.
        per_layer: compare inner tensors too, and name the first that diverges; for engines that are ONNX graphs.
        min_sqnr: the gate in dB; None: 40 for a float engine, 10 for a quantized one, none for a pruned one.
        threads: 0 is all cores.
        arch: as in ``export``, for a source that is a checkpoint; likewise the following.
        arch_args: keyword arguments for the architecture.
        inputs: ``NAME=f32[1,3,224,224]`` or TensorSpecs.
        trust_pickle: as in ``export``.
        progress: told how far the work is.

    Returns:
        ``schema_version, bundle, how, against, samples, parity`` (threshold, verdict and outputs), ``functions`` (the same
        for what the engine computes beside the network) and ``layers`` with ``first_diverging`` where asked for.

    Raises:
        RunError: not a bundle, a damaged one, or data that does not fit.
        ToolchainError: this machine cannot run it, or a combination of arguments that says nothing.
        GateError: it does not compute the same, or not in the precision that was asked for (as it was read back from the engine).
    """
    opened = open_bundle(bundle)
    options = SourceOptions(arch, arch_args or {}, inputs, trust_pickle)
    address = parse_address(device)
    entry = opened.manifest.get("preprocess")
    stored = Preprocess.from_json(entry) if entry else None
    chosen = Preprocess.parse(preprocess) if preprocess is not None else stored
    wanted = _samples(opened, data, chosen, samples, against)
    references = _references(opened, against, options, wanted, progress)
    if address.kind == LOCAL:
        engine = open_runnable(opened, threads=threads)
        how = engine.how
        parities = compare_outputs(references, run_all(engine.run, wanted, "run the engine", progress))
    else:
        _refuse_elsewhere(opened, device, per_layer)
        how, parities = _elsewhere(opened, address, wanted, references, threads, progress)
    threshold = source_threshold(VerifySettings(min_sqnr=min_sqnr), provenance_of(opened.manifest))
    parity = judge(parities, threshold, str(bundle))
    result = {
        "schema_version": SCHEMA_VERSION,
        "bundle": identify(bundle),
        "how": how,
        "against": str(against) if against else "the reference outputs in the bundle",
        "samples": len(wanted),
        "parity": parity,
    }
    functions = _verify_functions(opened, threshold, threads, progress)
    if functions:
        result["functions"] = functions
    if per_layer:
        result |= compare_layers(opened, against, options, wanted[0], threshold, progress)
    verdicts = [parity, *functions.values()]
    failed = [GateError(**verdict["error"]) for verdict in verdicts if not verdict["passed"]]
    return require([*precision_gates(opened.manifest, str(bundle)), *failed], result)


def _elsewhere(
    bundle: Bundle, address: Address, wanted: list[Arrays], references: list[Arrays], threads: int, progress: Progress
) -> tuple[str, list[TensorParity]]:
    from edgewise.runtime.devices.remote import profile_remote

    order = Order(threads=threads, check_only=True, samples=(wanted, references))
    told, parities = profile_remote(bundle.path, address, order, progress)
    facts = ", ".join(f"{key} {value}" for key, value in told["engine"].items())
    return f"the bundle's engine on {address.text} ({facts})", parities


def _refuse_elsewhere(bundle: Bundle, device: str, per_layer: bool) -> None:
    if per_layer or bundle.functions:
        raise ToolchainError(
            "cannot compare that on another device", where=f"--device {device}",
            found="--per-layer" if per_layer else "an engine with several functions", expected="the outputs of the network itself",
            fix="Compare on this machine, or on the device",
        )  # fmt: skip


def _verify_functions(bundle: Bundle, threshold: float | None, threads: int, progress: Progress) -> dict[str, Any]:
    """What the engine computes beside the network, against the reference in the bundle: a verdict by name."""
    verdicts = {}
    for name in bundle.functions:
        engine = open_runnable(bundle, threads=threads, function=name)
        samples, references = bundle.reference(name)
        made = run_all(engine.run, samples, f"run the function {name}", progress)
        verdicts[name] = judge(compare_outputs(references, made), threshold, f"the function {name!r}")
    return verdicts


def _samples(
    bundle: Bundle, data: str | None, preprocess: Preprocess | None, count: int, against: str | Path | None
) -> list[Arrays]:
    if data is None:
        return bundle.reference()[0]
    if against is None:
        raise ToolchainError(
            "nothing to compare with",
            where="--data",
            found="DATA without --against",
            expected="the source network, to compute what the outputs should be",
            fix="Add --against SOURCE, or leave --data out to use the reference in the bundle",
        )
    return [sample.inputs for sample in find_data(data, bundle.inputs, preprocess, count)]


def _references(
    bundle: Bundle, against: str | Path | None, options: SourceOptions, samples: list[Arrays], progress: Progress
) -> list[Arrays]:
    names = [spec.name for spec in bundle.outputs]
    if against is None:
        return [only(outputs, names, "reference.npz") for outputs in bundle.reference()[1]]
    source = open_any(against, options)
    return [only(outputs, names, str(against)) for outputs in run_all(source.run, samples, "run the source", progress)]
