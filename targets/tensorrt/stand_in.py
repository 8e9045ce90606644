"""Checking a TensorRT bundle where its engine cannot run."""

from __future__ import annotations

from edgewise.runtime.bundle import Bundle
from edgewise.runtime.onnx_file import read_onnx
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.targets.base import Executor
from edgewise.targets.local import local_executor
from edgewise.targets.tensorrt.emulate import RoundExplicitly


def engine_or_stand_in(bundle: Bundle) -> Executor:
    """The engine on this machine's GPU, or the ONNX that it was built from in ONNX Runtime; ``how`` says which and why."""
    settings = bundle.manifest["engine"]["settings"]
    engine = local_executor(bundle) if settings["engine_built"] else "it is yet to be built on the device"
    if isinstance(engine, Executor):
        return engine
    model = read_onnx(bundle.file(settings["onnx"]))
    RoundExplicitly()(model)
    short = settings["precision"] if settings["precision"] != "float32" else ""
    built_for = settings["sm"] if isinstance(settings["sm"], list) else [settings["sm"]]
    how = (
        f"the engine for {' and '.join(f'SM{sm}' for sm in built_for)} was not run ({engine}); the ONNX that it is built from was run instead, "
        "in ONNX Runtime on the processor" + (f", with {short} rounding after every operator" if short else "")
    )
    outputs = [spec.name for spec in bundle.outputs]  # without those that are marked
    return Executor(OnnxRunner(model, outputs=outputs).run, how, stand_in=True, graph=model)
