"""coremltools' passes: what they make is checked after each pipeline, and a program that one of them breaks is refused."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewise.targets.base import TargetError
from edgewise.targets.coreml import compile as compiling
from edgewise.targets.coreml.quiet import load_coremltools

BuildModel = Callable[..., tuple[Any, Any, Path]]


@pytest.fixture(scope="module")
def model() -> Any:
    weight = np.random.default_rng(3).choice(np.float32([-0.5, 0, 0.25, 1]), (64, 32))  # packed: a palette
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Softmax", ["h"], ["y"])]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, size]) for name, size in (("x", 64), ("y", 32))]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_a_program_that_a_pass_breaks_is_refused(
    model: Any, build_model: BuildModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass near the end, behind which none stumbles over it."""
    load_coremltools()
    from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY

    def breaks(own: Any, program: Any) -> None:
        (function,) = program.functions.values()
        operation = list(function.operations)[-1]
        operation.outputs[0]._child_ops.append(operation)

    monkeypatch.setattr(type(PASS_REGISTRY["mil_backend::sanitize_name_strings"]), "apply", breaks)
    with pytest.raises(TargetError, match=r"coremltools cannot compile the program .* should be consumed by op"):
        build_model(model)


def test_the_checks_that_are_left_out_change_no_byte(
    model: Any, build_model: BuildModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_coremltools()
    from coremltools.converters.mil.mil import Program

    checks, validate = [], Program.validate

    def counted(program: Any, **options: Any) -> None:
        checks.append(program)
        validate(program, **options)

    def built() -> tuple[dict[str, bytes], int]:
        checks.clear()
        _, result, folder = build_model(model)
        return {name: (folder / name).read_bytes() for name in result.files}, len(checks)

    monkeypatch.setattr(Program, "validate", counted)
    files, few = built()
    assert "constexpr" in str(build_model(model)[1].layers)
    monkeypatch.setattr(compiling, "leaner_passes", nullcontext)
    as_coremltools_does, many = built()
    assert files == as_coremltools_does
    assert 3 <= few < 10 and many > 30


def test_what_packed_weights_lead_to_is_still_found() -> None:
    """Passes may not replace it by what a weight is no part of."""
    load_coremltools()
    from coremltools.converters.mil.mil import Builder, Function, types

    with Function({"x": Builder.placeholder([4], types.fp32)}) as function:
        weight = Builder.constexpr_sparse_to_dense(
            nonzero_data=np.float32([1, 2]), mask=np.uint8([5]), shape=np.uint32([4])
        )
        result = Builder.relu(x=weight)
    result._reset_nonreplaceable_vars_upstream()
    with compiling.leaner_passes(), function:
        pass
    assert result.nonreplaceable_vars_upstream == {weight}
