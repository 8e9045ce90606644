"""Graphs from text and samples from arrays, as the tests of passes want them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.runtime.data import Dataset, Sample

Arrays = dict[str, np.ndarray]


def _graph(text: str, constants: Arrays | None = None) -> ir.Model:
    """A model of opset 18 from ONNX's text form without its header; constants become initializers."""
    model = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : 18]> agraph {text}')
    values = {str(value.name): value for node in model.graph for value in node.inputs if value is not None}
    for name, array in (constants or {}).items():
        value = values[name]
        value.const_value = ir.tensor(array, name=name)
        value.shape, value.type = ir.Shape(array.shape), ir.TensorType(value.const_value.dtype)
        model.graph.inputs[:] = [other for other in model.graph.inputs if other is not value]
        model.graph.register_initializer(value)
    for index, node in enumerate(model.graph):
        node.name = node.name or f"{node.op_type}_{index}"
    return model


def _dataset(samples: Sequence[Arrays]) -> Dataset:
    return Dataset("a list", len(samples), lambda wanted: (Sample(samples[index], None) for index in wanted))


@pytest.fixture(scope="session")
def graph() -> Callable[..., ir.Model]:
    """``graph(text, constants)``; in the text, constants are listed as inputs."""
    return _graph


@pytest.fixture(scope="session")
def dataset() -> Callable[[Sequence[Arrays]], Dataset]:
    """Samples from a list of arrays by input name."""
    return _dataset


@pytest.fixture(scope="session")
def normal() -> Callable[..., Dataset]:
    """``normal(count, shape, seed=0, scale=1)``: samples of one input ``x``."""

    def make(count: int, shape: Sequence[int], seed: int = 0, scale: float | np.ndarray = 1.0) -> Dataset:
        rng = np.random.default_rng(seed)
        return _dataset([{"x": (rng.normal(size=shape) * scale).astype(np.float32)} for _ in range(count)])

    return make
