"""ONNX's backend node tests through libedgewise: which operators it takes, and whether it computes them as ONNX does.

    python benchmarks/node_tests.py                                   a row per operator, and what fails
    python benchmarks/node_tests.py --write docs/native-operators.md  the table of that page
    python benchmarks/node_tests.py --op Resize --op Pad              some, with every refusal

The tests come with the package onnx. Each is compiled and run twice: as it is, where everything is an input; and with all inputs but the
first as constants, which is how exporters write weights, axes and shapes. A test is taken when one of the two is; what is taken must be
within the test's own tolerance. Tests of several nodes are the expansions of an operator that ONNX defines by others.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
# Packages look for optional ones by name (transformers for `kernels`); scripts beside this one must not answer.
sys.path = [place for place in sys.path if Path(place or ".").resolve() != HERE]
_BEGIN, _END = "<!-- begin: node tests -->", "<!-- end: node tests -->"
_LEAST_ATOL = 1e-6  # sums in float32 in another order
Arrays = dict[str, np.ndarray]


@dataclass
class Row:
    """What became of the tests of one operator."""

    op: str
    taken: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)

    @property
    def claimed(self) -> bool:
        """Whether one of them at least is taken."""
        return self.taken > 0


@cache
def cases() -> list[Any]:
    """Those of tensors of numbers. Making them takes seconds."""
    from onnx.backend.test.loader import load_model_tests

    with np.errstate(all="ignore"):
        found = load_model_tests(kind="node")
    return [case for case in found if all(_is_plain(array) for part in case.data_sets[0] for array in part)]


def _is_plain(array: Any) -> bool:
    return isinstance(array, np.ndarray) and array.dtype.kind != "O"


def operator(case: Any) -> str:
    """Of the test, also of those where it is written as others: the beginning of the name, as ONNX spells it."""
    nodes = case.model.graph.node
    if len(nodes) == 1:
        return f"{nodes[0].domain}.{nodes[0].op_type}".removeprefix("ai.onnx.").lstrip(".")
    return _by_name().get(case.name, "others") if "_expanded" in case.name else "others"


@cache
def _by_name() -> dict[str, str]:
    """Operators by the names of their expanded tests."""
    single = {case.name: operator(case) for case in cases() if len(case.model.graph.node) == 1}
    return {
        case.name: op for case in cases() for name, op in single.items() if case.name.startswith(f"{name}_expanded")
    }


def measure(ops: list[str]) -> list[Row]:
    """All tests of these operators (none: of all), in the order of the operators' names."""
    rows: dict[str, Row] = {}
    for case in cases():
        op = operator(case)
        if not ops or op in ops:
            _judge(case, rows.setdefault(op, Row(op)))
    return [rows[op] for op in sorted(rows)]


def _judge(case: Any, row: Row) -> None:
    from edgewise.targets.cpu.native.compile import NotTakenError

    given, wanted = case.data_sets[0]
    inputs = {value.name: array for value, array in zip(case.model.graph.input, given, strict=True)}
    outputs = {value.name: array for value, array in zip(case.model.graph.output, wanted, strict=True)}
    taken, reason = False, ""
    for model, left in _forms(case.model, inputs):
        try:
            made = _run(model, left)
        except NotTakenError as error:
            reason = error.reason
            continue
        except (
            ArithmeticError,
            AssertionError,
            AttributeError,
            LookupError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            row.failed.append(
                f"{case.name}: the compiler breaks: {type(error).__name__} {error}"
            )  # where it should refuse
            continue
        taken = True
        difference = _difference(case, outputs, made)
        if difference:
            row.failed.append(f"{case.name}: {difference}")
    row.taken += taken
    if not taken:
        row.refused[reason] += 1


def _forms(model: Any, inputs: Arrays) -> Iterator[tuple[Any, Arrays]]:
    """The test as it is, and with all inputs but the first as constants."""
    import onnx

    yield model, inputs
    if len(inputs) > 1:
        constant = onnx.ModelProto()
        constant.CopyFrom(model)
        first = next(iter(inputs))
        for name, array in inputs.items():
            if name != first:
                constant.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        del constant.graph.input[1:]
        yield constant, {first: inputs[first]}


def _run(model: Any, inputs: Arrays) -> Arrays:
    """By libedgewise's generic plan, with the best kernels that the processor has.

    Raises:
        NotTakenError: as the compiler; or libedgewise refuses the file.
    """
    import onnx_ir as ir

    from edgewise.runtime import _native  # type: ignore[attr-defined]
    from edgewise.targets.cpu.native.compile import NotTakenError, compile_model
    from edgewise.targets.cpu.native.engine_file import encode
    from edgewise.targets.cpu.native.plan import Isa

    plan = compile_model(ir.from_proto(model), Isa.GENERIC).plan
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "n.engine"
        path.write_bytes(encode(plan))
        try:
            context = _native.Context(_native.Engine(str(path)), threads=1)
            made = context.run([inputs[tensor.name] for tensor in plan.inputs])
        except _native.NativeError as error:
            raise NotTakenError("", "", f"libedgewise refuses it: {error.args[1]}") from error
    return {tensor.name: array for tensor, array in zip(plan.outputs, made, strict=True)}


def _difference(case: Any, wanted: Arrays, made: Arrays) -> str:
    """Empty when the outputs are those that ONNX wants."""
    for name, want in wanted.items():
        have = made[name]
        if (have.shape, have.dtype) != (want.shape, want.dtype):
            return f"{have.dtype}{list(have.shape)} where ONNX has {want.dtype}{list(want.shape)}"
        exact = want.dtype.kind not in "fc"
        limits = {"rtol": 0, "atol": 0} if exact else {"rtol": case.rtol, "atol": max(case.atol, _LEAST_ATOL)}
        if not np.allclose(have.astype(np.float64), want.astype(np.float64), equal_nan=True, **limits):
            return f"{np.ravel(have)[:4]} where ONNX has {np.ravel(want)[:4]}"
    return ""


# -- the page


def table(rows: list[Row]) -> str:
    """Markdown: the operators that are taken with what of them is not, and the names of the others."""
    claimed = [row for row in rows if row.claimed]
    lines = ["| operator | tests taken | refused, and why |", "|---|---|---|"]
    for row in claimed:
        told = "; ".join(f"{count}: {_short(reason)}" for reason, count in row.refused.most_common(3))
        lines.append(f"| `{row.op}` | {row.taken} of {row.taken + sum(row.refused.values())} | {told} |")
    others = ", ".join(f"`{row.op}` ({sum(row.refused.values())})" for row in rows if not row.claimed)
    taken, all_tests = sum(row.taken for row in rows), sum(row.taken + sum(row.refused.values()) for row in rows)
    failed = sum(len(row.failed) for row in rows)
    head = f"{len(claimed)} operators, {taken} of {all_tests} tests; {failed} failures."
    return f"{head}\n\n" + "\n".join(lines) + f"\n\nNot taken (tests): {others}.\n"


def _short(reason: str) -> str:
    return " ".join(reason.replace("|", "/").split())[:110]


def with_table(page: str, rows: list[Row]) -> str:
    """The page with a new table."""
    before, _, rest = page.partition(_BEGIN)
    return f"{before}{_BEGIN}\n{table(rows)}{_END}{rest.partition(_END)[2]}"


def main() -> int:
    """Print the rows, or write the page; 1 when a test that is taken fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--op", action="append", default=[], help="only this operator; repeatable")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table into this page")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows = measure(options.op)
    if options.write:
        options.write.write_text(with_table(options.write.read_text(encoding="utf-8"), rows), encoding="utf-8")
    else:
        print(table(rows))
    for row in rows:
        for reason, count in row.refused.items() if options.op else ():
            print(f"{row.op}: {count} refused: {reason}")
        for line in row.failed:
            print(f"FAILED {row.op} {line}", file=sys.stderr)
    return 1 if any(row.failed for row in rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())
