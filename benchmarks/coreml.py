"""Core ML without a Mac: is the evaluator right, what is converted beside coremltools' own converter, and what do the forms of weights cost.

    python benchmarks/coreml.py converters                     both converters on the same networks, each evaluated against PyTorch
    python benchmarks/coreml.py converters --network test_vit  some of them
    python benchmarks/coreml.py forms                          trained networks in fp32, fp16, W8, W8A8, 4-bit palette, 50 % sparse, 75 % with W8
    python benchmarks/coreml.py conversion                     seconds for DeiT-S
    … --json                                                   the same as JSON

`converters`: the evaluator shares no code with either converter. Where it computes PyTorch's numbers from a program that coremltools
made, it is right about those operations; networks are small, with seeded random weights. `forms`: the package, evaluated, beside ONNX
Runtime on the very graph that was built; bytes are those of the package's weight file over the network's in float32, and over those
of the weight file of the float32 package. Needs ../shared.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

# Packages look for optional ones by name; scripts beside this one must not answer.
sys.path = [place for place in sys.path if Path(place or ".").resolve() != Path(__file__).resolve().parent]

SEED = 0
_RIGHT_DB = 70.0
_SECONDS = 15.0
TIMM = (
    *(
        "test_byobnet",
        "test_convnext",
        "test_convnext2",
        "test_convnext3",
        "test_efficientnet",
        "test_efficientnet_evos",
    ),
    *("test_efficientnet_gn", "test_efficientnet_ln", "test_mambaout", "test_nfnet", "test_resnet", "test_vit"),
    *("test_vit2", "test_vit3", "test_vit4", "test_vit_relpos", "test_maxvit", "test_coatnet"),
    *(
        "mobilenetv3_small_050",
        "ghostnet_050",
        "lcnet_035",
        "mnasnet_050",
        "resnet10t",
        "starnet_s1",
        "efficientvit_m0",
    ),
)
FORMS = ("float32", "float16", "w8", "int8", "palette4", "sparse", "sparse75-w8")


def modules() -> dict[str, tuple[Callable[[], Any], tuple[int, ...]]]:
    """Small networks of what timm has none of: recurrent layers, transposed convolutions, encoders, heads."""
    from torch import nn

    def unet() -> Any:
        down = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.InstanceNorm2d(16, affine=True), nn.LeakyReLU(0.1))
        up = nn.Sequential(nn.ConvTranspose2d(16, 8, 4, 2, 1), nn.GroupNorm(4, 8), nn.Hardswish())
        return nn.Sequential(
            down, up, nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(8, 12, 1), nn.PixelShuffle(2)
        )

    def encoder() -> Any:
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu", norm_first=True)
        return nn.Sequential(nn.Linear(8, 32), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))

    class Recurrent(nn.Module):
        def __init__(self, kind: str) -> None:
            super().__init__()
            self.cell = getattr(nn, kind)(8, 16, batch_first=True)

        def forward(self, x: Any) -> Any:
            return self.cell(x)[0]

    activations = [
        nn.ELU(),
        nn.SELU(),
        nn.Softplus(),
        nn.Mish(),
        nn.PReLU(8),
        nn.Hardsigmoid(),
        nn.Softsign(),
        nn.CELU(),
    ]
    return {
        "unet": (unet, (1, 3, 32, 32)),
        "encoder": (encoder, (1, 12, 8)),
        "lstm": (lambda: Recurrent("LSTM"), (1, 10, 8)),
        "gru": (lambda: Recurrent("GRU"), (1, 10, 8)),
        "activations": (lambda: nn.Sequential(nn.Conv2d(3, 8, 1), *activations), (1, 3, 16, 16)),
        "pools": (
            lambda: nn.Sequential(nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d(3, 2, 1, count_include_pad=False),
                                  nn.LocalResponseNorm(3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.LogSoftmax(1)),
            (1, 3, 33, 33),
        ),
        "conv1d": (lambda: nn.Sequential(nn.Conv1d(4, 8, 5, dilation=2), nn.BatchNorm1d(8), nn.GELU()), (1, 4, 64)),
        "conv3d": (lambda: nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.ReLU(), nn.AvgPool3d(2)), (1, 2, 8, 8, 8)),
    }  # fmt: skip


def network(name: str) -> tuple[Any, tuple[int, ...]]:
    """A network in evaluation mode with seeded weights, and the shape of its input."""
    import torch

    torch.manual_seed(SEED)
    if name in modules():
        make, shape = modules()[name]
        return make().eval(), shape
    model = _beside("zoo").build(name)
    return model, (1, *model.pretrained_cfg["input_size"])


def _beside(name: str) -> ModuleType:
    """Another benchmark as a module."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def compare(names: list[str]) -> Iterator[dict[str, Any]]:
    """One row per network: what each converter's program gives beside PyTorch, in dB, or why there is none."""
    import torch

    for name in names:
        model, shape = network(name)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(SEED))
        with torch.no_grad():
            want = model(x).numpy()
        row: dict[str, Any] = {"network": name}
        for converter, convert in (("coremltools", _by_coremltools), ("edgewise", _by_edgewise)):
            start = time.monotonic()
            try:
                row[f"{converter}_db"] = round(_sqnr_db(want, convert(model, x)), 1)
            except Exception as error:  # noqa: BLE001  what the other converter raises has no common class
                row[f"{converter}_error"] = " ".join(f"{type(error).__name__}: {error}".split())[:160]
            row[f"{converter}_s"] = round(time.monotonic() - start, 1)
        yield row


def _sqnr_db(want: np.ndarray, have: np.ndarray) -> float:
    noise = float(np.sum(np.square(want - have, dtype=np.float64)))
    return 10 * float(np.log10(np.sum(np.square(want, dtype=np.float64)) / max(noise, 1e-30)))


def _by_coremltools(model: Any, x: Any) -> np.ndarray:
    import torch

    from edgewise.targets.coreml.evaluator.program import EvaluatedProgram
    from edgewise.targets.coreml.quiet import load_coremltools, quietly

    ct = load_coremltools()
    program = torch.export.export(model, (x,)).run_decompositions({})
    with tempfile.TemporaryDirectory() as folder, quietly():
        package = Path(folder) / "model.mlpackage"
        ct.convert(
            program, convert_to="mlprogram", minimum_deployment_target=ct.target.iOS17,
            compute_precision=ct.precision.FLOAT32, skip_model_load=True,
        ).save(str(package))  # fmt: skip
        evaluated = EvaluatedProgram(package)
        return next(iter(evaluated.run({next(iter(evaluated.inputs)): x.numpy()}).values()))


def _by_edgewise(model: Any, x: Any) -> np.ndarray:
    from edgewise.exporter import export
    from edgewise.runtime.tensors import TensorSpec

    exported = export(model, inputs=[TensorSpec("x", "float32", tuple(x.shape))], verify=False)
    run, _ = _built(exported.model, {"compute_precision": "float32"})
    return next(iter(run({"x": x.numpy()}).values()))


def _built(model: Any, options: dict[str, Any], device: str = "iphone-15-pro") -> tuple[Any, int]:
    """A way to compute the package, and the bytes of its weight file."""
    from dataclasses import asdict

    from edgewise.runtime.bundle import Bundle
    from edgewise.targets import BuildRequest, find_device, targets

    folder = Path(tempfile.mkdtemp())
    target = targets()["coreml"]
    result = target.build(BuildRequest(model, folder, find_device(device, "coreml"), options))
    manifest = {"engine": json.loads(json.dumps(asdict(result))), "files": dict.fromkeys(result.files, "")}
    executor = target.executor(Bundle(folder, manifest))
    if isinstance(executor, str):
        raise SystemExit(executor)
    return executor.run, sum((folder / name).stat().st_size for name in result.files if name.endswith("weight.bin"))


def forms(names: list[str], chosen_forms: list[str], samples: int) -> Iterator[dict[str, Any]]:
    """One row per trained network and form."""
    from edgewise.exporter import export
    from edgewise.runtime.data import open_data
    from edgewise.runtime.onnx_runner import OnnxRunner
    from edgewise.runtime.preprocess import Preprocess
    from edgewise.runtime.tensors import TensorSpec

    accuracy = _beside("accuracy")
    for name in names:
        chosen = accuracy.NETWORKS[name]
        if missing := accuracy.absent(chosen):
            print(f"{name}: skipped, {missing} is not there", file=sys.stderr)
            continue
        inputs = [TensorSpec.parse(chosen.input)] if chosen.input else []
        more = {"drop_outputs": ["pooler_output"]} if name == "minilm" else {}
        exported = export(accuracy._source(chosen), arch=chosen.arch, inputs=inputs, verify=False, **more)
        preprocess = Preprocess.parse(chosen.preprocess) if chosen.preprocess else None
        calib, test = (open_data(part, exported.inputs, preprocess) for part in (chosen.calib, chosen.test))
        seen = list(test.take(samples))
        float_bytes, float_file = (
            _float_bytes(exported.model),
            _built(exported.model, {"compute_precision": "float32"})[1],
        )
        for form in chosen_forms:
            model, options, device = _formed(exported.model, form, calib)
            run, weight_bytes = _built(model, options, device)
            want = [OnnxRunner(model, optimize=False).run(sample.inputs) for sample in seen]
            have = [run(sample.inputs) for sample in seen]
            source = [OnnxRunner(exported.model, optimize=False).run(sample.inputs) for sample in seen]
            yield {"network": name, "form": form, **_judged(want, have, source, [sample.label for sample in seen if chosen.metric == "top1"]),
                   "bytes": round(weight_bytes / float_bytes, 4), "of_float_file": round(weight_bytes / float_file, 4)}  # fmt: skip


def _formed(model: Any, form: str, calib: Any) -> tuple[Any, dict[str, Any], str]:
    """The graph of a form, the build's options and the device."""
    from edgewise.quantize import prune, quantize
    from edgewise.targets import find_device, targets

    if form in ("float32", "float16"):
        return model, {"compute_precision": form}, "iphone-15-pro"
    if form == "sparse":
        return prune(model, sparsity=0.5, pattern="unstructured", tables=True).model, {}, "iphone-16-pro"
    device = "iphone-15-pro"
    if form == "sparse75-w8":
        model, form, device = (
            prune(model, sparsity=0.75, pattern="unstructured", tables=True).model,
            "w8",
            "iphone-16-pro",
        )
    spec = targets()["coreml"].quantization(form, find_device(device, "coreml"))
    return quantize(model, spec, calib, samples=64).model, {}, device


def _judged(want: list[Any], have: list[Any], source: list[Any], labels: list[Any]) -> dict[str, Any]:
    """Decibels of the package against its graph, and of both against the network; top-1 of both where each sample has a label."""
    from edgewise.runtime.compare import compare_outputs

    def worst(first: list[Any], second: list[Any]) -> float:
        return round(min(parity.sqnr_db for parity in compare_outputs(first, second)), 1)

    row = {"same_graph_db": worst(want, have), "graph_db": worst(source, want), "package_db": worst(source, have)}
    if len(labels) == len(want) and len(want[0]) == 1 and None not in labels:
        for name, outputs in (("graph_top1", want), ("package_top1", have)):
            hits = [
                int(np.argmax(next(iter(out.values())))) == label for out, label in zip(outputs, labels, strict=True)
            ]
            row[name] = round(100 * float(np.mean(hits)), 2)
    return row


def _float_bytes(model: Any) -> int:
    arrays = [value.const_value for value in model.graph.initializers.values() if value.const_value is not None]
    return sum(4 * int(np.prod(array.shape)) for array in arrays if str(array.dtype) == "FLOAT")


def conversion() -> dict[str, Any]:
    """Seconds from DeiT-S as ONNX to a saved package."""
    from edgewise.exporter import export
    from edgewise.runtime.tensors import TensorSpec

    name = "deit_small_patch16_224"
    model = export(
        _beside("zoo").build(name), inputs=[TensorSpec("x", "float32", (1, 3, 224, 224))], verify=False
    ).model
    start = time.monotonic()
    _built(model, {})
    return {"network": name, "seconds": round(time.monotonic() - start, 2), "goal_s": _SECONDS}


def show(rows: list[dict[str, Any]]) -> None:
    """A table in Markdown; the columns of all rows."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(str(row.get(column, "")) for column in columns) + " |", flush=True)


def told(rows: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """All rows, each on stderr as it comes."""
    found = []
    for row in rows:
        print(json.dumps(row), file=sys.stderr, flush=True)
        found.append(row)
    return found


def main() -> int:
    """Run one of them; exit code 1 when the evaluator is wrong, or DeiT-S takes too long."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("converters", "forms", "conversion"))
    parser.add_argument("--network", action="append", default=[], help="only this one; repeatable")
    parser.add_argument(
        "--form", action="append", default=[], choices=FORMS, help="of `forms` only this one; repeatable"
    )
    parser.add_argument("--samples", type=int, default=32, help="of the test data, for `forms`")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")  # torch.export's own, one per call
    if options.what == "conversion":
        rows = [conversion()]
        good = rows[0]["seconds"] < _SECONDS
    elif options.what == "forms":
        networks = options.network or ["resnet20", "squeezenet", "minilm", "fastestdet", "ultraface"]
        rows = told(forms(networks, options.form or list(FORMS), options.samples))
        good = all(row["package_db"] >= row["graph_db"] - 3 or row["same_graph_db"] >= 40 for row in rows)
    else:
        rows = told(compare(options.network or [*TIMM, *modules()]))
        good = all(row["coremltools_db"] >= _RIGHT_DB for row in rows if "coremltools_db" in row)
    if options.json:
        print(json.dumps({"schema_version": 1, "rows": rows}, indent=1))
    else:
        show(rows)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
