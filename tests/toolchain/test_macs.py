"""Multiply-accumulates against numbers counted by hand and against PyTorch's own counter."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from edgewise.macs import MacCount, count_macs

F32 = TensorProto.FLOAT


def count(node: onnx.NodeProto, *shapes: Sequence[int | str], dynamic: int = 1) -> MacCount:
    inputs = [helper.make_tensor_value_info(name, F32, shape) for name, shape in zip(node.input, shapes, strict=True)]
    outputs = [helper.make_tensor_value_info(name, F32, None) for name in node.output]
    graph = helper.make_graph([node], "g", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return count_macs(ir.from_proto(model), dynamic)


@pytest.mark.parametrize(
    ("node", "shapes", "macs"),
    [
        (helper.make_node("MatMul", ["a", "b"], ["y"]), [(2, 3, 4), (4, 5)], 2 * 3 * 5 * 4),
        (helper.make_node("MatMul", ["a", "b"], ["y"]), [(4,), (4,)], 4),
        (helper.make_node("Gemm", ["a", "b"], ["y"]), [(3, 4), (4, 5)], 3 * 5 * 4),
        (helper.make_node("Gemm", ["a", "b"], ["y"], transA=1, transB=1), [(4, 3), (5, 4)], 3 * 5 * 4),
        (helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4), [(1, 3, 8, 8), (16, 3, 3, 3)], 16 * 64 * 27),
        (helper.make_node("Conv", ["x", "w"], ["y"], group=8), [(1, 8, 8, 8), (8, 1, 3, 3)], 8 * 36 * 9),
        (helper.make_node("Conv", ["x", "w"], ["y"], strides=[2]), [(1, 4, 9), (6, 4, 3)], 6 * 4 * 12),
        (
            helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2]),
            [(1, 3, 4, 4), (3, 5, 2, 2)],
            3 * 16 * 20,
        ),
        (
            helper.make_node("Einsum", ["a", "b"], ["y"], equation="bij, bjk -> bik"),
            [(2, 3, 4), (2, 4, 5)],
            2 * 3 * 4 * 5,
        ),
        (
            helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=5),
            [(7, 2, 3), (1, 20, 3), (1, 20, 5)],
            14 * 160,
        ),
        (helper.make_node("Relu", ["x"], ["y"]), [(4, 4)], 0),
    ],
)
def test_one_node(node: onnx.NodeProto, shapes: list[tuple[int, ...]], macs: int) -> None:
    result = count(node, *shapes)
    assert (result.total, result.unknown) == (macs, [])


def test_dynamic_dims_are_set_and_said() -> None:
    node = helper.make_node("MatMul", ["a", "b"], ["y"])
    assert count(node, ("batch", 4), (4, 5), dynamic=3).total == 3 * 4 * 5
    assert count(node, ("batch", 4), (4, 5), dynamic=3).assumed == {"batch": 3}


def test_a_node_without_shapes_is_listed_not_guessed() -> None:
    node = helper.make_node("Einsum", ["a", "b"], ["y"], equation="...i,i->...", name="odd")
    assert count(node, (2, 4), (4,)).unknown == ["odd"]


def test_the_model_is_not_changed() -> None:
    model = ir.from_proto(onnx.parser.parse_model('<ir_version: 9, opset_import: ["": 18]> g (float[N,4] a, float[4,2] b) => (float[N,2] y) { y = MatMul(a, b) }'))  # fmt: skip
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    count_macs(model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


@pytest.mark.slow
def test_resnet20_has_its_known_count() -> None:
    """He et al. 2015, CIFAR-10, n=3: 40.8 M by hand; PyTorch's counter gives the same (twice, in flops)."""
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    def block(cin: int, cout: int, stride: int) -> torch.nn.Module:
        conv = torch.nn.Conv2d
        return torch.nn.Sequential(conv(cin, cout, 3, stride, 1), torch.nn.ReLU(), conv(cout, cout, 3, 1, 1))

    widths = [
        (16, 16, 1),
        (16, 16, 1),
        (16, 16, 1),
        (16, 32, 2),
        (32, 32, 1),
        (32, 32, 1),
        (32, 64, 2),
        (64, 64, 1),
        (64, 64, 1),
    ]
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, 1, 1), *(block(*w) for w in widths), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(64, 10)
    )  # fmt: skip
    example = torch.zeros(1, 3, 32, 32)
    with FlopCounterMode(display=False) as counter:
        net(example)
    program = torch.onnx.export(net.eval(), (example,), dynamo=True, verbose=False)
    total = count_macs(program.model).total
    assert total == counter.get_total_flops() // 2
    assert total == pytest.approx(40.8e6, rel=0.01)
