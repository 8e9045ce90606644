"""The stage that turns a float graph into the integer form that a target wants."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from edgewise.errors import ToolchainError
from edgewise.places import place_name
from edgewise.runtime.progress import Progress, silent
from edgewise.settings import QuantizeSettings
from edgewise.stages.identity import place_digest
from edgewise.stages.inputs import find_data
from edgewise.stages.network import Network

if TYPE_CHECKING:
    from edgewise.quantize import QuantSpec
    from edgewise.runtime.data import Dataset


def quantize_parts(settings: QuantizeSettings, spec: QuantSpec, preprocess: str | None) -> dict[str, Any]:
    """What the stage's result depends on, besides the network: targets that want the same share it."""
    data = place_digest(settings.calib)
    return {"settings": replace(settings, calib=None), "spec": asdict(spec), "data": data, "preprocess": preprocess}


def quantize_stage(
    network: Network,
    settings: QuantizeSettings,
    spec: QuantSpec,
    *,
    preprocess: str | None = None,
    progress: Progress = silent,
) -> Network:
    """Quantize after training.

    Raises:
        ToolchainError: no calibration data, and random data not allowed.
        QuantizeError: the graph or the data does not serve.
    """
    from edgewise.quantize import quantize

    data = calibration_data(network, settings, preprocess)
    made = quantize(
        network.model,
        spec,
        data,
        method=settings.method,
        samples=settings.samples,
        keep_float=settings.keep_float,
        wide=settings.wide,
        rounding=settings.rounding,
        analyze=settings.analyze,
        correct_biases=settings.correct_biases,
        allow_random=settings.allow_random_calibration,
        progress=progress,
    )
    told = {
        "scheme": settings.scheme,
        "spec": asdict(spec),
        "data": {"source": place_name(data.source), "random": data.random},
    }
    return network.after(made.model, quantize={**told, **made.report})


def calibration_data(network: Network, settings: QuantizeSettings, preprocess: str | None) -> Dataset:
    """The samples to calibrate on.

    Raises:
        ToolchainError: there are none, and random ones were not asked for.
    """
    from edgewise.runtime.data import random_data

    if settings.calib:
        return find_data(settings.calib, network.inputs, preprocess)
    if not settings.allow_random_calibration:
        raise ToolchainError(
            "quantization needs calibration data",
            where="quantize",
            found="no --calib",
            expected="samples that look like what the network will see",
            fix="Pass --calib DATA (.npz, .npy, images, module:callable), or --allow-random-calibration if accuracy does not matter",
        )
    return random_data(network.inputs, settings.samples, seed=settings.seed)
