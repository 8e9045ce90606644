"""Options, shape profiles and devices of the target tensorrt: what is accepted, what is chosen, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from edgewise.targets import BuildRequest, TargetError, device_profiles, find_device
from edgewise.targets.devices import parse_profile
from edgewise.targets.tensorrt import TARGET
from edgewise.targets.tensorrt.profiles import shape_profile
from edgewise.targets.tensorrt.settings import Settings, read_settings, sm_of
from edgewise.targets.tensorrt.vendor import buildable_sms

SmallGraph = Callable[[str], ir.Model]


def value(name: str, *dims: int | str) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(dims), type=ir.TensorType(ir.DataType.FLOAT))


def settings(graph: ir.Model, device: str = "rtx-4070", **options: Any) -> Settings:
    return read_settings(BuildRequest(graph, Path(), find_device(device, "tensorrt"), options))


def test_tensorrt_for_rtx_builds_for_turing_to_blackwell() -> None:
    assert buildable_sms() == sorted(buildable_sms())
    assert {75, 80, 86, 89, 120} <= set(buildable_sms())
    assert not {87, 90} & set(buildable_sms()), "then the docs and the profiles of Jetson and H100 need another look"


def test_the_builder_follows_from_the_device(small_graph: SmallGraph) -> None:
    chosen = {
        name: settings(small_graph("conv_net"), name).builder
        for name, profile in device_profiles().items()
        if "tensorrt" in profile.targets
    }
    assert {name for name, builder in chosen.items() if builder == "device"} >= {
        "jetson-orin-nano",
        "jetson-agx-orin",
        "h100",
    }
    assert {name for name, builder in chosen.items() if builder == "rtx"} >= {"t4", "rtx-3060", "rtx-4070", "rtx-5080"}
    assert settings(small_graph("conv_net"), "rtx-4070", builder="device").builder == "device"


@pytest.mark.parametrize(
    ("device", "options", "message"),
    [
        ("jetson-agx-orin", {"builder": "rtx"}, "found builder = 'rtx' for SM87; expected one of SM75"),
        ("rtx-4070", {"dla_core": 0}, "dla_core with builder = 'rtx'"),
        ("jetson-orin-nano", {"dla_core": 0}, "a core of jetson-orin-nano, which has 0"),
        ("jetson-agx-orin", {"dla_core": 2}, "a core of jetson-agx-orin, which has 2"),
        ("rtx-4070", {"workspace_bytes": 0}, "expected a positive number"),
        ("rtx-4070", {"precision": "int8"}, "expected float16 or bfloat16 or float32"),
        ("rtx-4070", {"keep_float32": ["conv9"]}, "found keep_float32 with 'conv9'; expected names of nodes"),
        ("rtx-4070", {"fp16": True}, "found 'fp16'; expected one of precision"),
        ("rtx-4070", {"profiles": [1]}, "expected a value of type dict"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    device: str, options: dict[str, Any], message: str, small_graph: SmallGraph
) -> None:
    with pytest.raises(TargetError) as caught:
        settings(small_graph("conv_net"), device, **options)
    assert message in str(caught.value)


def test_a_profile_without_its_compute_capability_is_refused() -> None:
    profile = parse_profile("card", 'summary = "a card"\ntargets = ["tensorrt"]\n')
    with pytest.raises(TargetError, match=r"device 'card', table \[tensorrt\]\): found no 'sm'"):
        sm_of(profile)


def test_int8_is_symmetric_and_leaves_biases_and_attention_alone() -> None:
    spec = TARGET.quantization("int8", find_device("rtx-4070", "tensorrt"))
    assert (spec.activation_dtype, spec.activation_symmetric, spec.per_channel) == ("int8", True, True)
    assert (
        not spec.quantize_bias
        and not spec.attention
        and spec.quantize_outputs == ("Concat", "MaxPool")
        and spec.residuals
    )


def test_a_fixed_shape_needs_no_profile() -> None:
    assert shape_profile([value("x", 1, 3, 8, 8)], {}) == ({}, [])


@pytest.mark.parametrize(
    ("dims", "chosen"),
    [
        (("N", 3, 32, 32), ([1, 3, 32, 32], [1, 3, 32, 32], [8, 3, 32, 32])),
        (("batch", "tokens", 64), ([1, 1, 64], [1, 128, 64], [8, 512, 64])),
        (("batch", "samples"), ([1, 1600], [1, 16000], [8, 160000])),
        ((1, 3, "h", "w"), ([1, 3, 64, 64], [1, 3, 224, 224], [1, 3, 512, 512])),
    ],
)
def test_a_range_that_is_not_given_is_chosen_and_said(dims: tuple[Any, ...], chosen: tuple[list[int], ...]) -> None:
    profile, notes = shape_profile([value("x", *dims)], {})
    assert profile == {"x": dict(zip(("min", "opt", "max"), chosen, strict=True))}
    assert len(notes) == 1 and "'x' is dynamic" in notes[0]
    assert "x".join(map(str, chosen[2])) in notes[0] and "build.options.profiles" in notes[0]


def test_a_range_that_is_given_is_taken_without_a_word() -> None:
    given = {"x": {"min": [1, 4], "opt": [2, 4], "max": [4, 4]}}
    assert shape_profile([value("x", "N", 4)], given) == (given, [])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"z": {}}, "input 'z'): found no such input; expected one of x"),
        ({"x": [1, 2]}, "expected a shape for each of min, opt, max"),
        ({"x": {"min": [1, 4], "opt": [1, 4]}}, "expected a shape for each of min, opt, max"),
        ({"x": {"min": [1], "opt": [1, 4], "max": [1, 4]}}, "expected a shape that fits [N, 4]"),
        ({"x": {"min": [1, 4], "opt": [1, 5], "max": [1, 4]}}, "opt = [1, 5]; expected a shape that fits [N, 4]"),
        ({"x": {"min": [0, 4], "opt": [1, 4], "max": [1, 4]}}, "expected a list of positive integers"),
        ({"x": {"min": [True, 4], "opt": [1, 4], "max": [1, 4]}}, "expected a list of positive integers"),
        ({"x": {"min": [4, 4], "opt": [2, 4], "max": [8, 4]}}, "expected min <= opt <= max"),
        ({"x": {"min": [1, 4], "opt": [8, 4], "max": [4, 4]}}, "expected min <= opt <= max"),
    ],
)
def test_profiles_that_do_not_fit_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(TargetError) as caught:
        shape_profile([value("x", "N", 4)], given)
    assert message in str(caught.value)


def test_an_input_of_unknown_rank_is_refused() -> None:
    with pytest.raises(TargetError, match="found an unknown rank"):
        shape_profile([ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT))], {})
