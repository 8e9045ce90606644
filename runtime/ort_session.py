"""ONNX Runtime sessions: opened, asked what they take, and run, with every refusal as a :class:`RunError`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewise.runtime.errors import RunError
from edgewise.runtime.extras import needs
from edgewise.runtime.tensors import TensorSpec

if TYPE_CHECKING:
    import onnx_ir as ir

CPU = "CPUExecutionProvider"
# x86 without VNNI adds two products of u8 and s8 in 16 bits, which saturate; so ONNX Runtime multiplies u8 by u8 there, and elsewhere as ever.
EXACT_PRODUCTS = {"session.x64quantprecision": "1"}
# The optimizers that merge Q/DQ with what is between, and that make u8 of s8 where products are to be exact.
QDQ_MERGES, QDQ_TO_U8 = "QDQSelectorActionTransformer", "QDQS8ToU8Transformer"
_FATAL_ONLY = 4  # what ONNX Runtime would print comes back as an exception as well
_DTYPES = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "bool": "bool",
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


def open_session(
    model: bytes | Path,
    *,
    where: str,
    threads: int = 0,
    optimize: bool = True,
    left_out: Sequence[str] = (),
    providers: Sequence[str] = (CPU,),
    profile_prefix: Path | None = None,
    config: Mapping[str, str] | None = None,
) -> Any:
    """Open an ``onnxruntime.InferenceSession``.

    Args:
        model: a serialized ONNX model, or the path of one (also of ORT format).
        where: what to name in an error.
        threads: threads within an operator; 0 means all cores.
        optimize: let ONNX Runtime rewrite the graph.
        left_out: names of its optimizers that must not.
        providers: execution providers, the preferred one first.
        profile_prefix: record a profile, in a file whose path begins so.
        config: further entries of the session's configuration.

    Raises:
        RunError: ONNX Runtime refuses the model, or an execution provider is not in this build of it or does not start.
        MissingExtraError: ONNX Runtime is not installed.
    """
    with needs("cpu"):
        import onnxruntime as ort
    if absent := [name for name in providers if name not in ort.get_available_providers()]:
        raise RunError(
            "ONNX Runtime lacks an execution provider",
            where=where,
            found=f"no {', '.join(absent)}",
            expected=f"one of {', '.join(ort.get_available_providers())}",
            fix="Install the onnxruntime package that has it",
        )
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = threads
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_prefix)
    for key, value in (config or {}).items():
        options.add_session_config_entry(key, value)
    source = model if isinstance(model, bytes) else str(model)
    try:
        session = ort.InferenceSession(source, options, providers=list(providers), disabled_optimizers=list(left_out))
    except Exception as error:  # its exceptions have no base class of their own
        raise RunError(
            "ONNX Runtime refuses the model",
            where=where,
            found=_one_line(error),
            expected="a valid ONNX model of operators that it has",
            fix="Check the model with `edgewise inspect`; the message names the node or operator",
        ) from error
    # A provider whose driver is missing is otherwise left out without a word.
    if lost := [name for name in providers if name not in session.get_providers()]:
        raise RunError(
            "an execution provider does not start", where=where, found=f"no {lost[0]}, only {', '.join(session.get_providers())}",
            expected="all that the bundle asks for", fix="Check its driver and libraries",
        )  # fmt: skip
    return session


def unwanted_merges(model: ir.Model) -> list[str]:
    """ONNX Runtime's optimizers that would change what a graph computes.

    Where activations are rounded by scales that are computed (the schemes ``w8d8``), merging DequantizeLinear of the weights with a MatMul into
    MatMulNBits rounds the activations once more, by other ranges.
    """
    computed = [
        node.inputs[1]
        for node in model.graph
        if node.op_type == "QuantizeLinear" and node.inputs[1] is not None and node.inputs[1].producer() is not None
    ]
    return [QDQ_MERGES] if any(scale.const_value is None for scale in computed) else []


def threads_beside_others() -> int:
    """How many threads a graph gets that is computed for its results and not measured.

    What ``OMP_NUM_THREADS`` says, as PyTorch and numpy do, whose work this is part of; 0, all cores, where it says nothing. ONNX Runtime
    reads no such variable, and its idle threads spin: two processes with two threads each on two cores take twice the time.
    """
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdecimal() else 0


def run_session(session: Any, inputs: dict[str, np.ndarray], *, where: str) -> dict[str, np.ndarray]:
    """Run a session on arrays by input name; gives arrays by output name.

    Raises:
        RunError: missing or unknown inputs, other dtypes or shapes, an output that is no numpy array, a failure inside.
    """
    _check_names(inputs, [value.name for value in session.get_inputs()], where)
    names = [value.name for value in session.get_outputs()]
    try:
        values = session.run(names, inputs)
    except Exception as error:  # its exceptions have no base class of their own
        raise RunError(
            "ONNX Runtime failed to run the model",
            where=where,
            found=_one_line(error),
            expected=f"inputs that fit {_describe(session_inputs(session))}",
            fix="Check dtypes and shapes of the inputs; the message names the node that failed",
        ) from error
    for name, value in zip(names, values, strict=True):
        if not isinstance(value, np.ndarray):
            raise RunError(
                f"output {name!r} is not a tensor", where=where, found=type(value).__name__, expected="a tensor",
                fix="Drop that output when exporting",
            )  # fmt: skip
    return dict(zip(names, values, strict=True))


def session_inputs(session: Any) -> list[TensorSpec]:
    """What a session takes; a dim without a name or number is called ``?``.

    Raises:
        RunError: an input is not a tensor.
    """
    return [_spec(value) for value in session.get_inputs()]


def session_outputs(session: Any) -> list[TensorSpec]:
    """What a session gives; a dim without a name or number is called ``?``.

    Raises:
        RunError: an output is not a tensor.
    """
    return [_spec(value) for value in session.get_outputs()]


def _spec(value: Any) -> TensorSpec:
    kind = value.type.removeprefix("tensor(").removesuffix(")")
    if kind not in _DTYPES:
        raise RunError(
            f"{value.name!r} is not a tensor that numpy can hold", found=value.type, expected="a tensor",
            fix="Export the network with tensors as inputs and outputs",
        )  # fmt: skip
    return TensorSpec(value.name, _DTYPES[kind], tuple("?" if dim is None else dim for dim in value.shape))


def _check_names(inputs: dict[str, np.ndarray], wanted: list[str], where: str) -> None:
    if set(inputs) == set(wanted):
        return
    raise RunError(
        "the inputs have other names than the model's",
        where=where,
        found=", ".join(sorted(inputs)) or "no inputs",
        expected=", ".join(wanted) or "no inputs",
        fix="Pass one array per input, by its name",
    )


def _describe(specs: list[TensorSpec]) -> str:
    return ", ".join(f"{spec.name} {spec.dtype}{list(spec.shape)}" for spec in specs).replace("'", "")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")
