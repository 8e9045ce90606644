"""The options that several verbs share, each described once."""

from __future__ import annotations

from typing import Annotated

import typer

_SOURCE = "Opening the source"
_DATA = "Data"
_QUANTIZE = "Quantizing"
_PRUNE = "Pruning"
_GATES = "Gates (exit code 1)"
_OUTPUT = "Output"


def _targets(incomplete: str) -> list[str]:
    from edgewise.targets import targets

    return [name for name in sorted(targets()) if name.startswith(incomplete)]


def _devices(incomplete: str) -> list[str]:
    from edgewise.targets import device_profiles

    return [name for name in device_profiles() if name.startswith(incomplete)]


def _reachable(incomplete: str) -> list[str]:
    from edgewise.runtime.devices.address import LOCAL, known_devices

    return [name for name in (LOCAL, *known_devices()) if name.startswith(incomplete)]


Source = Annotated[
    str, typer.Argument(metavar="SOURCE", help=".pt2, TorchScript, .pth/.th/.pt/.safetensors with --arch, or .onnx.")
]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="An ONNX file.")]
BundlePath = Annotated[str, typer.Argument(metavar="BUNDLE", help="NAME.edge, or a zip of one.")]
OutputFile = Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="Where to write; whole or not at all.")]

Arch = Annotated[
    str | None,
    typer.Option(
        "--arch",
        metavar="ARCH",
        rich_help_panel=_SOURCE,
        help="Architecture of a state dict: module:callable, path.py:callable, timm:NAME or hf:DIR.",
    ),
]
ArchArg = Annotated[
    list[str] | None,
    typer.Option(
        "--arch-arg",
        metavar="KEY=VALUE",
        rich_help_panel=_SOURCE,
        help="A keyword argument for the architecture; repeat it.",
    ),
]
Input = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="SPEC",
        rich_help_panel=_SOURCE,
        help="An input, such as x=f32[1,3,224,224]; a name as a dim makes it dynamic. Repeat it.",
    ),
]
TrustPickle = Annotated[
    bool,
    typer.Option(
        "--trust-pickle",
        rich_help_panel=_SOURCE,
        help="Unpickle whatever the checkpoint holds; it can then run any code.",
    ),
]
Opset = Annotated[
    int | None,
    typer.Option(
        "--opset",
        metavar="N",
        rich_help_panel=_SOURCE,
        help="ONNX opset; by default the lowest from 18 up that every target takes.",
    ),
]
DropOutput = Annotated[
    list[str] | None,
    typer.Option(
        "--drop-output",
        metavar="NAME",
        rich_help_panel=_SOURCE,
        help="An output to leave out, such as one of training; repeat it.",
    ),
]
NoFuse = Annotated[
    bool,
    typer.Option(
        "--no-fuse",
        rich_help_panel=_SOURCE,
        help="Do not let multi-branch blocks merge themselves (reparameterize, fuse, switch_to_deploy).",
    ),
]

Preprocess = Annotated[
    str | None,
    typer.Option(
        "--preprocess",
        metavar="STEPS",
        rich_help_panel=_DATA,
        help="For images: resize=256,crop=224,color=rgb,scale=255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225; each key optional.",
    ),
]
Calib = Annotated[
    str | None,
    typer.Option(
        "--calib",
        metavar="DATA",
        rich_help_panel=_DATA,
        help="Calibration samples: .npz, .npy, a folder or zip of images, module:callable. Schemes w8d8… need none.",
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        rich_help_panel=_DATA,
        help="Samples: .npz, .npy, a folder or zip of images, module:callable.",
    ),
]
LabelledData = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="DATA",
        rich_help_panel=_DATA,
        help="Labelled samples (but for --metric agreement): .npz, .npy, a folder or zip of images, module:callable.",
    ),
]
Metric = Annotated[
    str,
    typer.Option(
        "--metric",
        metavar="METRIC",
        rich_help_panel=_DATA,
        help="top1, top5, agreement (with the other network's classes) or module:function.",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit", metavar="N", min=1, rich_help_panel=_DATA, help="Use this many samples, spread evenly over DATA."
    ),
]

Target = Annotated[
    str,
    typer.Option(
        "--target",
        metavar="TARGET",
        autocompletion=_targets,
        help="cpu, coreml, tensorrt, null, or another one that is installed.",
    ),
]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="TARGET",
        autocompletion=_targets,
        help="cpu, coreml, tensorrt, null, or another one that is installed; repeat it.",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="PROFILE",
        autocompletion=_devices,
        help="A device profile (`edgewise devices` lists them); by default the target's.",
    ),
]
Devices = Annotated[
    list[str] | None,
    typer.Option(
        "--device",
        metavar="PROFILE",
        autocompletion=_devices,
        help="A device profile; each goes to the targets that it lists. Repeat it.",
    ),
]
Where = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="DEVICE",
        autocompletion=_reachable,
        help="local, ssh://user@host[:port][?key=FILE], adb:SERIAL, or a name in devices.toml.",
    ),
]
Threads = Annotated[
    int,
    typer.Option(
        "--threads",
        metavar="N",
        min=0,
        help="Threads of the engine; 0 is all cores, or for an ONNX file what OMP_NUM_THREADS says.",
    ),
]

Scheme = Annotated[
    str | None,
    typer.Option(
        "--scheme",
        metavar="SCHEME",
        rich_help_panel=_QUANTIZE,
        help="int8, or another that the target has (`edgewise devices`).",
    ),
]
Method = Annotated[
    str | None,
    typer.Option(
        "--method",
        metavar="METHOD",
        rich_help_panel=_QUANTIZE,
        help="How ranges are found: mse, minmax, average, percentile or entropy.",
    ),
]
Samples = Annotated[
    int | None,
    typer.Option(
        "--samples",
        metavar="N",
        min=1,
        rich_help_panel=_QUANTIZE,
        help="How many calibration samples to use; 128 by default, 512 where weights are rounded for what they read.",
    ),
]
Rounding = Annotated[
    str | None,
    typer.Option(
        "--rounding",
        metavar="ROUNDING",
        rich_help_panel=_QUANTIZE,
        help="How weights become integers: auto, squant, gptq, adaround or blocks.",
    ),
]
Wide = Annotated[
    list[str] | None,
    typer.Option(
        "--wide", metavar="LAYER", rich_help_panel=_QUANTIZE, help="A layer that gets 8 bits in any scheme; repeat it."
    ),
]
Analyze = Annotated[
    bool,
    typer.Option(
        "--analyze",
        rich_help_panel=_QUANTIZE,
        help="Also measure what each layer costs when it alone is quantized, and list the worst first.",
    ),
]
Judge = Annotated[
    str | None,
    typer.Option(
        "--judge",
        metavar="DATA",
        rich_help_panel=_QUANTIZE,
        help="Labelled samples, apart from --calib: put back as few layers as keep --metric within --max-drop on them.",
    ),
]
MaxBytes = Annotated[
    int | None,
    typer.Option(
        "--max-bytes",
        metavar="N",
        min=1,
        rich_help_panel=_QUANTIZE,
        help="With fewer than 8 bits: give 8 to the layers that lose most per byte, while weights fit into N bytes.",
    ),
]
Floor = Annotated[
    float | None,
    typer.Option(
        "--floor",
        metavar="DB",
        min=0,
        rich_help_panel=_QUANTIZE,
        help="Below this signal-to-noise ratio of the outputs, put the noisiest small layers back to float; 0 is never. [default: as the target]",
    ),
]
FloatShare = Annotated[
    float | None,
    typer.Option(
        "--float-share",
        metavar="SHARE",
        min=0,
        max=1,
        rich_help_panel=_QUANTIZE,
        help="The largest share of the multiply-accumulates that --floor may put back; 0.15 by default.",
    ),
]
KeepFloat = Annotated[
    list[str] | None,
    typer.Option(
        "--keep-float", metavar="LAYER", rich_help_panel=_QUANTIZE, help="A layer to leave in float; repeat it."
    ),
]
RandomCalibration = Annotated[
    bool,
    typer.Option(
        "--allow-random-calibration",
        rich_help_panel=_QUANTIZE,
        help="Calibrate on random data; accuracy is then left to luck.",
    ),
]

Pattern = Annotated[
    str | None,
    typer.Option(
        "--pattern",
        metavar="PATTERN",
        rich_help_panel=_PRUNE,
        help="block:RxC, 2:4, N:M, unstructured; smaller tensors: channel, head, width, low-rank, slice.",
    ),
]
Sparsity = Annotated[
    float | None,
    typer.Option(
        "--sparsity",
        metavar="FRACTION",
        min=0.0,
        max=1.0,
        rich_help_panel=_PRUNE,
        help="The fraction of weights to remove.",
    ),
]
Skip = Annotated[
    list[str] | None,
    typer.Option("--skip", metavar="LAYER", rich_help_panel=_PRUNE, help="A layer not to prune; repeat it."),
]

Criterion = Annotated[
    str | None,
    typer.Option(
        "--criterion",
        metavar="NAME",
        rich_help_panel=_PRUNE,
        help="How weights are judged: magnitude; or, with --calib, wanda or second_order.",
    ),
]

Densities = Annotated[
    str | None,
    typer.Option(
        "--densities",
        metavar="RULE",
        rich_help_panel=_PRUNE,
        help="How the sparsity is shared out over layers: uniform, erk, global; with --calib: sensitivity, learned.",
    ),
]

Reconstruct = Annotated[
    bool,
    typer.Option(
        "--reconstruct",
        rich_help_panel=_PRUNE,
        help="Then train what stays on --calib, without labels, towards the network before (PyTorch).",
    ),
]

MinSqnr = Annotated[
    float | None,
    typer.Option(
        "--min-sqnr",
        metavar="DB",
        rich_help_panel=_GATES,
        help="Least SQNR of every output; 40 dB for a float engine, 10 dB for a quantized one.",
    ),
]
MinAccuracy = Annotated[
    float | None,
    typer.Option("--min-accuracy", metavar="FRACTION", rich_help_panel=_GATES, help="Least value of the metric."),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        "--max-drop", metavar="FRACTION", rich_help_panel=_GATES, help="Largest loss of the metric against the source."
    ),
]
MaxLatency = Annotated[
    float | None, typer.Option("--max-latency-ms", metavar="MS", rich_help_panel=_GATES, help="Largest median latency.")
]
Engine = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="native|onnxruntime|auto",
        help="For the target cpu: libedgewise (the default), ONNX Runtime, or whichever is faster on this machine.",
    ),
]
FullDelegation = Annotated[
    bool,
    typer.Option(
        "--require-full-delegation", rich_help_panel=_GATES, help="Every node must be taken by the target itself."
    ),
]

Json = Annotated[
    bool, typer.Option("--json", rich_help_panel=_OUTPUT, help="Print one JSON object on stdout, on failure too.")
]
ResultFile = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        rich_help_panel=_OUTPUT,
        help="Write the result there as JSON too; `edgewise report` finds it beside the bundle.",
    ),
]
