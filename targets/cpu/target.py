"""The target ``cpu``: which engine, which integers, for which processor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from edgewise.quantize.schemes import with_scheme
from edgewise.quantize.spec import QuantSpec
from edgewise.runtime.bundle import Bundle
from edgewise.targets.base import BuildRequest, BuildResult, Executor, NodeSupport
from edgewise.targets.cpu.host import host_device
from edgewise.targets.cpu.ort.support import node_support
from edgewise.targets.devices import DeviceProfile
from edgewise.targets.errors import TargetError
from edgewise.targets.local import local_executor
from edgewise.targets.options import Option
from edgewise.targets.refusals import unknown_scheme

if TYPE_CHECKING:
    import onnx_ir as ir

_ARCHITECTURES = ("x86_64", "aarch64")
# Any of these multiplies u8 by s8 into 32 bits; without one, x86 adds two products in 16 bits, which saturates.
_DOT_PRODUCTS = {"avx512_vnni", "avx_vnni"}
# What ONNX Runtime 1.31 takes, and then computes in float between conversions: larger and slower than float itself.
_NOT_RUN = {
    "w8a16": "ONNX Runtime has no kernel for 16-bit activations and would compute in float",
    "w4a16": "ONNX Runtime has no kernel for 16-bit activations and would compute in float",
    "w4a4": "ONNX Runtime has no kernel for 4-bit activations and would compute in float",
    "fp16": "the engines compute in float32 between conversions, which is slower than float32 itself",
    "bf16": "ONNX Runtime has no bfloat16 kernels (libedgewise: build.options.precision instead)",
    "fp8": "the engines have no FP8 kernels and would compute in float32 between conversions",
}


class CpuTarget:
    """libedgewise on x86-64 and 64-bit ARM; ONNX Runtime for networks that it does not take."""

    name = "cpu"
    summary = "processors: libedgewise on x86-64 and 64-bit ARM"
    min_opset = 11
    schemes: tuple[str, ...] = (
        "int8", "w8a8", "w4a8", "w8", "w4", "w3", "w8g32", "w4g32", "w4g64", "w4g128", "w3g32",
        "w8d8", "w8d8g16", "w8d8g32", "w8d8g64", "w8d8g128",
    )  # fmt: skip

    @property
    def default_device(self) -> str:
        """The profile that fits this machine: what is built here usually runs here."""
        return host_device()

    @property
    def options(self) -> Mapping[str, Option]:
        """The engine, and ONNX Runtime's own."""
        from edgewise.targets.cpu.choice import OPTIONS  # the compiler behind it needs onnx

        return OPTIONS

    def support(self, model: ir.Model, device: DeviceProfile) -> list[NodeSupport]:
        """What ONNX Runtime's CPU provider has kernels for, as its session says: it runs what libedgewise does not take."""
        _architecture(device)
        return node_support(model)

    def quantization(self, scheme: str, device: DeviceProfile) -> QuantSpec:
        """Asymmetric uint8 activations and int8 weights per channel; weights in 7 bits on x86 without VNNI.

        With 8-bit activations 4-bit weights are stored as int8, which is what the integer kernels read. Weights alone are
        quantized in matrix products, whose kernel (MatMulNBits) reads them as they are stored; there is none for Conv.
        """
        if reason := _NOT_RUN.get(scheme):
            raise TargetError(
                f"the target {self.name} does not run the quantization scheme {scheme}",
                where=f"--scheme {scheme}",
                found=reason,
                expected=f"one of {', '.join(self.schemes)}",
                fix="Choose one of these, or build for another target",
            )
        if scheme not in self.schemes:
            raise unknown_scheme(self, scheme)
        saturates = _architecture(device) == "x86_64" and not _DOT_PRODUCTS & set(device.facts.get("isa", ()))
        base = QuantSpec(
            activation_dtype="uint8",
            per_channel=True,
            reduce_range=saturates,
            op_types=("Conv", "Gemm", "MatMul"),
            float_ops={"ConvTranspose": "ONNX Runtime has no integer kernel for it"},
        )
        spec = with_scheme(base, scheme)
        if not spec.weights_only:
            return spec
        floats = dict.fromkeys(
            ("Conv", "ConvTranspose"), "ONNX Runtime has no kernel that reads its weights in this form"
        )
        return replace(with_scheme(base, scheme, stores_int4=True), reduce_range=False, float_ops=floats)

    def build(self, request: BuildRequest) -> BuildResult:
        """An engine file for libedgewise, or the graph as ONNX Runtime optimises it."""
        from edgewise.targets.cpu.choice import build

        _architecture(request.device)
        return build(self, request)

    def executor(self, bundle: Bundle) -> Executor | str:
        """The bundle's own engine; where it asks for more than this machine's processor has, the same network with what it has."""
        from edgewise.targets.cpu.native.check_here import check_here

        found = local_executor(bundle)
        return (check_here(bundle) or found) if isinstance(found, str) else found


def _architecture(device: DeviceProfile) -> str:
    device.table("cpu")
    arch = str(device.facts.get("arch", "none"))
    if arch not in _ARCHITECTURES:
        raise TargetError(
            "the device profile does not fit the target cpu",
            where=f"device {device.name!r}",
            found=f"arch {arch}",
            expected=f"arch {' or '.join(_ARCHITECTURES)}",
            fix="Add the key `arch` to the profile (docs/devices.md), or choose another device",
        )
    return arch
