"""What a layer multiplies its weights with, as a matrix: one row per output position, one column per weight of an output."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from edgewise.quantize.layers import Layer, attribute, constant_of
from edgewise.quantize.pruning.matrices import weight_value

Array = NDArray[np.float32]

MAX_ROWS = 1024  # of one sample: neighbouring positions of a large image tell the same


def columns_refusal(layer: Layer) -> str:
    """Why a layer has no such matrix; empty when it has one."""
    if layer.node.op_type == "ConvTranspose":
        return "it is a transposed convolution, for which there is no second-order solve"
    shape = weight_value(layer).shape
    if layer.node.op_type == "Conv" and shape is not None and len(shape) not in (3, 4):
        return "it is a convolution of other than one or two dims"
    return ""


def columns(layer: Layer, values: Array, rows: int = MAX_ROWS) -> Array:
    """The matrix of one sample's activations.

    Columns are ordered as :func:`matrices.as_matrices` orders weights: kernel position first, then input::

        values[N, C, H, W] ─► columns[group, N·H'·W', position · C/group]        Conv
        values[…, I]       ─► columns[1, …, I]                                    Gemm, MatMul

    Args:
        layer: Conv, Gemm or MatMul.
        values: what the layer reads.
        rows: at most so many rows are taken, at random, the same ones every time.

    Returns:
        float32 [groups, rows, columns].
    """
    if layer.node.op_type == "Conv":
        return _windows(layer, values, rows)
    flat = values.T if attribute(layer.node, "transA", 0) else values.reshape(-1, values.shape[-1])
    return flat[_spread(len(flat), rows)][None]


def output_rows(layer: Layer, values: Array, read: Array, rows: int = MAX_ROWS) -> Array | None:
    """A tensor of the form of a layer's outputs as a matrix whose rows are those of :func:`columns`.

    Args:
        layer: Conv, Gemm or MatMul.
        values: the tensor.
        read: what the layer reads.
        rows: as for :func:`columns`.

    Returns:
        float32 [groups, rows, outputs of a group]; None where the tensor is of another form.
    """
    weights = np.asarray(constant_of(weight_value(layer)))
    outputs = weights.shape[layer.channel_axis or 0]
    convolves = layer.node.op_type == "Conv"
    last = np.moveaxis(values, 1, -1) if convolves and values.ndim > 2 else values
    if last.shape[-1] != outputs or (not convolves and last.shape[:-1] != read.shape[:-1]):
        return None
    flat = last.reshape(-1, outputs)
    groups = attribute(layer.node, "group", 1) if convolves else 1
    picked = flat[_spread(len(flat), rows)]
    return np.ascontiguousarray(picked.reshape(len(picked), groups, -1).transpose(1, 0, 2))


def _windows(layer: Layer, values: Array, rows: int) -> Array:
    node, groups = layer.node, attribute(layer.node, "group", 1)
    kernel = np.asarray(constant_of(weight_value(layer))).shape[2:]
    strides, dilations = _integers(node, "strides", kernel), _integers(node, "dilations", kernel)
    reach = [dilation * (size - 1) + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    padded = np.pad(values, [(0, 0), (0, 0), *_pads(node, values.shape[2:], reach, strides)])
    axes = tuple(range(2, values.ndim))
    seen = sliding_window_view(padded, reach, axis=axes)
    steps = tuple(slice(None, None, step) for step in strides)
    taps = tuple(slice(None, None, step) for step in dilations)
    seen = seen[(slice(None), slice(None), *steps, *taps)]
    dims = len(kernel)
    images, channels = values.shape[:2]
    ordered = np.moveaxis(seen, 1, -1)  # [N, H', W', kh, kw, C]
    at = np.unravel_index(_spread(images * int(np.prod(ordered.shape[1 : 1 + dims])), rows), ordered.shape[: 1 + dims])
    picked = ordered[at].reshape(len(at[0]), int(np.prod(kernel)), groups, channels // groups)
    return np.ascontiguousarray(picked.transpose(2, 0, 1, 3)).reshape(groups, len(at[0]), -1)


def _pads(node: ir.Node, size: tuple[int, ...], reach: list[int], strides: list[int]) -> list[tuple[int, int]]:
    found = node.attributes.get("auto_pad")
    how = "NOTSET" if found is None else found.as_string()
    if how == "VALID":
        return [(0, 0)] * len(size)
    if how == "NOTSET":
        pads = node.attributes.get("pads")
        given = [0] * (2 * len(size)) if pads is None else list(pads.as_ints())
        return list(zip(given[: len(size)], given[len(size) :], strict=True))
    totals = [
        max((-(-length // step) - 1) * step + width - length, 0)
        for length, width, step in zip(size, reach, strides, strict=True)
    ]
    halves = [(total // 2, total - total // 2) for total in totals]
    return halves if how == "SAME_UPPER" else [(after, before) for before, after in halves]


def _integers(node: ir.Node, name: str, like: tuple[int, ...]) -> list[int]:
    found = node.attributes.get(name)
    return [1] * len(like) if found is None else list(found.as_ints())


def _spread(have: int, wanted: int) -> NDArray[np.intp]:
    if have <= wanted:
        return np.arange(have)
    # At random: equal steps would fall on the same columns of an image, its border among them, in every row.
    return np.sort(np.random.default_rng(have).choice(have, wanted, replace=False))
