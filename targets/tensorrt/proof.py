"""Whether the engine does what the graph asked for: per product its type, what was fused, which formats change, what is sparse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import onnx_ir as ir

from edgewise.runtime.errors import GateError
from edgewise.targets.nodes import dtype_name
from edgewise.targets.tensorrt.engine_layers import EngineLayer

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum")
FOLDED = "no kernel of its own"
_WIDTHS = ("int4", "float4", "int8", "uint8", "float8", "float16", "bfloat16", "float32")
_NARROW, _FLOATS = ("int4", "float4", "int8", "uint8", "float8"), ("float16", "bfloat16", "float32")
_SHORT = {"float8_e4m3fn": "float8", "float8_e5m2": "float8"}
_ATTENTION = "mha"  # multi-head attention, in the vendor's names
_GENERATED = "kgen"
_STUB = "CASK_STUB"  # TensorRT for RTX leaves the choice of a kernel to the device
_SPARSE = ("sparse", "spmma")
_NAMED_AT_MOST = 8


@dataclass(frozen=True)
class Product:
    """A convolution or matrix product: the type that the graph asks for, and the one in which the engine computes it."""

    node: str
    op: str
    asked: str
    found: str

    @property
    def kept(self) -> bool:
        """Whether the engine does what was asked; what was folded into constants is computed by nobody."""
        return self.found in (self.asked, FOLDED)


def asked_types(model: ir.Model) -> dict[str, tuple[str, str]]:
    """Per product its operator and the type in which the strongly typed graph says that it is computed.

    That is what its first input is; where both of its first inputs are dequantized, what they were before.
    """
    asked = {}
    for node in model.graph:
        if node.op_type in PRODUCTS:
            first = node.inputs[0]
            before = {_dequantized(value) for value in node.inputs[:2]}
            integer = before.pop() if len(before) == 1 else ""
            asked[node.name or ""] = (node.op_type, integer or _short(dtype_name(first)))
    return asked


def casts_beside(model: ir.Model) -> dict[str, frozenset[str]]:
    """Per product the names of the Cast nodes that make its factors, and of those that read its result."""
    beside = {}
    for node in model.graph:
        if node.op_type in PRODUCTS:
            makers = [value.producer() for value in node.inputs[:2] if value is not None]
            readers = [use.node for use in node.outputs[0].uses()]
            casts = (other for other in (*makers, *readers) if other is not None and other.op_type == "Cast")
            beside[node.name or ""] = frozenset(other.name or "" for other in casts)
    return beside


def products(
    layers: Sequence[EngineLayer],
    asked: Mapping[str, tuple[str, str]],
    casts: Mapping[str, frozenset[str]] = MappingProxyType({}),
) -> list[Product]:
    """What became of each product; ``asked`` and ``casts`` as :func:`asked_types` and :func:`casts_beside` give them."""
    nothing: frozenset[str] = frozenset()
    return [
        Product(name, op, want, _found(name, layers, want, casts.get(name, nothing)))
        for name, (op, want) in asked.items()
    ]


def proof(layers: Sequence[EngineLayer], made: Sequence[Product], source: str, sparse: bool) -> dict[str, Any]:
    """The manifest's record.

    Returns:
        ``read_from``; ``products``: how many in which type; ``not_as_asked``: node, op, asked, found of the others;
        ``layers`` and how many ONNX nodes share one with another (``fused_nodes``); ``fused_attention``: kernels that hold both
        products of an attention and its Softmax; ``format_changes``: layers that only
        convert; ``sparse``: whether it was asked for, and the layers whose kernel says that it is.
    """
    shared = [layer for layer in layers if len(layer.nodes) > 1]
    return {
        "read_from": source,
        "products": dict(sorted(Counter(product.found for product in made).items())),
        "not_as_asked": [vars(product) for product in made if not product.kept],
        "layers": len(layers),
        "fused_nodes": sum(len(layer.nodes) for layer in shared),
        "fused_attention": [layer.name for layer in layers if _ATTENTION in layer.name.lower()],
        "format_changes": [layer.name for layer in layers if _only_converts(layer)],
        "sparse": {"asked": sparse, "layers": sparse_layers(layers), "decided": _decided(layers)},
    }


def require_precision(made: Sequence[Product], where: str, allowed: bool) -> None:
    """The gate: every product in the type that the graph asks for.

    Raises:
        GateError: one is computed in another type, or nothing can be said of any (exit code 1).
    """
    missed = [product for product in made if not product.kept]
    unseen = bool(made) and all(product.found == FOLDED for product in made)
    if allowed or not (missed or unseen):
        return
    if unseen:
        found = "none of the products in the engine's list of layers"
    else:
        found = f"{len(missed)} of {len(made)} products in another type: " + "; ".join(missed_notes(made))
    raise GateError(
        "the engine does not compute in the precision that was asked for",
        where=where,
        found=found.rstrip("."),
        expected="each in the type that the graph gives it",
        fix="Choose a device or a precision that this GPU has kernels for, or set build.options.allow_other_precision: true",
    )


def missed_notes(made: Sequence[Product]) -> list[str]:
    """One sentence for each pair of types: which products are not in the one but in the other."""
    groups: dict[tuple[str, str], list[str]] = {}
    for product in made:
        if not product.kept:
            groups.setdefault((product.asked, product.found), []).append(product.node)
    notes = []
    for (asked, found), names in sorted(groups.items()):
        more = f" and {len(names) - _NAMED_AT_MOST} more" if len(names) > _NAMED_AT_MOST else ""
        notes.append(f"Not in {asked} but in {found}: {', '.join(names[:_NAMED_AT_MOST])}{more}.")
    return notes


def precision_notes(made: Sequence[Product]) -> list[str]:
    """In which types convolutions and matrix products really run, and which of them not in the type that was asked for."""
    counts = Counter(product.found for product in made)
    text = ", ".join(f"{counts[dtype]} in {dtype}" for dtype in sorted(counts))
    said = [f"Convolutions and matrix products as read back from the builder: {text}."] if counts else []
    return said + missed_notes(made)


def sparse_layers(layers: Sequence[EngineLayer]) -> list[str]:
    """The layers whose kernel has a sparse name."""
    return [layer.name for layer in layers if any(word in layer.tactic.lower() for word in _SPARSE)]


def _decided(layers: Sequence[EngineLayer]) -> str:
    stubs = any(_STUB in layer.tactic for layer in layers)
    return "by the device, when it first loads the engine: the builder names no kernels" if stubs else "by the builder"


def _found(node: str, layers: Sequence[EngineLayer], asked: str, casts: frozenset[str]) -> str:
    """What its kernel multiplies: the first tensor that it reads, of the narrowest kernel when there are several.

    A generated kernel holds a product only where no other has the node. It may begin with a normalisation in float32 (or with the
    sums of an integer product) and convert in between, so there the type that was asked for counts when it reads it at all, weights
    included, or, for floats, writes it, or holds the very Cast between the product and what surrounds it (an attention that begins
    with the sums of three integer products, in float32, and ends in integers). Another kernel may have the cast before a float32 product in it: it reads float16, and its weights are float32.
    """
    holders = [layer for layer in layers if node in layer.nodes]
    found = {_multiplies(layer, asked) for layer in holders if layer.kind != _GENERATED}
    if not found:
        inside = _FLOATS if asked in _FLOATS else ()
        found = {dtype for layer in holders for dtype in (*layer.reads, *layer.constants)}
        found |= {dtype for layer in holders for dtype in layer.writes if dtype in inside}
        found |= {asked for layer in holders if inside and not casts.isdisjoint(layer.nodes)}
        found = {asked} if asked in found else found
    return next((dtype for dtype in _WIDTHS if dtype in found), FOLDED)


def _multiplies(layer: EngineLayer, asked: str) -> str:
    factor = layer.weights or next(iter(layer.reads[1:]), "")
    if layer.precision in _NARROW and factor in _FLOATS:
        return factor  # integers that were widened inside, for weights that were widened before
    widened = asked == layer.weights == "float32" and layer.precision in ("float16", "bfloat16")
    return asked if widened else layer.precision


def _only_converts(layer: EngineLayer) -> bool:
    """No ONNX node that computes: it copies from one memory format or type to another."""
    return not layer.nodes and len(layer.reads) == len(layer.writes) == 1 and len(set(layer.formats)) > 1


def _dequantized(value: ir.Value | None) -> str:
    """The type before DequantizeLinear, casts between aside; empty when there is none."""
    producer = value.producer() if value is not None else None
    while producer is not None and producer.op_type == "Cast":
        source = producer.inputs[0]
        producer = source.producer() if source is not None else None
    if producer is None or producer.op_type != "DequantizeLinear":
        return ""
    return _short(dtype_name(producer.inputs[0]))


def _short(name: str) -> str:
    return _SHORT.get(name, name)
