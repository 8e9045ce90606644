"""Autotuning with a stand-in for the device: engines are built by TensorRT for RTX, and their times are made up by the test."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewise.errors import ToolchainError
from edgewise.runtime.bundle import open_bundle
from edgewise.runtime.errors import GateError, RunError
from edgewise.runtime.onnx_file import read_onnx
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.stages.tuning import Candidate, Measured, Memory, choose, times_by_node
from edgewise.targets.tensorrt.ahead import quantized_products
from edgewise.verbs.autotune import EVERYWHERE, FASTER, FLOAT16, autotune

Cost = Callable[[list[str], str], float]


@dataclass
class StandIn:
    """No device: ``cost`` says what a layer with these products takes in a precision. It counts what it was asked, and may be cut off."""

    cost: Cost
    name: str = "stand-in"
    spread: float = 0.01
    fails_at: int = 0
    asked: list[str] = field(default_factory=list)

    def measure(self, bundle: Path) -> Measured:
        """Times of the bundle's own layers."""
        self.asked.append(bundle.stem)
        if len(self.asked) == self.fails_at:
            raise KeyboardInterrupt
        integers = quantized_products(read_onnx(bundle / "model.onnx"))
        times, seen = {}, set()
        for layer in json.loads((bundle / "layers.json").read_text()):
            held = [node for node in layer["nodes"] if node in ("wide", "thin", "head") and node not in seen]
            seen.update(held)
            times[layer["name"]] = sum(self.cost([node], "int8" if node in integers else "float16") for node in held)
        median = sum(times.values())
        return Measured(median, median * (1 - self.spread), median * (1 + self.spread), times)


def mixed(held: list[str], dtype: str) -> float:
    """int8 pays for the wide convolution alone."""
    fast = {"wide": 0.5, "thin": 2.0, "head": 1.5}
    return sum(fast[node] if dtype == "int8" else 1.0 for node in held)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """x [1,16,8,8] → Conv 3x3, Relu, Conv 1x1, Relu, GlobalAveragePool, Flatten, Gemm → y [1,8]."""
    random = np.random.default_rng(0)
    shapes = {"w1": (32, 16, 3, 3), "w2": (32, 32, 1, 1), "w3": (8, 32)}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="wide", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], name="relu1"),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="thin"),
        helper.make_node("Relu", ["c"], ["d"], name="relu2"),
        helper.make_node("GlobalAveragePool", ["d"], ["e"], name="mean"),
        helper.make_node("Flatten", ["e"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "w3"], ["y"], name="head", transB=1),
    ]
    weights = [
        numpy_helper.from_array((random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8])],
        weights,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(onnx.shape_inference.infer_shapes(proto), tmp_path / "net.onnx")
    np.savez(tmp_path / "calib.npz", x=random.standard_normal((16, 16, 8, 8)).astype(np.float32))
    return tmp_path


def tune(folder: Path, stand: StandIn, **more: object) -> dict:
    return autotune(
        folder / "net.onnx", folder / "net.edge", target="tensorrt", calib=str(folder / "calib.npz"), stand=stand, **more
    )  # fmt: skip


def products(bundle: Path) -> dict[str, int]:
    return open_bundle(bundle).manifest["engine"]["proof"]["products"]


def test_int8_goes_where_it_is_faster(network: Path) -> None:
    stand = StandIn(mixed)
    result = tune(network, stand)
    assert [each["placement"] for each in result["candidates"]] == [FLOAT16, EVERYWHERE, FASTER]
    assert result["chosen"] == FASTER and result["candidates"][-1]["kept_float"] == ["head", "thin"]
    assert products(network / "net.edge") == {"float16": 2, "int8": 1}
    assert len(stand.asked) == 3 and not (network / "net.edge.tuning").exists()
    wide = next(times for pattern, times in result["patterns"].items() if "[32,16,3,3]" in pattern)
    assert wide == {"float16": 1.0, "int8": 0.5}


def test_int8_that_is_slower_is_not_shipped(network: Path) -> None:
    result = tune(network, StandIn(lambda held, dtype: len(held) * (1.3 if dtype == "int8" else 1.0)))
    assert result["chosen"] == FLOAT16 and products(network / "net.edge") == {"float16": 3}
    assert [each["placement"] for each in result["candidates"]] == [FLOAT16, EVERYWHERE], "nothing is faster in int8"


def test_int8_that_cannot_be_told_from_float16_is_not_shipped(network: Path) -> None:
    stand = StandIn(lambda held, dtype: len(held) * (0.97 if dtype == "int8" else 1.0), spread=0.05)
    assert tune(network, stand)["chosen"] == FLOAT16
    sure = StandIn(stand.cost, "another", spread=0.01)
    assert tune(network, sure)["chosen"] == EVERYWHERE
    assert products(network / "net.edge") == {"int8": 3}


def test_an_interrupted_search_goes_on_where_it_was(network: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        tune(network, StandIn(mixed, fails_at=3))
    assert not (network / "net.edge").exists()
    stand = StandIn(mixed)
    result = tune(network, stand)
    assert stand.asked == ["int8-where-it-is-faster"], "what was measured is not measured again"
    assert [each["remembered"] for each in result["candidates"]] == [True, False]
    assert result["chosen"] == FASTER


def test_patterns_are_remembered_for_other_networks(network: Path) -> None:
    tune(network, StandIn(mixed))
    proto = onnx.load(network / "net.onnx")
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.1), tensor.name))
    onnx.save(proto, network / "net.onnx")
    stand = StandIn(mixed)
    result = tune(network, stand)
    assert stand.asked == ["float16-everywhere", "int8-where-it-is-faster"]
    assert result["chosen"] == FASTER
    other = StandIn(mixed, "another stand")
    tune(network, other)
    assert len(other.asked) == 3, "times hold for one device"


def test_what_another_version_of_the_builder_took_is_measured_again(network: Path) -> None:
    tune(network, StandIn(mixed))
    told = json.loads((network / "autotune.json").read_text())
    (stand,) = told["patterns"]
    assert "tensorrt_rtx 1." in stand, "the version is part of what times hold for"
    told["patterns"] = {stand.replace("tensorrt_rtx 1.", "tensorrt_rtx 0."): told["patterns"][stand]}
    told["runs"] = {}
    (network / "autotune.json").write_text(json.dumps(told))
    later = StandIn(mixed)
    assert tune(network, later)["chosen"] == FASTER and len(later.asked) == 3


def test_the_gpu_at_hand_is_part_of_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    verb = importlib.import_module("edgewise.verbs.autotune")
    monkeypatch.setattr(verb, "Gpu", lambda: SimpleNamespace(name="Test GPU", sm=89))
    assert verb.ProfiledAt().name == "local Test GPU SM89" and verb.ProfiledAt("ssh://a@b").name == "ssh://a@b"


def test_the_accuracy_gate_refuses_int8(network: Path) -> None:
    x = np.random.default_rng(5).standard_normal((32, 16, 8, 8)).astype(np.float32)
    run = OnnxRunner(network / "net.onnx").run
    labels = np.array([run({"x": each[None]})["y"].argmax() for each in x])
    np.savez(network / "judge.npz", x=x, label=labels)
    np.savez(network / "small.npz", x=x[:4] * np.float32(1e-3))
    result = autotune(
        network / "net.onnx", network / "net.edge", target="tensorrt", calib=str(network / "small.npz"), stand=StandIn(mixed),
        judge=str(network / "judge.npz"),
    )  # fmt: skip
    assert result["chosen"] == FLOAT16, "calibrated on nothing like the data, int8 clips"
    refused = {each["placement"]: each["refused"] for each in result["candidates"]}
    assert refused[FLOAT16] is None and result["candidates"][0]["accuracy"] == 1 and "dB" in refused[EVERYWHERE]
    assert "median_ms" not in result["candidates"][1], "what failed its gate is not measured"


def test_nothing_that_passes_is_an_error(network: Path) -> None:
    proto = onnx.load(network / "net.onnx")
    first = next(tensor for tensor in proto.graph.initializer if tensor.name == "w1")
    first.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(first) * np.float32(6e4), "w1"))
    onnx.save(proto, network / "net.onnx")
    with pytest.raises(GateError, match=r"no placement of precision passed its gates.*float16 everywhere: "):
        tune(network, StandIn(mixed))


def test_other_targets_and_files_are_refused(network: Path) -> None:
    with pytest.raises(ToolchainError, match=r"cannot autotune for this target.*--target cpu"):
        autotune(network / "net.onnx", network / "n.edge", target="cpu", calib="x.npz")
    (network / "autotune.json").write_text('{"schema_version": 99}')
    with pytest.raises(ToolchainError, match=r"cannot read what autotuning remembers.*another version"):
        tune(network, StandIn(mixed))
    (network / "autotune.json").write_text("not json")
    with pytest.raises(ToolchainError, match=r"JSONDecodeError.*Delete the file"):
        Memory.open(network / "autotune.json")


def test_a_folder_that_is_no_bundle_is_not_replaced(network: Path) -> None:
    with pytest.raises(RunError, match=r"cannot write the bundle.*a folder with other files"):
        autotune(network / "net.onnx", network, target="tensorrt", calib="x.npz")
    assert (network / "net.onnx").is_file()


def test_without_a_gpu_the_command_says_so(network: Path, cli: Callable) -> None:
    done = cli(
        "build",
        network / "net.onnx",
        "-o",
        network / "n.edge",
        "--target",
        "tensorrt",
        "--autotune",
        "--calib",
        network / "calib.npz",
    )
    assert done.code == 2 and "NVIDIA" in done.err and "Traceback" not in done.err
    done = cli("build", network / "net.onnx", "-o", network / "n.edge", "--target", "tensorrt", "--autotune")
    assert done.code == 2 and "found no --calib" in done.err
    done = cli("build", network / "net.onnx", "-o", network / "n.edge", "--target", "tensorrt", "--calib", "x.npz")
    assert done.code == 2 and "--autotune beside it" in done.err


def test_times_are_shared_and_the_best_is_chosen() -> None:
    assert times_by_node({"l": 3.0, "m": 1.0, "z": 9.0}, {"l": ["a", "b", "r"], "m": ["a"]}, {"a", "b"}) == {
        "a": 2.5,
        "b": 1.5,
    }
    base = Candidate("f", Path("f"), measured=Measured(10, 9.5, 10.5))
    near = Candidate("n", Path("n"), measured=Measured(9.4, 9.0, 9.8))
    fast = Candidate("q", Path("q"), measured=Measured(8, 7.9, 8.1))
    wrong = Candidate("w", Path("w"), measured=Measured(1, 1, 1), refused="a gate")
    assert choose([base, near]) is base and choose([base, near, fast, wrong]) is fast
    assert choose([wrong]) is None
