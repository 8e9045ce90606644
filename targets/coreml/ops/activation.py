"""Activations and softmax."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.node import NodeView
from edgewise.targets.coreml.ops.elementwise import unary
from edgewise.targets.coreml.refusal import Refusal
from edgewise.targets.coreml.row import FLOATS, NUMBERS, Row

_SELU_ALPHA, _SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875


def _clip(b: Building) -> Any:
    low, high = b.param(1, "min"), b.param(2, "max")
    if b.is_float() and low is not None and high is not None:
        if float(low) == 0 and float(high) == 6:
            return b.mb.relu6(x=b.x())
        return b.mb.clip(x=b.x(), alpha=b.like(float(low)), beta=b.like(float(high)))
    y = b.x()
    if low is not None or b.given(1):
        y = b.mb.maximum(x=y, y=b.x(1) if low is None else _bound(b, low))
    if high is not None or b.given(2):
        y = b.mb.minimum(x=y, y=b.x(2) if high is None else _bound(b, high))
    return y


def _bound(b: Building, bound: np.ndarray) -> Any:
    """A bound of integers may be that of int64."""
    return b.like(float(bound)) if b.is_float() else np.int32(np.clip(bound, -(2**31), 2**31 - 1))


def _leaky(b: Building) -> Any:
    return b.mb.leaky_relu(x=b.x(), alpha=b.like(b.real("alpha", 0.01)))


def _elu(b: Building) -> Any:
    return b.mb.elu(x=b.x(), alpha=b.like(b.real("alpha", 1.0)))


def _selu(b: Building) -> Any:
    y = b.mb.elu(x=b.x(), alpha=b.like(b.real("alpha", _SELU_ALPHA)))
    return b.mb.mul(x=y, y=b.like(b.real("gamma", _SELU_GAMMA)))


def _celu(b: Building) -> Any:
    alpha = b.real("alpha", 1.0)
    inner = b.mb.elu(x=b.mb.mul(x=b.x(), y=b.like(1 / alpha)), alpha=b.like(1.0))
    return b.mb.mul(x=inner, y=b.like(alpha))


def _hard_sigmoid(b: Building) -> Any:
    return b.mb.sigmoid_hard(x=b.x(), alpha=b.like(b.real("alpha", 0.2)), beta=b.like(b.real("beta", 0.5)))


def _hard_swish(b: Building) -> Any:
    gate = b.mb.sigmoid_hard(x=b.x(), alpha=b.like(1 / 6), beta=b.like(0.5))
    return b.mb.mul(x=b.x(), y=gate)


def _gelu(b: Building) -> Any:
    mode = "TANH_APPROXIMATION" if b.text("approximate", "none") == "tanh" else "EXACT"
    return b.mb.gelu(x=b.x(), mode=mode)


def _mish(b: Building) -> Any:
    return b.mb.mul(x=b.x(), y=b.mb.tanh(x=b.mb.softplus(x=b.x())))


def _swish(b: Building) -> Any:
    alpha = b.real("alpha", 1.0)
    if alpha == 1:
        return b.mb.silu(x=b.x())
    return b.mb.mul(x=b.x(), y=b.mb.sigmoid(x=b.mb.mul(x=b.x(), y=b.like(alpha))))


def _thresholded(b: Building) -> Any:
    above = b.mb.greater(x=b.x(), y=b.like(b.real("alpha", 1.0)))
    return b.mb.select(cond=above, a=b.x(), b=b.like(0.0))


def _prelu(b: Building) -> Any:
    """One slope per channel is MIL's ``prelu``; any other broadcast is written out."""
    slope, rank = b.const(1), len(b.dims(0))
    channels = b.dims(0)[1] if rank >= 3 else None
    if slope is not None and channels and rank <= 5 and _per_channel(slope, channels, rank):
        return b.mb.prelu(x=b.x(), alpha=b.array(np.broadcast_to(slope.reshape(-1), (channels,))))
    negative = b.mb.mul(x=b.mb.minimum(x=b.x(), y=b.like(0.0)), y=b.x(1))
    return b.mb.add(x=b.mb.relu(x=b.x()), y=negative)


def _per_channel(slope: np.ndarray, channels: int, rank: int) -> bool:
    padded = (1,) * (rank - slope.ndim) + slope.shape
    return padded == (1, channels) + (1,) * (rank - 2) or slope.size == 1


def _softmax(b: Building) -> Any:
    return _over_axis(b, lambda x, axis: b.mb.softmax(x=x, axis=axis))


def _log_softmax(b: Building) -> Any:
    return _over_axis(
        b, lambda x, axis: b.mb.sub(x=x, y=b.mb.reduce_log_sum_exp(x=x, axes=[axis], keep_dims=True))
    )  # fmt: skip


def _over_axis(b: Building, apply: Any) -> Any:
    """Before opset 13, softmax went over all axes from ``axis`` on, taken as one."""
    shape = b.dims(0)
    axis = b.axis(-1 if b.opset >= 13 else 1)
    if b.opset >= 13 or axis == len(shape) - 1:
        return apply(b.x(), axis)
    lead = [int(dim or 0) for dim in shape[:axis]]
    flat = apply(b.mb.reshape(x=b.x(), shape=[*lead, -1]), axis)
    return b.mb.reshape(x=flat, shape=[int(dim or 0) for dim in shape])


def _check_softmax(node: NodeView) -> Refusal | None:
    shape = node.dims(0)
    if node.opset < 13 and node.axis(1) != len(shape) - 1 and None in shape:
        return Refusal(
            "softmax over several axes of sizes known at run time only (opsets below 13)", "one axis or fixed shapes",
            "Upgrade the model to opset 13", "attribute axis",
        )  # fmt: skip
    return None


ROWS = (
    *(
        Row(name, unary(name.lower()), dtypes=FLOATS, elementwise=True)
        for name in ("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign")
    ),
    Row("Clip", _clip, dtypes=NUMBERS, elementwise=True),
    Row("LeakyRelu", _leaky, dtypes=FLOATS, elementwise=True),
    Row("PRelu", _prelu, weights=(1,), dtypes=FLOATS),
    Row("Elu", _elu, dtypes=FLOATS, elementwise=True),
    Row("Selu", _selu, dtypes=FLOATS, elementwise=True),
    Row("Celu", _celu, dtypes=FLOATS, elementwise=True),
    Row("HardSigmoid", _hard_sigmoid, dtypes=FLOATS, elementwise=True),
    Row("HardSwish", _hard_swish, dtypes=FLOATS, elementwise=True),
    Row("Gelu", _gelu, dtypes=FLOATS, elementwise=True),
    Row("Mish", _mish, dtypes=FLOATS, elementwise=True),
    Row("Swish", _swish, dtypes=FLOATS, elementwise=True),
    Row("ThresholdedRelu", _thresholded, dtypes=FLOATS, elementwise=True),
    Row("Softmax", _softmax, _check_softmax, dtypes=FLOATS, along=-1),
    Row("LogSoftmax", _log_softmax, _check_softmax, dtypes=FLOATS, along=-1),
)
