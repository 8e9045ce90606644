"""ONNX → ML Program → ``.mlpackage`` through coremltools' MIL builder; built on Linux as well as on macOS."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgewise.quantize.spec import QuantSpec
from edgewise.runtime.bundle import Bundle
from edgewise.runtime.extras import needs
from edgewise.targets.base import BuildRequest, BuildResult, Executor, NodeSupport, TargetError
from edgewise.targets.coreml.options import OPTIONS
from edgewise.targets.devices import DeviceProfile
from edgewise.targets.refusals import unknown_scheme

if TYPE_CHECKING:
    import onnx_ir as ir


class CoreMLTarget:
    """The target ``coreml``. Importing it needs neither ONNX nor coremltools; building needs the extra ``[coreml]``."""

    name = "coreml"
    summary = "Core ML ML Program (.mlpackage) for iPhone, iPad and Mac"
    default_device = "iphone-15-pro"
    options = OPTIONS
    min_opset = 18
    schemes: tuple[str, ...] = (
        *("int8", "w8", "w4", "w4g32", "palette8", "palette6", "palette4", "palette4g16", "palette4v2"),
        *("palette3", "palette2", "palette1"),
    )

    def support(self, model: ir.Model, device: DeviceProfile) -> list[NodeSupport]:
        """One entry per node of the main graph; a node that is folded away or fused counts as taken.

        Raises:
            TargetError: the device names a deployment target that does not exist.
        """
        with needs("coreml"):
            from edgewise.targets.coreml.support import support
        return support(model, device)

    def quantization(self, scheme: str, device: DeviceProfile) -> QuantSpec:
        """The form of a scheme: what becomes ``quantize``/``dequantize`` and ``constexpr`` weights.

        Raises:
            TargetError: another scheme, or a device too old for this one (quantized activations come with iOS 17).
        """
        from edgewise.targets.coreml.scheme import spec_of

        if scheme not in self.schemes:
            raise unknown_scheme(self, scheme)
        return spec_of(scheme, device)

    def build(self, request: BuildRequest) -> BuildResult:
        """Write ``model.mlpackage`` into the request's folder; the same request gives the same bytes.

        Raises:
            TargetError: bad options, or a node that Core ML cannot take (named, with what to do).
            MissingExtraError: coremltools is not installed.
        """
        with needs("coreml"):
            from edgewise.targets.coreml.build import build
        return build(request)

    def executor(self, bundle: Bundle) -> Executor | str:
        """On macOS Core ML itself; elsewhere an evaluation of the saved package, operation by operation, in numpy.

        Raises:
            TargetError: the package cannot be read.
        """
        with needs("coreml"):
            from edgewise.targets.coreml.execute import executor
        return executor(bundle)

    def write_app(self, bundle: Bundle, folder: Path) -> None:
        """A Swift package around a bundle: typed inputs and outputs, preprocessing, a test with the bundle's samples.

        Raises:
            TargetError: a name that Swift cannot have, or a folder that is something else.
        """
        from edgewise.targets.coreml.swift.write import write_swift

        write_swift(bundle, folder)


TARGET = CoreMLTarget()

__all__ = ["TARGET", "CoreMLTarget", "TargetError"]
