"""Col2Im, which TensorRT has not, as a transposed convolution."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir


@dataclass(frozen=True)
class _Fold:
    """Sizes per spatial axis: of the image, of a block, of the grid of blocks; and where blocks lie."""

    image: list[int]
    block: list[int]
    grid: list[int]
    strides: list[int]
    dilations: list[int]
    pads: list[int]

    @property
    def output_padding(self) -> list[int]:
        """What the image has behind the last block."""
        axes = len(self.image)
        reached = [
            (self.grid[i] - 1) * self.strides[i] + self.dilations[i] * (self.block[i] - 1) + 1 - self.pads[i] - self.pads[i + axes]
            for i in range(axes)
        ]  # fmt: skip
        return [size - end for size, end in zip(self.image, reached, strict=True)]


class Col2ImAsConvolution(ir.passes.InPlacePass):
    """Add overlapping blocks up with a transposed convolution whose kernels are one-hot.

    Before::

        x [N, C·K, L] ─► Col2Im(image_shape, block_shape) ─► y [N, C, H, W]

    After::

        x ─► Reshape[N, C·K, H', W'] ─► ConvTranspose(group C, w [C·K, 1, kh, kw]) ─► y

    The kernel of channel c·K + k is 1 at place k of the block and 0 elsewhere, so each number is added where it belongs and nothing is
    multiplied by anything but 1 and 0. The convolution keeps the node's name.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Treat every Col2Im of the main graph whose shapes are constant."""
        found = [
            (node, fold)
            for node in list(model.graph)
            if node.op_type == "Col2Im" and not node.domain and (fold := _fold(node)) is not None
        ]
        for node, fold in found:
            _write_out(node, fold, model.graph)
        return ir.passes.PassResult(model, modified=bool(found))


def _fold(node: ir.Node) -> _Fold | None:
    image, block = (_listed(node.inputs[index]) for index in (1, 2))
    source = node.inputs[0]
    if not image or not block or source is None or source.shape is None or len(source.shape) != 3:
        return None
    axes = len(image)
    strides, dilations = (_attribute(node, name, [1] * axes) for name in ("strides", "dilations"))
    pads = _attribute(node, "pads", [0] * 2 * axes)
    grid = [
        (image[i] + pads[i] + pads[i + axes] - dilations[i] * (block[i] - 1) - 1) // strides[i] + 1 for i in range(axes)
    ]
    channels, length = source.shape[1], source.shape[2]
    if not isinstance(channels, int) or channels % prod(block) or length != prod(grid) or axes > 3:
        return None
    fold = _Fold(image, block, grid, strides, dilations, pads)
    # TensorRT's transposed convolution adds nothing behind; ONNX takes less than one stride.
    return fold if all(0 <= size < step for size, step in zip(fold.output_padding, strides, strict=True)) else None


def _write_out(node: ir.Node, fold: _Fold, graph: ir.Graph) -> None:
    source, output, name = node.inputs[0], node.outputs[0], node.name or ""
    if source is None or source.shape is None or source.dtype is None:
        raise ValueError(name)
    channels, count = int(str(source.shape[1])), prod(fold.block)
    weights = np.zeros((channels, count), source.dtype.numpy())
    weights[np.arange(channels), np.arange(channels) % count] = 1
    kernel = _stored(f"{name}_places", weights.reshape(channels, 1, *fold.block), graph)
    shape = _stored(f"{name}_grid", np.array([0, channels, *fold.grid], np.int64), graph)
    reshape = ir.node("Reshape", [source, shape], name=f"{name}_Reshape")
    reshape.outputs[0].name = f"{name}_blocks"
    reshape.outputs[0].type, reshape.outputs[0].shape = source.type, ir.Shape([source.shape[0], channels, *fold.grid])
    attributes: dict[str, int | list[int]] = {
        "group": channels // count, "kernel_shape": fold.block, "strides": fold.strides, "dilations": fold.dilations, "pads": fold.pads,
    }  # fmt: skip
    if any(fold.output_padding):
        attributes["output_padding"] = fold.output_padding
    folded = ir.node("ConvTranspose", [reshape.outputs[0], kernel], attributes, name=name)
    folded.outputs[0].type, folded.outputs[0].shape = output.type, output.shape
    node.name = f"{name}_Col2Im"
    graph.insert_before(node, [reshape, folded])
    output.replace_all_uses_with(folded.outputs[0], replace_graph_outputs=True)
    folded.outputs[0].name, output.name = output.name, f"{name}_columns"
    graph.remove(node, safe=True)


def _listed(value: ir.Value | None) -> list[int]:
    return [] if value is None or value.const_value is None else [int(each) for each in value.const_value.numpy()]


def _attribute(node: ir.Node, name: str, default: list[int]) -> list[int]:
    return list(node.attributes[name].as_ints()) if name in node.attributes else default


def _stored(name: str, array: np.ndarray, graph: ir.Graph) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    graph.register_initializer(value)
    return value
