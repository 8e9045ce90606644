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
    half = settings["precision"] == "float16"
    how = (
        f"the engine for SM{settings['sm']} was not run ({engine}); the ONNX that it is built from was run instead, "
        "in ONNX Runtime on the processor" + (", with float16 rounding after every operator" if half else "")
    )
    return Executor(OnnxRunner(model).run, how, stand_in=True)
