"""What the builder says it built, layer by layer.

TensorRT's engine inspector needs a GPU. But with detailed profiling verbosity the builder logs the same listing when it
is done, GPU or not: each layer with its kind, the types and formats of what it reads and writes, and the ONNX nodes in it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_LINE = re.compile(
    r"^Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: \[(?P<reads>.*?)\], Constants: \[(?P<constants>.*?)\], "
    r"Outputs: \[(?P<writes>.*?)\], TacticName: (?P<tactic>.*), StreamId: \d+, Metadata: (?P<metadata>.*)$"
)
_DTYPE = re.compile(r"Datatype: (\w+)")
_SIZED = re.compile(r"Dimensions: \[([\d,]*)\].*?Datatype: (\w+)")
_FORMAT = re.compile(r"Format: \((\w+)\)")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_DTYPES = {
    "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "BF16": "bfloat16", "Int8": "int8", "UInt8": "uint8",
    "Int32": "int32", "Int64": "int64", "Bool": "bool", "FP8": "float8", "Int4": "int4", "FP4": "float4",
}  # fmt: skip
# Between kernels: waiting for another stream, computing shapes on the host.
_BOOKKEEPING = ("signal", "wait", "shape_call")


@dataclass(frozen=True)
class EngineLayer:
    """A layer of a built engine.

    Attributes:
        name: the vendor's.
        kind: the vendor's, such as ``gemm``.
        nodes: names of the ONNX nodes in it.
        reads: types of the tensors that it reads.
        writes: types of the tensors that it writes.
        constants: types of its weights and other constants.
        tactic: the vendor's name of its kernel; empty when it does not say.
        formats: the memory formats of what it reads and writes, in that order, such as ``NHWC``.
        weights: the type of its largest constant of more than one number; empty without one.
    """

    name: str
    kind: str
    nodes: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    constants: tuple[str, ...] = ()
    tactic: str = ""
    formats: tuple[str, ...] = ()
    weights: str = ""

    @property
    def precision(self) -> str:
        """The type of the first tensor that it reads (of what it writes, when it reads none): what its products are made of."""
        return next(iter([*self.reads, *self.writes]), "none")


def parse_listing(messages: Sequence[str]) -> list[EngineLayer]:
    """Find the listing among the builder's verbose messages; empty when it is not there."""
    listing = next((text for text in reversed(messages) if text.startswith("Layers:")), "")
    matches = filter(None, map(_LINE.match, listing.splitlines()))
    layers = [
        EngineLayer(
            match["name"],
            match["kind"],
            tuple(_NODE.findall(match["metadata"])),
            _dtypes(match["reads"]),
            _dtypes(match["writes"]),
            _dtypes(match["constants"]),
            match["tactic"],
            tuple(_FORMAT.findall(match["reads"] + match["writes"])),
            _largest(match["constants"]),
        )
        for match in matches
    ]
    return [layer for layer in layers if layer.kind not in _BOOKKEEPING]


def planned_layers(network: Any) -> list[EngineLayer]:
    """The layers of a network definition: what is known of an engine that is yet to be built."""
    layers = []
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        kind = str(layer.type).rsplit(".", 1)[-1].lower()
        if kind == "constant":
            continue
        reads = tuple(_tensor_dtype(layer.get_input(i)) for i in range(layer.num_inputs) if layer.get_input(i))
        writes = tuple(_network_dtype(layer.get_output_type(i)) for i in range(layer.num_outputs))
        nodes = tuple(_NODE.findall(layer.metadata))
        layers.append(EngineLayer(layer.name, kind, nodes, reads, writes))
    return layers


def manifest_rows(layers: Sequence[EngineLayer], ops: Mapping[str, str], unit: str) -> list[dict[str, str]]:
    """Layers for the manifest, named by their ONNX nodes; ``ops`` maps node names to operators."""
    return [
        {
            "name": " + ".join(layer.nodes) or layer.name,
            "op": " + ".join(dict.fromkeys(ops.get(node, node) for node in layer.nodes)) or layer.kind,
            "precision": layer.precision,
            "unit": unit,
        }
        for layer in layers
    ]


def _dtypes(text: str) -> tuple[str, ...]:
    return tuple(_DTYPES.get(dtype, dtype.lower()) for dtype in _DTYPE.findall(text))


def _largest(text: str) -> str:
    """The type of the constant with the most numbers, the first of several; a single number is a scale."""
    sizes = [(math.prod(map(int, filter(None, dims.split(",")))), dtype) for dims, dtype in _SIZED.findall(text)]
    dtype = max((each for each in sizes if each[0] > 1), key=lambda each: each[0], default=(0, ""))[1]
    return _DTYPES.get(dtype, dtype.lower())


def _tensor_dtype(tensor: Any) -> str:
    return _network_dtype(tensor.dtype)


def _network_dtype(dtype: Any) -> str:
    name = str(dtype).rsplit(".", 1)[-1]
    return {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}.get(name, name.lower())
