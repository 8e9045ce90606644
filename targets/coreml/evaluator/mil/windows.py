"""Convolutions and pools as sums over the taps of the window."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from math import prod
from typing import Any

import numpy as np

Pads = list[tuple[int, int]]


def _pads(x: Any, kernel: Any, strides: Any, dilations: Any, pad_type: str, pad: Any) -> Pads:
    count = x.ndim - 2
    if pad_type == "valid":
        return [(0, 0)] * count
    if pad_type == "custom":
        return [(int(pad[2 * axis]), int(pad[2 * axis + 1])) for axis in range(count)]
    pads = []
    for axis in range(count):
        size, step = x.shape[2 + axis], int(strides[axis])
        total = max((-(-size // step) - 1) * step + (int(kernel[axis]) - 1) * int(dilations[axis]) + 1 - size, 0)
        small, large = total // 2, total - total // 2
        pads.append((small, large) if pad_type == "same" else (large, small))
    return pads


def _padded(x: Any, pads: Pads, fill: float) -> Any:
    return np.pad(x, [(0, 0), (0, 0), *pads], constant_values=fill) if any(map(any, pads)) else x


def _taps(x: Any, kernel: Any, strides: Any, dilations: Any) -> tuple[list[int], Iterator[tuple[tuple[int, ...], Any]]]:
    """The output's spatial sizes, and for each place in the window the elements it meets."""
    sizes = [
        (size - (int(k) - 1) * int(d) - 1) // int(s) + 1
        for size, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True)
    ]

    def each() -> Iterator[tuple[tuple[int, ...], Any]]:
        for place in product(*(range(int(k)) for k in kernel)):
            cuts = tuple(
                slice(p * int(d), p * int(d) + (size - 1) * int(s) + 1, int(s))
                for p, d, s, size in zip(place, dilations, strides, sizes, strict=True)
            )
            yield place, x[(slice(None), slice(None), *cuts)]

    return sizes, each()


def _ones(given: Any, count: int) -> Any:
    return [1] * count if given is None else given


def _conv(
    x: Any, weight: Any, bias: Any = None, strides: Any = None, pad_type: str = "valid", pad: Any = None,
    dilations: Any = None, groups: Any = 1, **_: Any,
) -> Any:  # fmt: skip
    count, groups = x.ndim - 2, int(groups)
    strides, dilations = _ones(strides, count), _ones(dilations, count)
    kernel = weight.shape[2:]
    x = _padded(x, _pads(x, kernel, strides, dilations, pad_type, pad), 0)
    batch, outputs, each_in = x.shape[0], weight.shape[0], weight.shape[1]
    sizes, taps = _taps(x, kernel, strides, dilations)
    total = np.zeros((batch, groups, outputs // groups, prod(sizes)), np.float32)
    split = weight.reshape(groups, outputs // groups, each_in, *kernel)
    for place, part in taps:
        rows = part.reshape(batch, groups, each_in, -1)
        tap = split[(..., *place)]
        total += tap * rows if each_in == 1 else tap @ rows
    y = total.reshape(batch, outputs, *sizes)
    return y if bias is None else y + np.reshape(bias, (1, -1) + (1,) * count)


def _conv_transpose(
    x: Any, weight: Any, bias: Any = None, strides: Any = None, pad_type: str = "valid", pad: Any = None,
    dilations: Any = None, groups: Any = 1, output_shape: Any = None, **_: Any,
) -> Any:  # fmt: skip
    count, groups = x.ndim - 2, int(groups)
    strides, dilations = (list(map(int, _ones(given, count))) for given in (strides, dilations))
    kernel, each_out = weight.shape[2:], weight.shape[1]
    full = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(x.shape[2:], strides, kernel, dilations, strict=True)]
    batch, each_in = x.shape[0], x.shape[1] // groups
    total = np.zeros((batch, groups * each_out, *full), np.float32)
    rows = x.reshape(batch, groups, each_in, -1)
    split = weight.reshape(groups, each_in, each_out, *kernel)
    for place in product(*map(range, kernel)):
        part = split[(..., *place)].swapaxes(1, 2) @ rows
        cuts = tuple(
            slice(p * d, p * d + (n - 1) * s + 1, s)
            for p, d, n, s in zip(place, dilations, x.shape[2:], strides, strict=True)
        )
        total[(slice(None), slice(None), *cuts)] += part.reshape(batch, groups * each_out, *x.shape[2:])
    pads = [(0, 0)] * count if pad_type == "valid" else [(int(pad[2 * i]), int(pad[2 * i + 1])) for i in range(count)]
    crops = tuple(slice(before, size - after) for (before, after), size in zip(pads, full, strict=True))
    y = total[(slice(None), slice(None), *crops)]
    if output_shape is not None and tuple(map(int, output_shape)) != y.shape:
        raise ValueError(f"output_shape {tuple(output_shape)} where pads give {y.shape}")
    return y if bias is None else y + np.reshape(bias, (1, -1) + (1,) * count)


def _pooled_pads(x: Any, kernel: Any, strides: Any, pad_type: str, pad: Any, ceil_mode: Any) -> tuple[Pads, list[int]]:
    """The padding, and what ``ceil_mode`` adds at each end: room for a last window, unless it would start in the padding."""
    pads = _pads(x, kernel, strides, [1] * (x.ndim - 2), pad_type, pad)
    extra = [0] * len(pads)
    for axis, ((before, after), k, s) in enumerate(zip(pads, kernel, strides, strict=True) if ceil_mode else ()):
        size = x.shape[2 + axis]
        count = -(-(size + before + after - int(k)) // int(s)) + 1
        count -= (count - 1) * int(s) >= size + before
        extra[axis] = max(0, (count - 1) * int(s) + int(k) - size - before - after)
    return pads, extra


def _longer(pads: Pads, extra: list[int]) -> Pads:
    return [(before, after + more) for (before, after), more in zip(pads, extra, strict=True)]


def _max_pool(
    x: Any,
    kernel_sizes: Any,
    strides: Any = None,
    pad_type: str = "valid",
    pad: Any = None,
    ceil_mode: Any = False,
    **_: Any,
) -> Any:
    strides = _ones(strides, x.ndim - 2)
    pads, extra = _pooled_pads(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    x = _padded(x, _longer(pads, extra), -np.inf)
    _sizes, taps = _taps(x, kernel_sizes, strides, [1] * (x.ndim - 2))
    best = None
    for _place, part in taps:
        best = part if best is None else np.maximum(best, part)
    return best


def _avg_pool(
    x: Any, kernel_sizes: Any, strides: Any = None, pad_type: str = "valid", pad: Any = None,
    exclude_padding_from_average: Any = False, ceil_mode: Any = False, **_: Any,
) -> Any:  # fmt: skip
    """Padding counts in the average unless it is excluded; what ``ceil_mode`` adds never does."""
    strides = _ones(strides, x.ndim - 2)
    pads, extra = _pooled_pads(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    ones = [1] * (x.ndim - 2)
    total = sum(part for _place, part in _taps(_padded(x, _longer(pads, extra), 0), kernel_sizes, strides, ones)[1])
    if not exclude_padding_from_average and not any(extra):
        return total / np.float32(np.prod(kernel_sizes))
    counted = np.ones((1, 1, *x.shape[2:]), np.float32)
    if not exclude_padding_from_average:
        counted = _padded(counted, pads, 1)
        pads = [(0, 0)] * len(pads)
    real = _padded(counted, _longer(pads, extra), 0)
    return total / sum(part for _place, part in _taps(real, kernel_sizes, strides, ones)[1])


OPERATIONS: dict[str, Callable[..., Any]] = {
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
}
