"""Boxes that stay when those that overlap a better one are dropped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def _overlap(box: Any, others: Any) -> Any:
    """Intersection over union of one box [4] with others [count, 4]: centre x, centre y, width, height."""
    low = np.maximum(box[:2] - box[2:] / 2, others[:, :2] - others[:, 2:] / 2)
    high = np.minimum(box[:2] + box[2:] / 2, others[:, :2] + others[:, 2:] / 2)
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    union = np.prod(box[2:]) + np.prod(others[:, 2:], axis=1) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _kept(boxes: Any, scores: Any, threshold: float, most: int) -> list[int]:
    order, kept = list(np.argsort(-scores, kind="stable")), list[int]()
    while order and len(kept) < most:
        kept.append(int(order[0]))
        rest = np.array(order[1:], int)
        order = list(rest[_overlap(boxes[kept[-1]], boxes[rest]) <= threshold])
    return kept


def _non_maximum_suppression(
    boxes: Any, scores: Any, iou_threshold: Any, max_boxes: Any, score_threshold: Any = None,
    per_class_suppression: Any = False, **_: Any,
) -> Any:  # fmt: skip
    """Boxes in the last axis since iOS 17 (no ``score_threshold`` there), before it in the middle one; one class alone."""
    old, most = score_threshold is not None, int(max_boxes)
    turned = (boxes, scores) if old else (boxes.transpose(0, 2, 1), scores.transpose(0, 2, 1))
    if turned[1].shape[2] != 1 or per_class_suppression:
        raise ValueError("several classes, which the converter never writes")
    indices = np.full((len(boxes), most), -1, np.int32)
    counts = np.zeros(len(boxes), np.int32)
    for image, (own, score) in enumerate(zip(*turned, strict=True)):
        kept = _kept(own, score[:, 0], float(iou_threshold), most)
        kept = [index for index in kept if not old or score[index, 0] >= score_threshold]
        indices[image, : len(kept)], counts[image] = kept, len(kept)
    real = (indices >= 0)[..., None]
    picked = [np.where(real, np.take_along_axis(array, np.maximum(indices, 0)[..., None], 1), 0) for array in turned]
    if old:
        return [*picked, indices, counts]
    return [*(array.transpose(0, 2, 1) for array in picked), indices]


OPERATIONS: dict[str, Callable[..., Any]] = {"non_maximum_suppression": _non_maximum_suppression}
