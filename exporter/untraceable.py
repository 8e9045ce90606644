"""Why PyTorch could not trace a network, in the user's terms."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Sequence

from edgewise.exporter.errors import ExportError, first_line
from edgewise.exporter.locations import is_own_file, short_file
from edgewise.runtime.tensors import TensorSpec

_FIXED = re.compile(r"static shape of (?P<size>\d+) for dimension inputs\['(?P<input>[^']+)'\]\.shape\[(?P<axis>\d+)\]")
_NO_FORM = re.compile(r"No ONNX function found for <OpOverload\(op='(?P<op>[^']+)'")


def untraceable(error: Exception, kind: str, inputs: Sequence[TensorSpec], parameters: Sequence[str]) -> ExportError:
    """Turn what ``torch.onnx.export`` raised into an error with five parts.

    Args:
        error: what it raised; its causes are looked through.
        kind: the source's kind.
        inputs: the source's inputs.
        parameters: what the module calls them, in the same order.
    """
    chain = list(_causes(error))
    text = "\n".join(str(cause) for cause in chain)
    where = _line(chain) or kind
    if match := _FIXED.search(text):
        return _fixed_dim(match, inputs, parameters)
    if match := _NO_FORM.search(text):
        return ExportError(
            "the network cannot be traced",
            where=where,
            found=f"the operator {match['op']}, which has no ONNX form",
            expected="operators that ONNX has",
            fix="Write that part with other operators, or leave it out of the exported network",
        )
    if any("DataDependent" in type(cause).__name__ for cause in chain):
        return ExportError(
            "the network cannot be traced",
            where=where,
            found="control flow or a shape that depends on the values of a tensor",
            expected="the same operations for every input",
            fix="Write that line with torch.where or torch.cond, or compute the decision outside the network",
        )
    return ExportError(
        "the network cannot be traced",
        where=where,
        found=f"{type(chain[-1]).__name__}: {first_line(chain[-1])}",
        expected="a network that torch.export takes",
        fix="Rewrite that line, or export the network to ONNX by other means and pass the file",
    )


def _fixed_dim(match: re.Match[str], inputs: Sequence[TensorSpec], parameters: Sequence[str]) -> ExportError:
    axis, size = int(match["axis"]), int(match["size"])
    place = list(parameters).index(match["input"]) if match["input"] in parameters else 0
    spec = inputs[place]
    fixed = [size if number == axis else dim for number, dim in enumerate(spec.shape)]
    return ExportError(
        "the network fixes a dynamic dim",
        where=f"input {spec.name!r}, dim {spec.shape[axis]!r}",
        found=f"code that depends on it being {size}",
        expected="code that works for any size",
        fix=f"Fix it with --input {spec.name}={spec.dtype}{fixed}, or make the code independent of it".replace("'", ""),
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _line(chain: Sequence[BaseException]) -> str:
    """The innermost line of the network's own code in any of the tracebacks."""
    for cause in reversed(chain):
        own = [frame for frame in traceback.extract_tb(cause.__traceback__) if is_own_file(frame.filename)]
        if own:
            return f"{short_file(own[-1].filename)}:{own[-1].lineno} in {own[-1].name}: {own[-1].line}"
    return ""
