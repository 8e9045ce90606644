"""Reading and writing ONNX files, with external data kept inside the file's own folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewise.runtime.errors import RunError
from edgewise.runtime.extras import needs
from edgewise.runtime.storage import whole_file

if TYPE_CHECKING:
    import onnx_ir as ir

_PROTOBUF_LIMIT_BYTES = 2**31 - 1
_LONGEST_REASON = 200


def read_onnx(path: Path | str) -> ir.Model:
    """Read an ONNX file into ``onnx_ir`` with every tensor in memory; initializers are no inputs.

    Raises:
        RunError: missing, cut or not ONNX; external data missing or outside the file's folder (CVE-2024-27318).
    """
    path = Path(path)
    with needs("graph"):
        import onnx
        import onnx_ir as ir
    if not path.is_file():
        raise RunError(
            "cannot read the model",
            where=str(path),
            found="no such file",
            expected="an ONNX file",
            fix="Check the path",
        )
    try:
        proto = onnx.load_model(str(path), load_external_data=False)
    except Exception as error:  # protobuf's own error classes differ between its implementations
        raise _not_onnx(path, f"{path.stat().st_size} bytes that do not decode ({type(error).__name__})") from error
    if not proto.graph.node and not proto.graph.output:
        raise _not_onnx(path, "a message without a graph")
    _check_external_data(proto, path)
    try:
        onnx.load_external_data_for_model(proto, str(path.parent))
        model = ir.from_proto(proto)
        _check_weights(model)
    except Exception as error:  # what decodes may still be nonsense, and onnx_ir has many ways to say so
        raise _not_onnx(path, f"content that is not a graph ({_reason(error)})") from error
    # Before IR version 4 every initializer was listed as an input too; to edgewise an input is what the app passes.
    initializers = set(map(id, model.graph.initializers.values()))
    for value in [value for value in model.graph.inputs if id(value) in initializers]:
        model.graph.inputs.remove(value)
    return model


def write_onnx(model: ir.Model, path: Path | str) -> None:
    """Write whole or not at all; weights go inside the file, which ONNX allows up to 2 GiB."""
    data = to_bytes(model, str(path))
    with whole_file(Path(path)) as draft:
        draft.write_bytes(data)


def to_bytes(model: ir.Model, where: str) -> bytes:
    """The model as an ONNX file's bytes; the same model gives the same bytes.

    Raises:
        RunError: more than 2 GiB, which protobuf cannot hold, or a graph that cannot be written; ``where`` is named in it.
    """
    with needs("graph"):
        import onnx_ir as ir
    try:
        proto = ir.to_proto(model)
    except ir.serde.SerdeError as error:
        raise RunError(
            "the graph cannot be written as ONNX", where=where, found=_reason(error), expected="a valid graph",
            fix="Export the network again",
        ) from error  # fmt: skip
    if proto.ByteSize() > _PROTOBUF_LIMIT_BYTES:
        raise RunError(
            "the model is too large for one ONNX file",
            where=where,
            found=f"{proto.ByteSize()} bytes",
            expected=f"at most {_PROTOBUF_LIMIT_BYTES}",
            fix="Quantize its weights first",
        )
    # Deterministic: protobuf may otherwise order map entries differently from run to run.
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def _check_weights(model: ir.Model) -> None:
    """A tensor whose bytes do not fill its shape shows only when it is read."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.const_value.numpy()


def _reason(error: BaseException) -> str:
    """What was wrong in the first place, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST_REASON]


def _not_onnx(path: Path, found: str) -> RunError:
    return RunError(
        "cannot read the model",
        where=str(path),
        found=found,
        expected="an ONNX file",
        fix="The file may be cut or of another format: download or export it again",
    )


def _check_external_data(proto: Any, path: Path) -> None:
    folder = path.parent.resolve()
    for tensor in _tensors(proto):
        for entry in tensor.external_data:
            if entry.key != "location":
                continue
            place = (folder / entry.value).resolve()
            if not place.is_relative_to(folder) or not place.is_file():
                inside = place.is_relative_to(folder)
                raise RunError(
                    "cannot read external data",
                    where=f"{path}, tensor {tensor.name!r}",
                    found=f"{entry.value!r}, which {'does not exist' if inside else 'lies outside the folder of the model'}",
                    expected="a file in the folder of the model",
                    fix="Put the data file beside the model, under the name it had",
                )


def _tensors(proto: Any) -> Iterator[Any]:
    """Every tensor of a model: weights and attributes, in functions and in the bodies of control flow too."""
    yield from _graph_tensors(proto.graph)
    for function in proto.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Any) -> Iterator[Any]:
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for body in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            yield from _graph_tensors(body)
