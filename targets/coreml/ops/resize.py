"""Resize, Upsample: MIL's own operations where they compute the same, else an index or a matrix per axis."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.node import NodeView
from edgewise.targets.coreml.refusal import Refusal
from edgewise.targets.coreml.row import FLOATS, Row
from edgewise.targets.definitions.interpolation import Sampling, nearest_index, positions, weights

_COORDINATES = (
    *("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel"),
    *("align_corners", "asymmetric", "tf_crop_and_resize"),
)
_SAMPLING_MODES = {
    "half_pixel": "UNALIGN_CORNERS",
    "pytorch_half_pixel": "UNALIGN_CORNERS",
    "align_corners": "STRICT_ALIGN_CORNERS",
    "asymmetric": "DEFAULT",
}
_OLD = 11  # before it: scales are input 1, coordinates asymmetric


def _sampling(node: NodeView) -> Sampling:
    old = node.node.op_type == "Upsample" or node.opset < _OLD
    mode = node.text("mode", "nearest")
    return Sampling(
        mode={"bilinear": "linear"}.get(mode, mode),
        coordinates="asymmetric" if old else node.text("coordinate_transformation_mode", "half_pixel"),
        nearest="floor" if old else node.text("nearest_mode", "round_prefer_floor"),
        cubic_a=node.real("cubic_coeff_a", -0.75),
        exclude_outside=bool(node.integer("exclude_outside")),
        antialias=bool(node.integer("antialias")),
    )


def _scales_index(node: NodeView) -> int:
    return 1 if node.node.op_type == "Upsample" or node.opset < _OLD else 2


def _target(node: NodeView) -> tuple[np.ndarray | None, np.ndarray | None]:
    """``scales`` and ``sizes``; an empty tensor stands for a missing one."""
    index = _scales_index(node)
    scales, sizes = node.param(index, "scales"), node.const(3) if index == 2 else None
    return (
        scales if scales is not None and scales.size else None,
        sizes if sizes is not None and sizes.size else None,
    )


def _axes(node: NodeView) -> list[int]:
    rank = len(node.dims(0))
    return [axis % rank for axis in node.integers("axes", range(rank))]


def _factors(node: NodeView) -> dict[int, tuple[int | None, float | None]]:
    """Per axis that changes: its new size (None: known at run time) and ONNX's scale (None: new size over old)."""
    scales, sizes = _target(node)
    factors: dict[int, tuple[int | None, float | None]] = {}
    shared = _shared_scale(node)
    for place, axis in enumerate(_axes(node)):
        size = node.dims(0)[axis]
        if _crop(node, axis) is not None or shared is not None:
            wanted = (node.out_shape() or ())[axis]
            factors[axis] = (wanted, shared if scales is None else float(scales[place]))
        elif sizes is not None:
            wanted = int(sizes[place])
            if wanted != size:
                factors[axis] = (wanted, None)
        elif scales is not None and float(scales[place]) != 1:
            wanted_there = None if size is None else (node.out_shape() or ())[axis]
            factors[axis] = (wanted_there, float(scales[place]))
    return factors


def _shared_scale(node: NodeView) -> float | None:
    """The one scale of all axes with which none becomes larger (``not_larger``) or smaller than its size; None: each has its own."""
    policy, sizes = node.text("keep_aspect_ratio_policy", "stretch"), _target(node)[1]
    if policy == "stretch" or sizes is None:
        return None
    ratios = [int(want) / int(node.dims(0)[axis] or 1) for want, axis in zip(sizes, _axes(node), strict=True)]
    return min(ratios) if policy == "not_larger" else max(ratios)


def _crop(node: NodeView, axis: int) -> tuple[float, float] | None:
    """From where to where ``tf_crop_and_resize`` samples an axis, as parts of its length; None: all of it."""
    if node.text("coordinate_transformation_mode") != "tf_crop_and_resize":
        return None
    roi, axes = node.known(1).reshape(-1), _axes(node)
    start, end = (float(roi[place]) for place in (axes.index(axis), len(axes) + axes.index(axis)))
    return None if (start, end) == (0, 1) and node.dims(0)[axis] == (node.out_shape() or ())[axis] else (start, end)


def _check(node: NodeView) -> Refusal | None:
    how = _sampling(node)
    scales, sizes = _target(node)
    if scales is None and sizes is None:
        return Refusal(
            "a size computed at run time", "constant scales or sizes", "Export with fixed shapes", "input sizes"
        )
    if how.coordinates not in _COORDINATES:
        return Refusal(
            how.coordinates, ", ".join(_COORDINATES), "Use one of them", "attribute coordinate_transformation_mode"
        )
    if (how.coordinates == "tf_crop_and_resize" or _shared_scale(node)) and None in node.dims(0):
        return Refusal("sizes known at run time only", "fixed ones where an image is cropped or keeps its aspect",
                       "Export with fixed shapes", "input X")  # fmt: skip
    unknown = [axis for axis in _factors(node) if node.dims(0)[axis] is None]
    if unknown and _upsampled(node, how) is None:
        return Refusal(
            "sizes known at run time only", "fixed sizes, or whole-numbered scales of the last two axes (nearest, linear)",
            "Export with fixed height and width", "input X",
        )  # fmt: skip
    return None


def _build(b: Building) -> Any:
    how, factors = _sampling(b), _factors(b)
    if not factors:
        return b.mb.identity(x=b.x())
    whole = _upsampled(b, how)
    flexible = any(b.dims(0)[axis] is None for axis in factors)
    if whole is not None and (how.mode == "nearest" or flexible):
        scales = {"scale_factor_height": whole[0], "scale_factor_width": whole[1]}
        if how.mode == "nearest":
            return b.mb.upsample_nearest_neighbor(x=b.x(), **scales)
        return b.mb.upsample_bilinear(x=b.x(), align_corners=how.coordinates == "align_corners", **scales)
    if _is_native_linear(b, how, factors):
        rank = len(b.dims(0))
        height, width = (factors.get(axis, (b.dims(0)[axis], None))[0] for axis in (rank - 2, rank - 1))
        return b.mb.resize_bilinear(
            x=b.x(), target_size_height=height, target_size_width=width, sampling_mode=_SAMPLING_MODES[how.coordinates]
        )
    x = b.x()
    for axis, (wanted, scale) in factors.items():
        size = int(b.dims(0)[axis] or 1)
        own = replace(how, crop=_crop(b, axis))
        x = _along(b, x, axis, own, size, int(wanted or 1), scale or int(wanted or 1) / size)
    return _extrapolated(b, x, how, factors)


def _extrapolated(b: Building, x: Any, how: Sampling, factors: dict[int, tuple[int | None, float | None]]) -> Any:
    """What a crop takes from beyond the image is one number."""
    inside: Any = np.ones((1,) * len(b.dims(0)), bool)
    for axis, (wanted, scale) in factors.items():
        crop, size = _crop(b, axis), int(b.dims(0)[axis] or 1)
        if crop is not None:
            place = positions(replace(how, crop=crop), size, int(wanted or 1), scale or 1)
            shape = [1] * len(b.dims(0))
            shape[axis] = -1
            inside = inside & ((place >= 0) & (place <= size - 1)).reshape(shape)
    if inside.all():
        return x
    number = b.real("extrapolation_value")
    kept = b.mb.mul(x=x, y=b.array(inside.astype(b.dtype(0))))
    return b.mb.add(x=kept, y=b.array((~inside * number).astype(b.dtype(0))))


def _upsampled(node: NodeView, how: Sampling) -> tuple[int, int] | None:
    """Whole-numbered factors of height and width, when MIL's upsampling by factors computes what ONNX asks for."""
    rank = len(node.dims(0))
    whole: dict[int, int] = {}
    for axis, (wanted, given) in _factors(node).items():
        size = node.dims(0)[axis]
        factor = given if given is not None else (None if size is None or wanted is None else wanted / size)
        if factor is None or factor != int(factor) or axis < rank - 2 or rank < 3:
            return None
        whole[axis] = int(factor)
    if how.mode == "nearest":
        repeats = (
            nearest_index(how, 4, 4 * f, f).tolist() == np.repeat(np.arange(4), f).tolist() for f in whole.values()
        )
        fits = all(repeats)
    else:
        fits = how.mode == "linear" and not how.antialias and how.coordinates in ("half_pixel", "align_corners")
    return (whole.get(rank - 2, 1), whole.get(rank - 1, 1)) if fits else None


def _is_native_linear(b: Building, how: Sampling, factors: dict[int, tuple[int | None, float | None]]) -> bool:
    """MIL derives the step from both sizes: the same as ONNX when the scale is their exact quotient."""
    rank = len(b.dims(0))
    if how.mode != "linear" or how.antialias or how.coordinates not in _SAMPLING_MODES or rank < 3:
        return False
    if None in b.dims(0)[-2:]:
        return False
    for axis, (wanted, scale) in factors.items():
        size = int(b.dims(0)[axis] or 1)
        if (
            axis < rank - 2
            or not wanted
            or wanted == 1
            or (scale is not None and abs(scale * size - wanted) > 1e-6 * wanted)
        ):
            return False
    return True


def _along(b: Building, x: Any, axis: int, how: Sampling, size: int, wanted: int, scale: float) -> Any:
    if how.mode == "nearest":
        return b.mb.gather(x=x, indices=nearest_index(how, size, wanted, scale), axis=axis)
    matrix = weights(how, size, wanted, scale).astype(b.dtype(0))
    rank = len(b.dims(0))
    if axis == rank - 1:
        return b.mb.matmul(x=x, y=b.array(np.ascontiguousarray(matrix.T)))
    if axis == rank - 2:
        return b.mb.matmul(x=b.array(matrix), y=x)
    perm = [other for other in range(rank) if other != axis] + [axis]
    y = b.mb.matmul(x=b.mb.transpose(x=x, perm=perm), y=b.array(np.ascontiguousarray(matrix.T)))
    return b.mb.transpose(x=y, perm=[perm.index(other) for other in range(rank)])


ROWS = (
    Row("Resize", _build, _check, static=(1, 2, 3), dtypes=FLOATS, note="constant scales or sizes"),
    Row("Upsample", _build, _check, static=(1,), dtypes=FLOATS),
)  # fmt: skip
