"""Conv and ConvTranspose."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.node import NodeView, is_weight
from edgewise.targets.coreml.ops.windows import Window, check_window, window
from edgewise.targets.coreml.refusal import Refusal
from edgewise.targets.coreml.row import FLOATS, Row


def _check_conv(node: NodeView) -> Refusal | None:
    refusal = check_window(node)
    if refusal is not None:
        return refusal
    weight = node.shape(1)
    if weight is None or None in weight:
        return Refusal("weights of unknown shape", "weights of a fixed shape", "Export with fixed shapes", "input W")
    if not is_weight(node.value(1)):
        if node.ios < 17 and node.node.op_type == "ConvTranspose":
            return _computed_weights("constant weights before iOS 17", "minimum_deployment_target: iOS17")
        if any(dilation > 1 for dilation in node.integers("dilations")):
            return _computed_weights("constant weights when dilations are above 1", "no dilations")
    if node.given(2) and node.ios < 17 and not is_weight(node.value(2)):
        return Refusal("a bias computed at run time", "a constant bias before iOS 17", "Build for iOS 17", "input B")
    return None


def _computed_weights(expected: str, fix: str) -> Refusal:
    return Refusal("weights computed at run time", expected, f"Make them constant, or use {fix}", "input W")


def _check_transposed(node: NodeView) -> Refusal | None:
    refusal = _check_conv(node)
    if refusal is None and _follows_size(node) and None in node.dims(0)[2:]:
        return Refusal("pads that follow from sizes known at run time only", "fixed spatial sizes, or explicit pads",
                       "Export with fixed height and width", "attribute auto_pad")  # fmt: skip
    return refusal


def _follows_size(node: NodeView) -> bool:
    return bool(node.integers("output_shape")) or node.text("auto_pad", "NOTSET").startswith("SAME")


def _crops(node: NodeView, kernel: tuple[int, ...]) -> tuple[Window, list[int]]:
    """The window, whose pads are what is cropped, and what is added at the end of each axis (``output_padding``).

    ``output_shape`` and ``auto_pad`` say how large the output is; the pads follow from that (ONNX, ConvTranspose).
    """
    place, count = window(node, kernel), len(kernel)
    extra = node.integers("output_padding", [0] * count)
    if not _follows_size(node):
        return place, extra
    sizes = [int(dim or 0) for dim in node.dims(0)[2:]]
    wanted = node.integers("output_shape")[-count:] or [size * s for size, s in zip(sizes, place.strides, strict=True)]
    whole = [
        s * (size - 1) + more + r for size, s, more, r in zip(sizes, place.strides, extra, place.reach, strict=True)
    ]
    total = [max(0, have - want) for have, want in zip(whole, wanted, strict=True)]
    small, large = tuple(pad // 2 for pad in total), tuple(pad - pad // 2 for pad in total)
    upper = node.text("auto_pad", "NOTSET") == "SAME_UPPER"
    missing = [more + max(0, want - have) for more, have, want in zip(extra, whole, wanted, strict=True)]
    return replace(place, before=small if upper else large, after=large if upper else small), missing


def _bias(b: Building, channels: int) -> Any:
    return b.x(2) if b.given(2) else b.array(np.zeros(channels, b.dtype(0)))


def _conv(b: Building) -> Any:
    weight = b.dims(1)
    place = window(b, tuple(int(dim or 0) for dim in weight[2:]))
    return b.mb.conv(
        x=b.x(0),
        weight=b.weight(1, 0),
        bias=_bias(b, int(weight[0] or 0)) if b.given(2) else None,
        strides=list(place.strides),
        dilations=list(place.dilations),
        groups=b.integer("group", 1),
        **place.padding(),
    )


def _conv_transpose(b: Building) -> Any:
    """``output_padding`` asks for more at the end: fewer elements are cropped there, and what lies beyond all windows is bias."""
    weight = b.dims(1)
    place, extra = _crops(b, tuple(int(dim or 0) for dim in weight[2:]))
    after = [max(0, crop - more) for crop, more in zip(place.after, extra, strict=True)]
    beyond = [max(0, more - crop) for crop, more in zip(place.after, extra, strict=True)]
    groups = b.integer("group", 1)
    bias = _bias(b, int(weight[1] or 0) * groups) if b.given(2) else None
    y = b.mb.conv_transpose(
        x=b.x(0),
        weight=b.weight(1, 1),
        bias=None if any(beyond) else bias,
        strides=list(place.strides),
        dilations=list(place.dilations),
        groups=groups,
        pad_type="custom",
        pad=[pad for pair in zip(place.before, after, strict=True) for pad in pair],
    )
    if not any(beyond):
        return y
    y = b.mb.pad(x=y, pad=[0, 0, 0, 0] + [pad for more in beyond for pad in (0, more)], constant_val=b.like(0))
    if bias is None:
        return y
    return b.mb.add(x=y, y=b.mb.expand_dims(x=bias, axes=[0, *range(2, 2 + len(beyond))]))


ROWS = (
    Row("Conv", _conv, _check_conv, weights=(1, 2), dtypes=FLOATS),
    Row("ConvTranspose", _conv_transpose, _check_transposed, weights=(1, 2), dtypes=FLOATS),
)
