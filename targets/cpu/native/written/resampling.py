"""Resize where the kernel does not reach: a part of the image, its aspect kept, antialiasing. An index or a matrix for each axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from edgewise.targets.cpu.native.context import (
    attribute_float,
    attribute_int,
    attribute_ints,
    attribute_text,
    constant_array,
)
from edgewise.targets.cpu.native.value import Refusal
from edgewise.targets.cpu.native.written.writer import Writer, constant, given, need, rank_of
from edgewise.targets.definitions.interpolation import Sampling, nearest_index, positions, weights

_CROP = "tf_crop_and_resize"
_FREE = "Resize with antialiasing, a region or a kept aspect of sizes that are not known; fix them with --input"


@dataclass(frozen=True)
class _Along:
    """One axis: from how many elements to how many, by which scale."""

    axis: int
    size: int
    wanted: int
    scale: float
    how: Sampling


def resize(node: ir.Node, write: Writer) -> list[ir.Value] | None:
    """Axis by axis; None for what the kernel does."""
    how, policy = _sampling(node), attribute_text(node, "keep_aspect_ratio_policy", "stretch")
    if how.coordinates != _CROP and policy == "stretch" and not how.antialias:
        return None
    made = need(node, 0)
    rank = rank_of(made)
    axes = _axes(node, rank, how, policy)
    for along in axes:
        made = _resampled(write, made, rank, along)
    return [_extrapolated(write, made, rank, axes, attribute_float(node, "extrapolation_value", 0.0))]


def _sampling(node: ir.Node) -> Sampling:
    return Sampling(
        mode=attribute_text(node, "mode", "nearest"),
        coordinates=attribute_text(node, "coordinate_transformation_mode", "half_pixel"),
        nearest=attribute_text(node, "nearest_mode", "round_prefer_floor"),
        cubic_a=attribute_float(node, "cubic_coeff_a", -0.75),
        exclude_outside=bool(attribute_int(node, "exclude_outside", 0)),
        antialias=bool(attribute_int(node, "antialias", 0)),
    )


def _axes(node: ir.Node, rank: int, how: Sampling, policy: str) -> list[_Along]:
    axes = [axis % rank for axis in attribute_ints(node, "axes") or range(rank)]
    listed, wanted = _filled(node, 2), _sizes(node, axes, policy)
    scales = None if listed is None else [float(scale) for scale in listed]
    region = _filled(node, 1) if how.coordinates == _CROP else None
    if region is None and policy == "stretch":  # what stays as it is may be of any size
        kept = [index for index, axis in enumerate(axes) if not _stays(node, axis, index, scales)]
        axes = [axes[index] for index in kept]
        scales = None if scales is None else [scales[index] for index in kept]
        wanted = None if wanted is None else [wanted[index] for index in kept]
    old = [_size(need(node, 0), axis) for axis in axes]
    if scales is not None:
        factors = scales
        new = [math.floor(size * scale) for size, scale in zip(old, factors, strict=True)]
    elif wanted is not None and policy == "stretch":
        new = [_known(want) for want in wanted]
        factors = [want / size for want, size in zip(new, old, strict=True)]
    elif wanted is not None:
        ratios = [_known(want) / size for want, size in zip(wanted, old, strict=True)]
        scale = min(ratios) if policy == "not_larger" else max(ratios)
        factors = [scale] * len(axes)
        new = [math.floor(size * scale + 0.5) for size in old]
    else:
        raise Refusal(_FREE)
    crops = [None] * len(axes) if region is None else list(zip(*np.split(region.astype(float), 2), strict=True))
    found = [
        _Along(axis, size, want, scale, replace(how, crop=crop))
        for axis, size, want, scale, crop in zip(axes, old, new, factors, crops, strict=True)
    ]
    return [one for one in found if one.scale != 1 or one.size != one.wanted or one.how.crop not in (None, (0.0, 1.0))]


def _stays(node: ir.Node, axis: int, index: int, scales: Sequence[float] | None) -> bool:
    """Whether an axis is not resized: by its scale, or because its size is that of the input, whatever that is."""
    if scales is not None:
        return scales[index] == 1
    shapes = [value.shape for value in (need(node, 0), node.outputs[0]) if value.shape is not None]
    sizes = [size if isinstance(size, int) else size.value for size in (shape[axis] for shape in shapes)]
    return len(sizes) == 2 and sizes[0] == sizes[1] and sizes[0] is not None


def _sizes(node: ir.Node, axes: Sequence[int], policy: str) -> Sequence[int | None] | None:
    """What ``sizes`` says; where it is computed, what is known of the output, which keeps no aspect."""
    value = given(node, 3)
    if value is None:
        return None
    array, made = constant_array(value), node.outputs[0].shape
    if array is not None:
        return [int(one) for one in array.reshape(-1)] or None
    if made is None or policy != "stretch":
        return None
    return [size if isinstance(size, int) else None for size in (made[axis] for axis in axes)]


def _known(size: int | None) -> int:
    if size is None:
        raise Refusal(_FREE)
    return size


def _size(value: ir.Value, axis: int) -> int:
    size = None if value.shape is None else value.shape[axis]
    return _known(size if isinstance(size, int) else None)


def _filled(node: ir.Node, index: int) -> np.ndarray | None:
    """A constant input; None where it is left out or empty."""
    array = constant(node, index)
    return None if array is None or not array.size else array.reshape(-1)


def _resampled(write: Writer, x: ir.Value, rank: int, along: _Along) -> ir.Value:
    where = (along.how, along.size, along.wanted, along.scale)
    if along.how.mode == "nearest":
        return write("Gather", x, nearest_index(*where).astype(np.int64), axis=along.axis)
    matrix = np.ascontiguousarray(weights(*where).T)
    if along.axis == rank - 1:
        return write("MatMul", x, matrix)
    last = [axis for axis in range(rank) if axis != along.axis] + [along.axis]
    product = write("MatMul", write("Transpose", x, perm=last), matrix)
    return write("Transpose", product, perm=[last.index(axis) for axis in range(rank)])


def _extrapolated(write: Writer, x: ir.Value, rank: int, axes: list[_Along], number: float) -> ir.Value:
    """What a region takes from beyond the image is one number."""
    inside = np.ones((1,) * rank, bool)
    for along in axes:
        if along.how.crop is not None:
            place = positions(along.how, along.size, along.wanted, along.scale)
            inside = inside & ((place >= 0) & (place <= along.size - 1)).reshape(
                [-1 if axis == along.axis else 1 for axis in range(rank)]
            )
    if inside.all():
        return x
    return write("Where", inside, x, np.array(number, np.float32))


RULES = {"Resize": resize}
