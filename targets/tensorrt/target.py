"""The target ``tensorrt``: which of the two builders, and what it is asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgewise.quantize.schemes import with_scheme
from edgewise.quantize.spec import QuantSpec
from edgewise.runtime.bundle import Bundle
from edgewise.runtime.extras import needs
from edgewise.targets.base import BuildRequest, BuildResult, Executor, NodeSupport
from edgewise.targets.devices import DeviceProfile
from edgewise.targets.errors import TargetError
from edgewise.targets.refusals import refuse_unsupported, unknown_scheme
from edgewise.targets.tensorrt.settings import OPTIONS, read_settings, sm_of

if TYPE_CHECKING:
    import onnx_ir as ir

# Operators that hand integers on: rounding before them is rounding after them.
_COMMUTE = ("Concat", "MaxPool")
_LEAST_SM = {"bf16": 80, "fp8": 89, "w4g128": 80}  # Ampere; Ada and Hopper


class TensorRTTarget:
    """NVIDIA GPUs. Precision is in the graph, always: the network is strongly typed."""

    name = "tensorrt"
    summary = "NVIDIA GPUs with TensorRT for RTX, or with the device's own TensorRT (Jetson, data centre)"
    default_device = "rtx-4070"
    options = OPTIONS
    min_opset = 9
    schemes: tuple[str, ...] = ("int8", "fp16", "bf16", "fp8", "w8", "w4g128")

    def support(self, model: ir.Model, device: DeviceProfile) -> list[NodeSupport]:
        """What TensorRT's ONNX parser says, node by node. Kernels are chosen by the builder, which may still refuse."""
        with needs("tensorrt"):
            from edgewise.targets.tensorrt.support import node_support
        sm_of(device)
        return node_support(model)

    def quantization(self, scheme: str, device: DeviceProfile) -> QuantSpec:
        """Symmetric int8 without zero points, per channel, at the inputs of layers with weights; biases stay float.

        ``fp16``, ``bf16`` and ``fp8`` are short floats, where the GPU multiplies them. ``w8`` and ``w4g128`` store the weights of matrix
        products in 8 bits, or in 4 with a scale per group of 128 inputs, and multiply in the precision of the build.
        """
        if scheme not in self.schemes:
            raise unknown_scheme(self, scheme)
        sm = sm_of(device)
        if sm < _LEAST_SM.get(scheme, 0):
            raise TargetError(
                f"the device does not compute in the scheme {scheme}",
                where=f"--scheme {scheme}, device {device.name!r}",
                found=f"compute capability {sm / 10:g} (SM{sm})",
                expected=f"{_LEAST_SM[scheme] / 10:g} or later",
                fix="Choose int8 or fp16, or another device",
            )
        spec = QuantSpec(
            activation_dtype="int8",
            activation_symmetric=True,
            per_channel=True,
            quantize_bias=False,
            # The builder fuses what follows a layer up to the next Q by itself. Attention keeps its fused float16
            # kernel: in symmetric int8 the probabilities, 0 to 1, would have half of the steps.
            quantize_outputs=_COMMUTE,
            residuals=True,
            attention=False,
            floor_db=35.0,
        )
        made = with_scheme(spec, scheme, stores_int4=True)
        return replace(made, op_types=("Gemm", "MatMul")) if made.weights_only else made

    def build(self, request: BuildRequest) -> BuildResult:
        """Write ``model.engine`` with ``model.onnx`` beside, or what the device needs to build it. Options: ``settings.OPTIONS``."""
        with needs("tensorrt"):
            from edgewise.targets.tensorrt.ahead import build_engine
            from edgewise.targets.tensorrt.on_device import write_build_kit
        settings = read_settings(request)
        refuse_unsupported(self, request)
        if settings.builder == "rtx":
            return build_engine(request, settings)
        kit = write_build_kit(request, settings)
        if not settings.build_on:
            return kit
        from edgewise.targets.tensorrt.over_ssh import build_there

        return build_there(
            request.folder,
            kit,
            settings.build_on,
            trtexec=settings.trtexec,
            allow_other_precision=settings.allow_other_precision,
        )

    def executor(self, bundle: Bundle) -> Executor | str:
        """The engine where a GPU can run it; else, said openly, the ONNX that it was built from."""
        with needs("tensorrt"):
            from edgewise.targets.tensorrt.stand_in import engine_or_stand_in
        return engine_or_stand_in(bundle)
