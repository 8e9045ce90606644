"""``edgewise quantize``."""

from __future__ import annotations

from functools import partial

from edgewise.cli import options as o
from edgewise.cli.show import show_quantize
from edgewise.cli.work import perform


def run(
    model: o.Model,
    *,
    output: o.OutputFile,
    target: o.Target,
    device: o.Device = None,
    scheme: o.Scheme = "int8",
    calib: o.Calib = None,
    preprocess: o.Preprocess = None,
    method: o.Method = "mse",
    samples: o.Samples = None,
    keep_float: o.KeepFloat = None,
    wide: o.Wide = None,
    rounding: o.Rounding = None,
    analyze: o.Analyze = False,
    allow_random_calibration: o.RandomCalibration = False,
    max_drop: o.MaxDrop = None,
    judge: o.Judge = None,
    max_bytes: o.MaxBytes = None,
    floor: o.Floor = None,
    float_share: o.FloatShare = None,
    metric: o.Metric = "top1",
    as_json: o.Json = False,
) -> None:
    """Quantize an ONNX file after training, in the form that a target turns into integer kernels."""
    from edgewise.verbs.quantize import quantize

    verb = partial(
        quantize, model, output, target=target, device=device, scheme=scheme or "int8", calib=calib,
        preprocess=preprocess, method=method or "mse", samples=samples, keep_float=keep_float or (),
        wide=wide or (), rounding=rounding or "auto", analyze=analyze,
        allow_random_calibration=allow_random_calibration, max_drop=max_drop, judge=judge, metric=metric or "top1",
        max_bytes=max_bytes, floor=floor, float_share=0.15 if float_share is None else float_share,
    )  # fmt: skip
    perform(verb, show_quantize, as_json=as_json)
