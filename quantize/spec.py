"""What a target wants of a quantized graph. Targets state it, passes carry it out."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgewise.quantize.errors import QuantizeError


@dataclass(frozen=True)
class QuantSpec:
    """The QDQ form that a target's engine turns into integer kernels.

    Attributes:
        activation_dtype: ``uint8`` or ``int8``.
        activation_symmetric: zero point 0 (int8) or 128 (uint8).
        weight_dtype: ``int8`` (always symmetric).
        per_channel: one weight scale per output channel.
        reduce_range: weights in 7 bits, for processors whose u8×s8 product saturates (x86 without VNNI).
        op_types: operators whose inputs are quantized.
        quantize_bias: biases as int32 with scale = input scale × weight scale.
        quantize_outputs: operators whose output is made in integers as well. Of ``op_types``: rounded whoever reads it
            (ONNX Runtime has no integer Conv with a float output). Of the others (Add, Concat, pools): computed on
            integers when all its inputs are integers already and a reader wants them.
        float_ops: operators kept in float, each with the reason that is printed.
        attention: MatMul of two activations is quantized too.
        balance: channels of unequal range may be scaled against the weights that read them; the network stays the same.
        fused_activations: activations that the engine merges into the layer before them: rounded after, not between.
    """

    activation_dtype: str = "uint8"
    activation_symmetric: bool = False
    weight_dtype: str = "int8"
    per_channel: bool = True
    reduce_range: bool = False
    op_types: tuple[str, ...] = ("Conv", "ConvTranspose", "Gemm", "MatMul")
    quantize_bias: bool = True
    quantize_outputs: tuple[str, ...] = (
        "Conv",
        "ConvTranspose",
        "Add",
        "Concat",
        "MaxPool",
        "AveragePool",
        "GlobalAveragePool",
    )
    float_ops: dict[str, str] = field(default_factory=dict)
    attention: bool = True
    balance: bool = True
    fused_activations: tuple[str, ...] = ("Relu", "Clip")


def check_spec(spec: QuantSpec) -> None:
    """Refuse what the passes cannot write.

    Raises:
        QuantizeError: an unknown dtype or operator.
    """
    for name, found, allowed in (
        ("activation_dtype", [spec.activation_dtype], ("uint8", "int8")),
        ("weight_dtype", [spec.weight_dtype], ("int8",)),
        ("op_types", list(spec.op_types), ("Conv", "ConvTranspose", "Gemm", "MatMul")),
    ):
        if unknown := [value for value in found if value not in allowed]:
            raise QuantizeError(
                "cannot quantize in this form",
                where=f"QuantSpec.{name}",
                found=repr(unknown[0]),
                expected=f"{' or '.join(allowed)}",
                fix="Change what the target asks for",
            )
