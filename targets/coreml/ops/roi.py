"""RoiAlign: means by a matrix for each axis of each box; maxima by sampling at the points of each box."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.node import NodeView
from edgewise.targets.coreml.refusal import Refusal
from edgewise.targets.coreml.row import FLOATS, Row

_FIRST_BATCHED = 16  # gather with batch_dims
_LEAST_STEP = 1e-6  # of a pixel: a box without size has all its points in one place
_BORDER = 1e-5  # of a pixel: a point at -1 still counts, and two pixels hold two points, however they were rounded


def _check_roi(node: NodeView) -> Refusal | None:
    mode, ratio = node.text("mode", "avg"), node.integer("sampling_ratio")
    if mode not in ("avg", "max"):
        return Refusal(f"mode {mode}", "avg or max", "Use one of them", "attribute mode")
    if mode == "max" and ratio < 1:
        return Refusal(
            "the maximum of as many points as fit (sampling_ratio 0)", "a fixed number of points for max",
            "Fix it, 2 is usual", "attribute sampling_ratio",
        )  # fmt: skip
    if mode == "max" and node.ios < _FIRST_BATCHED:
        return Refusal(
            f"iOS {node.ios} as deployment target", f"mode max from iOS {_FIRST_BATCHED} on",
            f"Set minimum_deployment_target to iOS{_FIRST_BATCHED}", "attribute mode",
        )  # fmt: skip
    if None in node.dims(0)[1:] or (mode == "max" and node.dims(1)[0] is None):
        return Refusal("sizes known at run time only", "fixed shapes", "Export with fixed shapes", "inputs")
    return None


def _roi_align(b: Building) -> Any:
    """Each bin is the mean, or the maximum, of the image at points of its box."""
    corners = b.mb.split(x=b.mb.mul(x=b.x(1), y=b.like(b.real("spatial_scale", 1.0))), num_splits=4, axis=1)
    if _is_aligned(b):
        corners = [b.mb.sub(x=corner, y=b.like(0.5)) for corner in corners]
    return _maximum(b, *corners) if b.text("mode", "avg") == "max" else _mean(b, *corners)


def _is_aligned(b: Building) -> bool:
    """Whether pixels are half a pixel off their edges; until opset 15 they are not, and boxes have a pixel at the least."""
    return (
        b.text("coordinate_transformation_mode", "half_pixel" if b.opset >= 16 else "output_half_pixel") == "half_pixel"
    )


def _mean(b: Building, x1: Any, y1: Any, x2: Any, y2: Any) -> Any:
    """Sampling and mean are linear, row by row and column by column: a matrix for each box and axis."""
    height, width = (int(dim or 0) for dim in b.dims(0)[2:])
    rows = _shares(b, y1, y2, b.integer("output_height", 1), height)
    columns = _shares(b, x1, x2, b.integer("output_width", 1), width)
    for matrix in (rows, columns):
        b.values.keep(matrix, b)  # at pixel 600 the numbers of float16 are half a pixel apart
    rows, columns = (b.mb.expand_dims(x=matrix, axes=[1]) for matrix in (rows, columns))
    images = b.x(0) if b.dims(0)[0] == 1 else b.mb.gather(x=b.x(0), indices=b.x(2), axis=0)
    return b.mb.matmul(x=b.mb.matmul(x=rows, y=images), y=columns, transpose_y=True)


def _shares(b: Building, low: Any, high: Any, bins: int, size: int) -> Any:
    """How much of each pixel along an axis a bin holds: [boxes, bins, size].

    The points of a bin are ``step`` apart from the first one on, as many as ``sampling_ratio`` says (0: one a pixel). A point gives its
    share to the pixels before and after it, so those within a pixel count, by their number and their mean distance: no list of points,
    which would be as long as the largest box. Beyond the border a point has the border's pixel, up to a pixel away.
    """
    mb, pixel = b.mb, np.arange(size, dtype=b.dtype(0))[None, None]
    low, high = (mb.expand_dims(x=corner, axes=[2]) for corner in (low, high))
    length = mb.mul(
        x=_extent(b, low, high), y=b.like(1 / bins)
    )  # a quotient would become a product after it was marked
    points, share = _points_of(b, length)
    reach = mb.abs(x=length)
    step = mb.maximum(x=mb.mul(x=reach, y=share), y=b.like(_LEAST_STEP))
    middles = mb.mul(x=length, y=(np.arange(bins) + 0.5).astype(b.dtype(0))[None, :, None])
    before = mb.mul(x=mb.sub(x=step, y=reach), y=b.like(0.5))
    first = mb.add(x=mb.add(x=low, y=middles), y=before)

    def up_to(place: np.ndarray) -> Any:
        count = mb.add(x=mb.floor(x=mb.real_div(x=mb.sub(x=place, y=first), y=step)), y=b.like(1))
        return mb.minimum(x=mb.maximum(x=count, y=b.like(0)), y=points)

    def shared(fewer: Any, more: Any, far: np.ndarray, sign: int, at_border: np.ndarray) -> Any:
        """The points between two counts: their number times their mean distance from ``far``, where they count nothing."""
        middle = mb.mul(x=mb.sub(x=mb.add(x=fewer, y=more), y=b.like(1)), y=b.like(0.5))
        place = mb.add(x=first, y=mb.mul(x=step, y=middle))
        distance = mb.mul(x=mb.sub(x=place, y=far), y=b.like(sign))
        inside = mb.add(x=mb.mul(x=distance, y=(~at_border).astype(far.dtype)), y=at_border.astype(far.dtype))
        return mb.mul(x=mb.sub(x=more, y=fewer), y=inside)

    is_first, is_last = pixel == 0, pixel == size - 1
    lower, here, upper = (
        up_to(pixel + far) for far in (-1 - is_first * b.like(_BORDER), 0, 1 + is_last * b.like(_BORDER))
    )
    sums = mb.add(x=shared(lower, here, pixel - 1, 1, is_first), y=shared(here, upper, pixel + 1, -1, is_last))
    return mb.mul(x=sums, y=share)


def _extent(b: Building, low: Any, high: Any) -> Any:
    """The length of each box along an axis, shaped as its corners are."""
    length = b.mb.sub(x=high, y=low)
    return length if _is_aligned(b) else b.mb.maximum(x=length, y=b.like(1))


def _points_of(b: Building, length: Any) -> tuple[Any, Any]:
    """How many points a bin has, and what one of them counts: as many as it has pixels unless ``sampling_ratio`` says so."""
    ratio = b.integer("sampling_ratio")
    if ratio > 0:
        return b.like(ratio), b.like(1 / ratio)
    pixels = b.mb.ceil(x=b.mb.sub(x=length, y=b.like(_BORDER)))
    points = b.mb.maximum(x=pixels, y=b.like(0))  # none where a box is turned round
    return points, b.mb.real_div(x=b.like(1), y=b.mb.maximum(x=points, y=b.like(1)))


def _maximum(b: Building, x1: Any, y1: Any, x2: Any, y2: Any) -> Any:
    """The image of each box is sampled at all its points, of which each bin takes the maximum."""
    height, width = (int(dim or 0) for dim in b.dims(0)[2:])
    out, ratio = (b.integer("output_height", 1), b.integer("output_width", 1)), b.integer("sampling_ratio")
    rows = _Axis(b, _points(b, y1, y2, out[0], ratio), height, out[0] * ratio)
    columns = _Axis(b, _points(b, x1, x2, out[1], ratio), width, out[1] * ratio)
    images = b.mb.gather(x=b.x(0), indices=b.x(2), axis=0)
    corner = _largest_corner(b, images, rows, columns)
    return b.mb.max_pool(x=corner, kernel_sizes=[ratio, ratio], strides=[ratio, ratio], pad_type="valid")


class _Axis:
    """Places along one axis of the image: [boxes, count] in pixels, and whether each is inside ([boxes, count] of 0 and 1)."""

    def __init__(self, b: Building, places: Any, size: int, count: int) -> None:
        self.places, self.size, self.count = places, size, count
        self.inside = _inside(b, places, size)


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


def _points(b: Building, low: Any, high: Any, bins: int, ratio: int) -> Any:
    """Places [boxes, bins · ratio] in pixels: the middles of ``ratio`` equal parts of each bin."""
    steps = ((np.arange(bins * ratio) + 0.5) / (bins * ratio)).astype(b.dtype(0))[None]
    return b.mb.add(x=low, y=b.mb.mul(x=_extent(b, low, high), y=steps))


def _inside(b: Building, places: Any, size: int) -> Any:
    within = b.mb.logical_and(x=b.mb.greater_equal(x=places, y=b.like(-1)), y=b.mb.less_equal(x=places, y=b.like(size)))
    return b.mb.cast(x=within, dtype="fp16" if b.dtype(0) == "float16" else "fp32")


ROWS = (
    Row("RoiAlign", _roi_align, _check_roi, dtypes=FLOATS | {"int64", "int32"}, note="max: a fixed sampling_ratio, from iOS 16 on"),
)  # fmt: skip
