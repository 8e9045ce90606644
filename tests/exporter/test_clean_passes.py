"""Our own cleaning passes: operators before and after, interface, numbers; and that they leave alone what they must."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

onnx_passes = pytest.importorskip("onnx_ir.passes.common")

RNG = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return RNG.uniform(0.5, 2, shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


def batch_norm(channels: int) -> dict[str, np.ndarray]:
    return {"g": positive(channels), "b": floats(channels), "m": floats(channels), "v": positive(channels)}


BN = ("BatchNormalization", ["c", "g", "b", "m", "v"], ["y"])


class TestFoldAffine:
    @pytest.fixture
    def fold(self):
        from edgewise.exporter.clean.fold_affine import FoldAffine

        return FoldAffine()

    @pytest.mark.parametrize("bias", [False, True])
    @pytest.mark.parametrize("group", [1, 2])
    def test_batch_norm_goes_into_conv(self, graph, run_pass, fold, bias, group):
        constants = {"w": floats(6, 4 // group, 3, 3), "wb": floats(6)} | batch_norm(6)
        conv = ("Conv", ["x", "w", "wb"] if bias else ["x", "w"], ["c"], {"group": group})
        model = graph([conv, BN], {"x": ("N", 4, 8, 8)}, {"y": ("N", 6, 6, 6)}, constants)
        run_pass(model, fold, {"Conv": 1, "BatchNormalization": 1}, {"Conv": 1})
        assert fold.changed == 1

    @pytest.mark.parametrize("group", [1, 2])
    def test_batch_norm_goes_into_conv_transpose(self, graph, run_pass, fold, group):
        constants = {"w": floats(4, 6 // group, 3, 3)} | batch_norm(6)
        conv = ("ConvTranspose", ["x", "w"], ["c"], {"group": group, "strides": [2, 2]})
        model = graph([conv, BN], {"x": (1, 4, 5, 5)}, {"y": None}, constants)
        model.graph.outputs[0].shape = model.graph.node(1).outputs[0].shape
        run_pass(model, fold, {"ConvTranspose": 1, "BatchNormalization": 1}, {"ConvTranspose": 1})

    @pytest.mark.parametrize("trans", [0, 1])
    def test_batch_norm_goes_into_gemm_with_beta(self, graph, run_pass, fold, trans):
        weight = floats(5, 7) if trans else floats(7, 5)
        constants = {"w": weight, "wb": floats(5)} | batch_norm(5)
        gemm = ("Gemm", ["x", "w", "wb"], ["c"], {"transB": trans, "alpha": 0.5, "beta": 0.25})
        model = graph([gemm, BN], {"x": ("N", 7)}, {"y": ("N", 5)}, constants)
        run_pass(model, fold, {"Gemm": 1, "BatchNormalization": 1}, {"Gemm": 1})

    def test_a_chain_of_scales_and_shifts_goes_into_one_conv(self, graph, run_pass, fold):
        constants = {"w": floats(4, 3, 1, 1), "s": positive(4, 1, 1), "t": floats(1, 4, 1, 1), "two": np.float32(2)}
        nodes = [
            ("Conv", ["x", "w"], ["c"]),
            ("Mul", ["s", "c"], ["d"]),
            ("Sub", ["d", "t"], ["e"]),
            ("Div", ["e", "two"], ["y"]),
        ]
        model = graph(nodes, {"x": (1, 3, 4, 4)}, {"y": (1, 4, 4, 4)}, constants)
        run_pass(model, fold, {"Conv": 1, "Mul": 1, "Sub": 1, "Div": 1}, {"Conv": 1})

    def test_layer_scale_goes_into_matmul_and_its_bias(self, graph, run_pass, fold):
        constants = {"w": floats(8, 6), "wb": floats(6), "gamma": positive(6)}
        nodes = [("MatMul", ["x", "w"], ["c"]), ("Add", ["wb", "c"], ["d"]), ("Mul", ["d", "gamma"], ["y"])]
        model = graph(nodes, {"x": ("N", 5, 8)}, {"y": ("N", 5, 6)}, constants)
        run_pass(model, fold, {"MatMul": 1, "Add": 1, "Mul": 1}, {"MatMul": 1, "Add": 1})

    def test_shared_weights_stay_as_they_are_for_the_other(self, graph, run_pass, fold):
        constants = {"w": floats(4, 3, 1, 1)} | batch_norm(4)
        nodes = [("Conv", ["x", "w"], ["c"]), BN, ("Conv", ["x", "w"], ["z"])]
        model = graph(nodes, {"x": (1, 3, 4, 4)}, {"y": (1, 4, 4, 4), "z": (1, 4, 4, 4)}, constants)
        run_pass(model, fold, {"Conv": 2, "BatchNormalization": 1}, {"Conv": 2})

    @pytest.mark.parametrize(
        ("nodes", "outputs", "constants"),
        [
            pytest.param([BN], {"y": (1, 4, 4, 4), "c": (1, 4, 4, 4)}, batch_norm(4), id="the result is an output"),
            pytest.param(
                [BN, ("Relu", ["c"], ["z"])],
                {"y": (1, 4, 4, 4), "z": (1, 4, 4, 4)},
                batch_norm(4),
                id="the result is used elsewhere",
            ),
            pytest.param(
                [("Mul", ["c", "s"], ["y"])], {"y": (1, 4, 4, 4)}, {"s": floats(1, 1, 4, 1)}, id="another axis"
            ),
            pytest.param(
                [("Add", ["c", "s"], ["y"])], {"y": (2, 4, 4, 4)}, {"s": floats(2, 1, 1, 1)}, id="it broadcasts"
            ),
            pytest.param([("Div", ["s", "c"], ["y"])], {"y": (1, 4, 4, 4)}, {"s": np.float32(2)}, id="s divided by it"),
        ],
    )
    def test_left_alone(self, graph, run_pass, fold, nodes, outputs, constants):
        constants = constants | {"w": floats(4, 3, 1, 1)}
        model = graph([("Conv", ["x", "w"], ["c"]), *nodes], {"x": (1, 3, 4, 4)}, outputs, constants)
        same = dict.fromkeys(["Conv", *(node[0] for node in nodes)], 1)
        run_pass(model, fold, same, same)
        assert fold.changed == 0

    @settings(max_examples=15)
    @given(channels=st.integers(1, 5), group=st.integers(1, 3), rank=st.integers(1, 3), seed=st.integers(0, 99))
    def test_any_conv_with_any_batch_norm(self, channels, group, rank, seed):
        import onnx
        import onnx_ir as ir

        from edgewise.exporter.clean.fold_affine import FoldAffine
        from edgewise.runtime.onnx_runner import OnnxRunner

        rng = np.random.default_rng(seed)
        outs, shape = channels * group, (2, group * 2, *([4] * rank))
        weight = rng.standard_normal((outs, 2, *([2] * rank))).astype(np.float32)
        parts = {name: rng.uniform(0.5, 2, outs).astype(np.float32) for name in "gbmv"}
        nodes = [
            onnx.helper.make_node("Conv", ["x", "w"], ["c"], group=group),
            onnx.helper.make_node("BatchNormalization", ["c", *"gbmv"], ["y"]),
        ]
        proto = onnx.helper.make_graph(
            nodes,
            "g",
            [onnx.helper.make_tensor_value_info("x", 1, shape)],
            [onnx.helper.make_tensor_value_info("y", 1, None)],
            [onnx.numpy_helper.from_array(array, name) for name, array in {"w": weight, **parts}.items()],
        )
        model = ir.from_proto(
            onnx.helper.make_model(proto, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
        )
        x = {"x": rng.standard_normal(shape).astype(np.float32)}
        want = OnnxRunner(model, optimize=False).run(x)["y"]
        FoldAffine()(model)
        assert [node.op_type for node in model.graph] == ["Conv"]
        np.testing.assert_allclose(OnnxRunner(model).run(x)["y"], want, rtol=2e-4, atol=2e-4)


class TestNoOps:
    @pytest.fixture
    def steps(self):
        from edgewise.exporter.clean.noop import RemoveNoOps

        return [RemoveNoOps(), onnx_passes.IdentityEliminationPass()]

    @pytest.mark.parametrize(
        ("node", "constants"),
        [
            (("Reshape", ["r", "k"], ["y"]), {"k": ints(0, 4, 6, 6)}),
            (("Transpose", ["r"], ["y"], {"perm": [0, 1, 2, 3]}), {}),
            (("Slice", ["r", "k", "e"], ["y"]), {"k": ints(0, 0, 0, 0), "e": ints(99, 99, 99, 99)}),
            (("Pad", ["r", "k"], ["y"]), {"k": ints(*[0] * 8)}),
            (("Expand", ["r", "k"], ["y"]), {"k": ints(1, 4, 6, 6)}),
            (("Tile", ["r", "k"], ["y"]), {"k": ints(1, 1, 1, 1)}),
            (("Concat", ["r"], ["y"], {"axis": 1}), {}),
            (("Cast", ["r"], ["y"], {"to": 1}), {}),
            (("Dropout", ["r"], ["y"]), {}),
            (("Identity", ["r"], ["y"]), {}),
            (("Add", ["r", "k"], ["y"]), {"k": np.float32(0)}),
            (("Mul", ["r", "k"], ["y"]), {"k": np.ones((4, 1, 1), np.float32)}),
            (("Div", ["r", "k"], ["y"]), {"k": np.float32(1)}),
            (("AveragePool", ["r"], ["y"], {"kernel_shape": [1, 1]}), {}),
            (("Resize", ["r", "", "k"], ["y"]), {"k": np.ones(4, np.float32)}),
        ],
        ids=lambda entry: entry[0] if isinstance(entry, tuple) else "",
    )
    def test_gone(self, graph, run_pass, steps, node, constants):
        model = graph([("Relu", ["x"], ["r"]), node], {"x": (1, 4, 6, 6)}, {"y": (1, 4, 6, 6)}, constants)
        run_pass(model, steps, {"Relu": 1, node[0]: 1}, {"Relu": 1}, min_sqnr_db=np.inf)

    @pytest.mark.parametrize(
        ("node", "shape", "constants"),
        [
            (("Reshape", ["r", "k"], ["y"]), (1, 6, 4, 6), {"k": ints(1, 6, 4, 6)}),
            (("Slice", ["r", "k", "e", "a"], ["y"]), (1, 4, 5, 6), {"k": ints(1), "e": ints(9), "a": ints(2)}),
            (("Slice", ["r", "k", "e", "a", "s"], ["y"]), (1, 4, 6, 6),
             {"k": ints(5), "e": ints(-99), "a": ints(2), "s": ints(-1)}),
            (("Mul", ["r", "k"], ["y"]), (2, 4, 6, 6), {"k": np.ones((2, 1, 1, 1), np.float32)}),
            (("Sub", ["k", "r"], ["y"]), (1, 4, 6, 6), {"k": np.float32(0)}),
            (("MaxPool", ["r"], ["y"], {"kernel_shape": [1, 1], "strides": [2, 2]}), (1, 4, 3, 3), {}),
        ],
        ids=lambda entry: entry[0] if isinstance(entry, tuple) and isinstance(entry[0], str) else "",
    )  # fmt: skip
    def test_left_alone(self, graph, run_pass, steps, node, shape, constants):
        model = graph([("Relu", ["x"], ["r"]), node], {"x": (1, 4, 6, 6)}, {"y": shape}, constants)
        run_pass(model, steps, {"Relu": 1, node[0]: 1}, {"Relu": 1, node[0]: 1})


class TestGatherFromSlice:
    @pytest.fixture
    def step(self):
        from edgewise.exporter.clean.unbind import SliceSqueezeToGather

        return SliceSqueezeToGather()

    @pytest.mark.parametrize(("start", "end", "axis"), [(1, 2, 1), (-1, 9, 1), (0, 1, -2), (2, 3, 1)])
    def test_one_position(self, graph, run_pass, step, start, end, axis):
        constants = {"s": ints(start), "e": ints(end), "a": ints(axis)}
        nodes = [("Slice", ["x", "s", "e", "a"], ["c"]), ("Squeeze", ["c", "a"], ["y"])]
        model = graph(nodes, {"x": ("N", 3, 5)}, {"y": ("N", 5)}, constants)
        run_pass(model, step, {"Slice": 1, "Squeeze": 1}, {"Gather": 1}, min_sqnr_db=np.inf)

    def test_a_slice_that_is_used_elsewhere_stays(self, graph, run_pass, step):
        constants = {"s": ints(0), "e": ints(1), "a": ints(1)}
        nodes = [
            ("Slice", ["x", "s", "e", "a"], ["c"]),
            ("Squeeze", ["c", "a"], ["y"]),
            ("Relu", ["c"], ["z"]),
        ]
        model = graph(nodes, {"x": (2, 3, 5)}, {"y": (2, 5), "z": (2, 1, 5)}, constants)
        same = {"Slice": 1, "Squeeze": 1, "Relu": 1}
        run_pass(model, step, same, same)


class TestSplitHeads:
    @pytest.fixture
    def step(self):
        from edgewise.exporter.clean.split_heads import SplitHeads

        return SplitHeads()

    def nodes(self, order):
        takers = [("Gather", ["t", f"i{k}"], [f"o{k}"], {"axis": 0}) for k in range(3)]
        return [("Reshape", ["x", "k"], ["r"]), ("Transpose", ["r"], ["t"], {"perm": order}), *takers]

    def test_projection_is_split_before_the_heads(self, graph, run_pass, step):
        constants = {"k": ints(0, 5, 3, 2, 4)} | {f"i{k}": np.asarray(k, np.int64) for k in range(3)}
        outputs = {f"o{k}": ("N", 2, 5, 4) for k in range(3)}
        model = graph(self.nodes([2, 0, 3, 1, 4]), {"x": ("N", 5, 24)}, outputs, constants)
        before = {"Reshape": 1, "Transpose": 1, "Gather": 3}
        # The graph's outputs must not be taken from under the Gather nodes, so put a Relu behind each.
        assert run_pass(model, step, before, before)
        relus = [("Relu", [f"o{k}"], [f"y{k}"]) for k in range(3)]
        outputs = {f"y{k}": ("N", 2, 5, 4) for k in range(3)}
        model = graph([*self.nodes([2, 0, 3, 1, 4]), *relus], {"x": ("N", 5, 24)}, outputs, constants)
        after = {"Split": 1, "Reshape": 3, "Transpose": 3, "Relu": 3}
        run_pass(model, step, before | {"Relu": 3}, after, min_sqnr_db=np.inf)

    def test_parts_that_do_not_lie_side_by_side_stay(self, graph, run_pass, step):
        constants = {"k": ints(2, 5, 2, 3, 4)} | {f"i{k}": np.asarray(k, np.int64) for k in range(3)}
        relus = [("Relu", [f"o{k}"], [f"y{k}"]) for k in range(3)]
        outputs = {f"y{k}": (2, 2, 5, 4) for k in range(3)}
        model = graph([*self.nodes([3, 0, 2, 1, 4]), *relus], {"x": (2, 5, 24)}, outputs, constants)
        same = {"Reshape": 1, "Transpose": 1, "Gather": 3, "Relu": 3}
        run_pass(model, step, same, same)


class TestPlainReshape:
    @pytest.fixture
    def steps(self):
        from edgewise.exporter.clean.reshape import PlainReshape

        return [PlainReshape(), onnx_passes.RemoveUnusedNodesPass()]

    def test_shape_arithmetic_becomes_a_constant(self, graph, run_pass, steps):
        nodes = [
            ("Shape", ["x"], ["s"], {"end": 1}),
            ("Concat", ["s", "k"], ["t"], {"axis": 0}),
            ("Reshape", ["x", "t"], ["y"], {"allowzero": 1}),
        ]
        model = graph(nodes, {"x": ("N", 4, 3)}, {"y": ("N", 12)}, {"k": ints(12)})
        model = run_pass(model, steps, {"Shape": 1, "Concat": 1, "Reshape": 1}, {"Reshape": 1}, min_sqnr_db=np.inf)
        assert "allowzero" not in model.graph.node(0).attributes

    def test_allowzero_goes_where_it_says_nothing(self, graph, run_pass, steps):
        model = graph(
            [("Reshape", ["x", "k"], ["y"], {"allowzero": 1})],
            {"x": ("N", 4, 3)},
            {"y": ("N", 12)},
            {"k": ints(-1, 12)},
        )
        model = run_pass(model, steps, {"Reshape": 1}, {"Reshape": 1}, min_sqnr_db=np.inf)
        assert "allowzero" not in model.graph.node(0).attributes

    def test_two_unknown_dims_stay(self, graph, run_pass, steps):
        nodes = [("Shape", ["z"], ["s"]), ("Reshape", ["x", "s"], ["y"])]
        model = graph(nodes, {"x": ("A", "B"), "z": ("C", "D")}, {"y": ("C", "D")})
        same = {"Shape": 1, "Reshape": 1}
        run_pass(model, steps, same, same)


class TestMergeCasts:
    @pytest.fixture
    def steps(self):
        from edgewise.exporter.clean.cast_pairs import MergeCasts
        from edgewise.exporter.clean.noop import RemoveNoOps

        return [
            MergeCasts(),
            RemoveNoOps(),
            onnx_passes.IdentityEliminationPass(),
            onnx_passes.RemoveUnusedNodesPass(),
        ]

    @pytest.mark.parametrize(("through", "left"), [(11, 0), (10, 2), (6, 2), (16, 2)])  # f64; f16, i32, bf16 round
    def test_there_and_back(self, graph, run_pass, steps, through, left):
        nodes = [("Relu", ["x"], ["r"]), ("Cast", ["r"], ["h"], {"to": through}), ("Cast", ["h"], ["y"], {"to": 1})]
        model = graph(nodes, {"x": (2, 3)}, {"y": (2, 3)})
        after = {"Relu": 1, "Cast": left} if left else {"Relu": 1}
        run_pass(model, steps, {"Relu": 1, "Cast": 2}, after, min_sqnr_db=np.inf)


class TestPlainSoftmax:
    @pytest.fixture
    def step(self):
        from edgewise.exporter.clean.plain_softmax import PlainSoftmax

        return PlainSoftmax()

    def nodes(self, axis):
        return [
            ("Flatten", ["x"], ["f"], {"axis": axis}),
            ("Softmax", ["f"], ["s"], {"axis": -1}),
            ("Reshape", ["s", "k"], ["y"]),
        ]

    def test_over_the_last_axis(self, graph, run_pass, step):
        model = graph(self.nodes(2), {"x": ("N", 4, 5)}, {"y": ("N", 4, 5)}, {"k": ints(-1, 4, 5)})
        run_pass(model, step, {"Flatten": 1, "Softmax": 1, "Reshape": 1}, {"Softmax": 1}, min_sqnr_db=np.inf)

    def test_over_merged_axes_stays(self, graph, run_pass, step):
        model = graph(self.nodes(1), {"x": (2, 4, 5)}, {"y": (2, 4, 5)}, {"k": ints(-1, 4, 5)})
        same = {"Flatten": 1, "Softmax": 1, "Reshape": 1}
        run_pass(model, step, same, same)


class TestNames:
    def test_names_follow_the_modules(self, graph):
        from edgewise.exporter.clean.names import ORIGIN, SCOPES, NameByScope

        nodes = [("MatMul", ["x", "val_1"], ["val_2"]), ("Relu", ["val_2"], ["val_3"]), ("Relu", ["val_3"], ["y"])]
        model = graph(nodes, {"x": (2, 3)}, {"y": (2, 4)}, {"val_1": floats(3, 4)})
        for node in model.graph:
            node.metadata_props[SCOPES] = repr(["", "blocks.0", "blocks.0.fc", "linear"])
        NameByScope()(model)
        assert [node.name for node in model.graph] == ["blocks.0.fc/MatMul", "blocks.0.fc/Relu", "blocks.0.fc/Relu_1"]
        assert list(model.graph.initializers) == ["blocks.0.fc.weight"]
        middle = model.graph.node(0).outputs[0]
        assert (middle.name, middle.meta[ORIGIN]) == ("blocks.0.fc/MatMul_out", "val_2")
        assert model.graph.outputs[0].name == "y"

    def test_names_of_an_existing_file_stay(self, graph):
        from edgewise.exporter.clean.names import NameByScope

        model = graph([("Relu", ["x"], ["mid"]), ("Relu", ["mid"], ["y"])], {"x": (2, 3)}, {"y": (2, 3)})
        model.graph.node(0).name, model.graph.node(1).name = "Conv_7", ""
        NameByScope()(model)
        assert [node.name for node in model.graph] == ["Conv_7", "Relu"]
        assert model.graph.node(0).outputs[0].name == "mid"
