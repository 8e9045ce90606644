"""Graphs in the shape that the other passes expect."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, LiftConstantsToInitializersPass, NameFixPass, ShapeInferencePass

from edgewise.quantize.errors import QuantizeError


class UpgradeOpset(ir.passes.FunctionalPass):
    """Bring a model of an old opset to the one that the scheme needs (13: scales per channel; 21: 4 and 16 bits, groups).

    Before::

        opset 9: Conv ──► Upsample ──► …

    After::

        opset 13: Conv ──► Resize ──► …

    A model of that opset or a later one is copied as it is.
    """

    def __init__(self, least: int) -> None:
        self._least = least

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """A copy at that opset or a later one."""
        opset = model.graph.opset_imports.get("", self._least)
        if opset >= self._least:
            return ir.passes.PassResult(model.clone(), modified=False)
        try:
            proto = onnx.version_converter.convert_version(ir.to_proto(model), self._least)
        except RuntimeError as error:
            raise QuantizeError(
                "cannot quantize a model of an old opset",
                where=f"graph {model.graph.name!r}",
                found=f"opset {opset}, which ONNX cannot convert ({' '.join(str(error).split())})",
                expected=f"opset {self._least} or later",
                fix="Export the network again with a later opset",
            ) from error
        return ir.passes.PassResult(ir.from_proto(proto), modified=True)


def prepare(model: ir.Model, opset: int = 13) -> ir.Model:
    """A copy of at least that opset with constants as initializers, functions inlined, every node named and shapes inferred."""
    for step in (
        UpgradeOpset(opset),
        InlinePass(),
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        NameFixPass(),
        ShapeInferencePass(),
    ):
        model = step(model).model
    return model
