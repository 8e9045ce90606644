"""What a target wants of a quantized graph. Targets state it, passes carry it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from edgewise.quantize.errors import QuantizeError

FLOAT = "float32"
FP8 = "float8e4m3fn"
# Least and greatest integer of each dtype that activations are rounded to.
LIMITS = {
    f"{sign}int{bits}": (0, 2**bits - 1) if sign else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    for sign in ("u", "")
    for bits in (4, 8, 16)
}


@dataclass(frozen=True)
class QuantSpec:
    """The QDQ form that a target's engine turns into integer kernels.

    Attributes:
        activation_dtype: ``uint8``, ``int8``, ``uint16``, ``int16``, ``uint4``, ``int4``; ``float32``: only weights are
            quantized.
        activation_symmetric: zero point 0 (int8) or 128 (uint8).
        one_sided: with symmetric uint8, zero point 0 for tensors that are never negative: no step lies where no value comes.
        weight_dtype: what weights are stored as, ``int8`` or ``int4`` (opset 21); always symmetric.
        weight_bits: the integers lie within ±(2^(bits−1) − 1), whatever they are stored as.
        weight_group: this many consecutive inputs share a scale (opset 21, ``block_size``); 0: no groups.
        dynamic: linear layers round what they read at run time: uint8, a range for each row (a token) and each ``weight_group``
            of its inputs (0: for the whole row), found from the row itself; ``activation_dtype`` is float32 then.
        wide_ends: layers that read the network's inputs or make its outputs get 8 bits, weights and activations.
        power_of_two: scales of activations are powers of two.
        per_channel: one weight scale per output channel.
        reduce_range: weights in 7 bits, for processors whose u8×s8 product saturates (x86 without VNNI).
        op_types: operators whose inputs are quantized.
        quantize_bias: biases as int32 with scale = input scale × weight scale.
        quantize_outputs: operators whose output is made in integers as well. Of ``op_types``: rounded whoever reads it
            (ONNX Runtime has no integer Conv with a float output). Of the others (Add, Concat, pools): computed on
            integers when all its inputs are integers already and a reader wants them.
        residuals: what is added to a convolution's output is rounded too, where the sum is read as integers.
        float_ops: operators kept in float, each with the reason that is printed.
        attention: MatMul of two activations is quantized too.
        balance: channels of unequal range may be scaled against the weights that read them; the network stays the same.
        palette_bits: above 0: weights stay floats, of 2^palette_bits different values per tensor; nothing is made integer.
        palette_group: this many output channels (or vectors of them) share a table; 0: one table per tensor.
        palette_vector: a table's entry stands for this many neighbouring output channels.
        float_dtype: ``float16``, ``bfloat16`` or ``float8e4m3fn``: short floats instead of integers, and nothing above counts.
        tables: embeddings are compressed too: int8 with a scale per row, or palettes.
        floor_db: least signal-to-noise ratio of the outputs that the target asks for by itself: below it a few layers stay in float,
            where that is cheap for its engines (float16 between integers); 0: all layers are integers.
        fused_activations: activations that the engine merges into the layer before them: rounded after, not between.
    """

    activation_dtype: str = "uint8"
    activation_symmetric: bool = False
    one_sided: bool = False
    weight_dtype: str = "int8"
    weight_bits: int = 8
    weight_group: int = 0
    dynamic: bool = False
    wide_ends: bool = False
    power_of_two: bool = False
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
    residuals: bool = False
    float_ops: dict[str, str] = field(default_factory=dict)
    attention: bool = True
    balance: bool = True
    fused_activations: tuple[str, ...] = ("Relu", "Clip")
    float_dtype: str = FLOAT
    palette_bits: int = 0
    palette_group: int = 0
    palette_vector: int = 1
    tables: bool = False
    floor_db: float = 0.0

    @property
    def weights_only(self) -> bool:
        """Whether no activation has a range in the graph: it stays in float, or (``dynamic``) its range is found at run time."""
        return self.activation_dtype == FLOAT

    @property
    def bits(self) -> int:
        """How many bits the weights' integers have."""
        return min(self.weight_bits, 7) if self.reduce_range else self.weight_bits

    @property
    def opset(self) -> int:
        """The least opset that can say it: 13 for scales per channel, 19 for FP8, 21 for 4 bits, 16 bits, groups and ranges of rows."""
        if self.float_dtype == FP8:
            return 19
        later = (
            self.weight_dtype == "int4" or self.weight_group or self.dynamic or self.activation_dtype[-1:] in "46"
        )  # …4, …16
        return 21 if later else 13


def check_spec(spec: QuantSpec) -> None:
    """Refuse what the passes cannot write.

    Raises:
        QuantizeError: an unknown dtype or operator.
    """
    checks: tuple[tuple[str, list[Any], Sequence[Any]], ...] = (
        ("activation_dtype", [spec.activation_dtype], (*LIMITS, FLOAT)),
        ("float_dtype", [spec.float_dtype], (FLOAT, "float16", "bfloat16", FP8)),
        ("weight_dtype", [spec.weight_dtype], ("int8", "int4")),
        ("weight_bits", [spec.weight_bits], (2, 3, 4) if spec.weight_dtype == "int4" else range(2, 9)),
        ("weight_group", [spec.weight_group], (0, 16, 32, 64, 128, 256)),
        ("palette_bits", [spec.palette_bits], range(9)),
        ("palette_vector", [spec.palette_vector], (1, 2, 4, 8)),
        ("op_types", list(spec.op_types), ("Conv", "ConvTranspose", "Gemm", "MatMul")),
    )
    for name, found, allowed in checks:
        if unknown := [value for value in found if value not in allowed]:
            raise QuantizeError(
                "cannot quantize in this form",
                where=f"QuantSpec.{name}",
                found=repr(unknown[0]),
                expected=f"{' or '.join(map(str, allowed))}",
                fix="Change what the target asks for",
            )
