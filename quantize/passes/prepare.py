"""Graphs in the shape that the other passes expect."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, LiftConstantsToInitializersPass, NameFixPass, ShapeInferencePass

from edgewise.quantize.errors import QuantizeError

_OPSET = 13  # the first whose DequantizeLinear takes an axis


class UpgradeOpset(ir.passes.FunctionalPass):
    """Bring a model of an old opset to 13, where QuantizeLinear and DequantizeLinear work per channel.

    Before::

        opset 9: Conv ──► Upsample ──► …

    After::

        opset 13: Conv ──► Resize ──► …

    A model of opset 13 or later is copied as it is.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """A copy at opset 13 or later."""
        opset = model.graph.opset_imports.get("", _OPSET)
        if opset >= _OPSET:
            return ir.passes.PassResult(model.clone(), modified=False)
        try:
            proto = onnx.version_converter.convert_version(ir.to_proto(model), _OPSET)
        except RuntimeError as error:
            raise QuantizeError(
                "cannot quantize a model of an old opset",
                where=f"graph {model.graph.name!r}",
                found=f"opset {opset}, which ONNX cannot convert ({' '.join(str(error).split())})",
                expected=f"opset {_OPSET} or later",
                fix="Export the network again with a later opset",
            ) from error
        return ir.passes.PassResult(ir.from_proto(proto), modified=True)


def prepare(model: ir.Model) -> ir.Model:
    """A copy with constants as initializers, functions inlined, every node named and shapes inferred."""
    for step in (
        UpgradeOpset(),
        InlinePass(),
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        NameFixPass(),
        ShapeInferencePass(),
    ):
        model = step(model).model
    return model
