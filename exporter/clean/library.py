"""The passes that come from onnx_ir and onnxscript, with our settings."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import IdentityEliminationPass
from onnxscript.optimizer._constant_folding import FoldConstantsPass
from onnxscript.rewriter import RewritePass
from onnxscript.rewriter.rules.common import (
    _basic_rules,
    _broadcast_to_matmul,
    _cast_constant_of_shape,
    _collapse_slices,
    _fuse_pad_into_conv,
    _redundant_scatter_nd,
    _remove_optional_bias,
)

_LARGE = 1 << 20  # elements: a constant this large is computed at run time when folding it would make the file grow
_ANY_SIZE = 1 << 40


def fold_constants() -> ir.passes.InPlacePass:
    """Compute what depends on constants alone, and shape arithmetic as far as dims are known; infers shapes on the way."""
    return FoldConstantsPass(
        shape_inference=True, input_size_limit=_LARGE, output_size_limit=_ANY_SIZE, should_fold=_worth_folding
    )


def _worth_folding(node: ir.Node) -> bool | None:
    """Yes where the result is no larger than what goes in, or small; otherwise let the library's own limits decide."""
    if node.op_type in ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"):
        return False
    shapes = [output.shape for output in node.outputs]
    if any(shape is None or not shape.is_static() for shape in shapes):
        return None
    made = sum(_size(shape) for shape in shapes if shape is not None)
    given = sum(value.const_value.size for value in node.inputs if value is not None and value.const_value is not None)
    return made <= max(given, _LARGE)


def _size(shape: ir.Shape) -> int:
    size = 1
    for dim in shape.numpy():
        size *= dim
    return size


class EliminateIdentities(IdentityEliminationPass):
    """Take out Identity, but not where the body of an If or Loop gives out what was computed around it: onnx_ir cannot."""

    def _try_eliminate_identity_node(self, node: ir.Node) -> bool:
        given = node.inputs[0] if node.inputs else None
        crosses = given is not None and given.graph is not node.graph
        if crosses and any(output.is_graph_output() for output in node.outputs):
            return False
        return super()._try_eliminate_identity_node(node)


def rewrite_patterns() -> ir.passes.InPlacePass:
    """Pattern rules: pairs of Transpose, Reshape, Slice, Unsqueeze; Pad into Conv; empty biases.

    Left out are the rules that name new constants after their input (Min and Max to Clip, Flatten to Reshape): of two on one input,
    the second would overwrite the first one's.
    """
    return RewritePass(
        [
            *_broadcast_to_matmul.rules,
            *_cast_constant_of_shape.rules,
            *_collapse_slices.rules,
            _basic_rules.no_op_expand_rule,
            _basic_rules.reshape_reshape_rule,
            _basic_rules.slice_split_rule,
            _basic_rules.transpose_transpose_rule,
            _basic_rules.unsqueeze_unsqueeze_rule,
            _basic_rules.squeeze_reshape_1d_rule,
            *_redundant_scatter_nd.rules,
            *_fuse_pad_into_conv.rules,
            *_remove_optional_bias.rules,
        ]
    )
