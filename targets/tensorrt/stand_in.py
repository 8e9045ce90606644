"""Checking a TensorRT bundle where its engine cannot run."""

from __future__ import annotations

from edgewise.runtime.bundle import Bundle
from edgewise.targets.base import Executor
from edgewise.targets.local import local_executor


def engine_or_stand_in(bundle: Bundle) -> Executor:
    """The engine on this machine's GPU, or the ONNX that it was built from in ONNX Runtime; ``how`` says which and why."""
    engine = local_executor(bundle)
    if isinstance(engine, Executor):
        return engine
    from edgewise.runtime.onnx_file import read_onnx
    from edgewise.runtime.onnx_runner import OnnxRunner
    from edgewise.targets.tensorrt.emulate import RoundExplicitly

    settings = bundle.manifest["engine"]["settings"]
    model = read_onnx(bundle.file(settings["onnx"]))
    RoundExplicitly()(model)
    runner = OnnxRunner(model)
    built = (
        f"engine for SM{settings['sm']}"
        if settings["engine_built"]
        else f"engine for SM{settings['sm']}, yet to be built,"
    )
    how = (
        f"{built} not run: {engine} The ONNX that it is built from ({settings['precision']}) was run instead, "
        "in ONNX Runtime on the processor, with float16 rounding after every operator"
    )
    return Executor(runner.run, how, stand_in=True)
