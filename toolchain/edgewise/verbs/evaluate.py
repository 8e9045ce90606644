"""``edgewise.evaluate``, which is ``edgewise eval``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgewise.places import place_name
from edgewise.runtime.preprocess import Preprocess
from edgewise.runtime.progress import Progress, silent
from edgewise.runtime.tensors import TensorSpec
from edgewise.stages.gates import accuracy_gates
from edgewise.stages.inputs import find_data
from edgewise.stages.profile import identify
from edgewise.verbs.opened import SourceOptions, open_any
from edgewise.verbs.result import SCHEMA_VERSION, is_bundle, require


def evaluate(
    network: str | Path,
    *,
    data: str,
    metric: str = "top1",
    against: str | Path | None = None,
    preprocess: str | None = None,
    limit: int | None = None,
    threads: int = 0,
    min_accuracy: float | None = None,
    max_drop: float | None = None,
    arch: str | None = None,
    arch_args: Mapping[str, Any] | None = None,
    inputs: Sequence[str | TensorSpec] = (),
    trust_pickle: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure accuracy: of a bundle, of an ONNX file, or of a checkpoint with its architecture.

    Args:
        network: what to measure.
        data: DATA, with labels where the metric wants them.
        metric: ``top1``, ``top5``, ``agreement`` (the class is that of ``against``) or ``module:function``, which takes
            (outputs, sample) and gives a number; the mean is taken.
        against: another network to measure on the same samples, such as the source of a bundle.
        preprocess: what to do with images; None: what the bundle's manifest says.
        limit: use this many samples, spread evenly over DATA.
        threads: 0 is all cores.
        min_accuracy: the gate on the value.
        max_drop: the gate on the difference to ``against``.
        arch: as in ``export``, for whichever of the two is a checkpoint; likewise the following.
        arch_args: keyword arguments for the architecture.
        inputs: ``NAME=f32[1,3,224,224]`` or TensorSpecs.
        trust_pickle: as in ``export``.
        progress: told how far the work is.

    Returns:
        ``schema_version, metric, value, n, how, data`` (``value`` is a fraction for metrics with a name), ``source_value`` with
        ``against``, and ``bundle`` where the network is one.

    Raises:
        RunError: unusable data or metric, a network that cannot run here.
        GateError: too low.
    """
    from edgewise.runtime.metrics import AGREEMENT, classes_of
    from edgewise.runtime.metrics import evaluate as mean_of

    options = SourceOptions(arch, arch_args or {}, inputs, trust_pickle)
    opened = open_any(network, options, threads=threads)
    chosen = Preprocess.parse(preprocess) if preprocess is not None else opened.preprocess
    told, classes = {}, None
    if against is not None:
        other = open_any(against, options, threads=threads)
        samples = find_data(data, other.inputs, chosen, limit)
        with other.running():
            if metric == AGREEMENT:
                classes = classes_of(other.run, samples, progress=progress)
            value = 1.0 if classes else mean_of(other.run, samples, metric, progress=progress)["value"]
        told = {"source_value": value, "source_how": other.how}
    samples = find_data(data, opened.inputs, chosen, limit)
    with opened.running():
        own = mean_of(opened.run, samples, metric, classes=classes, progress=progress)
    result = {"schema_version": SCHEMA_VERSION, **own, "how": opened.how, "data": place_name(samples.source), **told}
    if is_bundle(network):
        result["bundle"] = identify(network)
    return require(accuracy_gates(result, min_accuracy, max_drop), result)
