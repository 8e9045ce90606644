#!/usr/bin/env python3
"""Build model.engine from model.onnx on this machine, with its own TensorRT (10 or 11) or with trtexec.

Lies beside model.onnx and build_settings.json and needs nothing but TensorRT; it runs on Python 3.8 and newer. It checks
that the ONNX is the one that was meant and that the GPU is the one that it was meant for, builds, reads back what the
engine does layer by layer, and writes the engine only when the precision that was asked for is really in it.

    python3 build_on_device.py                  # TensorRT's Python package, else trtexec
    python3 build_on_device.py --trtexec PATH   # this trtexec
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

SETTINGS, ONNX, MANIFEST = "build_settings.json", "model.onnx", "manifest.json"
ENGINE, REPORT, LAYERS = "model.engine", "model.engine.json", "layers.json"
SCHEMA_VERSION = 1
OLDEST_MAJOR = 10  # strongly typed networks with int8 Q/DQ
TRTEXEC_PLACES = ("/usr/src/tensorrt/bin/trtexec", "/opt/tensorrt/bin/trtexec")
_DTYPES = ("Int8", "Half", "FP16", "BFloat16", "BF16", "Float", "FP32", "FP8", "Int32", "Int64", "Bool")
_SAME = {"Half": "FP16", "Float": "FP32", "BFloat16": "BF16"}
# Our names of types and the inspector's, the narrowest first.
_ASKED = {"int8": "Int8", "float8": "FP8", "float16": "FP16", "bfloat16": "BF16", "float32": "FP32"}
_OURS = {theirs: ours for ours, theirs in _ASKED.items()}
FOLDED = "no kernel of its own"
_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_GENERATED = ("kgen", "ForeignNode", "Myelin")  # may begin with a cast: any type that they read counts
_COMPATIBLE = {"ampere_plus": "ampere+", "same_compute_capability": "sameComputeCapability"}
_NAMED_AT_MOST = 8


class BuildError(Exception):
    """Something that the person at the device can do something about; exit code 2 (1 for a precision that did not happen)."""

    def __init__(self, text: str, code: int = 2) -> None:
        super().__init__(text)
        self.code = code


def main(arguments: list[str] | None = None) -> int:
    """Run the program; gives its exit code."""
    args = read_arguments(arguments)
    try:
        build(args)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    return 0


def read_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description="Build model.engine on this machine from the model.onnx beside this script."
    )
    parser.add_argument("--folder", type=Path, default=Path(__file__).resolve().parent, help="where model.onnx lies")
    parser.add_argument("--trtexec", nargs="?", const="", help="use trtexec (found by itself, or at this path)")
    parser.add_argument("--timing-cache", type=Path, help="file that remembers kernel timings from build to build")
    parser.add_argument("--workspace-mib", type=int, help="scratch memory that the builder may plan for")
    parser.add_argument("--any-gpu", action="store_true", help="build for this GPU although another was meant")
    parser.add_argument(
        "--allow-other-precision", action="store_true", help="keep an engine without the precision asked for"
    )
    return parser.parse_args(arguments)


def build(args: argparse.Namespace) -> None:
    """Check, build, read back, write."""
    settings = read_settings(args.folder)
    if args.workspace_mib is not None:
        settings["workspace_bytes"] = args.workspace_mib << 20
    if args.timing_cache is None and settings.get("timing_cache"):
        args.timing_cache = Path(settings["timing_cache"]).expanduser()
    gpu = find_gpu()
    check_gpu(gpu, settings, args.any_gpu)
    trt = None if args.trtexec is not None else import_tensorrt()
    if trt is not None:
        engine, version, listing = build_with_python(trt, settings, args)
    else:
        engine, version, listing = build_with_trtexec(find_trtexec(args.trtexec), settings, args)
    layers = read_layers(listing)
    print_layers(layers)
    made = made_products(layers, settings["products"])
    check_precision(layers, made, settings, args.allow_other_precision)
    known = {"tensorrt": version, "gpu": gpu, "onnx_sha256": settings["onnx_sha256"]}
    write(args.folder, engine, {**known, "layers": layers, "proof": proof(layers, made, settings, known)})


def read_settings(folder: Path) -> dict[str, Any]:
    """Read build_settings.json and check that model.onnx is the file that it speaks of."""
    try:
        settings: dict[str, Any] = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        digest = hashlib.sha256((folder / ONNX).read_bytes()).hexdigest()
    except (OSError, ValueError) as error:
        raise BuildError(f"cannot read the build kit in {folder}: {error}. Copy the whole folder again.") from error
    if settings.get("schema_version") != SCHEMA_VERSION:
        raise BuildError(f"{SETTINGS} has schema_version {settings.get('schema_version')}, expected {SCHEMA_VERSION}.")
    if digest != settings["onnx_sha256"]:
        raise BuildError(
            f"{ONNX} has sha256 {digest}, expected {settings['onnx_sha256']}. Copy the whole folder again."
        )
    return settings


def find_gpu() -> dict[str, Any]:
    """Name and compute capability (87 for 8.7) of GPU 0, asked of the driver."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise BuildError(f"this machine has no NVIDIA driver ({error}). Run this on the device.") from error
    device, major, minor, name = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(128)
    steps: tuple[Callable[[], int], ...] = (
        lambda: cuda.cuInit(0),
        lambda: cuda.cuDeviceGet(ctypes.byref(device), 0),
        lambda: cuda.cuDeviceGetName(name, len(name), device),
        lambda: cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, device),  # COMPUTE_CAPABILITY_MAJOR
        lambda: cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, device),  # COMPUTE_CAPABILITY_MINOR
    )
    for step in steps:
        status = step()
        if status != 0:
            raise BuildError(f"the NVIDIA driver finds no usable GPU (CUDA error {status}).")
    sm = 10 * major.value + minor.value
    return {"name": name.value.decode(errors="replace"), "sm": sm, "driver": driver_version()}


def driver_version() -> str:
    """The version of the NVIDIA driver; a Jetson's is part of its kernel and has none of its own."""
    try:
        return Path("/sys/module/nvidia/version").read_text(encoding="utf-8").strip()
    except OSError:
        return "unknown"


def check_gpu(gpu: dict[str, Any], settings: dict[str, Any], any_gpu: bool) -> None:
    """An engine fits one compute capability; building for another one than was meant must be meant too."""
    if gpu["sm"] != settings["sm"] and not any_gpu:
        raise BuildError(
            f"this GPU ({gpu['name']}) is SM{gpu['sm']}, the bundle is for SM{settings['sm']}. "
            "Run this on the device that it was made for, or pass --any-gpu."
        )


def import_tensorrt() -> Any:
    """TensorRT's Python package, or None."""
    try:
        import tensorrt
    except ImportError:
        return None
    return tensorrt


def build_with_python(trt: Any, settings: dict[str, Any], args: argparse.Namespace) -> tuple[bytes, str, str]:
    """Build with the Python package; gives the engine, TensorRT's version and the inspector's JSON."""
    version = str(trt.__version__)
    major = int(version.split(".", maxsplit=1)[0])
    check_version(version, major)
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    dla = settings["dla_core"] is not None
    if dla and builder.num_DLA_cores <= settings["dla_core"]:
        raise BuildError(
            f"DLA core {settings['dla_core']} was asked for; TensorRT {version} finds {builder.num_DLA_cores} here."
        )
    network = builder.create_network(network_flags(trt, weakly_typed=dla and major < 11))
    parser = trt.OnnxParser(network, logger)
    if dla and hasattr(trt.OnnxParserFlag, "ADJUST_FOR_DLA"):
        parser.set_flag(trt.OnnxParserFlag.ADJUST_FOR_DLA)
    if not parser.parse((args.folder / ONNX).read_bytes()):
        reasons = "; ".join(parser_error(parser.get_error(index)) for index in range(parser.num_errors))
        raise BuildError(f"TensorRT {version} does not take the network: {reasons}.")
    config, cache = make_config(trt, builder, settings, args, major)
    print(f"building for SM{settings['sm']} with TensorRT {version}; this can take minutes", flush=True)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError(f"TensorRT {version} could not build the engine; its log above says why.")
    if args.timing_cache is not None and cache is not None:
        keep_timings(args.timing_cache, bytes(config.get_timing_cache().serialize()))
    engine = bytes(plan)
    runtime = trt.Runtime(logger)
    if dla:
        runtime.DLA_core = settings["dla_core"]
    if settings.get("version_compatible"):
        # Such an engine carries a runtime of the TensorRT that made it: this one, just now.
        runtime.engine_host_code_allowed = True
    opened = runtime.deserialize_cuda_engine(engine)
    if opened is None:
        raise BuildError(f"TensorRT {version} cannot open the engine that it built; its log above says why.")
    listing = opened.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    return engine, version, str(listing)


def keep_timings(path: Path, timings: bytes) -> None:
    """For the next build; without them it is slower, no more."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(timings)
    except OSError as error:
        print(f"the timings were not kept: {error}", file=sys.stderr)


def check_version(version: str, major: int) -> None:
    """Older ones choose precision by themselves."""
    if major < OLDEST_MAJOR:
        raise BuildError(
            f"TensorRT {version} is too old: found {major}, expected {OLDEST_MAJOR} or newer (JetPack 6 or newer)."
        )


def network_flags(trt: Any, weakly_typed: bool) -> int:
    """TensorRT 10 must be told to take the types from the graph; 11 always does, and one day the flag will be gone.

    Up to TensorRT 10 a DLA takes weakly typed networks only.
    """
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None or weakly_typed else 1 << int(flag)


def make_config(
    trt: Any, builder: Any, settings: dict[str, Any], args: argparse.Namespace, major: int
) -> tuple[Any, Any]:
    """The builder's configuration, and its timing cache (None without one)."""
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if not settings["tf32"]:
        config.clear_flag(trt.BuilderFlag.TF32)
    set_compatibility(trt, config, settings)
    if settings["workspace_bytes"] is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings["workspace_bytes"])
    if settings["dla_core"] is not None:
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = settings["dla_core"]
        if settings["gpu_fallback"]:
            config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
        if major < 11:
            for name in precision_flags(settings):
                config.set_flag(getattr(trt.BuilderFlag, name))
    if settings["profiles"]:
        profile = builder.create_optimization_profile()
        for name, ranges in settings["profiles"].items():
            profile.set_shape(name, ranges["min"], ranges["opt"], ranges["max"])
        config.add_optimization_profile(profile)
    cache = None
    if args.timing_cache is not None:
        known = args.timing_cache.read_bytes() if args.timing_cache.exists() else b""
        # What another TensorRT or nobody wrote is no cache: begin a new one.
        cache = config.create_timing_cache(known) or config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return config, cache


def set_compatibility(trt: Any, config: Any, settings: dict[str, Any]) -> None:
    """Sparse kernels, and engines that open in later versions or on other GPUs."""
    if settings.get("sparse"):
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    if settings.get("version_compatible"):
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if settings.get("hardware_compatible"):
        level = getattr(trt.HardwareCompatibilityLevel, settings["hardware_compatible"].upper(), None)
        if level is None:
            raise BuildError(f"this TensorRT has no hardware compatibility level {settings['hardware_compatible']!r}.")
        config.hardware_compatibility_level = level


def precision_flags(settings: dict[str, Any]) -> list[str]:
    """What a weakly typed network must be allowed."""
    return (["FP16"] if settings["precision"] == "float16" else []) + (["INT8"] if settings["quantized"] else [])


def parser_error(error: Any) -> str:
    """One of the parser's errors with the node it speaks of, where this TensorRT says which."""
    name = error.node_name() if hasattr(error, "node_name") else f"number {error.node()}"
    operator = f" ({error.node_operator()})" if hasattr(error, "node_operator") else ""
    return f"node {name}{operator}: {' '.join(str(error.desc()).split())}"


def find_trtexec(given: str | None) -> str:
    """The trtexec to use."""
    for place in [given] if given else [shutil.which("trtexec"), *TRTEXEC_PLACES]:
        if place and Path(place).is_file():
            return place
    raise BuildError(
        f"no trtexec at {given}." if given else
        "neither TensorRT's Python package nor trtexec is on this machine. On a Jetson: sudo apt install tensorrt."
    )  # fmt: skip


def build_with_trtexec(program: str, settings: dict[str, Any], args: argparse.Namespace) -> tuple[bytes, str, str]:
    """Build with trtexec; gives the engine, TensorRT's version and the inspector's JSON."""
    greeting = subprocess.run([program, "--help"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\[TensorRT v(\d+)\]", greeting)
    number = int(found[1]) if found else 0
    major = number // 10000  # v100300 is 10.3.0; up to 8 it was v8601
    version = f"{major}.{number // 100 % 100}.{number % 100}"
    check_version(version if major else f"v{number}", major)
    draft, listing = args.folder / f"{ENGINE}.draft", args.folder / LAYERS
    try:
        command = trtexec_command(program, settings, args, major, draft, listing)
        print(" ".join(command), flush=True)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not draft.is_file():
            tail = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
            raise BuildError(f"trtexec failed with exit code {done.returncode}:\n{tail}")
        return draft.read_bytes(), version, listing.read_text(encoding="utf-8") if listing.is_file() else ""
    finally:
        draft.unlink() if draft.exists() else None
        listing.unlink() if listing.exists() else None


def trtexec_command(
    program: str, settings: dict[str, Any], args: argparse.Namespace, major: int, engine: Path, listing: Path
) -> list[str]:
    """The command line that asks for the same engine as the Python package is asked for."""
    command = [program, f"--onnx={args.folder / ONNX}", f"--saveEngine={engine}", "--skipInference"]
    command += ["--profilingVerbosity=detailed", f"--exportLayerInfo={listing}"]
    dla = settings["dla_core"] is not None
    if dla:
        command += [f"--useDLACore={settings['dla_core']}"] + ["--allowGPUFallback"] * settings["gpu_fallback"]
    if major < 11:
        command += [f"--{name.lower()}" for name in precision_flags(settings)] if dla else ["--stronglyTyped"]
    if not settings["tf32"]:
        command.append("--noTF32")
    if settings.get("sparse"):
        command.append("--sparsity=enable")
    if settings.get("version_compatible"):
        command.append("--versionCompatible")
    if settings.get("hardware_compatible"):
        command.append(f"--hardwareCompatibilityLevel={_COMPATIBLE[settings['hardware_compatible']]}")
    if settings["workspace_bytes"] is not None:
        command.append(f"--memPoolSize=workspace:{max(1, settings['workspace_bytes'] >> 20)}M")
    for key in ("min", "opt", "max") if settings["profiles"] else ():
        shapes = (f"{name}:{'x'.join(map(str, ranges[key]))}" for name, ranges in settings["profiles"].items())
        command.append(f"--{key}Shapes={','.join(shapes)}")
    if args.timing_cache is not None:
        command.append(f"--timingCacheFile={args.timing_cache}")
    return command


def read_layers(listing: str) -> list[dict[str, Any]]:
    """Per layer of the inspector's JSON: name, kind, the type of the first tensor that it reads, ONNX nodes, kernel."""
    try:
        entries = json.loads(listing).get("Layers", []) if listing else []
    except ValueError:
        entries = []
    layers = []
    for entry in entries:
        if isinstance(entry, dict):  # without detailed verbosity an entry is a mere name
            tensors = [*entry.get("Inputs", []), *entry.get("Outputs", [])]
            layers.append(
                {
                    "name": str(entry.get("Name", "")),
                    "kind": str(entry.get("LayerType", "")),
                    "precision": dtype_of(tensors),
                    "reads": [dtype_of([tensor]) for tensor in entry.get("Inputs", [])],
                    "nodes": _NODE.findall(str(entry.get("Metadata", ""))),
                    "tactic": str(entry.get("TacticName", "")),
                }
            )
    return layers


def dtype_of(tensors: list[Any]) -> str:
    """The type of the first of some tensors; TensorRT 10 puts it into the format ("Row major linear FP16 format")."""
    for tensor in tensors:
        words = re.findall(
            r"\w+", f"{tensor.get('Datatype', '')} {tensor.get('Format/Datatype', '')} {tensor.get('Format', '')}"
        )
        for word in words:
            if word in _DTYPES:
                return _SAME.get(word, str(word))
    return "unknown"


def print_layers(layers: list[dict[str, Any]]) -> None:
    """The engine layer by layer."""
    for layer in layers:
        print(f"{layer['precision']:>8}  {layer['kind']:<16}  {layer['name']}")
    kinds = sorted({layer["precision"] for layer in layers})
    print(", ".join(f"{kind}: {sum(layer['precision'] == kind for layer in layers)} layers" for kind in kinds))
    sparse = [layer["name"] for layer in layers if "sparse" in layer["tactic"].lower()]
    print(f"sparse kernels: {', '.join(sparse) or 'none'}")


def made_products(layers: list[dict[str, Any]], products: dict[str, str]) -> list[dict[str, str]]:
    """Per product the type that the graph gives it and the one in which it runs, as far as the listing speaks of it."""
    made = []
    for node, asked in products.items():
        holders = [layer for layer in layers if node in layer["nodes"]]
        found = {layer["precision"] for layer in holders if layer["kind"] not in _GENERATED}
        found = found or {dtype for layer in holders for dtype in layer["reads"]}
        kept = not found or asked not in _ASKED or _ASKED[asked] in found
        told = asked if kept and found else "/".join(_OURS.get(dtype, dtype) for dtype in sorted(found)) or FOLDED
        made.append({"node": node, "asked": asked, "found": told})
    return made


def missed(made: list[dict[str, str]]) -> list[dict[str, str]]:
    """The products that run in another type than the graph gives them."""
    return [product for product in made if product["found"] not in (product["asked"], FOLDED)]


def check_precision(
    layers: list[dict[str, Any]], made: list[dict[str, str]], settings: dict[str, Any], allowed: bool
) -> None:
    """Refuse an engine that computes in another precision than was asked for: TensorRT may drop it and exit 0."""
    others = missed(made)
    if others and not allowed:
        told = "; ".join(
            f"{one['node']} ({one['asked']} asked, {one['found']} found)" for one in others[:_NAMED_AT_MOST]
        )
        more = f" and {len(others) - _NAMED_AT_MOST} more" if len(others) > _NAMED_AT_MOST else ""
        raise BuildError(
            f"{len(others)} of {len(made)} products run in another precision than the graph gives them: "
            f"{told}{more}. Nothing was written; --allow-other-precision keeps such an engine.",
            code=1,
        )
    # In a quantized network, what is between integers may well vanish into them: the narrowest type alone must be there.
    asked = {product["asked"] for product in made} or {settings["precision"]}
    wanted = next((dtype for dtype in _ASKED if dtype in asked), settings["precision"])
    found = {dtype for layer in layers for dtype in (layer["precision"], *layer["reads"])}
    if _ASKED[wanted] not in found and not allowed:
        raise BuildError(
            f"{wanted} was asked for, and no layer has it (found {', '.join(sorted(found)) or 'no layers'}). "
            "Nothing was written; --allow-other-precision keeps such an engine.",
            code=1,
        )


def proof(
    layers: list[dict[str, Any]], made: list[dict[str, str]], settings: dict[str, Any], known: dict[str, Any]
) -> dict[str, Any]:
    """What the manifest records of the engine."""
    types = [product["found"] for product in made]
    gpu = known["gpu"]
    return {
        "read_from": "the engine inspector on the device",
        "products": {dtype: types.count(dtype) for dtype in sorted(set(types))},
        "not_as_asked": missed(made),
        "layers": len(layers),
        "fused_nodes": sum(len(layer["nodes"]) for layer in layers if len(layer["nodes"]) > 1),
        "fused_attention": [layer["name"] for layer in layers if "mha" in layer["name"].lower()],
        "format_changes": [layer["name"] for layer in layers if layer["kind"] == "Reformat"],
        "sparse": {
            "asked": bool(settings.get("sparse")),
            "layers": [layer["name"] for layer in layers if "sparse" in layer["tactic"].lower()],
            "decided": "by the builder",
        },
        "device": f"{gpu['name']}, SM{gpu['sm']}, driver {gpu.get('driver', 'unknown')}, TensorRT {known['tensorrt']}",
    }


def write(folder: Path, engine: bytes, report: dict[str, Any]) -> None:
    """The engine and what is known about it, and the bundle's manifest, so that the folder is a bundle that runs here."""
    report = {"schema_version": SCHEMA_VERSION, "engine_sha256": hashlib.sha256(engine).hexdigest(), **report}
    files = {ENGINE: engine, REPORT: (json.dumps(report, indent=1) + "\n").encode()}
    manifest = adopt(folder / MANIFEST, files, report)
    for name, data in {**files, **({MANIFEST: manifest} if manifest else {})}.items():
        draft = folder / f".{name}.draft"
        draft.write_bytes(data)
        draft.replace(folder / name)
    print(f"wrote {folder / ENGINE} ({len(engine)} bytes)")


def adopt(path: Path, files: dict[str, bytes], report: dict[str, Any]) -> bytes:
    """The bundle's manifest with the engine in it; empty when the folder is no bundle."""
    if not path.is_file():
        return b""
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["files"].update({name: hashlib.sha256(data).hexdigest() for name, data in files.items()})
    described = manifest["engine"]
    described["settings"].update(model=ENGINE, engine_built=True, version=report["tensorrt"], sm=report["gpu"]["sm"])
    described["versions"]["tensorrt"] = report["tensorrt"]
    described["files"] = [ENGINE, *(name for name in described["files"] if name != ENGINE)]
    described["layers"] = [
        {"name": layer["name"], "op": layer["kind"], "precision": layer["precision"], "unit": "gpu"}
        for layer in report["layers"]
    ]
    described["proof"] = report["proof"]
    return (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode()


if __name__ == "__main__":
    sys.exit(main())
