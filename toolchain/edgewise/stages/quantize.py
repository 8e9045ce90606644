"""The stage that turns a float graph into the integer form that a target wants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from edgewise.errors import ToolchainError
from edgewise.places import place_name
from edgewise.runtime.progress import Progress, silent
from edgewise.settings import QuantizeSettings
from edgewise.stages.identity import place_digest
from edgewise.stages.inputs import find_data
from edgewise.stages.network import Network

if TYPE_CHECKING:
    from onnx_ir import Model

    from edgewise.quantize import Observations, QuantSpec, Rewritten
    from edgewise.runtime.data import Dataset


_RANDOM = 128  # samples, where nobody says how many


def quantize_parts(settings: QuantizeSettings, spec: QuantSpec, preprocess: str | None) -> dict[str, Any]:
    """What the stage's result depends on, besides the network: targets that want the same share it."""
    data = [place_digest(place) for place in (settings.calib, settings.judge, settings.metric)]
    told = replace(settings, calib=None, judge=None)
    return {"settings": told, "spec": asdict(spec), "data": data, "preprocess": preprocess}


def quantize_stage(
    network: Network,
    settings: QuantizeSettings,
    spec: QuantSpec,
    *,
    preprocess: str | None = None,
    observations: Observations | None = None,
    progress: Progress = silent,
) -> Network:
    """Quantize after training; ``observations`` are what other targets share with this one.

    Raises:
        ToolchainError: no calibration data, and random data not allowed; ``max_drop`` without data of its own to judge by.
        QuantizeError: the graph or the data does not serve, or ``max_drop`` cannot be kept.
    """
    data = calibration_data(network, settings, spec, preprocess)
    made = _work(network, settings, preprocess)(
        network.model,
        spec,
        data,
        method=settings.method,
        samples=settings.samples,
        keep_float=settings.keep_float,
        wide=settings.wide,
        rounding=settings.rounding,
        partition=settings.partition,
        relu_mlps=settings.relu_mlps,
        analyze=settings.analyze,
        sensitivity=settings.sensitivity,
        correct_biases=settings.correct_biases,
        search_scales=settings.search_scales,
        shift_biases=settings.shift_biases,
        split_channels=settings.split_channels,
        allow_random=settings.allow_random_calibration,
        observations=observations,
        progress=progress,
    )
    told = {
        "scheme": settings.scheme,
        "spec": asdict(spec),
        "data": None if data is None else {"source": place_name(data.source), "random": data.random},
    }
    return network.after(made.model, quantize={**told, **made.report})


def _work(network: Network, settings: QuantizeSettings, preprocess: str | None) -> Callable[..., Rewritten]:
    """Quantization that keeps to a drop, to a budget or, where few layers make much of the noise, above a floor."""
    from edgewise.quantize import quantize_above, quantize_to_budget, quantize_within

    if settings.max_drop is not None and settings.max_bytes is not None:
        raise ToolchainError(
            "cannot keep to a drop and to a budget at once",
            where=f"quantize, max_drop {settings.max_drop:g} and max_bytes {settings.max_bytes}",
            found="both",
            expected="one of them: each chooses the layers that get 8 bits",
            fix="Leave one out, and look whether its result keeps to the other",
        )
    if settings.max_drop is not None:
        metric = _metric(network, settings, preprocess)
        return partial(quantize_within, metric=metric, max_drop=settings.max_drop)
    if settings.max_bytes is not None:
        return partial(quantize_to_budget, max_bytes=settings.max_bytes)
    return partial(quantize_above, floor=settings.floor, float_share=settings.float_share)


def _metric(network: Network, settings: QuantizeSettings, preprocess: str | None) -> Callable[[Model], float]:
    """The metric's value for a model, on the data that is there to judge by."""
    from edgewise.runtime.metrics import AGREEMENT, classes_of, evaluate
    from edgewise.runtime.onnx_runner import OnnxRunner

    if not settings.judge or place_digest(settings.judge) == place_digest(settings.calib):
        raise ToolchainError(
            "cannot keep to the allowed drop",
            where=f"quantize, max_drop {settings.max_drop:g}",
            found="the calibration data again" if settings.judge else "no data to judge by",
            expected="samples (labelled, but for --metric agreement) apart from those that are calibrated on, and from the test set",
            fix="Pass --judge DATA (in a recipe `judge: DATA`), or leave --max-drop out",
        )
    judged = find_data(settings.judge, network.inputs, preprocess)
    own = OnnxRunner(network.model, optimize=False).run
    classes = classes_of(own, judged) if settings.metric == AGREEMENT else None

    def value(model: Model) -> float:
        run = OnnxRunner(model, optimize=False).run
        return float(evaluate(run, judged, settings.metric, classes=classes)["value"])

    return value


def calibration_data(
    network: Network, settings: QuantizeSettings, spec: QuantSpec, preprocess: str | None
) -> Dataset | None:
    """The samples to calibrate on; None where there are none and nothing asks for them.

    Raises:
        ToolchainError: there are none, and random ones were not asked for.
    """
    from edgewise.quantize.without_data import asks_for_data
    from edgewise.runtime.data import random_data

    if settings.calib:
        return find_data(settings.calib, network.inputs, preprocess)
    if not asks_for_data(spec, asdict(settings)):
        return None
    if not settings.allow_random_calibration:
        raise ToolchainError(
            "quantization needs calibration data",
            where="quantize",
            found="no --calib",
            expected="samples that look like what the network will see",
            fix="Pass --calib DATA (.npz, .npy, images, module:callable), or --allow-random-calibration if accuracy does not matter",
        )
    return random_data(network.inputs, settings.samples or _RANDOM, seed=settings.seed)
