"""GridSample, and Col2Im as a transposed convolution."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.node import NodeView
from edgewise.targets.coreml.ops.taps import TAPS, sampled
from edgewise.targets.coreml.refusal import Refusal
from edgewise.targets.coreml.row import FLOATS, Row

_MODES = {"linear": "bilinear", "bilinear": "bilinear", "nearest": "nearest"}
_IMAGE_RANK = 4
_MOST_SPATIAL = 3
_FIRST_BATCHED = 16  # gather with batch_dims


def _check_grid(node: NodeView) -> Refusal | None:
    if node.text("mode", "linear") not in TAPS:
        return Refusal(f"mode {node.text('mode')}", "linear, cubic or nearest", "Use one of them", "attribute mode")
    if _is_plain(node):
        return None
    if node.rank(0) not in (3, 4, 5):
        return Refusal(f"an input of rank {node.rank(0)}", "rank 3, 4 or 5", "Sample slice by slice", "input X")
    if node.ios < _FIRST_BATCHED:
        return Refusal(
            f"iOS {node.ios} as deployment target", f"cubic sampling and other ranks than 4 from iOS {_FIRST_BATCHED} on",
            f"Set minimum_deployment_target to iOS{_FIRST_BATCHED}",
        )  # fmt: skip
    if None in (*node.dims(0), *node.dims(1)):
        return Refusal("sizes known at run time only", "fixed shapes", "Export with fixed shapes", "inputs")
    return None


def _is_plain(node: NodeView) -> bool:
    """Whether MIL has an operation for it."""
    return node.rank(0) == _IMAGE_RANK and node.text("mode", "linear") in _MODES


def _grid_sample(b: Building) -> Any:
    """Reflection is about the centres of the border pixels when corners are aligned, else about their edges."""
    if not _is_plain(b):
        return sampled(b)
    aligned = bool(b.integer("align_corners"))
    padding = b.text("padding_mode", "zeros")
    modes = {"zeros": "constant", "border": "border", "reflection": "reflection" if aligned else "symmetric"}
    return b.mb.resample(
        x=b.x(0),
        coordinates=b.x(1),
        sampling_mode=_MODES[b.text("mode", "linear")],
        padding_mode=modes[padding],
        padding_value=b.like(0),
        coordinates_mode="normalized_minus_one_to_one",
        align_corners=aligned,
    )


def _check_columns(node: NodeView) -> Refusal | None:
    if len(node.known(2)) > _MOST_SPATIAL or any(pad < 0 for pad in node.integers("pads")):
        return Refusal(
            f"more than {_MOST_SPATIAL} spatial axes, or negative pads", f"up to {_MOST_SPATIAL}, pads of 0 and above",
            "Fold it otherwise",
        )  # fmt: skip
    return None


def _col2im(b: Building) -> Any:
    """Each column element goes to its place in the window: a transposed convolution by one-hot kernels, a group per channel."""
    image, block = ([int(size) for size in b.known(index)] for index in (1, 2))
    count = len(image)
    strides, dilations = (b.integers(name, [1] * count) for name in ("strides", "dilations"))
    pads = b.integers("pads", [0] * 2 * count)
    taps = prod(block)
    channels = int(b.dims(0)[1] or taps) // taps
    padded = [size + before + after for size, before, after in zip(image, pads[:count], pads[count:], strict=True)]
    spans = [(size - 1) * step + 1 for size, step in zip(block, dilations, strict=True)]
    counts = [(size - span) // step + 1 for size, span, step in zip(padded, spans, strides, strict=True)]
    kernels = np.tile(np.eye(taps, dtype=b.dtype(0)).reshape(taps, 1, *block), (channels,) + (1,) * (1 + count))
    y = b.mb.conv_transpose(
        x=b.mb.reshape(x=b.x(), shape=[-1, channels * taps, *counts]),
        weight=b.array(kernels), strides=strides, dilations=dilations, groups=channels,
    )  # fmt: skip
    reach = [(number - 1) * step + span for number, step, span in zip(counts, strides, spans, strict=True)]
    missing = [size - reached for size, reached in zip(padded, reach, strict=True)]
    if any(missing):
        y = b.mb.pad(x=y, pad=[part for size in missing for part in (0, size)], constant_val=b.like(0))
    end = [before + size for before, size in zip(pads[:count], image, strict=True)]
    return b.mb.slice_by_index(
        x=y, begin=[0, 0, *pads[:count]], end=[0, 0, *end], end_mask=[True, True, *[False] * count]
    )


ROWS = (
    Row(
        "GridSample",
        _grid_sample,
        _check_grid,
        dtypes=FLOATS,
        note="fixed shapes, unless it is linear or nearest on rank 4; else from iOS 16 on",
    ),
    Row("Col2Im", _col2im, _check_columns, static=(1, 2), dtypes=FLOATS, note="up to 3 spatial axes"),
)
