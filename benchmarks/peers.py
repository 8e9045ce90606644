"""Other tools' post-training quantization of the same graph with the same samples, for benchmarks/accuracy.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np


def quantize_with_nncf(model: Any, data: Any, folder: Path, python: str) -> Path:
    """What NNCF's ``quantize`` makes of the graph with its defaults, in a Python of its own."""
    from edgewise.runtime.onnx_file import write_onnx

    plain, samples, quantized = folder / "plain.onnx", folder / "samples", folder / "quantized.onnx"
    write_onnx(model, plain)
    samples.mkdir()
    for number, sample in enumerate(data):
        np.savez(samples / f"{number:05}.npz", **sample.inputs)
    script = Path(__file__).with_name("nncf_defaults.py")
    subprocess.run([python, str(script), str(plain), str(samples), str(quantized)], check=True, stdout=sys.stderr)
    return quantized


def quantize_with_neural_compressor(model: Any, data: Any, folder: Path) -> Path:
    """What the defaults of Intel's neural-compressor come to: one scale per tensor of weights, min-max over 100 samples.

    neural-compressor itself takes no ONNX any more (3.10); onnx-neural-compressor 1.0, which does, wants a numpy below 2. So the
    defaults that its ``StaticQuantConfig`` documents are carried out by ONNX Runtime's tool, which it builds on, in QDQ form.
    """
    return quantize_with_onnxruntime(model, data.take(100), folder, per_channel=False)


def quantize_with_onnxruntime(model: Any, data: Any, folder: Path, *, per_channel: bool = True) -> Path:
    """What ONNX Runtime's tool makes of the same graph with the same samples and its default calibration."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from edgewise.runtime.onnx_file import write_onnx

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._samples = iter(data)

        def get_next(self) -> dict[str, np.ndarray] | None:
            sample = next(self._samples, None)
            return None if sample is None else sample.inputs

    plain, prepared, quantized = (folder / f"{stage}.onnx" for stage in ("plain", "prepared", "quantized"))
    write_onnx(model, plain)
    quant_pre_process(plain, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared, quantized, Reader(), quant_format=QuantFormat.QDQ, per_channel=per_channel,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    return quantized
