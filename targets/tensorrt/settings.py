"""What a TensorRT build is asked for: the recipe's options and the device's facts, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgewise.targets.base import BuildRequest
from edgewise.targets.devices import DeviceProfile
from edgewise.targets.errors import TargetError
from edgewise.targets.nodes import node_names
from edgewise.targets.options import Option, read_options
from edgewise.targets.tensorrt.marking import find_marked
from edgewise.targets.tensorrt.profiles import Profile, shape_profile
from edgewise.targets.tensorrt.vendor import buildable_sms

OPTIONS = {
    "precision": Option("float16", str, ("float16", "bfloat16", "float32")),
    "compute_capabilities": Option(None, list),
    "sparse": Option(None, bool),
    "allow_other_precision": Option(False, bool),
    "keep_float32": Option(None, list),
    "calibration": Option(None, str),
    "marked_tensors": Option(None, list),
    "profiles": Option(None, dict),
    "builder": Option(None, str, ("rtx", "device")),
    "tf32": Option(False, bool),
    "workspace_bytes": Option(None, int),
    "dla_core": Option(None, int),
    "gpu_fallback": Option(True, bool),
    "build_on": Option(None, str),
    "trtexec": Option(False, bool),
    "timing_cache": Option(None, str),
    "version_compatible": Option(False, bool),
    "hardware_compatible": Option(None, str, ("ampere_plus", "same_compute_capability")),
}
_DEVICE_ONLY = (
    "dla_core", "gpu_fallback", "build_on", "trtexec", "timing_cache", "version_compatible", "hardware_compatible",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """A checked build.

    Attributes:
        sm: compute capability, 89 for 8.9.
        builder: ``rtx`` (here, ahead of time) or ``device`` (there, with its own TensorRT).
        sms: all compute capabilities that one engine is for, the device's among them; ascending.
        precision: what is not quantized computes in ``float16``, ``bfloat16`` or ``float32``.
        keep_float32: names of nodes that compute in float32 in a float16 network.
        calibration: DATA whose values decide what float16 cannot hold; empty: constants alone decide.
        sparse: the builder may look for sparse kernels; None: where there are 2:4 weights.
        allow_other_precision: keep an engine that computes in other types than the graph asks for.
        marked: names of inner tensors that the engine gives out.
        profile: ranges of the dynamic inputs.
        tf32: let float32 products round their factors to 10 bits.
        workspace_bytes: scratch memory that the builder may plan for; None: TensorRT's default.
        dla_core: the DLA core that takes what it can; None: GPU alone.
        gpu_fallback: what the DLA cannot take runs on the GPU; otherwise it is an error.
        build_on: the address of the machine that builds now, ``local`` for this one; empty: the bundle holds the kit alone.
        trtexec: that machine builds with trtexec, not with the Python package.
        timing_cache: the file on the machine that builds which remembers kernel timings from build to build; empty: none.
        version_compatible: the device's engine also opens in later versions of its TensorRT.
        hardware_compatible: the device's engine also runs on these GPUs; None: on its own kind alone.
        notes: sentences for the user.
    """

    sm: int
    sms: tuple[int, ...]
    builder: str
    precision: str
    keep_float32: tuple[str, ...]
    calibration: str
    sparse: bool | None
    allow_other_precision: bool
    marked: tuple[str, ...]
    profile: Profile
    tf32: bool
    workspace_bytes: int | None
    dla_core: int | None
    gpu_fallback: bool
    build_on: str
    trtexec: bool
    timing_cache: str
    version_compatible: bool
    hardware_compatible: str | None
    notes: list[str]


def read_settings(request: BuildRequest) -> Settings:
    """Read the options and the device's table.

    Raises:
        TargetError: unknown or wrong options, a builder that cannot build for the device, a shape profile that does not fit.
        MissingExtraError: TensorRT for RTX is not installed.
    """
    options = read_options(request.options, OPTIONS, "tensorrt")
    sm = sm_of(request.device)
    builder = options["builder"] or ("rtx" if sm in buildable_sms() else "device")
    _check_builder(builder, sm, request.options)
    _check_numbers(options, request.device)
    sms = _capabilities(options["compute_capabilities"] or [], sm, builder)
    profile, notes = shape_profile(list(request.model.graph.inputs), options["profiles"] or {})
    return Settings(
        sm, sms, builder, options["precision"], _kept(options["keep_float32"] or [], request),
        options["calibration"] or "", options["sparse"],
        options["allow_other_precision"], find_marked(request.model, options["marked_tensors"] or []), profile, options["tf32"], options["workspace_bytes"], options["dla_core"],
        options["gpu_fallback"], options["build_on"] or "", options["trtexec"], options["timing_cache"] or "", options["version_compatible"], options["hardware_compatible"], notes,
    )  # fmt: skip


def sm_of(device: DeviceProfile) -> int:
    """The device's compute capability, 89 for 8.9.

    Raises:
        TargetError: the profile does not say.
    """
    return int(device.table("tensorrt", {"sm": int})["sm"])


def _check_builder(builder: str, sm: int, given: dict[str, Any]) -> None:
    if builder == "rtx" and sm not in buildable_sms():
        raise _wrong(
            f"builder = 'rtx' for SM{sm}",
            f"one of {', '.join(f'SM{known}' for known in buildable_sms())}",
            "Use builder: device, which leaves the build to the device's own TensorRT",
        )
    unused = [key for key in _DEVICE_ONLY if builder == "rtx" and given.get(key) is not None]
    if unused:
        raise _wrong(
            f"{unused[0]} with builder = 'rtx'",
            "builder: device, for TensorRT for RTX builds here, knows no DLA and no compatible engines",
            f"Leave {unused[0]} out, or set builder: device",
        )


def _capabilities(asked: list[Any], sm: int, builder: str) -> tuple[int, ...]:
    """The device's own with those that the recipe adds.

    Raises:
        TargetError: one that the builder does not know, or several for a builder on the device.
    """
    known = buildable_sms()
    unknown = [each for each in asked if type(each) is not int or each not in known]
    if asked and (builder == "device" or unknown):
        raise _wrong(
            f"compute_capabilities = {asked}" + (f" with builder = {builder!r}" if builder == "device" else ""),
            f"some of {', '.join(map(str, known))}, with TensorRT for RTX",
            "A device builds for itself alone: leave the option out" if builder == "device" else "Correct the list",
        )
    return tuple(sorted({sm, *asked}))


def _check_numbers(options: dict[str, Any], device: DeviceProfile) -> None:
    cores = device.facts.get("dla_cores", 0)
    if options["dla_core"] is not None and not 0 <= options["dla_core"] < cores:
        raise _wrong(f"dla_core = {options['dla_core']}", f"a core of {device.name}, which has {cores}", "Correct it")
    if options["workspace_bytes"] is not None and options["workspace_bytes"] <= 0:
        raise _wrong(f"workspace_bytes = {options['workspace_bytes']}", "a positive number", "Correct it")


def _kept(names: list[Any], request: BuildRequest) -> tuple[str, ...]:
    known = node_names(request.model.graph)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise _wrong(f"keep_float32 with {unknown[0]!r}", "names of nodes", "See `edgewise inspect` for their names")
    return tuple(names)


def _wrong(found: str, expected: str, fix: str) -> TargetError:
    return TargetError(
        "a build option does not fit", where="target tensorrt, build.options", found=found, expected=expected, fix=fix
    )
