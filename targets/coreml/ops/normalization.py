"""BatchNormalization, InstanceNormalization, LayerNormalization, GroupNormalization, RMSNormalization, LRN, LpNormalization."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.node import NodeView
from edgewise.targets.coreml.refusal import Refusal
from edgewise.targets.coreml.row import FLOATS, Row

_LEAST = 6e-8


def _constants(node: NodeView, *indices: int) -> Refusal | None:
    for index in indices:
        if node.given(index) and node.const(index) is None:
            return Refusal("a parameter computed at run time", "constants", "Make it constant", f"input {index}")
    return None


def _check_batch_norm(node: NodeView) -> Refusal | None:
    if node.integer("training_mode"):
        return None
    if any(node.used(index) for index in range(1, len(node.node.outputs))):
        return Refusal("the statistics in use", "the first output alone", "Export the model in eval mode", "outputs")
    return _constants(node, 1, 2, 3, 4)


def _batch_norm(b: Building) -> Any:
    if b.integer("training_mode"):
        return _trained_batch_norm(b)
    gamma, beta, mean, variance = (b.known(index) for index in range(1, 5))
    epsilon = b.real("epsilon", 1e-5)
    if b.rank(0) in (3, 4, 5):
        return b.mb.batch_norm(
            x=b.x(), mean=b.array(mean), variance=b.array(variance), gamma=b.array(gamma), beta=b.array(beta),
            epsilon=b.like(epsilon),
        )  # fmt: skip
    factor = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
    shift = beta - mean * factor
    y = b.mb.mul(x=b.x(), y=b.array(factor.astype(gamma.dtype)))
    return b.mb.add(x=y, y=b.array(shift.astype(gamma.dtype)))


def _trained_batch_norm(b: Building) -> list[Any]:
    """Normalized by the batch's own statistics; beside it the running ones, which take in a part of them."""
    axes = [axis for axis in range(len(b.dims(0))) if axis != 1]
    mean, variance = _moments(b, axes)
    inverse = b.mb.rsqrt(x=variance, epsilon=b.like(b.real("epsilon", 1e-5)))
    y = _per_channel(b, b.mb.mul(x=b.mb.sub(x=b.x(), y=mean), y=inverse), _parameter(b, 1), _parameter(b, 2))
    part = b.real("momentum", 0.9)
    running = []
    for index, fresh in ((3, mean), (4, variance)):
        kept = b.mb.mul(x=b.x(index), y=b.like(part))
        added = b.mb.mul(x=b.mb.reshape(x=fresh, shape=[-1]), y=b.like(1 - part))
        running.append(b.mb.add(x=kept, y=added))
    return [y, *running][: len(b.node.outputs)]


def _moments(b: Building, axes: list[int]) -> tuple[Any, Any]:
    """Mean and variance along axes, which stay with one element."""
    mean = b.mb.reduce_mean(x=b.x(), axes=axes, keep_dims=True)
    return mean, b.mb.reduce_mean(x=b.mb.square(x=b.mb.sub(x=b.x(), y=mean)), axes=axes, keep_dims=True)


def _instance_norm(b: Building) -> Any:
    gamma, beta = b.const(1), b.const(2)
    epsilon = b.real("epsilon", 1e-5)
    if gamma is not None and beta is not None and b.rank(0) in (3, 4):
        return b.mb.instance_norm(x=b.x(), gamma=b.array(gamma), beta=b.array(beta), epsilon=b.like(epsilon))
    y = _standardized(b, b.x(), list(range(2, len(b.dims(0)))), epsilon)
    return _per_channel(b, y, _parameter(b, 1), _parameter(b, 2))


def _standardized(b: Building, x: Any, axes: list[int], epsilon: float) -> Any:
    return b.mb.layer_norm(x=x, axes=axes, epsilon=b.like(epsilon))


def _parameter(b: Building, index: int) -> Any:
    """A number per channel, computed or constant, as [1, channels, 1, …]."""
    known = b.const(index)
    shape = (1, -1) + (1,) * (len(b.dims(0)) - 2)
    return b.mb.reshape(x=b.x(index), shape=list(shape)) if known is None else b.array(known.reshape(shape))


def _per_channel(b: Building, y: Any, gamma: Any, beta: Any) -> Any:
    return b.mb.add(x=b.mb.mul(x=y, y=gamma), y=beta)


def _layer_norm(b: Building) -> Any:
    """What is normalized; the mean and the inverse deviation beside it where somebody reads them."""
    axes = list(range(b.axis(-1), len(b.dims(0))))
    y = _normalized(b, axes)
    if not (b.used(1) or b.used(2)):
        return y
    mean, variance = _moments(b, axes)
    return [y, mean, b.mb.rsqrt(x=variance, epsilon=b.like(b.real("epsilon", 1e-5)))]


def _normalized(b: Building, axes: list[int]) -> Any:
    """Constant parameters of the normalized axes go into MIL's operation; other ones follow it."""
    shape = tuple(b.dims(0)[axis] for axis in axes)
    gamma, beta = b.const(1), b.const(2)
    shift_fits = not b.given(2) or (beta is not None and beta.shape == shape)
    if gamma is not None and gamma.shape == shape and shift_fits:
        return b.mb.layer_norm(
            x=b.x(), axes=axes, gamma=b.array(gamma), beta=None if beta is None else b.array(beta),
            epsilon=b.like(b.real("epsilon", 1e-5)),
        )  # fmt: skip
    y = b.mb.mul(x=_standardized(b, b.x(), axes, b.real("epsilon", 1e-5)), y=b.x(1))
    return b.mb.add(x=y, y=b.x(2)) if b.given(2) else y


def _check_group_norm(node: NodeView) -> Refusal | None:
    shape = node.dims(0)
    if None in shape[1:]:
        return Refusal("sizes known at run time only", "fixed channels and spatial sizes", "Export with fixed shapes")
    return None


def _group_norm(b: Building) -> Any:
    """Each group as one row: [n, groups, rest] normalized over rest. Scale per group until opset 20, per channel from 21."""
    shape = b.dims(0)
    groups, channels = b.integer("num_groups"), int(shape[1] or 1)
    rows = b.mb.reshape(x=b.x(), shape=[-1, groups, int(np.prod([dim or 1 for dim in shape[1:]])) // groups])
    y = _standardized(b, rows, [2], b.real("epsilon", 1e-5))
    y = b.mb.reshape(x=y, shape=[-1, *(int(dim or 1) for dim in shape[1:])])
    return _per_channel(b, y, *(_of_groups(b, index, groups, channels) for index in (1, 2)))


def _of_groups(b: Building, index: int, groups: int, channels: int) -> Any:
    """The parameter of each channel; until opset 20 there is one per group."""
    if b.dims(index) == (channels,):
        return _parameter(b, index)
    shape = (1, channels) + (1,) * (len(b.dims(0)) - 2)
    known = b.const(index)
    if known is not None:
        return b.array(np.repeat(known, channels // known.size).reshape(shape))
    rows = b.mb.tile(x=b.mb.reshape(x=b.x(index), shape=[groups, 1]), reps=[1, channels // groups])
    return b.mb.reshape(x=rows, shape=list(shape))


def _rms_norm(b: Building) -> Any:
    axes = list(range(b.axis(-1), len(b.dims(0))))
    square = b.mb.reduce_mean(x=b.mb.square(x=b.x()), axes=axes, keep_dims=True)
    inverse = b.mb.rsqrt(x=square, epsilon=b.like(b.real("epsilon", 1e-5)))
    return b.mb.mul(x=b.mb.mul(x=b.x(), y=inverse), y=b.x(1))


def _lrn(b: Building) -> Any:
    return b.mb.local_response_norm(
        x=b.x(), size=b.integer("size"), alpha=b.like(b.real("alpha", 1e-4)), beta=b.like(b.real("beta", 0.75)),
        k=b.like(b.real("bias", 1.0)),
    )  # fmt: skip


def _check_lrn(node: NodeView) -> Refusal | None:
    if node.integer("size") % 2 == 0:
        return Refusal(f"size {node.integer('size')}", "an odd size", "Use an odd size", "attribute size")
    if node.rank(0) not in (3, 4):
        return Refusal(f"an input of rank {node.rank(0)}", "rank 3 or 4", "Reshape it first", "input X")
    return None


def _lp_norm(b: Building) -> Any:
    """A vector of zeros stays one: its norm counts as the least number of float16."""
    norm = b.mb.reduce_l1_norm if b.integer("p", 2) == 1 else b.mb.reduce_l2_norm
    length = norm(x=b.x(), axes=[b.axis(-1)], keep_dims=True)
    return b.mb.real_div(x=b.x(), y=b.mb.maximum(x=length, y=b.like(_LEAST)))


ROWS = (
    Row("BatchNormalization", _batch_norm, _check_batch_norm, weights=(1, 2, 3, 4), dtypes=FLOATS),
    Row("InstanceNormalization", _instance_norm, weights=(1, 2), dtypes=FLOATS),
    Row("LayerNormalization", _layer_norm, weights=(1, 2), dtypes=FLOATS),
    Row("GroupNormalization", _group_norm, _check_group_norm, weights=(1, 2), dtypes=FLOATS),
    Row("RMSNormalization", _rms_norm, weights=(1,), dtypes=FLOATS),
    Row("LRN", _lrn, _check_lrn, dtypes=FLOATS, note="odd size"),
    Row("LpNormalization", _lp_norm, dtypes=FLOATS),
)
