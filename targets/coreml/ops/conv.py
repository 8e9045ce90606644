"""Conv and ConvTranspose."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.node import NodeView, is_weight
from edgewise.targets.coreml.ops.windows import check_window, window
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
    if refusal is None and node.integers("output_shape"):
        return Refusal(
            "output_shape",
            "pads and output_padding",
            "Export with pads in place of output_shape",
            "attribute output_shape",
        )
    if refusal is None and node.text("auto_pad", "NOTSET") != "NOTSET":
        return Refusal(node.text("auto_pad"), "explicit pads", "Export with explicit pads", "attribute auto_pad")
    return refusal


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
        pad_type="custom",
        pad=place.pads(),
    )


def _conv_transpose(b: Building) -> Any:
    """``output_padding`` asks for more at the end: fewer elements are cropped there, and what lies beyond all windows is bias."""
    weight = b.dims(1)
    place = window(b, tuple(int(dim or 0) for dim in weight[2:]))
    extra = b.integers("output_padding", [0] * len(place.kernel))
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
    Row("Conv", _conv, _check_conv, dtypes=FLOATS),
    Row(
        "ConvTranspose", _conv_transpose, _check_transposed, dtypes=FLOATS,
        note="explicit pads; output_padding taken, output_shape not",
    ),
)  # fmt: skip
