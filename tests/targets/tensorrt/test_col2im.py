"""Col2Im as a transposed convolution: the same numbers, and TensorRT builds it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.targets import find_device
from edgewise.targets.tensorrt import TARGET
from edgewise.targets.tensorrt.col2im import Col2ImAsConvolution
from edgewise.targets.tensorrt.prepare import normalize


def folding(graph_maker: Any, image: list[int], block: list[int], channels: int, length: int, **how: Any) -> ir.Model:
    g = graph_maker()
    shapes = [g.constant("image", np.array(image)), g.constant("block", np.array(block))]
    g.add("Col2Im", ["x", *shapes], "y", **how)
    return g.model({"x": [1, channels * int(np.prod(block)), length]}, {"y": [1, channels, *image]})


# Image, block, channels, number of blocks, and how they lie; blocks that leave a rest behind among them.
FORMS: list[tuple[list[int], list[int], int, int, dict[str, Any]]] = [
    ([6, 8], [3, 3], 2, 12, {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ([5, 5], [2, 3], 3, 12, {}),
    ([7, 7], [2, 2], 1, 9, {"strides": [2, 2]}),
    ([9, 6], [3, 2], 2, 10, {"dilations": [2, 1], "pads": [0, 0, 0, 0], "strides": [3, 1]}),
    ([9], [3], 2, 4, {"strides": [2], "dilations": [1], "pads": [0, 0]}),
]


@pytest.mark.parametrize(("image", "block", "channels", "length", "how"), FORMS)
def test_numbers_are_the_same(
    image: list[int], block: list[int], channels: int, length: int, how: dict[str, Any], graph_maker: Any
) -> None:
    model = folding(graph_maker, image, block, channels, length, **how)
    x = {"x": np.random.default_rng(0).standard_normal((1, channels * int(np.prod(block)), length)).astype(np.float32)}
    wanted = OnnxRunner(model).run(x)
    changed = model.clone()
    assert Col2ImAsConvolution()(changed).modified
    assert [node.op_type for node in changed.graph] == ["Reshape", "ConvTranspose"]
    assert changed.graph.node(1).name == "y_node" and changed.graph.outputs[0].name == "y"
    parity = compare_outputs([wanted], [OnnxRunner(changed).run(x)])[0]
    assert parity.sqnr_db is None or parity.sqnr_db > 120


def test_tensorrt_builds_it_and_says_so_beforehand(graph_maker: Any, make_bundle: Any) -> None:
    image, block, channels, length, how = FORMS[0]
    model = folding(graph_maker, image, block, channels, length, **how)
    assert [node.taken for node in TARGET.support(model, find_device("rtx-4070", "tensorrt"))] == [True]
    _, result = make_bundle(TARGET, model)
    assert result.proof["products"] == {"float16": 1}


def test_shapes_that_are_computed_are_left_to_the_refusal(graph_maker: Any) -> None:
    g = graph_maker()
    g.add("Shape", ["image"], "shape")
    g.add("Col2Im", ["x", "shape", g.constant("block", np.array([2, 2]))], "y")
    model, _ = normalize(g.model({"x": [1, 4, 9], "image": [4, 4]}, {"y": [1, 1, 4, 4]}))
    assert not Col2ImAsConvolution()(model).modified
