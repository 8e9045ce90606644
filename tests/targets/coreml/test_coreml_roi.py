"""RoiAlign beside ONNX Runtime: any number of points a bin, boxes beyond the image, without size and turned round, float16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.onnx_runner import OnnxRunner

HEIGHT, WIDTH = 23, 31
RATIOS = (0, 0, 3)


def model_of(batch: int, boxes: int | str, opset: int) -> ir.Model:
    nodes, outputs = [], []
    for index, (ratio, scale) in enumerate(zip(RATIOS, (1.0, 1.0, 0.5), strict=True)):
        kind = {"coordinate_transformation_mode": ("half_pixel", "output_half_pixel")[index % 2]} if opset >= 16 else {}
        shape = {"output_height": 5, "output_width": 3, "sampling_ratio": ratio, "spatial_scale": scale}
        nodes.append(
            helper.make_node("RoiAlign", ["x", "boxes", "of"], [f"y{index}"], name=f"roi{index}", **shape, **kind)
        )
        outputs.append(helper.make_tensor_value_info(f"y{index}", TensorProto.FLOAT, [boxes, 2, 5, 3]))
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 2, HEIGHT, WIDTH]),
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [boxes, 4]),
        helper.make_tensor_value_info("of", TensorProto.INT64, [boxes]),
    ]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8))


def drawn(batch: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(4)
    corner = random.uniform(-10, 25, (24, 2))
    boxes = np.concatenate([corner, corner + random.uniform(-3, 40, (24, 2))], 1)
    boxes[0, 2:] = boxes[0, :2]  # no size
    boxes[1] = [0, 0, WIDTH, HEIGHT]
    boxes[2] = [0, 0, 2 * WIDTH, 2 * HEIGHT]  # points right on the border
    boxes[3] = [300, 300, 320, 320]
    boxes[4] = [-1, -1, 9, 14]
    image = random.standard_normal((batch, 2, HEIGHT, WIDTH))
    return {"x": image.astype(np.float32), "boxes": boxes.astype(np.float32), "of": random.integers(0, batch, 24)}


@pytest.mark.parametrize(
    ("batch", "boxes", "opset", "options", "least_db"),
    [
        (3, 24, 16, {"compute_precision": "float32"}, 90),
        (1, "n", 10, {"compute_precision": "float32", "dims": {"n": {"min": 1, "max": 99, "default": 24}}}, 90),
        (1, 24, 16, {"minimum_deployment_target": "iOS15"}, 55),
    ],
)
def test_means_over_boxes(
    batch: int, boxes: int | str, opset: int, options: dict[str, Any], least_db: float, build_model: Callable[..., Any]
) -> None:
    model, inputs = model_of(batch, boxes, opset), drawn(batch)
    executor, _, _ = build_model(model, **options)
    parities = compare_outputs([OnnxRunner(model, optimize=False).run(inputs)], [executor.run(inputs)])
    assert len(parities) == len(RATIOS)
    assert min(parity.sqnr_db for parity in parities) >= least_db
