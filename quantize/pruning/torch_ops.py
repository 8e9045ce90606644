"""ONNX operators in PyTorch, so that what a part of a graph computes has gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import torch
from torch.nn import functional

Tensor = torch.Tensor
Operator = Callable[..., Any]


def run_node(node: ir.Node, inputs: list[Tensor | None]) -> list[Tensor]:
    """The outputs of a node.

    Raises:
        NotImplementedError: the operator, or this form of it, is not in the table.
    """
    operator = None if node.domain else OPERATORS.get(node.op_type)
    if operator is None:
        raise NotImplementedError(f"{node.op_type} has no gradient here")
    given = {name: attribute.value for name, attribute in node.attributes.items()}
    made = operator(*inputs, **given)
    return list(made) if isinstance(made, tuple | list) else [made]


def _conv(x: Tensor, w: Tensor, b: Tensor | None = None, **given: Any) -> Tensor:
    dims = w.ndim - 2
    pads = list(given.get("pads", [0] * (2 * dims)))
    if given.get("auto_pad", "NOTSET") != "NOTSET" or dims not in (1, 2):
        raise NotImplementedError("Conv with auto_pad or three dims has no gradient here")
    if pads[:dims] != pads[dims:]:
        x = functional.pad(x, [pad for axis in reversed(range(dims)) for pad in (pads[axis], pads[axis + dims])])
        pads = [0] * dims
    convolve: Any = functional.conv1d if dims == 1 else functional.conv2d
    ones = [1] * dims
    made: Tensor = convolve(
        x,
        w,
        b,
        list(given.get("strides", ones)),
        pads[:dims],
        list(given.get("dilations", ones)),
        given.get("group", 1),
    )
    return made


def _gemm(a: Tensor, b: Tensor, c: Tensor | None = None, **given: Any) -> Tensor:
    a, b = (a.T if given.get("transA") else a), (b.T if given.get("transB") else b)
    made: Tensor = given.get("alpha", 1.0) * (a @ b)
    return made if c is None else made + given.get("beta", 1.0) * c


def _layer_norm(x: Tensor, scale: Tensor, bias: Tensor | None = None, **given: Any) -> Tensor:
    return functional.layer_norm(x, x.shape[given.get("axis", -1) :], scale, bias, given.get("epsilon", 1e-5))


def _reshape(x: Tensor, shape: Tensor, **given: Any) -> Tensor:
    dims = [x.shape[i] if dim == 0 and not given.get("allowzero") else dim for i, dim in enumerate(shape.tolist())]
    return x.reshape(dims)


def _reduce_mean(x: Tensor, axes: Tensor | None = None, **given: Any) -> Tensor:
    chosen = axes.tolist() if axes is not None else list(given.get("axes", range(x.ndim)))
    return x.mean(chosen, keepdim=bool(given.get("keepdims", 1)))


def _slice(x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None) -> Tensor:
    along = list(range(len(starts))) if axes is None else axes.tolist()
    by = [1] * len(starts) if steps is None else steps.tolist()
    index: list[Any] = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts.tolist(), ends.tolist(), along, by, strict=True):
        if step < 0:
            raise NotImplementedError("Slice backwards has no gradient here")
        index[axis] = slice(start, end, step)
    return x[tuple(index)]


def _pad(x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None, **given: Any) -> Tensor:
    if given.get("mode", "constant") != "constant" or axes is not None:
        raise NotImplementedError("Pad other than with a constant has no gradient here")
    widths = pads.tolist()
    flat = [widths[axis + side * x.ndim] for axis in reversed(range(x.ndim)) for side in (0, 1)]
    return functional.pad(x, flat, value=0.0 if value is None else float(value))


def _split(x: Tensor, sizes: Tensor | None = None, **given: Any) -> tuple[Tensor, ...]:
    axis, count = given.get("axis", 0), given.get("num_outputs")
    if sizes is None:
        sizes = torch.tensor([-(-x.shape[axis] // count)]) if count else None
    if sizes is None:
        raise NotImplementedError("Split without sizes has no gradient here")
    return torch.split(x, sizes.tolist() if len(sizes) > 1 else int(sizes[0]), axis)


def _gather(x: Tensor, index: Tensor, **given: Any) -> Tensor:
    axis = given.get("axis", 0) % x.ndim
    flat = torch.where(index < 0, index + x.shape[axis], index).reshape(-1)
    return x.index_select(axis, flat).reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def _unsqueeze(x: Tensor, axes: Tensor) -> Tensor:
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes.tolist()):
        x = x.unsqueeze(axis)
    return x


def _pool(kind: Any, x: Tensor, **given: Any) -> Tensor:
    pads = list(given.get("pads", [0, 0, 0, 0]))
    plain = given.get("auto_pad", "NOTSET") == "NOTSET" and pads[:2] == pads[2:]
    if x.ndim != 4 or not plain or any(step != 1 for step in given.get("dilations", [1])):
        raise NotImplementedError("this form of pooling has no gradient here")
    more = {"ceil_mode": bool(given.get("ceil_mode"))}
    if kind is functional.avg_pool2d:
        more["count_include_pad"] = bool(given.get("count_include_pad"))
    made: Tensor = kind(x, list(given["kernel_shape"]), list(given.get("strides", [1, 1])), pads[:2], **more)
    return made


def _gelu(x: Tensor, **given: Any) -> Tensor:
    return functional.gelu(x, approximate=given.get("approximate", "none"))


OPERATORS: dict[str, Operator] = {
    "Add": lambda a, b: a + b,
    "AveragePool": lambda x, **given: _pool(functional.avg_pool2d, x, **given),
    "Clip": lambda x, low=None, high=None: x.clamp(low, high) if low is not None or high is not None else x,
    "Concat": lambda *xs, axis: torch.cat(xs, axis),
    "Conv": _conv,
    "Div": lambda a, b: a / b,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Flatten": lambda x, axis=1: x.reshape(int(torch.tensor(x.shape[:axis]).prod()), -1),
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda x: x.mean(tuple(range(2, x.ndim)), keepdim=True),
    "HardSigmoid": lambda x, alpha=0.2, beta=0.5: (alpha * x + beta).clamp(0, 1),
    "HardSwish": functional.hardswish,
    "Identity": lambda x: x,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda x, alpha=0.01: functional.leaky_relu(x, alpha),
    "MatMul": lambda a, b: a @ b,
    "MaxPool": lambda x, **given: _pool(functional.max_pool2d, x, **given),
    "Mul": lambda a, b: a * b,
    "Neg": torch.neg,
    "Pad": _pad,
    "Pow": torch.pow,
    "ReduceMean": _reduce_mean,
    "Relu": torch.relu,
    "Reshape": _reshape,
    "Shape": lambda x, start=0, end=None: torch.tensor(x.shape[start:end]),
    "Sigmoid": torch.sigmoid,
    "Slice": _slice,
    "Softmax": lambda x, axis=-1: x.softmax(axis),
    "Split": _split,
    "Sqrt": torch.sqrt,
    "Squeeze": lambda x, axes=None: x.squeeze() if axes is None else x.squeeze(tuple(axes.tolist())),
    "Sub": lambda a, b: a - b,
    "Tanh": torch.tanh,
    "Transpose": lambda x, perm=None: x.permute(list(perm) if perm else list(reversed(range(x.ndim)))),
    "Unsqueeze": _unsqueeze,
    "Where": torch.where,
}
