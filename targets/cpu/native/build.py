"""A bundle's engine file for libedgewise."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgewise.runtime.data import random_data
from edgewise.runtime.tensors import TensorSpec
from edgewise.targets.base import BuildRequest, BuildResult
from edgewise.targets.cpu.native.compile import Compiled, NotTakenError, compile_model
from edgewise.targets.cpu.native.engine_file import FORMAT_VERSION, encode
from edgewise.targets.cpu.native.plan import DType, Isa, Op, Plan, dim
from edgewise.targets.devices import DeviceProfile
from edgewise.targets.nodes import tensor_spec

FILE = "model.engine"
_EXTENSION = "edgewise.runtime._native"
_ARITHMETIC = {"conv", "depthwise", "separable", "winograd", "matmul", "attention", "dynamic_linear"}
_LEVELS = (
    (Isa.AVX512BF16, {"avx512_vnni", "avx512_vbmi", "avx512_bf16", "avx512bw", "avx512dq", "avx512vl"}),
    (Isa.AVX512VNNI, {"avx512_vnni", "avx512bw", "avx512dq", "avx512vl"}),
    (Isa.AVX512, {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
    (Isa.AVX2, {"avx2", "fma", "f16c"}),
)
_TRIED_SIZE = 8  # of every dim that depends on the inputs, when the engine is tried
_NAMED_AT_MOST = 8


def build_native(request: BuildRequest, *, brain: bool = False, limits: Mapping[str, int] | None = None) -> BuildResult:
    """Compile the network and write ``model.engine`` into the request's folder; with ``brain`` float layers multiply in bfloat16.

    ``limits`` are the most that dims of the inputs may be, by name.

    Raises:
        NotTakenError: names the first node that the native engine does not take.
    """
    compiled = compile_model(request.model, isa_of(request.device), brain=brain, limits=limits)
    _try(compiled.plan, request)
    (request.folder / FILE).write_bytes(encode(compiled.plan))
    return BuildResult(
        kind="native",
        files=[FILE],
        versions={"libedgewise format": str(FORMAT_VERSION)},
        layers=[_layer(op) for op in compiled.plan.ops],
        settings={
            "model": FILE,
            **({"max_dims": dict(limits)} if limits else {}),
            "macs": _known_macs(compiled),
            "tensors": compiled.tensors,
        },
        notes=_notes(compiled),
    )


def isa_of(device: DeviceProfile) -> Isa:
    """The least level on which an engine for the device opens: on x86-64 its best one.

    For other processors it is the generic one: their best kernels run all the same, and the machine that builds can check the engine.
    """
    if device.facts.get("arch") != "x86_64":
        return Isa.GENERIC
    has = set(device.facts.get("isa", ()))
    return next((level for level, wanted in _LEVELS if wanted <= has), Isa.GENERIC)


def precision(op: Op) -> str:
    """In what an operator computes: by what it reads, or by what that is rounded to."""
    if op.op == "dynamic_linear":
        return "int8"
    if any(tensor is not None and tensor.dtype is DType.BF16 for tensor in op.inputs):
        return "bfloat16"
    operands = [tensor for tensor in [*op.inputs, *op.outputs] if tensor is not None]
    dtypes = {
        DType.U8: "int8",
        DType.S8: "int8",
        DType.F32: "float32",
        DType.F16: "float16",
        DType.S64: "int64",
        DType.S32: "int32",
    }
    return dtypes.get(operands[0].dtype, "bool") if operands else "int64"


def _try(plan: Plan, request: BuildRequest) -> None:
    """Open the engine here (and run it once, where shapes depend on the inputs or on what they hold), so that a refusal comes now.

    As for any processor: this one may lack the device's instructions, and the file differs in the level that it names alone.
    """
    try:
        native: Any = importlib.import_module(_EXTENSION)
    except ImportError as error:
        raise NotTakenError("", "", "edgewise was installed without libedgewise (it needs a C++ compiler)") from error
    specs = [_within(tensor_spec(value), plan.limits) for value in request.model.graph.inputs]
    depends = any(isinstance(size, str) for value in request.model.graph.inputs for size in tensor_spec(value).shape)
    with tempfile.TemporaryDirectory(prefix="edgewise-") as folder:
        path = Path(folder) / FILE
        path.write_bytes(encode(replace(plan, isa=Isa.GENERIC)))
        try:
            context = native.Context(native.Engine(str(path)), threads=1)
            if _depends(plan) or depends:
                sample = next(iter(random_data(specs, 1, dynamic=_TRIED_SIZE)))
                context.run([sample.inputs[spec.name] for spec in specs])
        except native.NativeError as error:
            raise NotTakenError("", "", f"libedgewise refuses the engine file: {error.args[1]}") from error


def _within(spec: TensorSpec, limits: Mapping[str, int]) -> TensorSpec:
    """With bounded dims as large as they may be: that is what memory is taken for."""
    return replace(spec, shape=tuple(limits.get(size, size) if isinstance(size, str) else size for size in spec.shape))


def _depends(plan: Plan) -> bool:
    """Whether a run decides how large a tensor is."""
    tensors = [tensor for op in plan.ops for tensor in [*op.inputs, *op.outputs] if tensor is not None]
    return any(size.is_counted for tensor in tensors for size in tensor.dims)


def _layer(op: Op) -> dict[str, Any]:
    """Of the manifest; ``bytes`` of all that it reads and writes, where that does not depend on the inputs' shapes."""
    told: dict[str, Any] = {"name": op.name, "op": op.op, "precision": precision(op), "unit": "cpu"}
    operands = {id(tensor): tensor for tensor in [*op.inputs, *op.outputs] if tensor is not None}
    sizes = [tensor.size_bytes.constant if tensor.data is None else tensor.data.nbytes for tensor in operands.values()]
    known = [size for size in sizes if size is not None]
    return {**told, "bytes": sum(known)} if len(known) == len(sizes) else told


def _known_macs(compiled: Compiled) -> dict[str, int]:
    """Multiply-accumulates of the layers for which they do not depend on the inputs' shapes."""
    return {name: macs for name, size in sorted(compiled.macs.items()) if (macs := size.constant) is not None}


def _notes(compiled: Compiled) -> list[str]:
    """For a quantized network: the share of multiply-accumulates in int8, and what of them stayed in float."""
    if not any(precision(op) == "int8" for op in compiled.plan.ops):
        return []
    # One of what the inputs' shapes decide: the share hardly depends on it.
    rows = [(op, compiled.macs.get(op.name, dim(0)).at(1)) for op in compiled.plan.ops if op.op in _ARITHMETIC]
    total = sum(macs for _, macs in rows)
    if not total:
        return []
    integer = sum(macs for op, macs in rows if precision(op) == "int8")
    note = f"{1000 * integer // total / 10:g} % of the multiply-accumulates run in int8"
    floats = sorted(((op, macs) for op, macs in rows if precision(op) != "int8"), key=lambda row: -row[1])
    if floats:
        named = ", ".join(f"{op.name} ({op.op})" for op, _ in floats[:_NAMED_AT_MOST])
        more = f" and {len(floats) - _NAMED_AT_MOST} more" if len(floats) > _NAMED_AT_MOST else ""
        note += f"; in float: {named}{more}"
    return [note + "."]
