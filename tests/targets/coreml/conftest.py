"""Many operators in one network: a conversion costs as much as a hundred operators."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from edgewise.runtime.bundle import Bundle
from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.targets.base import BuildRequest, BuildResult, Executor
from edgewise.targets.coreml import TARGET
from edgewise.targets.devices import DeviceProfile, find_device

Arrays = dict[str, np.ndarray]
# (operator, inputs, attributes[, outputs]): an input is "f:2,3" (random, made at run time), an array (a constant) or None.
Case = tuple[Any, ...]

_KINDS = {
    "f": onnx.TensorProto.FLOAT,
    "p": onnx.TensorProto.FLOAT,  # positive
    "u": onnx.TensorProto.FLOAT,  # within (-1, 1)
    "d": onnx.TensorProto.FLOAT,  # far enough apart for float16
    "i": onnx.TensorProto.INT64,  # from -5 to 5
    "n": onnx.TensorProto.INT64,  # from 1 to 5
    "k": onnx.TensorProto.INT64,  # 0 or 1
    "j": onnx.TensorProto.INT32,
    "b": onnx.TensorProto.BOOL,
}


def sample(spec: str, random: np.random.Generator) -> np.ndarray:
    kind, _, dims = spec.partition(":")
    shape = tuple(int(dim) for dim in dims.split(",") if dim)
    draw: dict[str, Callable[[], Any]] = {
        "f": lambda: random.standard_normal(shape, np.float32),
        "p": lambda: random.uniform(0.1, 2, shape).astype(np.float32),
        "u": lambda: random.uniform(-0.9, 0.9, shape).astype(np.float32),
        "d": lambda: (random.permutation(int(np.prod(shape))).reshape(shape) / 4 - 3).astype(np.float32),
        "i": lambda: random.integers(-5, 6, shape),
        "n": lambda: random.integers(1, 6, shape),
        "k": lambda: random.integers(0, 2, shape),
        "j": lambda: random.integers(-5, 6, shape, np.int32),
        "b": lambda: random.integers(0, 2, shape).astype(bool),
    }
    return np.asarray(draw[kind]())


@dataclass
class Built:
    """A network of cases, built; ``program`` is the evaluator's."""

    result: BuildResult
    reference: Arrays
    found: Arrays
    outputs: dict[str, list[str]]
    package: Path

    def sqnr_db(self, label: str) -> float:
        """The worst over the outputs of a case."""
        names = self.outputs[label]
        first, second = ({name: arrays[name] for name in names} for arrays in (self.reference, self.found))
        return min(parity.sqnr_db for parity in compare_outputs([first], [second]))


def network(cases: Sequence[Case], opset: int) -> tuple[onnx.ModelProto, dict[str, list[str]], Arrays]:
    """One graph with a node per case; the outputs of each case, and random inputs."""
    random = np.random.default_rng(7)
    nodes, inputs, initializers, outputs, arrays = [], [], [], {}, {}
    for label, case in zip(labels(cases), cases, strict=True):
        op, given, attributes, *rest = case
        names = []
        for index, item in enumerate(given):
            name = f"{label}_in{index}"
            names.append("" if item is None else name)
            if isinstance(item, str):
                arrays[name] = sample(item, random)
                inputs.append(helper.make_tensor_value_info(name, _KINDS[item[0]], arrays[name].shape))
            elif item is not None:
                initializers.append(numpy_helper.from_array(np.asarray(item), name))
        outputs[label] = [f"{label}_out{index}" for index in range(rest[0] if rest else 1)]
        nodes.append(helper.make_node(op, names, outputs[label], name=label, **attributes))
    infos = [helper.make_empty_tensor_value_info(name) for names in outputs.values() for name in names]
    graph = helper.make_graph(nodes, "cases", inputs, infos, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8 if opset < 21 else 10)
    return _typed(model), outputs, arrays


def labels(cases: Sequence[Case]) -> list[str]:
    return [f"{case[0]}_{index}" for index, case in enumerate(cases)]


def _typed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Outputs with the types that inference finds."""
    for info in model.graph.output:
        info.ClearField("type")
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    found = {info.name: info for info in [*inferred.graph.value_info, *inferred.graph.output]}
    for info in model.graph.output:
        info.CopyFrom(found[info.name])
    return model


def opened(folder: Path, result: BuildResult) -> Bundle:
    """The bundle of a build, without the toolchain's parts of the manifest."""
    return Bundle(folder, {"engine": json.loads(json.dumps(asdict(result))), "files": dict.fromkeys(result.files, "")})


@pytest.fixture(scope="session")
def iphone() -> DeviceProfile:
    return find_device("iphone-15-pro", "coreml")


@pytest.fixture(scope="session")
def build_cases(tmp_path_factory: pytest.TempPathFactory, iphone: DeviceProfile) -> Callable[..., Built]:
    """Build and evaluate cases: ``build_cases(cases, opset=18, compute_precision="float32", …)``."""

    def build(cases: Sequence[Case], opset: int = 18, **options: Any) -> Built:
        proto, outputs, arrays = network(cases, opset)
        model = ir.from_proto(proto)
        folder = tmp_path_factory.mktemp("cases")
        result = TARGET.build(BuildRequest(model, folder, iphone, options))
        executor = TARGET.executor(opened(folder, result))
        assert isinstance(executor, Executor)
        reference = OnnxRunner(model, optimize=False).run(arrays)
        return Built(result, reference, executor.run(arrays), outputs, folder / "model.mlpackage")

    return build


@pytest.fixture(scope="session")
def build_model(
    tmp_path_factory: pytest.TempPathFactory, iphone: DeviceProfile
) -> Callable[..., tuple[Executor, BuildResult, Path]]:
    """Build a model: its executor, the result, and the folder."""

    def build(model: Any, preprocess: Any = None, device: DeviceProfile | None = None, **options: Any) -> Any:
        graph = model if isinstance(model, ir.Model) else ir.from_proto(model)
        folder = tmp_path_factory.mktemp("model")
        result = TARGET.build(BuildRequest(graph, folder, device or iphone, options, preprocess))
        return TARGET.executor(opened(folder, result)), result, folder

    return build
