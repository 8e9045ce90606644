"""Running an ONNX graph in ONNX Runtime, with any of its tensors as outputs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewise.runtime.errors import RunError
from edgewise.runtime.extras import needs
from edgewise.runtime.onnx_file import read_onnx, to_bytes
from edgewise.runtime.onnx_widen import widen_bfloat16
from edgewise.runtime.ort_session import (
    EXACT_PRODUCTS,
    QDQ_MERGES,
    QDQ_TO_U8,
    open_session,
    run_session,
    session_inputs,
    session_outputs,
    threads_beside_others,
    unwanted_merges,
)
from edgewise.runtime.tensors import TensorSpec

if TYPE_CHECKING:
    import onnx_ir as ir


class OnnxRunner:
    """An ONNX model on the CPU, run by ONNX Runtime; products of integers saturate on no processor.

    Args:
        model: the model, or the path of an ONNX file, where what is bfloat16 is computed in float32, inputs and outputs too. It is
            not changed.
        outputs: names of the tensors to compute, intermediate ones and initializers too (not those inside the bodies of
            control flow). None: the graph's own outputs.
        threads: threads within an operator; 0 means all cores, or as many as ``OMP_NUM_THREADS`` says.
        optimize: let ONNX Runtime rewrite the graph. With False every node is computed as it stands.

    Raises:
        RunError: the file is not ONNX, ``outputs`` names an unknown tensor, or ONNX Runtime refuses the model.
        MissingExtraError: a package of the extra ``[graph]`` is not installed.
    """

    def __init__(
        self,
        model: ir.Model | Path,
        *,
        outputs: Sequence[str] | None = None,
        threads: int = 0,
        optimize: bool = True,
    ) -> None:
        source, self._where = _load(model)
        data = to_bytes(source, self._where) if outputs is None else _with_outputs(source, outputs, self._where)
        told_threads = threads or threads_beside_others()
        open_here = partial(
            open_session, data, where=self._where, threads=told_threads, optimize=optimize, config=EXACT_PRODUCTS
        )
        left_out = unwanted_merges(source)
        try:
            self._session = open_here(left_out=left_out)
        except RunError:
            # ONNX Runtime 1.31 cannot where roundings to s8 share a zero point: then they are computed as they stand, which is exact too.
            self._session = open_here(left_out=[*left_out, QDQ_MERGES, QDQ_TO_U8])

    @property
    def inputs(self) -> list[TensorSpec]:
        """What the model takes, in order."""
        return session_inputs(self._session)

    @property
    def outputs(self) -> list[TensorSpec]:
        """What ``run`` gives, in order."""
        return session_outputs(self._session)

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays by input name to arrays by output name.

        Raises:
            RunError: missing or unknown inputs, other dtypes or shapes, a failure inside.
        """
        return run_session(self._session, inputs, where=self._where)


def _load(model: ir.Model | Path) -> tuple[ir.Model, str]:
    if isinstance(model, str | Path):
        read = read_onnx(model)
        widen_bfloat16(read)
        return read, str(model)
    return model, f"model {model.graph.name!r}"


def _with_outputs(model: ir.Model, outputs: Sequence[str], where: str) -> bytes:
    """The model, serialized, with other outputs: on the protobuf, which is a copy already."""
    with needs("graph"):
        import onnx
    proto = onnx.ModelProto.FromString(to_bytes(model, where))
    known = _tensor_names(proto.graph)
    if unknown := [name for name in outputs if name not in known]:
        raise RunError(
            "cannot compute a tensor of the model",
            where=where,
            found=f"no tensor {unknown[0]!r}",
            expected="the name of an input, an initializer or a node's output",
            fix="List the names with `edgewise inspect`",
        )
    typed = {value.name: value for value in [*proto.graph.input, *proto.graph.output]}
    wanted = [typed.get(name, onnx.ValueInfoProto(name=name)) for name in dict.fromkeys(outputs)]
    copies = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in wanted]
    del proto.graph.output[:]
    proto.graph.output.extend(copies)
    data: bytes = proto.SerializeToString()
    return data


def _tensor_names(graph: Any) -> set[str]:
    names = {value.name for value in [*graph.input, *graph.initializer]}
    names |= {tensor.values.name for tensor in graph.sparse_initializer}
    return names | {name for node in graph.node for name in node.output if name}
