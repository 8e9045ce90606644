"""Float networks multiplied in bfloat16: ``build.options.precision``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import pytest

from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.targets import TargetError
from edgewise.targets.cpu import TARGET

pytestmark = pytest.mark.usefixtures("libedgewise")
SmallGraph = Callable[[str], ir.Model]


@pytest.mark.parametrize("name", ["conv_net", "dynamic_batch", "transformer_block"])
def test_a_network_is_near_its_float32_self(name: str, small_graph: SmallGraph, make_bundle: Any, sample: Any) -> None:
    model = small_graph(name)
    bundle, result = make_bundle(TARGET, model, options={"engine": "native", "precision": "bfloat16"})
    layers = [row["precision"] for row in result.layers if row["op"] == "conv"]
    assert result.kind == "native" and set(layers) == {"bfloat16"}
    inputs = sample(model)
    executor = TARGET.executor(bundle)
    parity = compare_outputs([OnnxRunner(model).run(inputs)], [executor.run(inputs)])  # type: ignore[union-attr]
    assert 35 < min(one.sqnr_db for one in parity) < 80  # near, and not float32 itself


@pytest.mark.parametrize("engine", ["onnxruntime", "auto"])
def test_other_engines_have_no_bfloat16(engine: str, small_graph: SmallGraph, make_bundle: Any) -> None:
    with pytest.raises(TargetError, match="engine native for precision bfloat16"):
        make_bundle(TARGET, small_graph("conv_net"), options={"engine": engine, "precision": "bfloat16"})
