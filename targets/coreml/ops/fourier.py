"""DFT as a product with a constant matrix, STFT as a strided convolution with windowed waves."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.node import NodeView
from edgewise.targets.coreml.refusal import Refusal
from edgewise.targets.coreml.row import FLOATS, Row

_AXIS_IS_INPUT = 20  # from this opset on
_MOST_WEIGHTS = 1 << 25


def waves(rows: int, columns: int, length: int) -> NDArray[np.complex128]:
    """``exp(−2πi·row·column / length)`` [rows, columns]; the product is reduced first, so large ones stay exact."""
    turns = np.outer(np.arange(rows, dtype=np.int64), np.arange(columns, dtype=np.int64)) % length
    return np.asarray(np.exp(-2j * np.pi * turns / length), np.complex128)


def as_real(matrix: NDArray[np.complex128], parts: int) -> NDArray[np.float64]:
    """[inputs, outputs] on complex numbers as [inputs, parts, outputs, 2] on their (real, imaginary) parts."""
    by_real = np.stack([matrix.real, matrix.imag], axis=-1)
    by_imaginary = np.stack([-matrix.imag, matrix.real], axis=-1)
    return np.stack([by_real, by_imaginary][:parts], axis=1)


def _axis(node: NodeView) -> int:
    given = node.const(2)
    if node.opset < _AXIS_IS_INPUT:
        axis = node.integer("axis", 1)
    else:
        axis = -2 if given is None else int(given.reshape(-1)[0])
    return axis % len(node.dims(0))


def _lengths(node: NodeView) -> tuple[int, int]:
    """Numbers along the axis, and the length of the transform; halves come back whole when both flags are set."""
    size = int(node.dims(0)[_axis(node)] or 0)
    given = node.const(1)
    default = 2 * (size - 1) if _is_half_back(node) else size
    return size, default if given is None else int(given.reshape(-1)[0])


def _is_half_back(node: NodeView) -> bool:
    return bool(node.integer("inverse") and node.integer("onesided"))


def _check_dft(node: NodeView) -> Refusal | None:
    dims, axis = node.dims(0), _axis(node)
    if dims[axis] is None or dims[-1] not in (1, 2):
        return Refusal(
            f"a signal of shape {dims}", "a fixed length, and 1 or 2 numbers at the end", "Export with fixed shapes", "input"
        )  # fmt: skip
    size, length = _lengths(node)
    return _check_size(
        min(size, length) * length * 2 * int(dims[-1] or 1), f"{length} points", "Split it into shorter ones"
    )


def _check_size(weights: int, found: str, fix: str) -> Refusal | None:
    if weights <= _MOST_WEIGHTS:
        return None
    return Refusal(
        f"a transform of {found}: a matrix of {weights} numbers", f"at most {_MOST_WEIGHTS}", fix, "input dft_length"
    )


def dft_matrix(size: int, length: int, parts: int, inverse: bool, onesided: bool) -> NDArray[np.float64]:
    """[size, parts, outputs, 2 or 1]: what the transform multiplies by; beyond ``length`` numbers are left out."""
    half = length // 2 + 1
    if not inverse:
        matrix = as_real(waves(size, half if onesided else length, length), parts)
        matrix[length:] = 0
        return matrix
    back: NDArray[np.complex128] = waves(size, length, length).conj() / length
    back[half if onesided else length :] = 0
    if not onesided:
        return as_real(back, parts)
    back[1 : (length + 1) // 2] *= 2  # what is left out mirrors these
    return as_real(back, parts)[..., :1]


def _dft(b: Building) -> Any:
    dims, axis = list(b.dims(0)), _axis(b)
    size, length = _lengths(b)
    parts = int(dims[-1] or 1)
    matrix = dft_matrix(size, length, parts, bool(b.integer("inverse")), bool(b.integer("onesided")))
    outputs, made = matrix.shape[2:]
    order = [other for other in range(len(dims) - 1) if other != axis] + [axis, len(dims) - 1]
    rows = b.mb.reshape(x=b.mb.transpose(x=b.x(), perm=order), shape=[-1, size * parts])
    weight = matrix.reshape(size * parts, outputs * made).T.astype(b.dtype(0))
    y = b.mb.linear(x=rows, weight=b.values.weight(np.ascontiguousarray(weight), b.label, 0))
    lead = [dims[other] for other in order[:-2]]
    shape = [-1 if dim is None else dim for dim in lead] + [outputs, made]
    return b.mb.transpose(x=b.mb.reshape(x=y, shape=shape), perm=[int(place) for place in np.argsort(order)])


def _frame(node: NodeView) -> tuple[int, NDArray[Any]]:
    """The length of a frame, and the window over it, zero behind its end."""
    window, given = node.const(2), node.const(3)
    if given is not None:
        length = int(given.reshape(-1)[0])
    else:
        length = int(node.dims(0)[1] or 0) if window is None else len(window)
    weights = np.ones(length) if window is None else window.astype(np.float64)
    return length, np.pad(weights, (0, max(0, length - len(weights))))


def _check_stft(node: NodeView) -> Refusal | None:
    dims = node.dims(0)
    if len(dims) not in (2, 3) or None in dims[1:]:
        return Refusal(
            f"a signal of shape {dims}", "[batch, fixed length, 1 or 2]", "Export with fixed shapes", "signal"
        )
    length, window = _frame(node)
    if len(window) > length:
        return Refusal(f"a window of {len(window)}", f"at most the frame's {length}", "Shorten it", "input window")
    return _check_size(length * length * 2, f"{length} points", "Use shorter frames")


def _stft(b: Building) -> Any:
    """Each bin is two output channels, its real and its imaginary part; the frames are where the kernel stops."""
    dims = b.dims(0)
    length, window = _frame(b)
    parts = int(dims[2] or 1) if len(dims) > 2 else 1
    bins = length // 2 + 1 if b.integer("onesided", 1) else length
    kernels = as_real(waves(length, bins, length) * window[:, None], parts).transpose(2, 3, 1, 0)
    x = b.mb.transpose(x=b.x(), perm=[0, 2, 1]) if len(dims) > 2 else b.mb.expand_dims(x=b.x(), axes=[1])
    weight = np.ascontiguousarray(kernels.reshape(bins * 2, parts, length).astype(b.dtype(0)))
    step = int(b.known(1).reshape(-1)[0])
    y = b.mb.conv(x=x, weight=b.values.weight(weight, b.label, 0), strides=[step], pad_type="valid")
    frames = (int(dims[1] or 0) - length) // step + 1
    return b.mb.transpose(x=b.mb.reshape(x=y, shape=[-1, bins, 2, frames]), perm=[0, 3, 1, 2])


ROWS = (
    Row("DFT", _dft, _check_dft, static=(1, 2), dtypes=FLOATS, note="a fixed length"),
    Row("STFT", _stft, _check_stft, static=(1, 2, 3), dtypes=FLOATS, note="a fixed length, a constant window"),
)
