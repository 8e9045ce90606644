"""ONNX Runtime's own profile: which kernel took how long on which execution provider, and how much it multiplied."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import Any

Shape = tuple[int, ...]

_KERNEL = "_kernel_time"
_CONVOLUTIONS = frozenset(("Conv", "ConvInteger", "FusedConv", "NhwcFusedConv", "NhwcConv", "QLinearConv"))
_PRODUCTS = frozenset(
    (
        "MatMul", "FusedMatMul", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul",
        "MatMulNBits", "Gemm", "FusedGemm", "QGemm",
    )
)  # fmt: skip
_LEAST_KERNEL_RANK = 3


@dataclass
class NodeRecord:
    """One node of the optimised graph, over all recorded runs but the first.

    Attributes:
        provider: the execution provider that ran it.
        run_us: its own time in each run in microseconds, without that of nodes inside its body.
        inputs: shapes of its inputs; weights that the kernel packed away are missing.
        outputs: shapes of its outputs.
    """

    name: str
    op: str
    provider: str
    inputs: list[Shape]
    outputs: list[Shape]
    run_us: list[float] = field(default_factory=list)

    @property
    def unit(self) -> str:
        """The provider's short name, such as ``cpu``."""
        return self.provider.removesuffix("ExecutionProvider").lower()

    @property
    def median_ms(self) -> float:
        """Median over the runs in milliseconds."""
        return statistics.median(self.run_us) / 1000


def read_profile(events: list[dict[str, Any]]) -> list[NodeRecord]:
    """The nodes in the order in which they first ran.

    Args:
        events: the profile file, decoded. The first run is left out when there are others: it allocates and packs.
    """
    runs = sorted((_span(event) for event in events if event.get("name") == "model_run"), key=lambda span: span[0])
    kept = runs[1:] or runs
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith(_KERNEL)]
    records: dict[tuple[str, str, str], NodeRecord] = {}
    for start, end in kept:
        inside = [event for event in nodes if start <= event["ts"] and event["ts"] + event["dur"] <= end]
        totals: dict[tuple[str, str, str], float] = {}
        for event, own_us in _own_times(inside):
            key = (event["name"].removesuffix(_KERNEL), event["args"]["op_name"], event["args"].get("node_index", ""))
            totals[key] = totals.get(key, 0.0) + own_us
            records.setdefault(key, _record(event, key))
        for key, total in totals.items():
            records[key].run_us.append(total)
    return list(records.values())


def node_macs(record: NodeRecord, weights: NodeRecord | None) -> int | None:
    """Multiply-accumulates of one run as the kernel does them (channels that it pads included); None if not counted.

    Args:
        record: the node.
        weights: the same node, recorded with its weights in place.
    """
    if not record.outputs or not record.inputs:
        return None
    if record.op in _PRODUCTS:
        # Of a product [M, K] × [K, N] the first factor has M·K elements, transposed or not.
        return _product_macs(record)
    kernel = _kernel_shape(weights or record)
    if record.op in _CONVOLUTIONS and kernel is not None:
        return math.prod(record.outputs[0]) * math.prod(kernel[1:])
    if record.op == "ConvTranspose" and kernel is not None:
        return math.prod(record.inputs[0]) * math.prod(kernel[1:])
    return None


def _product_macs(record: NodeRecord) -> int | None:
    left, out = record.inputs[0], record.outputs[0]
    if not left:
        return None
    if record.op.endswith("Gemm") and out and out[0]:
        return math.prod(left) // out[0] * math.prod(out)
    return math.prod(out) * left[-1]


def _kernel_shape(record: NodeRecord) -> Shape | None:
    """The weights are the only input beside the first that has the dims of a kernel."""
    return next((shape for shape in record.inputs[1:] if len(shape) >= _LEAST_KERNEL_RANK), None)


def _span(event: dict[str, Any]) -> tuple[int, int]:
    return event["ts"], event["ts"] + event["dur"]


def _own_times(events: list[dict[str, Any]]) -> list[tuple[dict[str, Any], float]]:
    """Each node's time without that of the nodes inside it (the bodies of If, Loop and Scan)."""
    ordered = sorted(events, key=lambda event: (event["ts"], -event["dur"]))
    own = [float(event["dur"]) for event in ordered]
    open_nodes: list[int] = []
    for index, event in enumerate(ordered):
        start, end = _span(event)
        # Times are whole microseconds: a neighbour may seem to begin where the last one still runs.
        while open_nodes and not (
            _span(ordered[open_nodes[-1]])[0] <= start and end <= _span(ordered[open_nodes[-1]])[1]
        ):
            open_nodes.pop()
        if open_nodes and ordered[open_nodes[-1]]["args"]["op_name"] in ("If", "Loop", "Scan"):
            own[open_nodes[-1]] -= event["dur"]
        open_nodes.append(index)
    return list(zip(ordered, own, strict=True))


def _record(event: dict[str, Any], key: tuple[str, str, str]) -> NodeRecord:
    name, op, index = key
    args = event["args"]
    inputs, outputs = (
        [tuple(shape) for entry in args.get(part, []) for shape in entry.values()]
        for part in ("input_type_shape", "output_type_shape")
    )
    return NodeRecord(name or f"{op}_{index}", op, args["provider"], inputs, outputs)
