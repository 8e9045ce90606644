"""Plans of one convolution, and what numpy says that they give."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edgewise.targets.cpu.native.packing import Packed, pack_conv, pack_depthwise, pack_winograd
from edgewise.targets.cpu.native.plan import DType, Isa, Layout, Op, Plan, Tensor, dim

DTYPES = {
    np.dtype("float32"): DType.F32,
    np.dtype("uint8"): DType.U8,
    np.dtype("int8"): DType.S8,
    np.dtype("int32"): DType.S32,
    np.dtype("uint16"): DType.BF16,  # their bits
    np.dtype("int16"): DType.S16,
}


@dataclass
class Case:
    """A convolution: x [N, C, ...] u8 or f32, weights [M, C / group, ...] s8 or f32."""

    x: np.ndarray
    weights: np.ndarray
    group: int = 1
    strides: Sequence[int] = ()
    dilations: Sequence[int] = ()
    pads: Sequence[int] = ()
    scale: np.ndarray | None = None
    factor: np.ndarray | None = None
    bias: np.ndarray | None = None
    residual: np.ndarray | None = None
    y: np.dtype = field(default_factory=lambda: np.dtype("float32"))
    block: tuple[int, int] | None = None
    paired: bool = False
    attributes: dict = field(default_factory=dict)
    op: str = "conv"

    @property
    def spatial(self) -> int:
        return self.x.ndim - 2

    @property
    def y_dims(self) -> tuple[int, ...]:
        return accumulate(self).shape


def windows(case: Case, fill: float) -> np.ndarray:
    """[N, C, out..., positions]: what each output pixel meets."""
    s = case.spatial  # weights [M, C] take each pixel alone
    kernel = case.weights.shape[1 if case.op == "depthwise" else 2 :] or (1,) * s
    strides, dilations = list(case.strides) or [1] * s, list(case.dilations) or [1] * s
    pads = list(case.pads) or [0] * (2 * s)
    around = [(0, 0), (0, 0), *zip(pads[:s], pads[s:], strict=True)]
    x = np.pad(case.x.astype(np.float64), around, constant_values=fill)
    sizes = [(x.shape[2 + i] - (kernel[i] - 1) * dilations[i] - 1) // strides[i] + 1 for i in range(s)]
    parts = []
    for at in itertools.product(*(range(k) for k in kernel)):
        cut = tuple(
            slice(at[i] * dilations[i], at[i] * dilations[i] + (sizes[i] - 1) * strides[i] + 1, strides[i])
            for i in range(s)
        )
        parts.append(x[(slice(None), slice(None), *cut)])
    return np.stack(parts, axis=-1)


def accumulate(case: Case) -> np.ndarray:
    """The sums, exact for integers: [N, M, out...]."""
    seen = windows(case, case.attributes.get("x_zero_point", 0))
    n, c, *out, k = seen.shape
    if case.op == "depthwise":  # weights [C, kernel...]
        seen = seen.repeat(case.weights.shape[0] // c, axis=1)
        return np.einsum("nc...k,ck->nc...", seen, case.weights.reshape(-1, k).astype(np.float64))
    g, m = case.group, case.weights.shape[0]
    seen = seen.reshape(n, g, c // g, *out, k)
    weights = case.weights.astype(np.float64).reshape(g, m // g, c // g, k)
    return np.einsum("ngc...k,gmck->ngm...", seen, weights).reshape(n, m, *out)


def along_channels(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    return values.astype(np.float64).reshape(1, -1, *[1] * (like.ndim - 2))


def expected(case: Case, activation=lambda v: v) -> np.ndarray:
    """In float64, quantized as ONNX does when y has 8 bits."""
    a = case.attributes
    v = accumulate(case)
    if case.scale is not None:
        v = v * along_channels(case.scale, v)
    if case.bias is not None:
        v = v + along_channels(case.bias, v)
    if case.factor is not None:
        function = activation

        def activation(v):
            return function(v) * along_channels(case.factor, v)

    residual = 0.0
    if case.residual is not None:
        residual = case.residual.astype(np.float64)
        if case.residual.dtype != np.float32:
            residual = (residual - a.get("residual_zero_point", 0)) * a["residual_scale"]
    if a.get("gated"):
        v = activation(v) * residual
    elif a.get("residual_first"):
        v = activation(v + residual)
    elif "inner_scale" in a:
        v = (
            np.clip(np.rint(activation(v) / a["inner_scale"]), a["inner_low"], a["inner_high"]) * a["inner_scale"]
            + residual
        )
    else:
        v = activation(v) + residual
    if case.y == np.float32:
        return v.astype(np.float32)
    info = np.iinfo(case.y)
    return np.clip(np.rint(v / a["y_scale"]) + a["y_zero_point"], info.min, info.max).astype(case.y)


def to_c4(x: np.ndarray) -> np.ndarray:
    """[N, C, ...] as the bytes of C4: [N, C / 4, P, 4]; channels beyond C hold anything."""
    n, c = x.shape[:2]
    flat = np.pad(x.reshape(n, c, -1), ((0, 0), (0, -c % 4), (0, 0)), constant_values=77)
    return np.ascontiguousarray(flat.reshape(n, -1, 4, flat.shape[2]).swapaxes(2, 3))


def from_c4(x: np.ndarray, dims: Sequence[int]) -> np.ndarray:
    n, c4, p, _ = x.shape
    return x.swapaxes(2, 3).reshape(n, c4 * 4, p)[:, : dims[1]].reshape(dims)


def dims_of(shape: Sequence[int]) -> tuple:
    return tuple(dim(size) for size in shape)


def port(name: str, array: np.ndarray) -> tuple[Tensor, Tensor, np.ndarray]:
    """The plan's tensor (plain), the operator's (C4 when 8-bit), and the array to hand in."""
    if array.dtype == np.float32:
        tensor = Tensor(name, DType.F32, dims_of(array.shape))
        return tensor, tensor, np.ascontiguousarray(array)
    packed = to_c4(array)
    outer = Tensor(name, DTYPES[array.dtype], dims_of(packed.shape))
    return outer, Tensor(name, DTYPES[array.dtype], dims_of(array.shape), Layout.C4, storage=outer.storage), packed


def constant(name: str, array: np.ndarray) -> Tensor:
    return Tensor(name, DTYPES[array.dtype], dims_of(array.shape), data=array)


def optional(name: str, array: np.ndarray | None) -> Tensor | None:
    return None if array is None else constant(name, array)


def integers(shape: Sequence[int], low: int, high: int, dtype: type, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high + 1, shape).astype(dtype)


def int_case(x_shape: Sequence[int], w_shape: Sequence[int], seed: int = 0, **more) -> Case:
    """Sums as they are: scale 1, so that y is exact."""
    x = integers(x_shape, 0, 255, np.uint8, seed)
    weights = integers(w_shape, -127, 127, np.int8, seed + 1)
    return Case(x, weights, scale=np.ones(w_shape[0], np.float32), **more)


def float_case(x_shape: Sequence[int], w_shape: Sequence[int], seed: int = 0, **more) -> Case:
    rng = np.random.default_rng(seed)
    return Case(rng.standard_normal(x_shape, np.float32), rng.standard_normal(w_shape, np.float32), **more)


def check(run_plan, case: Case, isa: str = "generic", threads: int = 1, **more) -> None:
    """What the engine gives is what numpy says: exactly, to rounding, or to one step of the quantization."""
    plan, arrays = plan_of(case, isa)
    got = unpacked(case, run_plan(plan, arrays, threads=threads, isa=isa)[0])
    want = expected(case, **more)
    if case.x.dtype == np.uint8 and case.y == np.float32 and not more and case.residual is None:
        np.testing.assert_array_equal(got, want)
    elif case.y == np.float32:
        scale = max(1.0, float(np.abs(want).max(initial=0)))
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5 * scale)
    else:
        steps = np.abs(got.astype(int) - want.astype(int))
        assert steps.max(initial=0) <= 1
        assert (steps > 0).mean() <= 0.001 + 2 / max(steps.size, 1)


def scales_of(case: Case) -> np.ndarray | None:
    """Scales alone, or with factors: [2, M]."""
    if case.factor is None:
        return case.scale
    scale = np.ones_like(case.factor) if case.scale is None else case.scale
    return np.stack([scale, case.factor])


def packed_of(case: Case) -> Packed:
    if case.op == "depthwise":
        return pack_depthwise(case.weights)
    if case.op == "winograd":
        return pack_winograd(case.weights)
    return pack_conv(case.weights, group=case.group, block=case.block, paired=case.paired)


def plan_of(case: Case, isa: str = "generic", packed: Packed | None = None) -> tuple[Plan, list[np.ndarray]]:
    packed = packed or packed_of(case)
    outer_x, x, x_array = port("x", case.x)
    inputs, arrays, residual = [outer_x], [x_array], None
    if case.residual is not None:
        outer, residual, array = port("residual", case.residual)
        inputs.append(outer)
        arrays.append(array)
    outer_y, y, _ = port("y", np.zeros(case.y_dims, case.y))
    constants = {name: constant(name, array) for name, array in packed.constants.items()}
    geometry = {key: list(value) for key in ("strides", "dilations", "pads") if (value := getattr(case, key))}
    operands = [
        *(x, constants["weights"], optional("scale", scales_of(case)), optional("bias", case.bias), residual),
        *(constants.get("index"), constants.get("start")),
    ]
    op = Op(case.op, "layer", operands, [y], {**packed.attributes, **geometry, **case.attributes})
    return Plan(Isa[isa.partition("_on_")[0].upper()], inputs, [outer_y], [op]), arrays


def unpacked(case: Case, got: np.ndarray) -> np.ndarray:
    return got if case.y == np.float32 else from_c4(got, case.y_dims)
