"""Names of schemes: ``w8a8`` (``int8``), ``w4a8``, ``w8a16``, ``w8``, ``w4g32``, ``w8d8g32``, ``palette4``, … and the specs they stand for."""

from __future__ import annotations

import re
from dataclasses import replace

from edgewise.quantize.errors import QuantizeError
from edgewise.quantize.spec import FLOAT, FP8, QuantSpec

_NAME = re.compile(r"w(?P<weights>\d)((?P<kind>[ad])(?P<activations>\d+))?(g(?P<group>\d+))?")
_PALETTE = re.compile(r"palette(?P<bits>[1-8])(g(?P<group>[1-9]\d*))?(v(?P<vector>[248]))?")
SHORT_FLOATS = {"fp16": "float16", "bf16": "bfloat16", "fp8": FP8}


def with_scheme(base: QuantSpec, name: str, *, stores_int4: bool = False) -> QuantSpec:
    """What a target wants for a scheme, from what it wants for ``int8``.

    The name says how many bits weights (``w``) and activations have (``a``: of ranges learned from data; ``d``: of ranges found
    at run time; none: they stay in float), and of how many inputs each group shares a scale (``g``). Layers whose inputs the group does not divide get a scale per channel.
    ``palette`` and a number of bits: tables of values in place of scales, each shared by ``g`` output channels, of
    vectors over ``v`` of them.

    Args:
        base: the target's spec for ``int8``.
        name: ``int8``, ``fp16``, ``bf16``, ``fp8`` or a name as above.
        stores_int4: the target takes INT4 tensors; else 4-bit weights are stored as int8.

    Raises:
        QuantizeError: no such scheme.
    """
    if palette := _PALETTE.fullmatch(name):
        return replace(
            _weights_alone(base),
            balance=False,
            palette_bits=int(palette["bits"]),
            palette_group=int(palette["group"] or 0),
            palette_vector=int(palette["vector"] or 1),
        )
    if name in SHORT_FLOATS:
        return replace(base, float_dtype=SHORT_FLOATS[name], floor_db=0.0)
    parts = _NAME.fullmatch("w8a8" if name == "int8" else name)
    if parts is None or parts["activations"] not in (None, *(("4", "8", "16") if parts["kind"] == "a" else ("8",))):
        raise QuantizeError(
            "unknown quantization scheme",
            where=f"--scheme {name}",
            found=repr(name),
            expected="int8, fp16, bf16, fp8, or w and a number of bits (2 to 8), such as w4a8, w8a16, w8d8g32, w8, w4g32; or palette4",
            fix="Choose one that the target has: `edgewise devices` lists them",
        )
    bits, group = int(parts["weights"]), int(parts["group"] or 0)
    small = replace(
        base, weight_bits=bits, weight_group=group, weight_dtype="int4" if stores_int4 and bits <= 4 else "int8"
    )
    if parts["activations"] is None:
        return _weights_alone(small)
    if parts["kind"] == "d":
        return replace(_weights_alone(small), dynamic=True, op_types=("Gemm", "MatMul"))
    wanted = int(parts["activations"])
    if wanted == 8:
        return small if bits == 8 else replace(small, floor_db=0.0)
    small = replace(small, floor_db=0.0)
    dtype = f"{base.activation_dtype.rstrip('8')}{wanted}"
    if wanted == 16:
        return replace(small, activation_dtype=dtype, quantize_bias=False)
    return replace(small, activation_dtype=dtype, quantize_bias=False, quantize_outputs=(), wide_ends=True)


def _weights_alone(spec: QuantSpec) -> QuantSpec:
    return replace(
        spec, activation_dtype=FLOAT, quantize_bias=False, quantize_outputs=(), attention=False, floor_db=0.0
    )
