"""NonMaxSuppression."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.node import NodeView
from edgewise.targets.coreml.refusal import Refusal
from edgewise.targets.coreml.row import FLOATS, Row

_LOWEST = -65504.0


def _check_nms(node: NodeView) -> Refusal | None:
    boxes, scores = node.dims(0), node.dims(1)
    if None in (*boxes, *scores):
        return Refusal("boxes of a number known at run time only", "fixed shapes", "Export with fixed shapes", "inputs")
    if not node.given(2) or int(node.known(2).reshape(-1)[0]) < 1:
        return Refusal("no boxes per class", "1 or more", "Set it", "input max_output_boxes_per_class")
    return None


def _nms(b: Building) -> Any:
    """One of MIL's per image and class: its boxes that are no padding, as rows [image, class, box]."""
    batch, kinds, count = (int(dim or 0) for dim in b.dims(1))
    most = min(int(b.known(2).reshape(-1)[0]), count)
    boxes = _centred(b)
    parts = []
    for image in range(batch):
        own = b.mb.slice_by_size(x=boxes, begin=[image, 0, 0], size=[1, -1, -1])
        for kind in range(kinds):
            scores = b.mb.slice_by_size(x=b.x(1), begin=[image, kind, 0], size=[1, 1, -1])
            found = b.mb.reshape(x=_selected(b, own, scores, most), shape=[most, 1])
            lead = np.tile(np.array([[image, kind]], np.int32), (most, 1))
            places = b.mb.non_zero(x=_real(b, found, b.mb.reshape(x=scores, shape=[count]), most))
            rows = b.mb.concat(values=[lead, found], axis=1)
            parts.append(b.mb.gather(x=rows, indices=b.mb.squeeze(x=places, axes=[1]), axis=0))
    return b.mb.concat(values=parts, axis=0) if len(parts) > 1 else b.mb.identity(x=parts[0])


def _selected(b: Building, boxes: Any, scores: Any, most: int) -> Any:
    """Indices [1, most] of the boxes that stay, best first; boxes [1, B, 4], scores [1, 1, B]. The layout changed with iOS 17."""
    threshold = b.const(3)
    iou = b.like(0.0 if threshold is None else float(threshold.reshape(-1)[0]))
    if b.ios >= 17:
        turned = b.mb.transpose(x=boxes, perm=[0, 2, 1])
        return b.mb.non_maximum_suppression(boxes=turned, scores=scores, iou_threshold=iou, max_boxes=most)[2]
    turned = b.mb.transpose(x=scores, perm=[0, 2, 1])
    lowest = b.like(_LOWEST)
    return b.mb.non_maximum_suppression(
        boxes=boxes, scores=turned, iou_threshold=iou, score_threshold=lowest, max_boxes=most
    )[2]  # fmt: skip


def _real(b: Building, found: Any, scores: Any, most: int) -> Any:
    """Which of the indices [most, 1] are no padding, and above the threshold.

    MIL does not say what it pads with: an index below 0, or one that came before, is taken for padding.
    """
    earlier = np.tril(np.ones((most, most), bool), -1)
    again = b.mb.equal(x=found, y=b.mb.transpose(x=found, perm=[1, 0]))
    again = b.mb.cast(x=b.mb.logical_and(x=again, y=earlier), dtype="int32")
    first = b.mb.equal(x=b.mb.reduce_max(x=again, axes=[1], keep_dims=False), y=np.int32(0))
    flat = b.mb.reshape(x=found, shape=[most])
    kept = b.mb.logical_and(x=first, y=b.mb.greater_equal(x=flat, y=np.int32(0)))
    threshold = b.const(4)
    if threshold is not None:
        own = b.mb.gather(x=scores, indices=b.mb.maximum(x=flat, y=np.int32(0)), axis=0)
        kept = b.mb.logical_and(x=kept, y=b.mb.greater(x=own, y=b.like(float(threshold.reshape(-1)[0]), 1)))
    return b.mb.cast(x=kept, dtype="int32")


def _centred(b: Building) -> Any:
    """Boxes as (x, y, width, height) of their centres; ONNX has them so, or as two corners (y, x) in any order."""
    if b.integer("center_point_box"):
        return b.x(0)
    y1, x1, y2, x2 = b.mb.split(x=b.x(0), num_splits=4, axis=2)
    half = b.like(0.5)
    middles = [b.mb.mul(x=b.mb.add(x=low, y=high), y=half) for low, high in ((x1, x2), (y1, y2))]
    sizes = [b.mb.abs(x=b.mb.sub(x=high, y=low)) for low, high in ((x1, x2), (y1, y2))]
    return b.mb.concat(values=[*middles, *sizes], axis=2)


ROWS = (
    Row("NonMaxSuppression", _nms, _check_nms, static=(2, 3, 4), dtypes=FLOATS, note="fixed shapes"),
)  # fmt: skip
