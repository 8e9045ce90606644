"""ONNX passed through: upgraded where it can be verified, cleaned, compared with the untouched file."""

from __future__ import annotations

import numpy as np
import pytest

from edgewise.exporter import ExportError, export, open_source
from edgewise.runtime.onnx_file import write_onnx
from edgewise.runtime.tensors import TensorSpec

onnx = pytest.importorskip("onnx")
RNG = np.random.default_rng(0)


def floats(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.fixture
def saved(graph, tmp_path):
    def save(*args, **kwargs):
        write_onnx(graph(*args, **kwargs), tmp_path / "m.onnx")
        return tmp_path / "m.onnx"

    return save


CONV_BN = [
    ("Conv", ["x", "w"], ["c"]),
    ("BatchNormalization", ["c", "g", "b", "m", "v"], ["n"]),
    ("Relu", ["n"], ["r"]),
    ("Dropout", ["r"], ["d"]),
    ("Flatten", ["d"], ["y"]),
]


def parameters():
    return {"w": floats(4, 3, 3, 3), "g": floats(4), "b": floats(4), "m": floats(4), "v": np.abs(floats(4)) + 0.5}


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 18])
def test_old_opsets_are_upgraded_and_cleaned(saved, opset):
    path = saved(CONV_BN, {"x": ("N", 3, 6, 6)}, {"y": ("N", 64)}, parameters(), opset=opset)
    exported = export(path)
    assert exported.source.kind == "onnx"
    assert exported.report["opset"] == {"from": opset, "to": 18}
    assert exported.model.opset_imports[""] == 18
    assert exported.model.ir_version <= 10
    assert [node.op_type for node in exported.model.graph] == ["Conv", "Relu", "Flatten"]
    assert exported.parity[0].sqnr_db > 100
    assert (exported.inputs[0].shape, exported.outputs[0].shape) == (("N", 3, 6, 6), ("N", 64))


def test_a_newer_opset_is_kept_and_noted(saved):
    exported = export(saved([("Relu", ["x"], ["y"])], {"x": (1, 3)}, {"y": (1, 3)}, opset=20))
    assert exported.model.opset_imports[""] == 20
    assert "newer than 18" in exported.report["warnings"][0]


def test_what_the_converter_cannot_upgrade_is_kept_as_it_is(saved):
    # Upsample left ONNX in opset 10; the converter has no adapter for it.
    constants = {"s": np.asarray([1, 1, 2, 2], np.float32)}
    path = saved([("Upsample", ["x", "s"], ["y"])], {"x": (1, 1, 3, 3)}, {"y": (1, 1, 6, 6)}, constants, opset=9)
    exported = export(path)
    assert exported.parity[0].exact
    facts = exported.report["opset"]
    assert facts["to"] == 18 or ("the converter to opset 18 fails" in facts["reason"] and facts["to"] == 9)


def test_a_dynamic_dim_can_be_fixed_or_renamed(saved):
    path = saved(CONV_BN, {"x": ("N", 3, 6, 6)}, {"y": ("N", 64)}, parameters())
    exported = export(path, inputs=[TensorSpec("x", "float32", (2, 3, 6, 6))])
    assert (exported.inputs[0].shape, exported.outputs[0].shape) == ((2, 3, 6, 6), (2, 64))
    exported = export(path, inputs=[TensorSpec("x", "float32", ("images", 3, 6, 6))])
    assert (exported.inputs[0].shape, exported.outputs[0].shape) == (("images", 3, 6, 6), ("images", 64))


def test_sizes_that_a_file_promises_and_does_not_take(saved):
    path = saved([("Concat", ["x", "h"], ["y"], {"axis": 1})], {"x": ("N", 4), "h": (1, 4)}, {"y": ("N", 8)})
    with pytest.raises(
        ExportError, match=r"does not take the inputs.*x float32\[2, 4\], h float32\[1, 4\].*--input NAME="
    ):
        export(path)
    assert export(path, inputs=[TensorSpec("x", "float32", (1, 4)), TensorSpec("h", "float32", (1, 4))]).parity[0].exact


def test_outputs_that_show_nothing_are_told(saved):
    path = saved([("Mul", ["x", "zero"], ["y"])], {"x": (1, 4)}, {"y": (1, 4)}, {"zero": np.zeros((1, 4), np.float32)})
    (told,) = export(path).report["warnings"]
    assert told.startswith("output 'y' is ") and "shows nothing" in told


@pytest.mark.parametrize("unknown", [-1, "?", None])
def test_dims_without_a_name_are_dynamic_each_for_itself(saved, unknown):
    # Paddle's exporter writes -1 and question marks.
    path = saved([("Relu", ["x"], ["y"])], {"x": (1, unknown, unknown)}, {"y": (1, unknown, unknown)})
    assert export(path).inputs[0].shape == (1, "x_1", "x_2")
    assert export(path, inputs=[TensorSpec("x", "float32", (1, 2, 5))]).outputs[0].shape == (1, 2, 5)


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        (TensorSpec("x", "float32", ("N", 3, 7, 7)), r"float32\[N, 3, 7, 7\]; expected float32\[N, 3, 6, 6\]"),
        (TensorSpec("x", "float16", ("N", 3, 6, 6)), "float16"),
        (TensorSpec("image", "float32", ("N", 3, 6, 6)), "one of the inputs x"),
    ],
)
def test_inputs_that_do_not_fit_the_file(saved, spec, found):
    path = saved(CONV_BN, {"x": ("N", 3, 6, 6)}, {"y": ("N", 64)}, parameters())
    with pytest.raises(ExportError, match=f"an input does not fit the ONNX model.*{found}"):
        open_source(path, inputs=[spec])


def test_shared_weights_are_stored_once(saved):
    weight = floats(8, 400)
    nodes = [
        ("MatMul", ["x", "w1"], ["a"]),
        ("MatMul", ["x", "w2"], ["c"]),
        ("Add", ["a", "c"], ["b"]),
        ("MatMul", ["b", "w3"], ["y"]),
    ]
    constants = {"w1": weight, "w2": weight.copy(), "w3": floats(400, 8)}
    exported = export(saved(nodes, {"x": (2, 8)}, {"y": (2, 8)}, constants))
    assert len(exported.model.graph.initializers) == 2


def test_unused_weights_and_repeated_work_are_gone(saved):
    nodes = [
        ("Relu", ["x"], ["a"]),
        ("Relu", ["x"], ["b"]),
        ("Add", ["a", "b"], ["y"]),
        ("Mul", ["x", "unused"], ["nobody"]),
    ]
    exported = export(saved(nodes, {"x": (2, 8)}, {"y": (2, 8)}, {"unused": floats(8)}))
    assert [node.op_type for node in exported.model.graph] == ["Relu", "Add"]
    assert not exported.model.graph.initializers


def test_cast_pairs_and_constant_arithmetic_are_gone(saved):
    nodes = [
        ("Cast", ["x"], ["h"], {"to": onnx.TensorProto.DOUBLE}),
        ("Cast", ["h"], ["f"], {"to": onnx.TensorProto.FLOAT}),
        ("Mul", ["k", "k"], ["kk"]),
        ("Add", ["f", "kk"], ["y"]),
    ]
    exported = export(saved(nodes, {"x": (2, 8)}, {"y": (2, 8)}, {"k": floats(8)}))
    assert [node.op_type for node in exported.model.graph] == ["Add"]


def control_flow(tmp_path):
    """If with a Conv and BatchNormalization in one branch, Loop that adds a weight of the main graph."""
    helper, floating = onnx.helper, onnx.TensorProto.FLOAT

    def value(name, shape, dtype=floating):
        return helper.make_tensor_value_info(name, dtype, shape)

    constants = [onnx.numpy_helper.from_array(array, name) for name, array in parameters().items()]
    constants.append(onnx.numpy_helper.from_array(np.asarray(3, np.int64), "count"))
    constants.append(onnx.numpy_helper.from_array(np.asarray(True), "go"))
    constants.append(onnx.numpy_helper.from_array(np.asarray(0, np.float32), "zero"))
    then = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["then_c"]),
            helper.make_node("BatchNormalization", ["then_c", "g", "b", "m", "v"], ["then_y"]),
        ],
        "then",
        [],
        [value("then_y", None)],
    )
    other = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["else_y"])], "else", [], [value("else_y", None)])
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["cond_in"], ["cond_out"]),
            helper.make_node("Add", ["state_in", "g2"], ["state_out"]),
        ],
        "body",
        [value("i", [], 7), value("cond_in", [], 9), value("state_in", None)],
        [value("cond_out", [], 9), value("state_out", None)],
        [onnx.numpy_helper.from_array(floats(1), "g2")],
    )
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["chosen"], then_branch=then, else_branch=other),
        helper.make_node("Loop", ["count", "go", "chosen"], ["y"], body=body),
    ]
    graph = helper.make_graph(nodes, "g", [value("x", [1, 3, 6, 6])], [value("y", [1, 4, 4, 4])], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    onnx.save_model(model, tmp_path / "control.onnx")
    return tmp_path / "control.onnx"


def test_control_flow_survives(tmp_path):
    exported = export(control_flow(tmp_path))
    found = [node.op_type for node in exported.model.graph]
    assert found.count("If") == found.count("Loop") == 1
    assert exported.parity[0].sqnr_db > 100
    branch = next(node for node in exported.model.graph if node.op_type == "If").attributes["then_branch"].as_graph()
    assert [node.op_type for node in branch] == ["Conv", "BatchNormalization"]


def test_a_branch_may_give_out_what_was_computed_around_it(tmp_path):
    # As in recurrent networks that scripts export: an inner If returns a value of the outer branch, which returns it too.
    helper = onnx.helper
    inner = {
        name: helper.make_graph(
            [helper.make_node(op, ["s"], [name])], name, [], [helper.make_tensor_value_info(name, 1, [3])]
        )
        for name, op in (("kept", "Identity"), ("turned", "Neg"))
    }
    outer = {
        name: helper.make_graph(
            [
                helper.make_node(op, ["x"], ["s"]),
                helper.make_node("If", ["c"], ["t"], then_branch=inner["kept"], else_branch=inner["turned"]),
            ],
            name,
            [],
            [helper.make_tensor_value_info(each, 1, [3]) for each in ("s", "t")],
        )
        for name, op in (("sigmoid", "Sigmoid"), ("tanh", "Tanh"))
    }
    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["y", "z"], then_branch=outer["sigmoid"], else_branch=outer["tanh"])],
        "g",
        [helper.make_tensor_value_info("x", 1, [3]), helper.make_tensor_value_info("c", 9, [])],
        [helper.make_tensor_value_info(each, 1, [3]) for each in ("y", "z")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)
    onnx.save_model(model, tmp_path / "m.onnx")
    assert min(parity.sqnr_db for parity in export(tmp_path / "m.onnx").parity) > 100


def test_an_output_that_is_declared_wrong_is_mended_and_noted(saved):
    # ONNX Runtime only warns about it; a Reshape to what is declared would give something else.
    nodes = [
        ("Shape", ["x"], ["s"]),
        ("Gather", ["s", "zero"], ["n"]),
        ("Concat", ["n", "one", "rest"], ["to"], {"axis": 0}),
        ("Reshape", ["x", "to"], ["y"]),
    ]
    constants = {"zero": np.int64([0]), "one": np.int64([1]), "rest": np.int64([-1])}
    exported = export(saved(nodes, {"x": ("N", 2, 3)}, {"y": (1, "length")}, constants))
    assert len(exported.outputs[0].shape) == 3 and exported.parity[0].exact
    assert any("'y' is declared [1, length] and comes as [" in warning for warning in exported.report["warnings"])


def test_initializers_listed_as_inputs_are_none(tmp_path):
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info(name, 1, [3]) for name in ("x", "w")],
        [helper.make_tensor_value_info("y", 1, [3])],
        [onnx.numpy_helper.from_array(floats(3), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=3)
    onnx.save_model(model, tmp_path / "old.onnx")
    exported = export(tmp_path / "old.onnx")
    assert [spec.name for spec in exported.inputs] == ["x"]
    assert exported.model.ir_version >= 4


def test_metadata_and_paths_are_stripped(tmp_path, saved):
    path = saved([("Relu", ["x"], ["y"])], {"x": (1, 3)}, {"y": (1, 3)})
    model = onnx.load_model(path)
    model.doc_string = model.graph.node[0].doc_string = "/home/somebody/train.py"
    model.metadata_props.add(key="path", value="/home/somebody")
    onnx.save_model(model, path)
    write_onnx(export(path).model, tmp_path / "out.onnx")
    data = (tmp_path / "out.onnx").read_bytes()
    assert b"somebody" not in data
    assert onnx.load_model(tmp_path / "out.onnx").producer_name == "edgewise"
