"""What every target must hold, whoever wrote it: one suite over all that are found."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.quantize import QuantSpec, quantize
from edgewise.runtime.bundle import Bundle
from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.data import random_data
from edgewise.runtime.engines import engine_kinds
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.targets import (
    BuildRequest,
    BuildResult,
    Executor,
    Target,
    TargetError,
    device_profiles,
    find_device,
    targets,
)
from edgewise.targets.nodes import op_name, tensor_spec

pytestmark = pytest.mark.conformance

MakeBundle = Callable[..., tuple[Bundle, BuildResult]]
SmallGraph = Callable[[str], ir.Model]
TAKEN = ("conv_net", "dynamic_batch", "transformer_block")
# Engines that compute in float16 give about 60 dB on these graphs.
FLOAT_SQNR_DB, INT8_SQNR_DB = 45.0, 25.0


@pytest.fixture(params=sorted(targets()))
def target(request: pytest.FixtureRequest) -> Target:
    return targets()[request.param]


def default_device(target: Target) -> Any:
    return find_device(target.default_device, target.name)


def serialized(model: ir.Model) -> bytes:
    return ir.to_proto(model).SerializeToString(deterministic=True)


def quantized(target: Target, model: ir.Model) -> ir.Model:
    """By the target's own QuantSpec, calibrated on the very samples that the test compares on."""
    spec = target.quantization("int8", default_device(target))
    return quantize(model, spec, data_for(model), allow_random=True).model


def data_for(model: ir.Model, dims: Mapping[str, int] | None = None) -> Any:
    """Samples whose symbolic dims are 2, unless the engine has a size of its own for them (``dims``)."""
    specs = [tensor_spec(value) for value in model.graph.inputs]
    sized = [
        dataclasses.replace(spec, shape=tuple((dims or {}).get(str(dim), dim) for dim in spec.shape)) for spec in specs
    ]
    return random_data(sized, 8, seed=3, dynamic=2)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_says_who_it_is(target: Target) -> None:
    assert target.name == target.name.lower().strip() != ""
    assert target.summary and "\n" not in target.summary
    assert 1 <= target.min_opset <= 18
    assert isinstance(target.schemes, tuple)


def states(target: Target, scheme: str, device: Any) -> bool:
    """Whether a target has a scheme for a device; a device that is too old for it is named."""
    try:
        return isinstance(target.quantization(scheme, device), QuantSpec)
    except TargetError as error:
        assert device.name in error.where
        return False


def test_states_the_form_of_each_scheme_for_each_device_and_refuses_others(target: Target) -> None:
    devices = [profile for profile in device_profiles().values() if target.name in profile.targets]
    for scheme in target.schemes:
        assert any(states(target, scheme, device) for device in devices), f"{scheme} is for no device"
    with pytest.raises(TargetError, match="'int3'"):
        target.quantization("int3", default_device(target))


@pytest.mark.parametrize("name", [*TAKEN, "with_a_mystery"])
def test_support_covers_every_node_once_and_in_order(target: Target, name: str, small_graph: SmallGraph) -> None:
    model = small_graph(name)
    support = target.support(model, default_device(target))
    assert [entry.node for entry in support] == [node.name for node in model.graph]
    assert [entry.op.split("::")[-1] for entry in support] == [node.op_type for node in model.graph]
    assert all(entry.taken != bool(entry.reason) for entry in support), "a reason if and only if it is refused"
    assert all(entry.taken for entry in support) == (name in TAKEN)


def test_support_names_the_operator_that_nobody_has(target: Target, small_graph: SmallGraph) -> None:
    support = target.support(small_graph("with_a_mystery"), default_device(target))
    refused = [entry for entry in support if not entry.taken]
    assert refused[0].node == "middle_node"
    assert "Mystery" in refused[0].op


@pytest.mark.parametrize("name", TAKEN)
def test_builds_what_it_takes(target: Target, name: str, small_graph: SmallGraph, make_bundle: MakeBundle) -> None:
    model = small_graph(name)
    before = serialized(model)
    bundle, result = make_bundle(target, model)
    assert serialized(model) == before, "the model that was passed in is not to be changed"
    assert result.kind in engine_kinds()
    assert json.loads(json.dumps(dataclasses.asdict(result))) == dataclasses.asdict(result)
    assert bundle.size_bytes > 0
    check_files(bundle, result)
    check_layers(result)


def check_files(bundle: Bundle, result: BuildResult) -> None:
    """Everything in the draft is the engine's, or named in its settings; nothing is left over."""
    found = set(bundle.manifest["files"])
    folders = {name.split("/")[0] for name in result.files}
    assert set(result.files) <= found
    strays = {name for name in found if name.split("/")[0] not in folders} - set(map(str, result.settings.values()))
    assert not strays


def check_layers(result: BuildResult) -> None:
    assert result.layers
    for layer in result.layers:
        assert {"name", "op", "precision", "unit"} <= set(layer)
        texts = {name: value for name, value in layer.items() if name != "bytes"}
        assert all(isinstance(value, str) and value for value in texts.values())
        size_bytes = layer.get("bytes", 1)
        assert isinstance(size_bytes, int) and size_bytes > 0


def test_builds_its_own_int8_form(target: Target, small_graph: SmallGraph, make_bundle: MakeBundle) -> None:
    if "int8" not in target.schemes:
        pytest.skip(f"{target.name} has no scheme int8")
    for name in ("conv_net", "transformer_block"):
        source = quantized(target, small_graph(name))
        assert all(entry.taken for entry in target.support(source, default_device(target)))
        bundle, result = make_bundle(target, source, name=name)
        check_layers(result)
        check_outputs(target, bundle, source, INT8_SQNR_DB)


@pytest.mark.parametrize("name", TAKEN)
def test_computes_what_the_source_computes(
    target: Target, name: str, small_graph: SmallGraph, make_bundle: MakeBundle
) -> None:
    model = small_graph(name)
    bundle, _ = make_bundle(target, model)
    check_outputs(target, bundle, model, FLOAT_SQNR_DB)


def check_outputs(target: Target, bundle: Bundle, model: ir.Model, sqnr_db: float) -> None:
    executor = target.executor(bundle)
    if not isinstance(executor, Executor):
        assert isinstance(executor, str) and executor, "no executor needs a reason"
        assert str(bundle.path.parent) not in executor, "it goes into the manifest, of a folder that may be a draft"
        return
    assert executor.how and str(bundle.path.parent) not in executor.how
    reference = OnnxRunner(model, optimize=False)
    samples = [dict(sample.inputs) for sample in data_for(model, bundle.manifest["engine"]["dims"])]
    expected, found = [[run(sample) for sample in samples] for run in (reference.run, executor.run)]
    for parity in compare_outputs(expected, found):
        assert parity.sqnr_db >= sqnr_db, f"{parity}, computed by {executor.how}"


@pytest.mark.parametrize("scheme", ["float", "int8"])
def test_the_same_build_gives_the_same_bytes(
    target: Target, scheme: str, small_graph: SmallGraph, make_bundle: MakeBundle
) -> None:
    """All but the files of which the result says that the vendor's builder does not repeat them."""
    if scheme == "int8" and scheme not in target.schemes:
        pytest.skip(f"{target.name} has no scheme int8")
    model = small_graph("dynamic_batch")
    model = quantized(target, model) if scheme == "int8" else model
    (first, result), (again, repeated) = (make_bundle(target, model, name=name) for name in ("a", "b"))
    assert result == repeated
    found, expected = contents(first.path), contents(again.path)
    assert set(found) == set(expected)
    same = set(found) - {"manifest.json", *result.varying}
    assert same, "not everything may vary"
    assert [name for name in same if found[name] != expected[name]] == []


def test_refuses_to_build_what_nobody_has_and_leaves_nothing(
    target: Target, small_graph: SmallGraph, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    with pytest.raises(TargetError) as caught:
        make_bundle(target, small_graph("with_a_mystery"))
    message = str(caught.value)
    assert "middle_node" in message and "Mystery" in message
    assert caught.value.fix and caught.value.expected
    assert list(tmp_path.iterdir()) == []


def test_refuses_unknown_options(target: Target, small_graph: SmallGraph, tmp_path: Path) -> None:
    request = BuildRequest(small_graph("conv_net"), tmp_path, default_device(target), {"no_such_option": 1})
    with pytest.raises(TargetError, match="'no_such_option'"):
        target.build(request)


@pytest.mark.parametrize(
    ("name", "device"),
    [(name, profile.name) for profile in device_profiles().values() for name in profile.targets if name in targets()],
)
def test_builds_for_every_device_that_names_it(
    name: str, device: str, small_graph: SmallGraph, make_bundle: MakeBundle
) -> None:
    bundle, _ = make_bundle(targets()[name], small_graph("conv_net"), device=device_profiles()[device])
    assert bundle.manifest["device"] == device


def test_nodes_without_names_are_named(target: Target, small_graph: SmallGraph) -> None:
    model = small_graph("conv_net")
    for node in model.graph:
        node.name = None
    names = [entry.node for entry in target.support(model, default_device(target))]
    assert len(set(names)) == len(names) and all(names)
    assert [op_name(node) for node in model.graph] == [
        entry.op for entry in target.support(model, default_device(target))
    ]


def test_outputs_of_a_wrong_engine_would_be_noticed(small_graph: SmallGraph, make_bundle: MakeBundle) -> None:
    """The comparison above can fail: one weight changed is seen."""
    target = targets()["cpu"]
    model = small_graph("conv_net")
    weight = model.graph.initializers["w4"]
    array = weight.const_value.numpy().copy()
    array[0, 0] += 1.0
    wrong = small_graph("conv_net")
    wrong.graph.initializers["w4"].const_value = ir.tensor(array, name="w4")
    bundle, _ = make_bundle(target, wrong)
    with pytest.raises(AssertionError):
        check_outputs(target, bundle, model, FLOAT_SQNR_DB)


def test_random_data_differs_from_zero(small_graph: SmallGraph) -> None:
    assert all(np.std(sample.inputs["x"]) > 0.1 for sample in data_for(small_graph("conv_net")))
