"""RoiAlign: sampling at the points of each box, then a pool over those of each bin."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.node import NodeView
from edgewise.targets.coreml.refusal import Refusal
from edgewise.targets.coreml.row import FLOATS, Row


def _check_roi(node: NodeView) -> Refusal | None:
    if node.text("mode", "avg") not in ("avg", "max"):
        return Refusal(f"mode {node.text('mode')}", "avg or max", "Use one of them", "attribute mode")
    if node.integer("sampling_ratio") < 1:
        return Refusal(
            "a sampling_ratio of 0 (as many as fit)", "1 or more", "Fix it, 2 is usual", "attribute sampling_ratio"
        )
    if None in node.dims(0)[1:] or node.dims(1)[0] is None:
        return Refusal("sizes known at run time only", "fixed shapes", "Export with fixed shapes", "inputs")
    return None


def _roi_align(b: Building) -> Any:
    """The image of each box is sampled at all its points, of which each bin takes the mean or the maximum."""
    height, width = (int(dim or 0) for dim in b.dims(0)[2:])
    out = b.integer("output_height", 1), b.integer("output_width", 1)
    ratio = b.integer("sampling_ratio")
    opset16 = b.opset >= 16
    aligned = b.text("coordinate_transformation_mode", "half_pixel" if opset16 else "output_half_pixel") == "half_pixel"
    x1, y1, x2, y2 = b.mb.split(x=b.mb.mul(x=b.x(1), y=b.like(b.real("spatial_scale", 1.0))), num_splits=4, axis=1)
    rows = _Axis(b, _points(b, y1, y2, out[0], ratio, aligned), height, out[0] * ratio)
    columns = _Axis(b, _points(b, x1, x2, out[1], ratio, aligned), width, out[1] * ratio)
    window = {"kernel_sizes": [ratio, ratio], "strides": [ratio, ratio], "pad_type": "valid"}
    images = b.mb.gather(x=b.x(0), indices=b.x(2), axis=0)
    if b.text("mode", "avg") == "max":
        return b.mb.max_pool(x=_largest_corner(b, images, rows, columns), **window)
    return b.mb.avg_pool(x=_sampled(b, images, rows, columns), **window)


class _Axis:
    """Places along one axis of the image: [boxes, count] in pixels, and whether each is inside ([boxes, count] of 0 and 1)."""

    def __init__(self, b: Building, places: Any, size: int, count: int) -> None:
        self.places, self.size, self.count = places, size, count
        self.inside = _inside(b, places, size)


def _sampled(b: Building, images: Any, rows: _Axis, columns: _Axis) -> Any:
    """[boxes, channels, rows, columns] between the pixels; a point beyond the border counts as 0."""
    count = int(b.dims(1)[0] or 0)
    grid = b.mb.stack(
        values=[
            b.mb.tile(x=b.mb.reshape(x=columns.places, shape=[count, 1, columns.count]), reps=[1, rows.count, 1]),
            b.mb.tile(x=b.mb.reshape(x=rows.places, shape=[count, rows.count, 1]), reps=[1, 1, columns.count]),
        ],
        axis=3,
    )
    sampled = b.mb.resample(
        x=images, coordinates=grid, sampling_mode="bilinear", padding_mode="border", padding_value=b.like(0),
        coordinates_mode="unnormalized", align_corners=True,
    )  # fmt: skip
    return b.mb.mul(x=sampled, y=_crossed(b, rows.inside, columns.inside, rows, columns))


def _crossed(b: Building, down: Any, across: Any, rows: _Axis, columns: _Axis) -> Any:
    """The products of what is known per row and per column: [boxes, 1, rows, columns]."""
    count = int(b.dims(1)[0] or 0)
    return b.mb.mul(
        x=b.mb.reshape(x=down, shape=[count, 1, rows.count, 1]),
        y=b.mb.reshape(x=across, shape=[count, 1, 1, columns.count]),
    )


def _largest_corner(b: Building, images: Any, rows: _Axis, columns: _Axis) -> Any:
    """[boxes, channels, rows, columns]: of the four pixels around a point, each times its weight, the greatest (as ONNX has it)."""
    count, channels = int(b.dims(1)[0] or 0), int(b.dims(0)[1] or 0)
    flat = b.mb.reshape(x=images, shape=[count, channels, rows.size * columns.size])
    largest = None
    for row, down in _corners(b, rows):
        first = b.mb.mul(x=b.mb.reshape(x=row, shape=[count, rows.count, 1]), y=np.int32(columns.size))
        for column, across in _corners(b, columns):
            places = b.mb.add(x=first, y=b.mb.reshape(x=column, shape=[count, 1, columns.count]))
            places = b.mb.reshape(x=places, shape=[count, rows.count * columns.count])
            found = b.mb.gather(x=flat, indices=places, axis=2, batch_dims=1)
            found = b.mb.reshape(x=found, shape=[count, channels, rows.count, columns.count])
            weighed = b.mb.mul(x=found, y=_crossed(b, down, across, rows, columns))
            largest = weighed if largest is None else b.mb.maximum(x=largest, y=weighed)
    return largest


def _corners(b: Building, axis: _Axis) -> list[tuple[Any, Any]]:
    """The pixel before each place and the one after it (int32 [boxes, count]), with their weights."""
    last = b.like(axis.size - 1)
    place = b.mb.minimum(x=b.mb.maximum(x=axis.places, y=b.like(0)), y=last)
    before = b.mb.floor(x=place)
    after = b.mb.minimum(x=b.mb.add(x=before, y=b.like(1)), y=last)
    rest = b.mb.sub(x=place, y=before)
    pairs = ((before, b.mb.sub(x=b.like(1), y=rest)), (after, rest))
    return [(b.mb.cast(x=pixel, dtype="int32"), b.mb.mul(x=part, y=axis.inside)) for pixel, part in pairs]


def _points(b: Building, low: Any, high: Any, bins: int, ratio: int, aligned: bool) -> Any:
    """Places [boxes, bins · ratio] in pixels: the middles of ``ratio`` equal parts of each bin."""
    size = b.mb.sub(x=high, y=low)
    if not aligned:
        size = b.mb.maximum(x=size, y=b.like(1))
    steps = ((np.arange(bins * ratio) + 0.5) / (bins * ratio)).astype(b.dtype(0))[None]
    start = b.mb.sub(x=low, y=b.like(0.5)) if aligned else low
    return b.mb.add(x=start, y=b.mb.mul(x=size, y=steps))


def _inside(b: Building, places: Any, size: int) -> Any:
    within = b.mb.logical_and(x=b.mb.greater_equal(x=places, y=b.like(-1)), y=b.mb.less_equal(x=places, y=b.like(size)))
    return b.mb.cast(x=within, dtype="fp16" if b.dtype(0) == "float16" else "fp32")


ROWS = (
    Row("RoiAlign", _roi_align, _check_roi, dtypes=FLOATS | {"int64", "int32"}, ios=16, note="a fixed sampling_ratio; from iOS 16 on"),
)  # fmt: skip
