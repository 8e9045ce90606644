"""``edgewise.quantize(...)``: the verb of that name (the package ``edgewise.quantize`` passes its call on)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgewise.runtime.progress import Progress, silent
from edgewise.runtime.storage import sha256_of
from edgewise.settings import QuantizeSettings
from edgewise.stages.network import read_runnable, write_network
from edgewise.stages.quantize import quantize_stage
from edgewise.verbs.result import SCHEMA_VERSION


def quantize(
    model: str | Path,
    output: str | Path,
    *,
    target: str,
    device: str | None = None,
    scheme: str = "int8",
    calib: str | None = None,
    preprocess: str | None = None,
    method: str = "mse",
    samples: int | None = None,
    keep_float: Sequence[str] = (),
    wide: Sequence[str] = (),
    rounding: str = "auto",
    analyze: bool = False,
    allow_random_calibration: bool = False,
    seed: int = 0,
    max_drop: float | None = None,
    judge: str | None = None,
    metric: str = "top1",
    max_bytes: int | None = None,
    floor: float | None = None,
    float_share: float = 0.15,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Quantize an ONNX file after training, in the form that a target turns into integer kernels.

    Args:
        model: the float ONNX file.
        output: the ONNX file to write, whole or not at all.
        target: whose form of quantization; ``edgewise devices`` lists them.
        device: a device profile; None is the target's default.
        scheme: ``int8`` or another that the target has.
        calib: DATA to calibrate on: ``.npz``, ``.npy``, images, ``module:callable``.
        preprocess: what to do with the images of DATA.
        method: ``mse``, ``minmax``, ``average``, ``percentile`` or ``entropy``.
        samples: how many samples to use; None: 128, or 512 where weights are rounded for what they read.
        keep_float: names of layers to leave in float.
        wide: names of layers that get 8 bits, where the scheme has fewer.
        rounding: how weights become integers: ``auto``, ``squant``, ``gptq``, ``adaround`` or ``blocks``.
        analyze: also measure what each layer costs alone; the report's ``sensitivity``, the worst first.
        allow_random_calibration: calibrate on random data; accuracy is then left to luck.
        seed: of the random data.
        max_drop: put back as few layers as keep ``metric`` within this fraction of the float network's on ``judge``.
        judge: DATA to judge by (labelled, but for ``agreement``): apart from ``calib``, and from the test set.
        metric: ``top1``, ``top5``, ``agreement`` (with the float network's classes; no labels) or ``module:function``.
        max_bytes: of the weights' integers; as many layers get 8 bits as fit, those first that lose most per byte.
        floor: in dB; where the outputs have less on calibration samples, layers that make much of the noise for little work go back
            to float. None: the target's own, 0: none.
        float_share: the largest share of the multiply-accumulates that may go back so.
        progress: told how far the work is.

    Returns:
        ``schema_version, output, sha256, report`` (layers with their precision, what stays in float and why).

    Raises:
        ToolchainError: no calibration data, or ``max_drop`` without other data to judge by.
        TargetError: an unknown target, or one without that scheme.
        QuantizeError: nothing to quantize, unusable data.
    """
    from edgewise.targets import find_device, find_target

    chosen = find_target(target)
    spec = chosen.quantization(scheme, find_device(device or chosen.default_device, chosen.name))
    settings = QuantizeSettings(
        scheme=scheme,
        method=method,
        rounding=rounding,
        calib=calib,
        samples=samples,
        keep_float=tuple(keep_float),
        wide=tuple(wide),
        analyze=analyze,
        allow_random_calibration=allow_random_calibration,
        seed=seed,
        max_drop=max_drop,
        judge=judge,
        metric=metric,
        max_bytes=max_bytes,
        floor=floor,
        float_share=float_share,
    )
    network = quantize_stage(read_runnable(model), settings, spec, preprocess=preprocess, progress=progress)
    output = Path(output)
    write_network(network, output)
    return {
        "schema_version": SCHEMA_VERSION,
        "output": str(output),
        "sha256": sha256_of(output),
        "target": chosen.name,
        "report": network.provenance["quantize"],
    }
