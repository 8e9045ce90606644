"""TensorRT for RTX on a machine with an NVIDIA GPU, beside torch.compile and ONNX Runtime.

    python benchmarks/gpu.py probe --results gpu.jsonl                  which engines this GPU opens and runs, edgewise's own check aside
    python benchmarks/gpu.py compare --results gpu.jsonl                latencies of three networks, batch 1 and 32
    python benchmarks/gpu.py compare --results gpu.jsonl --on cpu --network efficientvit_m4 --batch 1    a rehearsal without a GPU

Networks have seeded random weights (`benchmarks/zoo.py`): a latency does not depend on them. `2:4` is float16 with the smaller half of every
four weights set to zero. TensorRT's times are those of `edgewise profile` with the copies taken apart (`phases_ms`); torch and ONNX Runtime read and
write tensors on the device, so TensorRT's `compute` is what they stand beside. What does not run has the reason in its row; a later call goes on
where this one ended. It has been rehearsed on a processor, with `torch.compile` left out; no GPU has seen it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Packages look for optional ones by name; scripts beside this one must not answer ("tensorrt" among them).
sys.path = [place for place in sys.path if Path(place or ".").resolve() != Path(__file__).resolve().parent]

NETWORKS = ("deit_small_patch16_224", "resnet50", "efficientvit_m4")
BATCHES = (1, 32)
FORMS = ("float32", "float16", "int8", "2:4")
_PROFILES = {75: "t4", 86: "rtx-3060", 89: "rtx-4070", 120: "rtx-5080"}
_NEAREST = 86  # of the GPUs that TensorRT for RTX builds for, the one to build for when this one is none of them
_WARM_S, _TIMED_S, _MOST = 1.0, 3.0, 2000


def zoo_network(name: str) -> Any:
    """The timm model, with weights drawn anew."""
    spec = importlib.util.spec_from_file_location("benchmark_zoo", Path(__file__).with_name("zoo.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.build(name)


def machine(on: str) -> dict[str, Any]:
    """The GPU, its driver and the versions of what ran; of a processor the versions alone."""
    from importlib.metadata import PackageNotFoundError, version

    told: dict[str, Any] = {"on": on}
    for package in ("tensorrt_rtx", "torch", "onnxruntime", "onnxruntime-gpu"):
        try:
            told[package] = version(package)
        except PackageNotFoundError:
            continue
    if on == "cuda":
        from edgewise.runtime.cuda import Gpu

        gpu = Gpu()
        module = Path("/sys/module/nvidia/version")
        told |= {"gpu": gpu.name, "sm": gpu.sm, "driver": module.read_text().strip() if module.is_file() else "unknown"}
    return told


def timed(run: Callable[[], Any], wait: Callable[[], Any]) -> dict[str, float]:
    """Median and extremes of one run in milliseconds, each waited for; after a second of running warm."""
    end = time.perf_counter() + _WARM_S
    run(), wait()
    while time.perf_counter() < end:
        run()
        wait()
    samples: list[float] = []
    end = time.perf_counter() + _TIMED_S
    while len(samples) < 3 or (time.perf_counter() < end and len(samples) < _MOST):
        start = time.perf_counter()
        run()
        wait()
        samples.append(1e3 * (time.perf_counter() - start))
    return {
        "median_ms": statistics.median(samples),
        "min_ms": min(samples),
        "max_ms": max(samples),
        "runs": len(samples),
    }


def torch_compiled(model: Any, form: str, batch: int, size: tuple[int, ...], on: str) -> dict[str, Any]:
    """``torch.compile``, with CUDA graphs on a GPU."""
    import torch

    dtype = {"float32": torch.float32, "float16": torch.float16}[form]
    network = model.to(on, dtype).eval()
    x = torch.rand(batch, *size, device=on, dtype=dtype)
    compiled = torch.compile(network, mode="max-autotune" if on == "cuda" else "default")
    with torch.inference_mode():
        return timed(lambda: compiled(x), torch.cuda.synchronize if on == "cuda" else lambda: None)


def onnxruntime_session(graph: Path, form: str, batch: int, size: tuple[int, ...], on: str) -> dict[str, Any]:
    """ONNX Runtime with inputs and outputs that lie on the device."""
    import numpy as np
    import onnxruntime

    provider = "CUDAExecutionProvider" if on == "cuda" else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        return {"error": f"this ONNX Runtime has no {provider}"}
    session = onnxruntime.InferenceSession(str(graph), providers=[provider])
    binding = session.io_binding()
    first = session.get_inputs()[0]
    dtype = np.float16 if "float16" in first.type else np.float32
    x = np.random.default_rng(0).random((batch, *size)).astype(dtype)
    binding.bind_ortvalue_input(first.name, onnxruntime.OrtValue.ortvalue_from_numpy(x, on, 0))
    for output in session.get_outputs():
        binding.bind_output(output.name, on)
    return timed(lambda: session.run_with_iobinding(binding), lambda: None)


def tensorrt_engine(graph: Path, form: str, device: str, folder: Path) -> dict[str, Any]:
    """Built and profiled by edgewise."""
    import edgewise
    from edgewise.runtime.bundle import open_bundle
    from edgewise.verbs.profile import profile

    bundle = folder / f"{graph.stem}.edge"
    precision = "float32" if form == "float32" else "float16"
    edgewise.build(graph, bundle, target="tensorrt", device=device, options={"precision": precision})
    row = {"products": open_bundle(bundle).manifest["engine"]["proof"]["products"]}
    told = profile(bundle)
    latency = told["latency_ms"]
    return row | {
        "median_ms": latency["median"],
        "interval_ms": latency["median_interval"],
        "phases_ms": told.get("phases_ms"),
    }


def graph_of(name: str, form: str, batch: int, device: str, folder: Path) -> Path:
    """The network as ONNX in one of the forms; what was made before is taken as it lies there."""
    import edgewise
    from edgewise.exporter import export
    from edgewise.runtime.onnx_file import write_onnx
    from edgewise.runtime.tensors import TensorSpec
    from edgewise.verbs.quantize import quantize

    plain = folder / f"{name}-{batch}.onnx"
    if not plain.is_file():
        spec = TensorSpec("image", "float32", (batch, 3, 224, 224))
        write_onnx(export(zoo_network(name), inputs=[spec], verify=False).model, plain)
    made = folder / f"{name}-{batch}-{form.replace(':', 'of')}.onnx"
    if form in ("int8", "float16"):
        scheme = "fp16" if form == "float16" else "int8"
        quantize(plain, made, target="tensorrt", device=device, scheme=scheme, samples=1, allow_random_calibration=True)
    elif form == "2:4":
        edgewise.prune(plain, made, pattern="2:4", sparsity=0.5)
    return made if made.is_file() else plain


def wanted(options: argparse.Namespace) -> Iterator[tuple[str, int, str, str]]:
    """Network, batch, form and runner of what the file of results lacks."""
    lines = options.results.read_text(encoding="utf-8").splitlines() if options.results.is_file() else []
    known = {
        (row["network"], row["batch"], row["form"], row["runner"]) for row in map(json.loads, lines) if "network" in row
    }
    for name in options.network or NETWORKS:
        for batch in options.batch or BATCHES:
            for form in FORMS:
                runners = (
                    ("tensorrt", "torch.compile", "onnxruntime") if form in ("float32", "float16") else ("tensorrt",)
                )
                yield from ((name, batch, form, each) for each in runners if (name, batch, form, each) not in known)


def compare(options: argparse.Namespace) -> None:
    """A row for each network, batch, form and runner."""
    from edgewise.runtime.errors import EdgewiseError

    here = machine(options.on)
    device = _PROFILES.get(here.get("sm", 0), _PROFILES[_NEAREST])
    with tempfile.TemporaryDirectory() as scratch:
        for name, batch, form, runner in list(wanted(options)):
            try:
                took = _one(name, batch, form, runner, device, options.on, Path(scratch))
            except (EdgewiseError, RuntimeError, OSError) as error:  # what a GPU may refuse: it is the finding
                took = {"error": " ".join(str(error).split())[:600]}
            write(
                options.results,
                {"network": name, "batch": batch, "form": form, "runner": runner, **took, "machine": here},
            )


def _one(name: str, batch: int, form: str, runner: str, device: str, on: str, folder: Path) -> dict[str, Any]:
    size = (3, 224, 224)
    if runner == "torch.compile":
        return torch_compiled(zoo_network(name), form, batch, size, on)
    graph = graph_of(name, form, batch, device, folder)
    if runner == "onnxruntime":
        return onnxruntime_session(graph, form, batch, size, on)
    return tensorrt_engine(graph, form, device, folder)


def probe(options: argparse.Namespace) -> None:
    """A float16 product built for each compute capability, and for the current device, opened and run by TensorRT for RTX itself."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from edgewise.runtime.errors import EdgewiseError
    from edgewise.targets.tensorrt.vendor import captured, parse, tensorrt_rtx

    half = TensorProto.FLOAT16
    weights = numpy_helper.from_array(np.eye(64, dtype=np.float16), "w")
    ends = [helper.make_tensor_value_info(name, half, [64, 64]) for name in "xy"]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")], "probe", ends[:1], ends[1:], [weights]
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(data)
    trt, here = tensorrt_rtx(), machine(options.on)
    for name, capability in trt.ComputeCapability.__members__.items():
        if name == "NONE":
            continue
        parsed = parse(data.SerializeToString())
        config = parsed.builder.create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(capability, 0)
        with captured() as messages:
            plan = parsed.builder.build_serialized_network(parsed.network, config)
        row: dict[str, Any] = {"probe": name, "builds": plan is not None, "said": messages.errors[-2:], "machine": here}
        if plan is not None:
            try:
                row |= _opened(trt, bytes(plan))
            except EdgewiseError as error:
                row |= {"opens": False, "why": str(error)}
        write(options.results, row)


def _opened(trt: Any, plan: bytes) -> dict[str, Any]:
    """Whether TensorRT for RTX opens the plan here, and whether the product of the unit matrix gives back what went in."""
    import numpy as np

    from edgewise.runtime.cuda import Gpu
    from edgewise.targets.tensorrt.vendor import captured

    gpu = Gpu()
    with captured() as messages:
        runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))  # it must outlive the engine
        engine = runtime.deserialize_cuda_engine(plan)
        context = engine.create_execution_context() if engine is not None else None
    if context is None:
        return {"opens": False, "why": messages.errors[-2:]}
    x = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float16)
    y = np.zeros_like(x)
    places = {name: gpu.buffer(array.nbytes) for name, array in (("x", x), ("y", y))}
    gpu.upload(x, places["x"])
    for name, memory in places.items():
        context.set_tensor_address(name, memory.address)
    ran = bool(context.execute_async_v3(gpu.stream))
    gpu.download(places["y"], y)
    gpu.wait()
    return {"opens": True, "runs": ran, "right": bool(np.array_equal(x, y))}


def write(results: Path, row: dict[str, Any]) -> None:
    """Append the row, and tell it."""
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(
        json.dumps({key: value for key, value in row.items() if key != "machine"}),
        file=sys.stderr,
        flush=True,
    )


def main() -> int:
    """Run one of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("probe", "compare"))
    parser.add_argument(
        "--results", type=Path, required=True, help="file to which rows are added, one JSON object a line"
    )
    parser.add_argument("--on", choices=("cuda", "cpu"), default="cuda", help="cpu rehearses without a GPU")
    parser.add_argument("--network", action="append", choices=NETWORKS, help="this one; repeatable")
    parser.add_argument("--batch", action="append", type=int, help="this batch; repeatable")
    options = parser.parse_args()
    {"probe": probe, "compare": compare}[options.what](options)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
