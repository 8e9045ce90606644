"""The evaluator alone, against PyTorch: what verifies every build has to be right itself."""

from __future__ import annotations

import ast
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgewise.targets import TargetError
from edgewise.targets.coreml import ops
from edgewise.targets.coreml.evaluator import mil
from edgewise.targets.coreml.evaluator.program import EvaluatedProgram
from edgewise.targets.coreml.evaluator.rounding import rounded_to_half
from edgewise.targets.coreml.evaluator.table import operations

MIL = operations()
FAST = settings(max_examples=40, derandomize=True)
functional = torch.nn.functional


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(math.prod(shape)).standard_normal(shape).astype(np.float32)


def close(found: Any, expected: torch.Tensor) -> None:
    np.testing.assert_allclose(found, expected.numpy(), rtol=2e-5, atol=2e-5)


windows = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2))


@FAST
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), windows, windows)
def test_convolutions(groups: int, each_in: int, each_out: int, down: tuple[int, ...], across: tuple[int, ...]) -> None:
    (kh, sh, ph, dh), (kw, sw, pw, dw) = down, across
    x, w, b = draw(2, groups * each_in, 9, 8), draw(groups * each_out, each_in, kh, kw), draw(groups * each_out)
    found = MIL["conv"](x, w, b, [sh, sw], "custom", [ph, ph, pw, pw], [dh, dw], groups)
    torched = [torch.from_numpy(array) for array in (x, w, b)]
    close(found, functional.conv2d(*torched, (sh, sw), (ph, pw), (dh, dw), groups))
    ph, pw = min(ph, (kh - 1) * dh), min(pw, (kw - 1) * dw)
    w = draw(groups * each_in, each_out, kh, kw)
    found = MIL["conv_transpose"](x, w, None, [sh, sw], "custom", [ph, ph, pw, pw], [dh, dw], groups)
    expected = functional.conv_transpose2d(
        torched[0], torch.from_numpy(w), None, (sh, sw), (ph, pw), 0, groups, (dh, dw)
    )
    close(found, expected)


@FAST
@given(st.integers(2, 4), st.integers(1, 3), st.integers(0, 1), st.booleans())
def test_pools(kernel: int, stride: int, pad: int, exclude: bool) -> None:
    x = draw(1, 2, 9, 7)
    pads, torched = [pad] * 4, torch.from_numpy(x)
    close(
        MIL["max_pool"](x, [kernel] * 2, [stride] * 2, "custom", pads),
        functional.max_pool2d(torched, kernel, stride, pad),
    )
    close(
        MIL["avg_pool"](x, [kernel] * 2, [stride] * 2, "custom", pads, exclude),
        functional.avg_pool2d(torched, kernel, stride, pad, count_include_pad=not exclude),
    )


def test_float16_is_rounded_as_numpy_rounds_it() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    exact = halves.astype(np.float32)
    numbers = np.sort(exact[np.isfinite(exact)])
    between = (numbers[1:] + numbers[:-1]) / 2
    beyond = np.array(
        [0.0, -0.0, 65519, 65520, -65520, 65536, 1e5, 3.4e38, -3.4e38, 1e-45, np.inf, -np.inf], np.float32
    )
    random = np.random.default_rng(0).standard_normal(100_000).astype(np.float32) * np.float32(1e-4)
    near = np.concatenate([np.nextafter(between, np.float32(np.inf)), np.nextafter(between, np.float32(-np.inf))])
    for x in (exact, numbers, between, near, beyond, random, random * np.float32(1e8), np.float32(1) + random):
        with np.errstate(all="ignore"):
            want, found = x.astype(np.float16).astype(np.float32), rounded_to_half(x)
        np.testing.assert_array_equal(found, want)
        known = ~np.isnan(want)
        np.testing.assert_array_equal(np.signbit(found[known]), np.signbit(want[known]))


@FAST
@given(st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_bilinear(height: int, width: int, aligned: bool) -> None:
    x = draw(1, 2, 4, 5)
    mode = "STRICT_ALIGN_CORNERS" if aligned else "UNALIGN_CORNERS"
    expected = functional.interpolate(torch.from_numpy(x), (height, width), mode="bilinear", align_corners=aligned)
    close(MIL["resize_bilinear"](x, height, width, mode), expected)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize(("padding", "ours"), [("zeros", "constant"), ("border", "border"), ("reflection", "")])
@pytest.mark.parametrize("aligned", [True, False])
def test_grid_sample(mode: str, padding: str, ours: str, aligned: bool) -> None:
    x, grid = draw(2, 3, 5, 6), draw(2, 7, 4, 2)
    expected = functional.grid_sample(torch.from_numpy(x), torch.from_numpy(grid), mode, padding, aligned)
    ours = ours or ("reflection" if aligned else "symmetric")
    close(MIL["resample"](x, grid, mode, ours, 0.0, "normalized_minus_one_to_one", aligned), expected)


def test_recurrence() -> None:
    lstm = torch.nn.LSTM(3, 4)
    first, hidden = (parameter.detach().numpy() for parameter in (lstm.weight_ih_l0, lstm.weight_hh_l0))
    bias = (lstm.bias_ih_l0 + lstm.bias_hh_l0).detach().numpy()
    order = [0, 1, 3, 2]  # PyTorch has the cell before the output

    def turned(array: np.ndarray) -> np.ndarray:
        return np.concatenate([np.split(array, 4)[place] for place in order])

    x, zeros = draw(5, 2, 3), np.zeros((2, 4), np.float32)
    found = MIL["lstm"](x, zeros, zeros, turned(first), turned(hidden), turned(bias), output_sequence=True)
    with torch.no_grad():
        expected, (h, c) = lstm(torch.from_numpy(x))
    close(found[0], expected)
    close(found[1], h[0])
    close(found[2], c[0])


def test_attention() -> None:
    q, k, v, mask = draw(2, 3, 4, 8), draw(2, 3, 5, 8), draw(2, 3, 5, 6), draw(4, 5)
    torched = [torch.from_numpy(array) for array in (q, k, v)]
    for chosen in (mask, mask > -1):
        expected = functional.scaled_dot_product_attention(*torched, attn_mask=torch.from_numpy(chosen))
        close(MIL["scaled_dot_product_attention"](q, k, v, chosen), expected)


def test_error_function_to_the_last_digits() -> None:
    x = np.concatenate([np.linspace(-7, 7, 4001), [0, 3, -3, 2.9999999, 1e-300, np.inf]])
    expected = np.array([math.erf(value) for value in x])
    np.testing.assert_allclose(MIL["erf"](x), expected, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize(
    ("name", "expected", "arguments"),
    [
        ("gelu", functional.gelu, {}),
        ("gelu", lambda x: functional.gelu(x, approximate="tanh"), {"mode": "TANH_APPROXIMATION"}),
        ("silu", functional.silu, {}),
        ("sigmoid", torch.sigmoid, {}),
        ("softplus", functional.softplus, {}),
        ("softsign", functional.softsign, {}),
        ("elu", lambda x: functional.elu(x, 0.7), {"alpha": 0.7}),
        ("leaky_relu", lambda x: functional.leaky_relu(x, 0.2), {"alpha": 0.2}),
        ("relu6", functional.relu6, {}),
        ("sigmoid_hard", functional.hardsigmoid, {"alpha": 1 / 6, "beta": 0.5}),
        ("softmax", lambda x: torch.softmax(x, 1), {"axis": 1}),
        ("layer_norm", lambda x: functional.layer_norm(x, (5,), eps=1e-3), {"axes": [-1], "epsilon": 1e-3}),
        ("instance_norm", functional.instance_norm, {}),
        ("local_response_norm", lambda x: functional.local_response_norm(x, 3, 0.1, 0.6, 1.5), {"size": 3, "alpha": 0.1, "beta": 0.6, "k": 1.5}),
        ("reduce_log_sum_exp", lambda x: torch.logsumexp(x, (0, 2)), {"axes": [0, 2]}),
        ("pixel_shuffle", lambda x: functional.pixel_shuffle(x, 2), {"upscale_factor": 2}),
        ("pad", lambda x: functional.pad(x, (1, 2, 2, 1), mode="reflect"), {"pad": [2, 1, 1, 2], "mode": "reflect"}),
        ("pad", lambda x: functional.pad(x, (1, 2, 2, 1), mode="replicate"), {"pad": [2, 1, 1, 2], "mode": "replicate"}),
    ],
)  # fmt: skip
def test_against_pytorch(name: str, expected: Callable[..., Any], arguments: dict[str, Any]) -> None:
    x = draw(2, 4, 6, 5) * 3
    close(MIL[name](x, **arguments), expected(torch.from_numpy(x)))


@pytest.mark.parametrize("axis", [0, 1])
def test_quantized_as_in_pytorch(axis: int) -> None:
    x, scale, zero = draw(3, 4), np.float32([0.1, 0.02, 0.05, 0.3])[: 3 + axis], np.int8([0, 3, -5, 7])[: 3 + axis]
    torched = [torch.from_numpy(array) for array in (x, scale, zero.astype(np.int32))]
    codes = MIL["quantize"](x, scale, "int8", zero, axis).astype(np.int8)
    close(
        MIL["dequantize"](codes, scale, zero, axis), torch.fake_quantize_per_channel_affine(*torched, axis, -128, 127)
    )


def test_an_index_below_zero_is_an_error_from_ios_17_on() -> None:
    x = draw(4, 2)
    np.testing.assert_array_equal(MIL["gather"](x, np.array([-1]), 0, opset="CoreML6"), x[-1:])
    for name, arguments in (
        ("gather", (np.array([-1]), 0)),
        ("gather_along_axis", (np.array([[-1, 0]]), 0)),
        ("gather_nd", (np.array([[-1]]),)),
    ):
        with pytest.raises(IndexError):
            MIL[name](x, *arguments, opset="CoreML7")


def test_every_operation_that_the_converter_writes_is_there() -> None:
    sources = [file.read_text() for file in Path(ops.__path__[0]).parent.rglob("*.py") if "evaluator" not in file.parts]
    written = {name for source in sources for name in re.findall(r"\bmb\.(\w+)\(", source)} - {"placeholder", "const"}
    named = set(re.findall(r'(?:binary|unary|_comparison|_variadic|_arg|_reduce)\("(\w+)"', "".join(sources)))
    written -= {
        "state_tensor_placeholder",
        "read_state",
        "coreml_update_state",
    }  # the program's own: test_coreml_states.py
    assert len(written) > 60 and len(named) > 12
    assert written | named <= set(MIL)


def test_it_shares_nothing_with_the_converter() -> None:
    """Imports of its own, of the saved file's reader, of errors: nothing that takes part in the conversion."""
    allowed = ("edgewise.targets.coreml.evaluator", "edgewise.targets.coreml.package", "edgewise.targets.base")
    files = list(Path(mil.__path__[0]).parent.rglob("*.py"))
    assert len(files) > 12
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("edgewise"):
                assert (node.module or "").startswith(allowed), f"{file.name} imports {node.module}"


@pytest.fixture(scope="module")
def package(build_model: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3, 40]) for name in ("x", "y")]
    weight = helper.make_tensor("w", TensorProto.FLOAT, [40, 40], np.ones(1600, np.float32))
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ports[:1], ports[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return build_model(ir.from_proto(model))[2] / "model.mlpackage"


def copied(package: Path, folder: Path) -> Path:
    return Path(shutil.copytree(package, folder / "model.mlpackage"))


def test_a_package_that_is_cut_is_an_error(package: Path, tmp_path: Path) -> None:
    copy = copied(package, tmp_path)
    model = copy / "Data/com.apple.CoreML/model.mlmodel"
    model.write_bytes(model.read_bytes()[:100])
    with pytest.raises(TargetError, match="cannot read the Core ML package"):
        EvaluatedProgram(copy)
    model.unlink()
    with pytest.raises(TargetError, match=r"model\.mlmodel"):
        EvaluatedProgram(copy)


def test_weights_that_are_cut_are_an_error(package: Path, tmp_path: Path) -> None:
    copy = copied(package, tmp_path)
    weights = copy / "Data/com.apple.CoreML/weights/weight.bin"
    for size in (64, 0):
        weights.write_bytes(weights.read_bytes()[:size])
        with pytest.raises(TargetError, match=r"weight\.bin"):
            EvaluatedProgram(copy)


def test_an_operation_outside_the_table_is_an_error(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = EvaluatedProgram(package)
    with pytest.raises(TargetError, match="input 'x'"):
        program.run({})
    monkeypatch.delitem(MIL, "linear")
    with pytest.raises(TargetError, match="'linear'"):
        EvaluatedProgram(package)


def test_values_that_fail_are_an_error_with_the_operation(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MIL, "linear", lambda **_: np.zeros(3).reshape(2))
    with pytest.raises(TargetError, match=r"'y.*\(linear\)"):
        EvaluatedProgram(package).run({"x": np.zeros((3, 40), np.float32)})


def test_a_shape_that_the_package_does_not_take_is_an_error(package: Path) -> None:
    with pytest.raises(TargetError, match=r"input 'x'.*\[3, 41\]; expected \[3, 40\]"):
        EvaluatedProgram(package).run({"x": np.zeros((3, 41), np.float32)})
