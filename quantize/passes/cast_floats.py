"""float16 and bfloat16 written into the graph: engines that are strongly typed take each tensor's type from it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

_HALF, _BRAIN, _FLOAT = ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT
# Name in messages, suffix of tensors, largest number, smallest normal one.
_FORMS = {
    _HALF: ("float16", "half", float(np.finfo(np.float16).max), float(np.finfo(np.float16).tiny)),
    _BRAIN: ("bfloat16", "brain", 3.3895e38, float(np.finfo(np.float32).tiny)),
}
_ROOM = 4.0  # what other inputs may exceed those of the samples by

# Computed in the short type. What is not named here or below stays in float32: normalisations, Softmax, reductions and averages
# over whole planes (sums of many terms), powers, roots, exponentials and logarithms (range), quantization (its scales).
_COMPUTES = {
    "Abs", "Add", "AveragePool", "Clip", "Conv", "ConvTranspose", "Div", "Einsum", "Elu", "Erf", "Gelu", "Gemm",
    "HardSigmoid", "HardSwish", "LeakyRelu", "MatMul", "Max", "Min", "Mul", "Neg", "PRelu", "Relu", "Selu", "Sigmoid",
    "Sub", "Sum", "Tanh",
}  # fmt: skip
# Moved in the type that they come in.
_MOVES = {
    "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "GlobalMaxPool", "Identity",
    "MaxPool", "Pad", "Reshape", "Resize", "ScatterElements", "ScatterND", "Slice", "SpaceToDepth", "Split", "Squeeze",
    "Tile", "Transpose", "Unsqueeze", "Where",
}  # fmt: skip
# These carry a value too large for the type on; what follows other operators (Softmax, Sigmoid, …) is small again.
_CARRIES_RANGE = _MOVES | {"Abs", "Add", "Div", "Max", "Min", "Mul", "Neg", "Relu", "Sub", "Sum"}
# Sums of any number of terms: what each of them is in range for, they may leave.
_SUMS = {"ReduceSum", "ReduceSumSquare"}
# These read any type: nothing is cast for them.
_READS_ANY = {"Cast", "Shape", "Size"}
# These stay as quantization made them, which needs no mention.
_QUANTIZES = {"QuantizeLinear", "DequantizeLinear"}
# Inputs that stay float32 whatever the data is.
_FIXED_INPUTS = {"Resize": (1, 2)}


class CastFloats(ir.passes.InPlacePass):
    """Compute in float16 or bfloat16 between float32 inputs and outputs.

    Before::

        x: f32 ─► Conv(w: f32) ─► Softmax ─► y: f32

    After::

        x: f32 ─► Cast ─► Conv(w: f16) ─► Cast ─► Softmax ─► y: f32

    A node stays in float32 when it is among ``keep``, when its operator is none of those known to be safe (LayerNorm,
    Softmax, large sums), when a constant of it does not fit the type (float16: above 65504, or nothing of it a normal
    number), when what it reads may be as large (the output of ReduceSum may, where ``ranges`` do not know better), when
    it squares a tensor, or when it divides by a computed one; with ``ranges`` also when what it makes came near the
    largest number of the type. Needs dtypes on the values (shape inference). Bodies of control flow stay in float32. After P. Micikevicius et al., "Mixed Precision Training" (ICLR
    2018), whose list of operators it follows; bfloat16 has the range of float32, so nothing of it overflows.

    Args:
        keep: names of nodes that stay.
        dtype: FLOAT16 or BFLOAT16.
        ranges: the largest magnitude that tensors, by name, had on samples.
    """

    def __init__(
        self,
        keep: Collection[str] = (),
        dtype: ir.DataType = _HALF,
        ranges: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self.kept: dict[str, str] = {}
        self._keep, self._dtype, self._ranges = frozenset(keep), dtype, ranges
        self._name, self._suffix, self._largest, self._smallest = _FORMS[dtype]
        self._half: set[ir.Node] = set()
        self._wide: set[ir.Value] = set()
        self._sums: set[ir.Value] = set()
        self._casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Decide for each node, then retype values and place casts; ``kept`` then says what stayed in float32 and why."""
        for node in model.graph:
            self._decide(node)
        for node in list(model.graph):
            if node in self._half:
                self._retype_outputs(node)
        for node in list(model.graph.all_nodes()):
            self._fit_inputs(node, model.graph)
        self._restore_outputs(model.graph)
        return ir.passes.PassResult(model, modified=bool(self._half))

    def _decide(self, node: ir.Node) -> None:
        if node.op_type in _READS_ANY or not any(map(_is_float, [*node.inputs, *node.outputs])):
            return
        reason = self._reason(node)
        if not reason:
            self._half.add(node)
        elif reason != _FOLLOWS and node.op_type not in _QUANTIZES:
            self.kept[node.name or ""] = reason
        # Limits that are never met (Clip's ±3.4e38) make nothing large.
        large = reason.startswith(_TOO_LARGE) and node.op_type != "Clip"
        source = reason == _ASKED or large or reason.startswith(_REACHED)
        carried = node.op_type in _CARRIES_RANGE and any(
            value in self._wide for value in node.inputs if value is not None
        )
        if source or carried:
            self._wide.update(node.outputs)
        if self._sums_up(node) or self._of_sums(node):
            self._sums.update(node.outputs)

    def _reason(self, node: ir.Node) -> str:
        """Why a node stays in float32; empty when it computes in float16."""
        if node.name in self._keep:
            return _ASKED
        if node.domain not in ("", "ai.onnx") or node.op_type not in _COMPUTES | _MOVES:
            return f"{node.op_type} is computed in float32"
        if any(value.dtype is None for value in [*node.inputs, *node.outputs] if value is not None):
            return "the type of a tensor is not known"
        if node.op_type in _MOVES and not self._moves_half(node):
            return _FOLLOWS
        constants = [value for value in node.inputs if value is not None and _constant(value)]
        if any(_largest_of(value) > self._largest for value in constants):
            return f"{_TOO_LARGE} {self._name}"
        if any(0 < _largest_of(value) < self._smallest for value in constants if value is not _bias(node)):
            return f"a constant is too small for {self._name}"
        if any(value in self._wide for value in node.inputs if value is not None):
            return f"an input may be too large for {self._name}"
        if self._of_sums(node):
            return f"sums may be too large for {self._name}"
        reached = max((self._ranges.get(str(value.name), 0.0) for value in node.outputs), default=0.0)
        if reached * _ROOM > self._largest:
            return f"{_REACHED} {reached:.3g} on the samples, too near to the largest {self._name}"
        if node.op_type == "Mul" and node.inputs[0] is node.inputs[1]:
            return "it squares its input"
        divisor = node.inputs[1] if node.op_type == "Div" else None
        return "it divides by a computed tensor" if divisor is not None and not _constant(divisor) else ""

    def _sums_up(self, node: ir.Node) -> bool:
        """Whether a node makes sums that may be too large, as far as samples do not say otherwise."""
        if node.op_type not in _SUMS or self._dtype != _HALF:
            return False
        return self._ranges.get(str(node.outputs[0].name), self._largest) * _ROOM > self._largest

    def _of_sums(self, node: ir.Node) -> bool:
        """Whether a node computes with such sums alone: a mean's division, a variance. What meets them has its own range."""
        computed = [value for value in node.inputs if _is_float(value) and value is not None and not _constant(value)]
        return node.op_type in _CARRIES_RANGE and bool(computed) and all(value in self._sums for value in computed)

    def _moves_half(self, node: ir.Node) -> bool:
        data = [value for value in node.inputs if value is not None and _is_float(value)]
        computed = [value for value in data if not _constant(value)]
        return any(value.producer() in self._half for value in computed) if computed else bool(data)

    def _retype_outputs(self, node: ir.Node) -> None:
        for value in node.outputs:
            if _is_float(value):
                value.type = ir.TensorType(self._dtype)

    def _fit_inputs(self, node: ir.Node, graph: ir.Graph) -> None:
        if node.op_type in _READS_ANY:
            return
        wanted = self._dtype if node in self._half else _FLOAT
        fixed = _FIXED_INPUTS.get(node.op_type, ()) if node in self._half else ()
        for index, value in enumerate(node.inputs):
            if value is None or index in fixed or value.dtype not in (self._dtype, _FLOAT) or value.dtype == wanted:
                continue
            # What was of the type before this pass is left alone.
            if wanted == _FLOAT and value.producer() not in self._half:
                continue
            node.replace_input_with(index, self._cast(value, wanted, graph))

    def _cast(self, value: ir.Value, dtype: ir.DataType, graph: ir.Graph) -> ir.Value:
        """The value in another type: one cast per value, however many read it; constants are stored anew."""
        if (value, dtype) not in self._casts:
            suffix = self._suffix if dtype == self._dtype else "float"
            if _constant(value):
                self._casts[value, dtype] = _stored(value, dtype, suffix, graph)
            else:
                self._casts[value, dtype] = _insert_cast(value, dtype, f"{value.name}_{suffix}", graph)
        return self._casts[value, dtype]

    def _restore_outputs(self, graph: ir.Graph) -> None:
        for index, value in enumerate(graph.outputs):
            if value.producer() in self._half and value.dtype == self._dtype:
                name = value.name or ""
                value.name = f"{name}_{self._suffix}"
                graph.outputs[index] = _insert_cast(value, _FLOAT, name, graph)


_FOLLOWS = "it moves what is float32 already"
_ASKED = "it was asked for"
_TOO_LARGE = "a constant is too large for"
_REACHED = "its output reached"


def _bias(node: ir.Node) -> ir.Value | None:
    """What is added to products, where the digits of tiny numbers are lost anyway."""
    return node.inputs[2] if node.op_type in ("Conv", "ConvTranspose", "Gemm") and len(node.inputs) > 2 else None


def _is_float(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == _FLOAT


def _constant(value: ir.Value) -> bool:
    return value.is_initializer() and not value.is_graph_input() and value.const_value is not None


def _largest_of(value: ir.Value) -> float:
    """The largest finite magnitude of a float32 constant; 0 when it has none.

    Below the smallest normal number nothing of it survives: an epsilon would become zero or lose its digits.
    """
    if not _is_float(value) or value.const_value is None:
        return 0.0
    array = np.abs(value.const_value.numpy())
    finite = array[np.isfinite(array)]
    return float(finite.max()) if finite.size else 0.0


def _stored(value: ir.Value, dtype: ir.DataType, suffix: str, graph: ir.Graph) -> ir.Value:
    array = value.const_value.numpy() if value.const_value is not None else np.zeros(0, np.float32)
    name = f"{value.name}_{suffix}"
    stored = ir.Value(
        name=name,
        type=ir.TensorType(dtype),
        shape=value.shape,
        const_value=ir.tensor(array.astype(dtype.numpy()), name=name),
    )
    graph.register_initializer(stored)
    return stored


def _insert_cast(value: ir.Value, dtype: ir.DataType, name: str, graph: ir.Graph) -> ir.Value:
    cast = ir.node("Cast", [value], attributes={"to": int(dtype)}, name=f"cast_{name}")
    made = cast.outputs[0]
    made.name, made.type, made.shape = name, ir.TensorType(dtype), value.shape
    producer = value.producer()
    if producer is None:
        graph.insert_before(next(iter(graph)), cast)
    else:
        graph.insert_after(producer, cast)
    return made


def kept_summary(kept: dict[str, str]) -> Iterator[str]:
    """Reasons with how many nodes stayed in float32 for each, the most frequent first."""
    reasons = list(kept.values())
    for reason in sorted(set(reasons), key=lambda reason: (-reasons.count(reason), reason)):
        yield f"{reasons.count(reason)} × {reason}"
