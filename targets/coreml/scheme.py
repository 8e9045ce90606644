"""The QDQ form that Core ML makes integer operations of."""

from __future__ import annotations

from edgewise.quantize.spec import QuantSpec
from edgewise.targets.base import TargetError
from edgewise.targets.coreml.options import parse_options
from edgewise.targets.devices import DeviceProfile

_FIRST_WITH_ACTIVATIONS = 17


def int8(device: DeviceProfile) -> QuantSpec:
    """Symmetric activations (the form that coremltools' own tools make), weights per output channel, biases in float.

    Biases stay constants of the layer: MIL has no int32 bias. Attention between two activations stays in float16, where
    the Neural Engine computes it anyway.

    Raises:
        TargetError: a deployment target before iOS 17.
    """
    ios = parse_options({}, device).ios
    if ios < _FIRST_WITH_ACTIVATIONS:
        raise TargetError(
            "the scheme int8 does not fit the device",
            where=f"device {device.name}",
            found=f"minimum_deployment_target iOS{ios}",
            expected=f"iOS{_FIRST_WITH_ACTIVATIONS} or later (quantized activations)",
            fix="Choose another device profile",
        )
    return QuantSpec(
        activation_dtype="int8",
        activation_symmetric=True,
        quantize_bias=False,
        quantize_outputs=(),
        attention=False,
    )
