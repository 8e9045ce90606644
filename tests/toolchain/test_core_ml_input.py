"""What Core ML cannot take, through the command line: each message is read, and what is changed silently elsewhere is recorded here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewise.runtime.bundle import open_bundle

F, I64 = TensorProto.FLOAT, TensorProto.INT64
Ports = dict[str, tuple[int, list[Any] | None]]


def saved(
    path: Path, nodes: list[onnx.NodeProto], inputs: Ports, outputs: Ports, held: dict[str, np.ndarray] | None = None
) -> Path:
    """A graph as an ONNX file."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, *kind) for name, kind in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in (held or {}).items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def roi(folder: Path) -> Path:
    node = helper.make_node(
        "RoiAlign", ["x", "b", "i"], ["y"], name="roi", output_height=2, output_width=2, sampling_ratio=2, mode="max"
    )
    boxes = np.array([[[0, 0, 4, 4], [1, 1, 6, 6]]], np.float32)
    np.savez(folder / "data.npz", x=np.ones((1, 1, 2, 8, 8), np.float32), b=boxes, i=np.zeros((1, 2), np.int64))
    inputs: Ports = {"x": (F, [1, 2, 8, 8]), "b": (F, [2, 4]), "i": (I64, [2])}
    return saved(folder / "m.onnx", [node], inputs, {"y": (F, [2, 2, 2, 2])})


def overflow(folder: Path) -> Path:
    node = helper.make_node("Add", ["x", "c"], ["y"], name="add")
    return saved(folder / "m.onnx", [node], {"x": (I64, [2])}, {"y": (I64, [2])}, {"c": np.array([2**40, 1])})


def broken(folder: Path) -> Path:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    weight = np.ones((4, 3), np.float32)
    weight[1, 2] = np.nan
    return saved(folder / "m.onnx", [node], {"x": (F, [1, 4])}, {"y": (F, [1, 3])}, {"w": weight})


def rankless(folder: Path) -> Path:
    np.savez(folder / "data.npz", x=np.ones((1, 4, 4), np.float32), s=np.array([[2, 8]]))
    nodes = [helper.make_node("Reshape", ["x", "s"], ["r"], name="reshape"), helper.make_node("Relu", ["r"], ["y"])]
    return saved(folder / "m.onnx", nodes, {"x": (F, [4, 4]), "s": (I64, ["k"])}, {"y": (F, None)})


def named(folder: Path) -> Path:
    node = helper.make_node("Relu", ["in:0/put"], ["1-out"])
    return saved(folder / "m.onnx", [node], {"in:0/put": (F, [2, 2])}, {"1-out": (F, [2, 2])})


REFUSED: list[tuple[Callable[[Path], Path], tuple[str, ...], tuple[str, ...]]] = [
    (roi, ("minimum_deployment_target=iOS15",), ("'roi'", "RoiAlign", "mode max from iOS 16 on", "Set minimum_deployment_target to iOS16")),
    (overflow, (), ("'add'", "1099511627776", "integers of 32 bits")),
    (broken, (), ("'product'", "1 NaN among 12 numbers", "Check the checkpoint")),
    (rankless, (), ("'reshape'", "unknown rank", "Export with fixed shapes")),
    (named, ("keep_float32=[softmaxx]",), ("build.options.keep_float32", "'softmaxx'", "layer_norm")),
    (named, ("dims={n: 1}",), ("dims.n", "no such dim", "all are fixed")),
    (named, ("dims={n: 1",), ("--option dims", "JSON, or YAML on one line")),
    (named, ("states={in:0/put: 1-out}",), ("build.options.states", "iOS18 or later")),
    (named, ("functions={one: {}}",), ("build.options.functions", "iOS18 or later")),
    (named, ("minimum_deployment_target=iOS14",), ("iOS14", "iOS15 or iOS16")),
    (named, ("image_inputs=[in:0/put]",), ("image_inputs", "--preprocess")),
    (named, ("labels=missing.txt",), ("build.options.labels", "one label a line")),
]  # fmt: skip


@pytest.mark.parametrize(("make", "options", "parts"), REFUSED)
def test_the_message_says_what_and_where(
    cli: Any, tmp_path: Path, make: Callable[[Path], Path], options: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    given = [word for option in options for word in ("--option", option)]
    model, data = make(tmp_path), tmp_path / "data.npz"
    given += ["--data", str(data)] if data.exists() else []
    done = cli("build", model, "-o", tmp_path / "m.edge", "--target", "coreml", *given)
    assert done.code == 2 and "Traceback" not in done.err
    line = " ".join(done.err[done.err.index("error:") :].split())
    assert all(part in line for part in parts), line
    assert line.count("error:") == 1 and "found a build option" not in line
    assert not (tmp_path / "m.edge").exists()


def test_a_forbidden_name_is_changed_and_recorded(cli: Any, tmp_path: Path) -> None:
    done = cli("build", named(tmp_path), "-o", tmp_path / "m.edge", "--target", "coreml", "--json")
    assert done.code == 0
    engine = open_bundle(tmp_path / "m.edge").manifest["engine"]
    ports = [(port["name"], port["coreml"]) for kind in ("inputs", "outputs") for port in engine["settings"][kind]]
    assert ports == [("in:0/put", "in_0_put"), ("1-out", "var_1_out")]
    assert "names that Core ML does not allow: 'in:0/put' is 'in_0_put', '1-out' is 'var_1_out'" in engine["notes"]
