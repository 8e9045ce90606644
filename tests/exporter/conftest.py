"""Small graphs and networks for the exporter's tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.runtime.callables import find_callable
from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.data import random_data
from edgewise.runtime.onnx_runner import OnnxRunner

onnx = pytest.importorskip("onnx")
ir = pytest.importorskip("onnx_ir")
pytest.importorskip("torch")

NETWORKS = Path(__file__).with_name("networks.py")


@pytest.fixture(scope="session")
def network() -> Callable[..., Any]:
    """Builds one of ``networks.py`` by name, with seeded weights, in evaluation mode."""
    import torch

    def build(name: str, **arguments: Any) -> Any:
        torch.manual_seed(0)
        return find_callable(f"{NETWORKS}:{name}", option="test")(**arguments).eval()

    return build


@pytest.fixture(scope="session")
def networks_file() -> Path:
    """The file that ``--arch`` can name."""
    return NETWORKS


@pytest.fixture
def graph() -> Callable[..., Any]:
    """Builds a model: nodes as (op, inputs, outputs, attributes), float inputs by shape, constants as arrays."""

    def build(
        nodes: Sequence[tuple[Any, ...]],
        inputs: dict[str, Sequence[int | str]],
        outputs: dict[str, Sequence[int | str] | None],
        constants: dict[str, np.ndarray] | None = None,
        opset: int = 18,
    ) -> Any:
        made = [onnx.helper.make_node(op, ins, outs, **(rest[0] if rest else {})) for op, ins, outs, *rest in nodes]
        floats = onnx.TensorProto.FLOAT
        proto = onnx.helper.make_graph(
            made,
            "test",
            [onnx.helper.make_tensor_value_info(name, floats, shape) for name, shape in inputs.items()],
            [onnx.helper.make_tensor_value_info(name, floats, shape) for name, shape in outputs.items()],
            [onnx.numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
        )
        model = onnx.helper.make_model(proto, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)
        return ir.from_proto(onnx.shape_inference.infer_shapes(model, data_prop=True))

    return build


@pytest.fixture
def run_pass() -> Callable[..., Any]:
    """Asserts the operators before, runs passes, asserts the operators after, the interface and the numbers."""

    def check(
        model: Any, passes: Any, before: dict[str, int], after: dict[str, int], min_sqnr_db: float = 100.0
    ) -> Any:
        assert ops(model) == before
        interface = described(model)
        samples = [sample.inputs for sample in random_data(OnnxRunner(model).inputs, 2, seed=3, dynamic=2)]
        want = [OnnxRunner(model).run(sample) for sample in samples]
        for step in passes if isinstance(passes, list) else [passes]:
            step(model)
        assert ops(model) == after
        assert described(model) == interface
        have = [OnnxRunner(model).run(sample) for sample in samples]
        assert all(parity.sqnr_db >= min_sqnr_db for parity in compare_outputs(want, have))
        return model

    return check


def ops(model: Any) -> dict[str, int]:
    """Operators of the main graph with counts."""
    return dict(Counter(node.op_type for node in model.graph))


def described(model: Any) -> list[tuple[str, str, Any]]:
    """Names, dtypes and shapes of inputs and outputs."""
    values = [*model.graph.inputs, *model.graph.outputs]
    return [(value.name, value.dtype.name, [str(dim) for dim in value.shape]) for value in values]
