"""The target ``cpu``: which engine, which integers, for which processor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgewise.quantize.spec import QuantSpec
from edgewise.runtime.bundle import Bundle
from edgewise.targets.base import BuildRequest, BuildResult, Executor, NodeSupport
from edgewise.targets.cpu.choice import build
from edgewise.targets.cpu.host import host_device
from edgewise.targets.cpu.ort.support import node_support
from edgewise.targets.devices import DeviceProfile
from edgewise.targets.errors import TargetError
from edgewise.targets.local import local_executor
from edgewise.targets.refusals import unknown_scheme

if TYPE_CHECKING:
    import onnx_ir as ir

_ARCHITECTURES = ("x86_64", "aarch64")
# Any of these multiplies u8 by s8 into 32 bits; without one, x86 adds two products in 16 bits, which saturates.
_DOT_PRODUCTS = {"avx512_vnni", "avx_vnni"}


class CpuTarget:
    """ONNX Runtime on x86-64 and 64-bit ARM; libedgewise on x86-64."""

    name = "cpu"
    summary = "processors (x86-64, 64-bit ARM) with ONNX Runtime"
    min_opset = 11
    schemes: tuple[str, ...] = ("int8",)

    @property
    def default_device(self) -> str:
        """The profile that fits this machine: what is built here usually runs here."""
        return host_device()

    def support(self, model: ir.Model, device: DeviceProfile) -> list[NodeSupport]:
        """What ONNX Runtime's CPU provider has kernels for, as its session says."""
        _architecture(device)
        return node_support(model)

    def quantization(self, scheme: str, device: DeviceProfile) -> QuantSpec:
        """Asymmetric uint8 activations and int8 weights per channel; weights in 7 bits on x86 without VNNI."""
        if scheme not in self.schemes:
            raise unknown_scheme(self, scheme)
        saturates = _architecture(device) == "x86_64" and not _DOT_PRODUCTS & set(device.facts.get("isa", ()))
        return QuantSpec(
            activation_dtype="uint8",
            per_channel=True,
            reduce_range=saturates,
            op_types=("Conv", "Gemm", "MatMul"),
            float_ops={"ConvTranspose": "ONNX Runtime has no integer kernel for it"},
        )

    def build(self, request: BuildRequest) -> BuildResult:
        """An engine file for libedgewise, or the graph as ONNX Runtime optimises it. Options: see ``cpu.choice.OPTIONS``."""
        _architecture(request.device)
        return build(self, request)

    def executor(self, bundle: Bundle) -> Executor | str:
        """The bundle itself, in ONNX Runtime on this machine's processor."""
        return local_executor(bundle)


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
