"""The forms of quantized graphs that Core ML keeps compressed."""

from __future__ import annotations

from edgewise.quantize.schemes import with_scheme
from edgewise.quantize.spec import QuantSpec
from edgewise.targets.base import TargetError
from edgewise.targets.coreml.options import parse_options
from edgewise.targets.devices import DeviceProfile

# Each scheme and the first iOS that has what it needs.
SCHEMES = {
    "int8": 17,  # activations: quantize and dequantize
    "w8": 16,
    "w4": 18,  # int4
    "w4g32": 18,  # scales in blocks
    "palette8": 16,
    "palette6": 16,
    "palette4": 16,
    "palette4g16": 18,  # tables per group
    "palette4v2": 18,  # tables of vectors
    "palette3": 18,
    "palette2": 16,
    "palette1": 16,
}
_WHY = {"int8": "quantized activations", "w4": "int4 weights", "w4g32": "blocks", "palette3": "indices of 3 bits"}


def spec_of(scheme: str, device: DeviceProfile) -> QuantSpec:
    """Symmetric uint8 activations, one-sided where nothing is negative; weights per output channel; biases in float.

    It is the form that coremltools.optimize.torch makes. Biases stay constants of the layer: MIL has no int32 bias. Attention between two activations stays in float16, where
    the Neural Engine computes it anyway. Schemes without activations change weights alone.

    Raises:
        TargetError: the device's deployment target is too old.
    """
    ios, first = parse_options({}, device).ios, SCHEMES[scheme]
    if ios < first:
        raise TargetError(
            f"the scheme {scheme} does not fit the device",
            where=f"device {device.name}",
            found=f"minimum_deployment_target iOS{ios}",
            expected=f"iOS{first} or later ({_WHY.get(scheme, 'palettes' if 'palette' in scheme else 'integer weights')})",
            fix="Choose another device profile, or another scheme",
        )
    base = QuantSpec(
        activation_dtype="uint8",
        activation_symmetric=True,
        one_sided=True,
        quantize_bias=False,
        quantize_outputs=(),
        attention=False,
        tables=True,
        floor_db=35.0,
    )
    return with_scheme(base, scheme, stores_int4=True)
