"""The engine ``native`` of the target cpu: small networks beside ONNX Runtime, the choice of the engine, refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgewise.quantize import prune, quantize
from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.data import random_data
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.targets import BuildRequest, Executor, TargetError, find_device
from edgewise.targets.cpu import TARGET
from edgewise.targets.cpu.native.compile import NotTakenError, compile_model
from edgewise.targets.cpu.native.engine_file import encode
from edgewise.targets.cpu.native.plan import Isa, Layout
from edgewise.targets.nodes import tensor_spec

pytestmark = pytest.mark.usefixtures("libedgewise")
VNNI = find_device("x86-64-v4-vnni", "cpu")
SMALL = ("conv_net", "dynamic_batch", "transformer_block")
SmallGraph = Callable[[str], ir.Model]


def int8(model: ir.Model) -> ir.Model:
    data = random_data([tensor_spec(value) for value in model.graph.inputs], 8, seed=0)
    return quantize(model, TARGET.quantization("int8", VNNI), data, allow_random=True).model


def ops(model: ir.Model) -> list[str]:
    return [op.op for op in compile_model(model, Isa.AVX512VNNI).plan.ops]


@pytest.mark.parametrize("name", SMALL)
def test_float_networks_give_what_onnx_runtime_gives(
    name: str, small_graph: SmallGraph, sample: Any, run_native: Any, run_onnx: Any, worst_db: Any
) -> None:
    model = small_graph(name)
    inputs = sample(model)
    assert worst_db(run_onnx(model, inputs), run_native(model, inputs)) > 100


@pytest.mark.parametrize("name", SMALL)
def test_quantized_networks_give_what_onnx_runtime_gives(
    name: str, small_graph: SmallGraph, sample: Any, run_native: Any, run_onnx: Any, worst_db: Any
) -> None:
    model = int8(small_graph(name))
    inputs = sample(model)
    assert worst_db(run_onnx(model, inputs), run_native(model, inputs)) > 30


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("channels", "stride", "group"), [(16, 1, 1), (18, 2, 1), (16, 1, 16), (16, 2, 4), (1, 1, 1)])
def test_a_quantized_convolution_is_within_a_step(
    channels: int, stride: int, group: int, threads: int, graph_maker: Any, sample: Any, run_native: Any, run_onnx: Any
) -> None:
    g = graph_maker(channels + stride + group)
    inner = channels if group == 1 else 16
    kind = {"pads": [1, 1, 1, 1], "strides": [stride, stride], "group": group}
    x = g.add("Conv", ["x", g.weights("w", 16, inner // group, 3, 3), g.weights("b", 16)], "c", **kind)
    g.add("Relu", [x], "y")
    model = int8(g.model({"x": [1, inner, 11, 13]}, {"y": [1, 16, -(-11 // stride), -(-13 // stride)]}))
    scales = [node.inputs[1].const_value.numpy() for node in model.graph if node.op_type == "QuantizeLinear"]
    inputs = sample(model)
    wanted, found = run_onnx(model, inputs)[0], run_native(model, inputs, threads)[0]
    steps = np.abs(wanted - found) / scales[-1]
    assert steps.max() < 1.01 and np.mean(steps > 0.5) < 1e-3


@pytest.mark.parametrize(("pattern", "sparsity", "outputs"), [("block:4x4", 0.75, 4), ("block:4x2", 0.6, 2)])
def test_zeros_in_blocks_are_left_out(
    pattern: str,
    sparsity: float,
    outputs: int,
    graph_maker: Any,
    sample: Any,
    run_native: Any,
    run_onnx: Any,
    worst_db: Any,
) -> None:
    g = graph_maker(7)
    x = g.add("Relu", [g.add("MatMul", ["x", g.weights("u", 64, 64)], "first")], "q")  # pruning spares the first layer
    x = g.add("MatMul", [x, g.weights("w", 64, 96)], "m")
    x = g.add("Relu", [x], "r")
    g.add("MatMul", [x, g.weights("v", 96, 64)], "y")
    model = int8(prune(g.model({"x": [1, 37, 64]}, {"y": [1, 37, 64]}), pattern=pattern, sparsity=sparsity).model)
    plan = compile_model(model, Isa.AVX512VNNI).plan
    layers = [op for op in plan.ops if op.op == "conv"]
    assert [op.attributes.get("outputs") for op in layers] == [None, outputs, outputs]
    assert all(len(op.inputs) == 7 and op.inputs[5] is not None for op in layers[1:])
    inputs = sample(model)
    assert worst_db(run_onnx(model, inputs), run_native(model, inputs)) > 35


def test_a_dense_layer_stays_dense(small_graph: SmallGraph) -> None:
    model = prune(small_graph("conv_net"), pattern="unstructured", sparsity=0.5).model
    assert all("outputs" not in op.attributes for op in compile_model(int8(model), Isa.AVX512VNNI).plan.ops)


def test_a_residual_is_added_by_the_layer(small_graph: SmallGraph) -> None:
    assert "binary" not in ops(small_graph("conv_net"))
    quantized = compile_model(int8(small_graph("conv_net")), Isa.AVX512VNNI).plan
    convolutions = [op for op in quantized.ops if op.op in ("conv", "depthwise")]
    assert {op.inputs[0].layout for op in convolutions if op.inputs[0]} == {Layout.C4}


def test_a_transformer_moves_nothing_but_its_tokens(small_graph: SmallGraph) -> None:
    """[tokens, width] to [width, tokens] at the network's input, back at its output; nothing in between."""
    found = ops(small_graph("transformer_block"))
    assert found.count("attention") == 1 and found.count("transpose") == 2
    assert not {"matmul", "softmax", "slice", "unary"} & set(found)


def test_the_same_network_gives_the_same_bytes(small_graph: SmallGraph) -> None:
    files = {encode(compile_model(int8(small_graph("transformer_block")), Isa.AVX2).plan) for _ in range(2)}
    assert len(files) == 1


@pytest.mark.parametrize("engine", ["native", "auto"])
def test_the_engine_is_built_checked_and_run(
    engine: str, small_graph: SmallGraph, make_bundle: Any, sample: Any
) -> None:
    model = small_graph("dynamic_batch")
    bundle, result = make_bundle(TARGET, model, options={"engine": engine})
    if engine == "auto":
        assert "ms" in result.notes[0] and result.notes[0].startswith(f"Engine {result.kind}")
    else:
        assert result.kind == "native" and result.settings["model"] == "model.engine"
        assert {row["precision"] for row in result.layers} == {"float32"}
    executor = TARGET.executor(bundle)
    assert isinstance(executor, Executor)
    inputs = sample(model)
    parity = compare_outputs([OnnxRunner(model).run(inputs)], [executor.run(inputs)])
    assert min(one.sqnr_db for one in parity) > 100


@pytest.mark.parametrize(("name", "counted"), [("conv_net", True), ("dynamic_batch", False)])
def test_the_share_in_int8_is_said(name: str, counted: bool, small_graph: SmallGraph, make_bundle: Any) -> None:
    _, result = make_bundle(TARGET, int8(small_graph(name)), device=VNNI, options={"engine": "native"})
    assert bool(result.settings["macs"]) == counted
    assert result.kind == "native" and result.notes == ["100 % of the multiply-accumulates run in int8."]


def test_what_the_native_engine_does_not_take_goes_to_onnx_runtime_with_the_reason(
    graph_maker: Any, make_bundle: Any
) -> None:
    g = graph_maker()
    g.add("Relu", ["x"], "a")
    g.add("Unique", ["a"], "n")
    g.add("Neg", ["n"], "y")
    model = g.model({"x": [1, 4]}, {"y": ["n"]})
    _, result = make_bundle(TARGET, model, options={"engine": "native"})
    assert result.kind == "onnxruntime"
    assert "Unique 'n_node': libedgewise has no operator for it" in result.notes[0]
    with pytest.raises(NotTakenError, match="Unique 'n_node'"):
        compile_model(model, Isa.AVX2)


@pytest.mark.parametrize("device", ["raspberrypi5", "pixel-9"])
def test_an_engine_for_arm_opens_where_it_is_built(small_graph: SmallGraph, make_bundle: Any, device: str) -> None:
    bundle, result = make_bundle(TARGET, small_graph("conv_net"), device=device)
    assert result.kind == "native"
    assert isinstance(TARGET.executor(bundle), Executor)


def test_it_is_the_default_unless_an_option_of_onnx_runtime_is_set(small_graph: SmallGraph, make_bundle: Any) -> None:
    model = small_graph("conv_net")
    kinds = {"a": {}, "b": {"optimization": "basic"}, "c": {"engine": "native", "format": "ort"}}
    built = {name: make_bundle(TARGET, model, options=options, name=name)[1] for name, options in kinds.items()}
    assert [built[name].kind for name in kinds] == ["native", "onnxruntime", "native"]
    assert built["a"].notes == built["b"].notes == [] and built["a"].files == ["model.engine"]


def test_without_libedgewise_onnx_runtime_runs_it(
    small_graph: SmallGraph, make_bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "edgewise.runtime._native", None)
    bundle, result = make_bundle(TARGET, small_graph("conv_net"))
    assert result.kind == "onnxruntime" and "C++ compiler" in result.notes[0]
    assert sorted(bundle.manifest["files"]) == ["model.onnx"], "no engine file is left over"


def test_a_lesser_processor_builds_the_same_bundle(small_graph: SmallGraph, tmp_path: Path) -> None:
    """What is tried here names the level of this processor; what is written, the device's."""
    model = tmp_path / "m.onnx"
    onnx.save(ir.to_proto(int8(small_graph("conv_net"))), model)
    code = (
        "import sys; from pathlib import Path; from edgewise.runtime.onnx_file import read_onnx\n"
        "from edgewise.targets import BuildRequest, find_device; from edgewise.targets.cpu import TARGET\n"
        "device = find_device('x86-64-v4-vnni', 'cpu')\n"
        "print(TARGET.build(BuildRequest(read_onnx(sys.argv[1]), Path(sys.argv[2]), device)).kind)"
    )
    made = []
    for isa in ("generic", "avx512bf16"):
        folder = tmp_path / isa
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", code, str(model), str(folder)],
            env=os.environ | {"EDGEWISE_ISA": isa},
            capture_output=True,
            text=True,
        )
        assert done.stdout == "native\n", done.stderr
        made.append((folder / "model.engine").read_bytes())
    assert made[0] == made[1]


def test_a_lesser_processor_checks_what_the_engine_computes(
    small_graph: SmallGraph, make_bundle: Any, sample: Any
) -> None:
    """With the kernels that it has; it opens no such bundle for an app."""
    model = int8(small_graph("conv_net"))
    bundle, _ = make_bundle(TARGET, model, device=VNNI)
    inputs = sample(model)
    np.savez(bundle.path.parent / "inputs.npz", **inputs)
    code = (
        "import json, sys; import numpy as np; from edgewise.runtime.bundle import open_bundle\n"
        "import edgewise; from edgewise.runtime.errors import RunError\n"
        "from edgewise.targets.cpu import TARGET\n"
        "found = TARGET.executor(open_bundle(sys.argv[1]))\n"
        "made = found.run(dict(np.load(sys.argv[2])))\n"
        "try: edgewise.load(sys.argv[1])\n"
        "except RunError as error: refused = error.found\n"
        "print(json.dumps([found.stand_in, found.how, refused, {name: value.tolist() for name, value in made.items()}]))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(bundle.path), str(bundle.path.parent / "inputs.npz")],
        env=os.environ | {"EDGEWISE_ISA": "generic"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    stand_in, how, refused, made = json.loads(done.stdout)
    assert stand_in and "with this machine's kernels (generic): it lacks the device's" in how
    assert "built for avx512vnni, this processor has generic" in refused
    parity = compare_outputs(
        [OnnxRunner(model, optimize=False).run(inputs)], [{k: np.float32(v) for k, v in made.items()}]
    )
    assert min(one.sqnr_db for one in parity) > 30


def test_what_bfloat16_was_asked_for_and_onnx_runtime_runs_is_said(graph_maker: Any, make_bundle: Any) -> None:
    g = graph_maker()
    g.add("Unique", ["x"], "n")
    g.add("Neg", ["n"], "y")
    _, result = make_bundle(TARGET, g.model({"x": [1, 4]}, {"y": ["n"]}), options={"precision": "bfloat16"})
    assert "ONNX Runtime runs it in float32, not in bfloat16: Unique" in result.notes[0]


def test_an_unknown_engine_is_refused(small_graph: SmallGraph, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="native or onnxruntime or auto"):
        TARGET.build(BuildRequest(small_graph("conv_net"), tmp_path, VNNI, {"engine": "fastest"}))


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 11), (3, 2)])
def test_residual_convolutions_take_images_of_any_size(
    height: int, width: int, graph_maker: Any, run_native: Any, run_onnx: Any, worst_db: Any
) -> None:
    g = graph_maker()
    g.add("Conv", ["x", g.weights("first", 4, 3, 3, 3)], "a", strides=[2, 2], pads=[1, 1, 1, 1])
    g.add("Conv", ["a", g.weights("inside", 4, 4, 3, 3)], "b", pads=[1, 1, 1, 1])
    g.add("Conv", ["x", g.weights("beside", 4, 3, 1, 1)], "c", strides=[2, 2])
    g.add("Add", ["a", "b"], "d")
    g.add("Add", ["d", "c"], "y")
    g.add("GlobalAveragePool", ["y"], "mean")
    g.add("GlobalMaxPool", ["y"], "most")
    outputs = {"y": [1, 4, "rows", "columns"], "mean": [1, 4, 1, 1], "most": [1, 4, 1, 1]}
    model = g.model({"x": [1, 3, "height", "width"]}, outputs)
    inputs = {"x": np.random.default_rng(0).standard_normal((1, 3, height, width)).astype(np.float32)}
    assert worst_db(run_onnx(model, inputs), run_native(model, inputs)) > 100


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 11), (9, 14)])
def test_pools_that_round_up_take_images_of_any_size(
    height: int, width: int, graph_maker: Any, run_native: Any, run_onnx: Any, worst_db: Any
) -> None:
    g = graph_maker()
    g.add("MaxPool", ["x"], "most", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    g.add("AveragePool", ["x"], "mean", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1)
    g.add("MaxPool", ["x"], "far", kernel_shape=[4, 4], strides=[3, 3], ceil_mode=1)
    outputs = {name: [1, 3, f"{name}_rows", f"{name}_columns"] for name in ("most", "mean", "far")}
    model = g.model({"x": [1, 3, "height", "width"]}, outputs)
    inputs = {"x": np.random.default_rng(0).standard_normal((1, 3, height, width)).astype(np.float32)}
    assert worst_db(run_onnx(model, inputs), run_native(model, inputs)) > 100


def test_a_window_that_may_begin_in_the_padding_is_refused(graph_maker: Any, run_native: Any) -> None:
    g = graph_maker()
    g.add("MaxPool", ["x"], "y", kernel_shape=[1, 1], strides=[2, 2], ceil_mode=1)
    with pytest.raises(NotTakenError, match="axis 2 depends on the inputs' shapes"):
        run_native(
            g.model({"x": [1, 3, "height", 8]}, {"y": [1, 3, "rows", 4]}), {"x": np.ones((1, 3, 8, 8), np.float32)}
        )


def test_libedgewise_refuses_shapes_for_which_a_table_is_too_short(
    graph_maker: Any, run_native: Any, libedgewise: ModuleType
) -> None:
    """Positions beyond a network's table: ONNX would clamp the slice and fail at the addition; here the slice is refused."""
    g = graph_maker()
    g.add("Shape", ["x"], "n", start=1, end=2)
    table, zero, one = g.weights("t", 1, 5, 4), g.constant("zero", np.int64([0])), g.constant("one", np.int64([1]))
    g.add("Slice", [table, zero, "n", one], "p")
    g.add("Add", ["x", "p"], "y")
    model = g.model({"x": ["batch", "tokens", 4]}, {"y": ["batch", "tokens", 4]})
    x = np.ones((2, 5, 4), np.float32)
    assert run_native(model, {"x": x})[0].shape == (2, 5, 4)
    with pytest.raises(libedgewise.NativeError):
        run_native(model, {"x": np.ones((2, 6, 4), np.float32)})
