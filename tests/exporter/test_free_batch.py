"""A batch that the file fixes at 1, made dynamic: batches are compared with the untouched file's samples one by one."""

from __future__ import annotations

import numpy as np
import pytest

from edgewise.exporter import ExportError, export, open_source
from edgewise.runtime.onnx_file import write_onnx
from edgewise.runtime.tensors import TensorSpec

pytest.importorskip("onnx")
RNG = np.random.default_rng(0)


def floats(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def numbers(*values):
    return np.array(values, np.int64)


@pytest.fixture
def saved(graph, tmp_path):
    def save(*args, **kwargs):
        write_onnx(graph(*args, **kwargs), tmp_path / "m.onnx")
        return tmp_path / "m.onnx"

    return save


def freed(path, *shape):
    return export(path, inputs=[TensorSpec("x", "float32", ("N", *shape))])


# Heads go into the batch's axis and come out again; a class token is the same for all; tokens are mixed by a second Transpose.
ATTENTION = [
    ("Reshape", ["x", "to_heads"], ["h"]),
    ("Transpose", ["h"], ["t"], {"perm": [0, 2, 1, 3]}),
    ("Reshape", ["t", "stack"], ["q"]),
    ("Transpose", ["q"], ["k"], {"perm": [0, 2, 1]}),
    ("MatMul", ["q", "k"], ["scores"]),
    ("Softmax", ["scores"], ["p"], {"axis": -1}),
    ("MatMul", ["p", "q"], ["o"]),
    ("Reshape", ["o", "unstack"], ["u"]),
    ("Transpose", ["u"], ["back"], {"perm": [0, 2, 1, 3]}),
    ("Reshape", ["back", "joined"], ["tokens"]),
    ("Concat", ["token", "tokens"], ["all"], {"axis": 1}),
    ("LayerNormalization", ["all", "g", "b"], ["n"]),
    ("ReduceMean", ["n", "one"], ["mean"], {"keepdims": 0}),
    ("Gemm", ["mean", "w"], ["y"]),
]
ATTENTION_CONSTANTS = {
    "to_heads": numbers(1, 6, 2, 4), "stack": numbers(2, 6, 4), "unstack": numbers(1, 2, 6, 4), "joined": numbers(1, 6, 8),
    "token": floats(1, 1, 8), "g": floats(8), "b": floats(8), "one": numbers(1), "w": floats(8, 3),
}  # fmt: skip


def test_samples_are_followed_through_heads_and_tokens(saved):
    exported = freed(saved(ATTENTION, {"x": (1, 6, 8)}, {"y": (1, 3)}, ATTENTION_CONSTANTS), 6, 8)
    assert (exported.inputs[0].shape, exported.outputs[0].shape) == (("N", 6, 8), ("N", 3))
    assert {sample["x"].shape[0] for sample in exported.samples} == {1, 2}
    assert exported.parity[0].sqnr_db > 100


# As PyTorch wrote it for opset 9: the batch is read from the shape, so it is a constant for the one sample.
HEAD = [
    ("Conv", ["x", "w"], ["c"]),
    ("Transpose", ["c"], ["t"], {"perm": [0, 2, 3, 1]}),
    ("Shape", ["t"], ["s"]),
    ("Gather", ["s", "zero"], ["n"], {"axis": 0}),
    ("Unsqueeze", ["n", "zeros"], ["n1"]),
    ("Concat", ["n1", "rest"], ["target"], {"axis": 0}),
    ("Reshape", ["t", "target"], ["y"]),
]


def test_a_computed_size_follows(saved):
    constants = {"w": floats(4, 3, 1, 1), "zero": np.array(0), "zeros": numbers(0), "rest": numbers(-1, 2)}
    exported = freed(saved(HEAD, {"x": (1, 3, 6, 6)}, {"y": (1, 72, 2)}, constants), 3, 6, 6)
    assert exported.outputs[0].shape == ("N", 72, 2) and exported.parity[0].sqnr_db > 100


def test_constant_sizes_of_resize_and_expand_follow(saved):
    nodes = [
        ("Resize", ["x", "", "", "sizes"], ["r"], {"mode": "nearest"}),
        ("ReduceMean", ["r", "sides"], ["m"], {"keepdims": 1}),
        ("Expand", ["m", "shape"], ["e"]),
        ("Add", ["r", "e"], ["y"]),
    ]
    constants = {"sizes": numbers(1, 2, 8, 8), "sides": numbers(2, 3), "shape": numbers(1, 2, 8, 8)}
    exported = freed(saved(nodes, {"x": (1, 2, 4, 4)}, {"y": (1, 2, 8, 8)}, constants), 2, 4, 4)
    assert exported.outputs[0].shape == ("N", 2, 8, 8) and exported.parity[0].sqnr_db > 100


def test_what_is_the_same_for_all_stays_so(saved):
    nodes = [("Relu", ["x"], ["y"]), ("Mul", ["prior", "two"], ["boxes"])]
    constants = {"prior": floats(5, 4), "two": np.float32(2)}
    exported = freed(saved(nodes, {"x": (1, 4)}, {"y": (1, 4), "boxes": (5, 4)}, constants), 4)
    assert [output.shape for output in exported.outputs] == [("N", 4), (5, 4)]


@pytest.mark.parametrize(
    ("nodes", "constants", "found"),
    [
        ([("ReduceMean", ["x", "axis"], ["y"])], {"axis": numbers(0)}, "ReduceMean): found a reduction over the samples"),
        ([("Concat", ["x", "x"], ["y"], {"axis": 0})], {}, "axis 0, along which the samples lie"),
        ([("Softmax", ["x"], ["y"], {"axis": 0})], {}, "axis 0, along which the samples lie"),
        ([("NonZero", ["x"], ["n"]), ("Cast", ["n"], ["y"], {"to": 1})], {}, "NonZero, of which nothing is known"),
        ([("Squeeze", ["x", "axis"], ["y"])], {"axis": numbers(0)}, "a Squeeze that takes the batch away"),
        ([("Add", ["x", "other"], ["y"])], {"other": floats(2, 4, 6)}, "one size along the batch, 'other'"),
        ([("MatMul", ["other", "t"], ["y"])], {"other": floats(3, 1)}, "a product that sums over the samples"),
        (
            [("Transpose", ["x"], ["t"], {"perm": [1, 0, 2]}), ("Reshape", ["t", "flat"], ["y"])],
            {"flat": numbers(24)},
            "shape [4, 1, 6] to [24], which puts the samples inside another axis",
        ),
    ],
)  # fmt: skip
def test_networks_that_mix_samples_are_refused(saved, nodes, constants, found):
    if "t" in nodes[0][1]:
        nodes = [("Reshape", ["x", "row"], ["t"]), *nodes]
        constants = {**constants, "row": numbers(1, 24)}
    path = saved(nodes, {"x": (1, 4, 6)}, {"y": None}, constants)
    with pytest.raises(ExportError) as caught:
        open_source(path, inputs=[TensorSpec("x", "float32", ("N", 4, 6))])
    message = str(caught.value)
    assert message.startswith("the batch cannot be made dynamic (node ") and found in message, message
    assert "whose samples stay apart" in message and "Leave the batch of 1" in message


def test_another_fixed_size_stays_fixed(saved):
    path = saved([("Relu", ["x"], ["y"])], {"x": (2, 4)}, {"y": (2, 4)})
    with pytest.raises(ExportError, match=r"found float32\[N, 4\]; expected float32\[2, 4\]"):
        open_source(path, inputs=[TensorSpec("x", "float32", ("N", 4))])
