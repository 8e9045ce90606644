"""Pools. ``ceil_mode`` is turned into padding at the end where sizes are known: MIL's own wants symmetric pads, and one or two axes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.node import NodeView
from edgewise.targets.coreml.ops.pool_taps import check_taps, max_of_taps, mean_of_taps
from edgewise.targets.coreml.ops.windows import Window, check_window, window
from edgewise.targets.coreml.refusal import Refusal
from edgewise.targets.coreml.row import FLOATS, Row


def _check(node: NodeView) -> Refusal | None:
    refusal = check_window(node)
    if refusal is not None:
        return refusal
    if is_written_out(node):
        return check_taps(node)
    if rounds_up(node) and not _symmetric(node):
        return Refusal(
            "ceil_mode on sizes known at run time only", "fixed sizes, or one or two axes with the same pads at both ends that no average counts",
            "Export with fixed sizes", "attribute ceil_mode",
        )  # fmt: skip
    return None


def rounds_up(node: NodeView) -> bool:
    """Whether MIL's own ``ceil_mode`` is needed: sizes that only the run time knows."""
    same = node.text("auto_pad", "NOTSET").startswith("SAME")  # which rounds up already
    return bool(node.integer("ceil_mode")) and None in node.dims(0)[2:] and not same


def _symmetric(node: NodeView) -> bool:
    rank = len(node.dims(0)) - 2
    pads = node.integers("pads", [0] * 2 * rank)
    counted = node.integer("count_include_pad") and any(pads)  # nobody says whether what rounding up adds counts too
    return rank < 3 and pads[:rank] == pads[rank:] and not counted


def is_written_out(node: NodeView) -> bool:
    """Whether MIL's pools cannot do it: dilations, and the places of the greatest."""
    return node.used(1) or any(dilation > 1 for dilation in node.integers("dilations"))


def _ceil_pads(b: Building, place: Window) -> tuple[int, ...]:
    """Padding after each axis so that rounding down gives what ``ceil_mode`` asks for.

    A last window that would start in the padding after the input is left out, as ONNX and PyTorch do.
    """
    extra = []
    sizes = [int(dim or 0) for dim in b.dims(0)[2:]]
    for size, k, s, before, after in zip(sizes, place.reach, place.strides, place.before, place.after, strict=True):
        count = -(-(size + before + after - k) // s) + 1
        if (count - 1) * s >= size + before:
            count -= 1
        extra.append(max(0, (count - 1) * s + k - size - before - after))
    return tuple(extra)


def _placed(b: Building) -> tuple[Window, tuple[int, ...]]:
    place = window(b, tuple(b.integers("kernel_shape")))
    known = b.integer("ceil_mode") and not rounds_up(b)
    extra = _ceil_pads(b, place) if known else (0,) * len(place.kernel)
    return place, extra


def _wider(place: Window, extra: tuple[int, ...]) -> Window:
    if not any(extra):
        return place
    return replace(place, after=tuple(after + more for after, more in zip(place.after, extra, strict=True)))


def _max_pool(b: Building) -> Any:
    place = _wider(*_placed(b))
    if is_written_out(b):
        greatest = max_of_taps(b, place)
        return greatest if b.used(1) else greatest[0]
    return b.mb.max_pool(
        x=b.x(), kernel_sizes=list(place.kernel), strides=list(place.strides), ceil_mode=rounds_up(b), **place.padding()
    )  # fmt: skip


def _average_pool(b: Building) -> Any:
    """Padding of ``ceil_mode`` is never counted; padding of ``pads`` is when ``count_include_pad`` says so."""
    place, extra = _placed(b)
    if is_written_out(b):
        return mean_of_taps(b, _wider(place, extra), place if b.integer("count_include_pad") else None)
    counted = bool(b.integer("count_include_pad")) and (any(place.pads()) or bool(place.follows))
    x = b.x()
    if counted and any(extra):
        x = b.mb.pad(x=x, pad=[0, 0, 0, 0, *place.pads()], constant_val=b.like(0))
        zeros = (0,) * len(extra)
        place, counted = replace(place, before=zeros, after=zeros), False
    place = _wider(place, extra)
    return b.mb.avg_pool(
        x=x,
        kernel_sizes=list(place.kernel),
        strides=list(place.strides),
        exclude_padding_from_average=not counted,
        ceil_mode=rounds_up(b),
        **place.padding(),
    )


def _global(mean: bool) -> Any:
    def build(b: Building) -> Any:
        axes = list(range(2, len(b.dims(0))))
        reduce = b.mb.reduce_mean if mean else b.mb.reduce_max
        return reduce(x=b.x(), axes=axes, keep_dims=True)

    return build


ROWS = (
    Row("MaxPool", _max_pool, _check, dtypes=FLOATS, note="dilations and Indices: fixed shapes"),
    Row("AveragePool", _average_pool, _check, dtypes=FLOATS, note="dilations: fixed shapes"),
    Row("GlobalAveragePool", _global(mean=True), dtypes=FLOATS),
    Row("GlobalMaxPool", _global(mean=False), dtypes=FLOATS),
)
