"""Computing a graph piece by piece over samples that are kept, so that later pieces can react to earlier ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir

from edgewise.quantize.keeping import Column, Samples
from edgewise.quantize.layers import constant_of
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.runtime.ort_session import open_session, run_session, threads_beside_others

if TYPE_CHECKING:
    from edgewise.runtime.data import Dataset

WALK_BUDGET = 8 << 30  # bytes of tensors that walks keep at once, in files
MOST_SAMPLES = 512

Arrays = dict[str, np.ndarray]


class Walk:
    """Walks through a graph in its order; what later nodes read is kept for every sample, the rest is dropped.

    What is kept lies in files once it is large (in the system's folder for temporary ones), so memory does not grow with the
    number of samples.

    Weights are read when a piece is computed: what was changed before is what computes. Every node computes as it stands,
    so integers mean the same on any processor.

    Args:
        model: its constants are initializers, its functions inlined (see ``prepare``).
        samples: inputs by name, one entry a sample.
    """

    def __init__(self, model: ir.Model, samples: Sequence[Arrays]) -> None:
        self._model = model
        self._nodes = list(model.graph)
        self._places = {node: place for place, node in enumerate(self._nodes)}
        self._last = _last_reads(model.graph, self._places)
        self._done = 0
        self._count = len(samples)
        self._kept = {name: Column(sample[name] for sample in samples) for name in (samples[0] if samples else ())}

    def values(self, wanted: Sequence[ir.Value]) -> list[Sequence[np.ndarray]]:
        """Per wanted value its arrays, one for each sample; all nodes up to their makers are computed.

        A value is there until the walk goes past its last reader.

        Raises:
            RunError: ONNX Runtime refuses a piece.
        """
        makers = [node for value in wanted if (node := value.producer()) is not None]
        self._go(max((self._places[node] + 1 for node in makers), default=0), {str(value.name) for value in wanted})
        return [self._kept[str(value.name)] for value in wanted]

    def ahead(self, wanted: Sequence[ir.Value]) -> Iterator[Arrays]:
        """Sample by sample these tensors by name, as they are with the weights of now; the walk stays where it is.

        What it has not computed yet is computed from what it keeps, and forgotten. A tensor that it has gone past, last reader
        and all, is not to be had.

        Raises:
            RunError: ONNX Runtime refuses a piece.
        """
        names = list(dict.fromkeys(str(value.name) for value in wanted))
        later = [name for name in names if name not in self._kept]
        piece = Piece(self._model, self._makers_of(later)) if later else None
        for index in range(self._count):
            found = {name: self._kept[name][index] for name in names if name in self._kept}
            if piece is not None:
                found |= piece.run({name: self._kept[name][index] for name in piece.read}, later)
            yield found

    def _makers_of(self, names: Sequence[str]) -> list[ir.Node]:
        """The nodes, in order, that compute these tensors from what is kept."""
        wanted, found = set(names), []
        for node in reversed(self._nodes[self._done :]):
            if any(value.name in wanted for value in node.outputs):
                found.append(node)
                wanted.update(str(value.name) for value in reads(node))
        return found[::-1]

    def to_come(self, values: Iterable[ir.Value]) -> list[ir.Value]:
        """Those that it has not computed yet."""
        makers = [(value, value.producer()) for value in values]
        return [value for value, node in makers if node is not None and self._places[node] >= self._done]

    def replace(self, value: ir.Value, arrays: Iterable[np.ndarray]) -> None:
        """Let later nodes read other arrays, one for each sample."""
        self._kept[str(value.name)] = Column(arrays)

    def _go(self, place: int, wanted: set[str]) -> None:
        if place > self._done:
            self._compute(self._nodes[self._done : place], place, wanted)
            self._done = place
        for name in [name for name in self._kept if self._last.get(name, -1) < self._done and name not in wanted]:
            del self._kept[name]

    def _compute(self, nodes: list[ir.Node], place: int, wanted: set[str]) -> None:
        piece = Piece(self._model, nodes)
        outputs = [name for name in piece.made if self._last.get(name, -1) >= place or name in wanted]
        if not outputs:
            return
        made = {name: Column() for name in outputs}
        for index in range(self._count):
            for name, array in piece.run({name: self._kept[name][index] for name in piece.read}, outputs).items():
                made[name].append(array)
        self._kept.update(made)


class Piece:
    """Some neighbouring nodes of a graph, computed on their own.

    Attributes:
        read: names of the tensors that they take from outside, constants aside.
        made: names of the tensors that they make.
    """

    def __init__(self, model: ir.Model, nodes: Sequence[ir.Node]) -> None:
        self._model, self._nodes = model, nodes
        made = {value for node in nodes for value in node.outputs}
        read = dict.fromkeys(value for node in nodes for value in reads(node) if value not in made)
        self._constants = [value for value in read if constant_of(value) is not None]
        self.read = [str(value.name) for value in read if constant_of(value) is None]
        self.made = [str(value.name) for node in nodes for value in node.outputs if value.name]
        self._sessions: dict[tuple[object, ...], object] = {}

    def run(self, inputs: Arrays, outputs: Sequence[str]) -> Arrays:
        """Compute ``outputs``, some of ``made``.

        Raises:
            RunError: ONNX Runtime refuses the nodes.
        """
        key = (tuple(outputs), tuple((name, array.dtype, array.ndim) for name, array in inputs.items()))
        where = f"nodes {self._nodes[0].name!r} to {self._nodes[-1].name!r}"
        if key not in self._sessions:
            proto = self._proto(inputs, outputs)
            threads = threads_beside_others()
            self._sessions[key] = open_session(proto.SerializeToString(), where=where, threads=threads, optimize=False)
        return run_session(self._sessions[key], inputs, where=where)

    def _proto(self, inputs: Arrays, outputs: Sequence[str]) -> onnx.ModelProto:
        graph = onnx.GraphProto(name="piece")
        graph.node.extend(ir.serde.serialize_node(node) for node in self._nodes)
        for value in self._constants:
            tensor = ir.serde.serialize_tensor(value.const_value)  # type: ignore[arg-type]
            tensor.name = str(value.name)
            graph.initializer.append(tensor)
        for name, array in inputs.items():
            kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            graph.input.append(onnx.helper.make_tensor_value_info(name, kind, [None] * array.ndim))
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        opsets = [onnx.helper.make_opsetid(name, version) for name, version in self._model.graph.opset_imports.items()]
        return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=max(self._model.ir_version, 8))


def kept_samples(
    model: ir.Model, data: Dataset, *, most: int = MOST_SAMPLES, networks: int = 2, budget: int = WALK_BUDGET
) -> Samples:
    """Samples, spread evenly, as many as :func:`kept_count` says."""
    count = kept_count(model, data, most=most, networks=networks, budget=budget)
    return Samples(sample.inputs for sample in data.take(count))


def kept_count(model: ir.Model, data: Dataset, *, most: int, networks: int = 2, budget: int = WALK_BUDGET) -> int:
    """How many samples ``networks`` walks at once can keep within ``budget`` bytes, by the first one: at most ``most``, and 2 in any case."""
    first = next(iter(data)).inputs
    names = [str(value.name) for node in model.graph for value in node.outputs if value.name]
    sizes = {name: array.nbytes for name, array in OnnxRunner(model, outputs=names).run(first).items()}
    widest = max(_alive(model.graph, sizes), default=1)
    return min(most, max(2, budget // max(1, networks * widest)))


def _alive(graph: ir.Graph, sizes: dict[str, int]) -> Iterator[int]:
    """Bytes of all tensors that are kept after each node."""
    places = {node: place for place, node in enumerate(graph)}
    last = _last_reads(graph, places)
    ends: dict[int, int] = {}
    size = 0
    for node, place in places.items():
        for value in node.outputs:
            end = last.get(str(value.name), -1)
            if end > place:
                own = sizes[str(value.name)]
                size += own
                ends[end] = ends.get(end, 0) + own
        yield size
        size -= ends.get(place, 0)


def reads(node: ir.Node) -> Iterable[ir.Value]:
    """What a node reads, with what the bodies inside it take from outside."""
    inside = [inner for body in _bodies(node) for inner in ir.traversal.RecursiveGraphIterator(body)]
    own = {value for inner in inside for value in inner.outputs} | {value for b in _bodies(node) for value in b.inputs}
    given = [value for body in _bodies(node) for value in body.outputs]
    taken = [value for inner in inside for value in inner.inputs]
    local = {value for body in _bodies(node) for value in body.initializers.values()}
    yield from (value for value in node.inputs if value is not None)
    yield from (value for value in [*taken, *given] if value is not None and value not in own and value not in local)


def _bodies(node: ir.Node) -> list[ir.Graph]:
    found: list[ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            found.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            found.extend(attribute.as_graphs())
    return found


def _last_reads(graph: ir.Graph, places: dict[ir.Node, int]) -> dict[str, int]:
    """Per tensor the place of its last reader; graph outputs need not outlive it."""
    last: dict[str, int] = {}
    for node, place in places.items():
        for value in reads(node):
            last[str(value.name)] = place
    return last
