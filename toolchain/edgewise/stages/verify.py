"""The stage that proves an engine: its outputs against the ONNX graph it was built from, and against the source network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from edgewise.errors import parts_of
from edgewise.runtime.bundle import Bundle
from edgewise.runtime.compare import TensorParity, compare_outputs, empty_promises, require_parity
from edgewise.runtime.errors import GateError
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.runtime.progress import Progress, silent
from edgewise.settings import VerifySettings
from edgewise.stages.network import Arrays, Network, only

if TYPE_CHECKING:
    from edgewise.targets import Executor

# An engine in float (fp16 included) is an accurate one; integers round; both fall far below when something is wrong.
FLOAT_MIN_SQNR_DB = 40.0
QUANTIZED_MIN_SQNR_DB = 10.0
QUANTIZED_BUILD_MIN_SQNR_DB = 20.0
_ROUNDED_OTHERWISE_DB = 3.0


def source_threshold(settings: VerifySettings, provenance: dict[str, Any]) -> float | None:
    """The least SQNR against the source, in dB; None: only reported, for pruning changes the function on purpose."""
    if settings.min_sqnr is not None:
        return settings.min_sqnr
    if "prune" in provenance:
        return None
    return QUANTIZED_MIN_SQNR_DB if "quantize" in provenance else FLOAT_MIN_SQNR_DB


def provenance_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """What a bundle's network went through, as :func:`source_threshold` asks for it."""
    found = {"quantize": manifest.get("quantization"), "prune": (manifest.get("sparsity") or {}).get("prune")}
    return {key: value for key, value in found.items() if value}


def verify_engine(
    network: Network, executor: Executor, threshold: float | None, progress: Progress = silent
) -> dict[str, Any]:
    """The manifest's ``parity``: how and by what the engine was run, its outputs against the source's, and ``against_onnx``."""
    names = [spec.name for spec in network.outputs]
    graph = OnnxRunner(network.model, optimize=False).run
    own = run_all(graph, network.samples, "run the ONNX graph", progress)
    made = run_all(executor.run, network.samples, "run the engine", progress)
    references = [only(outputs, names, "the source's reference") for outputs in network.references]
    build_threshold = _build_threshold(network.provenance, threshold, compare_outputs(references, own))
    return {
        "how": executor.how,
        "stand_in": executor.stand_in,
        "warnings": empty_promises(references),
        **judge(compare_outputs(references, made), threshold, "the engine against the source"),
        "against_onnx": judge(compare_outputs(own, made), build_threshold, "the engine against its ONNX graph"),
    }


def verify_functions(
    bundle: Bundle, executor: Executor, threshold: float, progress: Progress = silent
) -> dict[str, Any]:
    """The engine's other functions against the outputs of their ONNX graphs that the bundle holds: a verdict by name."""
    verdicts = {}
    for name, run in executor.functions.items():
        samples, references = bundle.reference(name)
        made = run_all(run, samples, f"run the function {name}", progress)
        verdicts[name] = judge(
            compare_outputs(references, made), threshold, f"the function {name!r} against its ONNX graph"
        )
    return verdicts


def _build_threshold(provenance: dict[str, Any], asked: float | None, graph: Sequence[TensorParity]) -> float:
    """The least SQNR in dB of an engine against its ONNX graph; ``graph`` is the graph's own parity with the source.

    ``asked`` is that against the source: a float engine that may be further from it may be so from its graph.

    An integer engine may round otherwise than the graph spells out, which differs by as much as rounding does at all: where
    the graph is 12 dB from the source, two ways to round are up to 3 dB further from each other (their noises add up).
    """
    if "quantize" not in provenance:
        return FLOAT_MIN_SQNR_DB if asked is None else min(FLOAT_MIN_SQNR_DB, asked)
    if "prune" in provenance:
        return QUANTIZED_BUILD_MIN_SQNR_DB  # the distance to the source is the pruning's, not that of rounding
    rounding = min(parity.sqnr_db for parity in graph)
    return round(min(QUANTIZED_BUILD_MIN_SQNR_DB, rounding - _ROUNDED_OTHERWISE_DB), 1)


def run_all(run: Callable[[Arrays], Arrays], samples: Sequence[Arrays], task: str, progress: Progress) -> list[Arrays]:
    """Run every sample."""
    outputs = []
    for index, sample in enumerate(samples):
        outputs.append(run(sample))
        progress(task, index + 1, len(samples))
    return outputs


def judge(parities: Sequence[TensorParity], threshold: float | None, where: str) -> dict[str, Any]:
    """Compare with a threshold, and keep the verdict as JSON."""
    entry: dict[str, Any] = {"min_sqnr_db": threshold, "passed": True, "outputs": [p.to_json() for p in parities]}
    if threshold is not None:
        try:
            require_parity(parities, min_sqnr_db=threshold, where=where)
        except GateError as error:
            entry |= {"passed": False, "error": parts_of(error)}
    return entry
