"""ONNX's backend tests through libedgewise: which operators and networks it takes, and whether it computes them as ONNX does.

    python benchmarks/node_tests.py                                   a row per operator, and what fails
    python benchmarks/node_tests.py --models                          the package's model tests instead: a row per folder
    python benchmarks/node_tests.py --write docs/native-operators.md  both tables of that page
    python benchmarks/node_tests.py --op Resize --op Pad              some, with every refusal

The tests come with the package onnx. Each is compiled and run twice: as it is, where everything is an input; and with all inputs but the
first as constants, which is how exporters write weights, axes and shapes. A test is taken when one of the two is; what is taken must be
within the test's own tolerance (in bfloat16 within two of its steps). Tests of several nodes are the expansions of an operator that ONNX defines by others.

Model tests are whole files: layers that PyTorch exported years ago, small graphs of several nodes, and nine networks whose weights are
made in the graph ("real"; the package has their outputs for an input that rises from 0 to 1). They are run as they are.
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
_MODELS = ("pytorch-converted", "pytorch-operator", "real", "simple")
_LEAST_ATOL = 1e-6  # sums in float32 in another order
_BRAIN_RTOL = 2**-6  # two steps of bfloat16: ONNX rounds after each operator, libedgewise where the result leaves it
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class ModelCase:
    """A model test as the package's node tests are; its model is read when it is asked for."""

    name: str
    path: Path
    data_sets: list[tuple[list[Any], list[Any]]]
    rtol: float
    atol: float

    @property
    def model(self) -> Any:
        """The ONNX file."""
        import onnx

        return onnx.load(self.path)


@dataclass
class Row:
    """What became of the tests of one operator, or of one folder of model tests."""

    op: str
    taken: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)

    @property
    def claimed(self) -> bool:
        """Whether one of them at least is taken."""
        return self.taken > 0


@cache
def all_cases() -> list[Any]:
    """The package's node tests. Making them takes seconds."""
    from onnx.backend.test.loader import load_model_tests

    with np.errstate(all="ignore"):
        return load_model_tests(kind="node")  # type: ignore[no-any-return]


@cache
def cases() -> list[Any]:
    """Those of tensors of numbers."""
    return [case for case in all_cases() if all(_is_plain(array) for part in case.data_sets[0] for array in part)]


def _is_plain(array: Any) -> bool:
    return isinstance(array, np.ndarray) and array.dtype.kind != "O"


def _beyond_float32(array: np.ndarray) -> bool:
    """Whether float64 holds what float32 cannot, in which libedgewise computes: some tests hold bytes of other numbers."""
    if array.dtype != np.float64:
        return False
    sizes, limits = np.abs(array[np.isfinite(array) & (array != 0)]), np.finfo(np.float32)
    return bool(((sizes > limits.max) | (sizes < limits.tiny)).any())


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


def measure_models() -> list[Row]:
    """The package's model tests, a row for each folder."""
    rows = []
    for kind in _MODELS:
        row = Row(kind)
        for case in model_cases(kind):
            _judge(case, row)
        rows.append(row)
    return rows


def model_cases(kind: str) -> list[ModelCase]:
    """Those of one folder, by name; none of them needs a download."""
    from onnx.backend.test.loader import load_model_tests

    found = sorted(load_model_tests(kind=kind), key=lambda test: test.name)
    return [_light(test) if test.url else _of_folder(test) for test in found]


def _of_folder(test: Any) -> ModelCase:
    """A model with what goes in and what comes out beside it."""
    folder = Path(test.model_dir)
    sets = []
    for part in sorted(folder.glob("test_data_set_*")):
        given, wanted = (
            [_tensor(part / f"{side}_{index}.pb") for index in range(len(list(part.glob(f"{side}_*.pb"))))]
            for side in ("input", "output")
        )
        sets.append((given, wanted))
    return ModelCase(test.name, folder / "model.onnx", sets, test.rtol, test.atol)


def _light(test: Any) -> ModelCase:
    """A network whose weights are made in the graph, for an image that rises from 0 to 1."""
    import onnx

    path = Path(onnx.__file__).resolve().parents[1] / test.url
    graph = onnx.load(path).graph
    held = {value.name for value in graph.initializer}
    inputs = [value for value in graph.input if value.name not in held]
    shapes = [[dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in inputs]
    given = [(np.arange(np.prod(shape)).reshape(shape) / np.prod(shape)).astype(np.float32) for shape in shapes]
    wanted = [_tensor(path.with_name(f"{path.stem}_output_{index}.pb")) for index in range(len(graph.output))]
    return ModelCase(test.name, path, [(given, wanted)], test.rtol, test.atol)


def _tensor(path: Path) -> Any:
    """A tensor's file; None for what is none (sequences)."""
    import onnx
    from google.protobuf.message import DecodeError

    tensor = onnx.TensorProto()
    try:
        tensor.ParseFromString(path.read_bytes())
        return onnx.numpy_helper.to_array(tensor)
    except (DecodeError, ValueError, TypeError):
        return None


def _judge(case: Any, row: Row) -> None:
    from edgewise.targets.cpu.native.compile import NotTakenError

    model = case.model
    if not all(_is_plain(array) for part in case.data_sets[0] for array in part):
        row.refused["sequences, or tensors of text"] += 1
        return
    given, wanted = case.data_sets[0]
    if any(_beyond_float32(array) for array in (*given, *wanted)):
        row.refused["float64 beyond the range of float32"] += 1
        return
    held = {value.name for value in model.graph.initializer}
    names = [value.name for value in model.graph.input if value.name not in held]
    inputs = dict(zip(names, given, strict=True))
    outputs = {value.name: array for value, array in zip(model.graph.output, wanted, strict=True)}
    taken, reason = False, ""
    for form, left in _forms(model, inputs):
        if taken and "_expanded" in case.name:
            break  # the same operator as the test that is not written out, whose two forms run
        try:
            made = _run(form, left)
        except NotTakenError as error:
            reason = f"{error.op}: {error.reason}" if error.op and isinstance(case, ModelCase) else error.reason
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
    from edgewise.targets.cpu.native.plan import DType, Isa

    plan = compile_model(ir.from_proto(model), Isa.GENERIC).plan
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "n.engine"
        path.write_bytes(encode(plan))
        try:
            context = _native.Context(_native.Engine(str(path)), threads=1)
            made = context.run([_bits(inputs[tensor.name]) for tensor in plan.inputs])
        except _native.NativeError as error:
            raise NotTakenError("", "", f"libedgewise refuses it: {error.args[1]}") from error
    return {
        tensor.name: _brain(array) if tensor.dtype is DType.BF16 else array
        for tensor, array in zip(plan.outputs, made, strict=True)
    }


def _bits(array: np.ndarray) -> np.ndarray:
    """bfloat16, which numpy does not have, goes in and out as its bits."""
    return array.view(np.uint16) if array.dtype.name == "bfloat16" else array


def _brain(bits: np.ndarray) -> np.ndarray:
    import ml_dtypes

    return bits.view(ml_dtypes.bfloat16)


def _difference(case: Any, wanted: Arrays, made: Arrays) -> str:
    """Empty when the outputs are those that ONNX wants."""
    for name, want in wanted.items():
        have = made[name]
        if (have.shape, have.dtype) != (want.shape, want.dtype):
            return f"{have.dtype}{list(have.shape)} where ONNX has {want.dtype}{list(want.shape)}"
        brain = want.dtype.name == "bfloat16"
        exact = want.dtype.kind not in "fc" and not brain
        rtol = max(case.rtol, _BRAIN_RTOL) if brain else case.rtol
        limits = {"rtol": 0, "atol": 0} if exact else {"rtol": rtol, "atol": max(case.atol, _LEAST_ATOL)}
        if not np.allclose(have.astype(np.float64), want.astype(np.float64), equal_nan=True, **limits):
            return f"{np.ravel(have)[:4]} where ONNX has {np.ravel(want)[:4]}"
    return ""


# -- the page


def model_table(rows: list[Row]) -> str:
    """Markdown: a row for each folder of model tests."""
    lines = ["| model tests | taken | refused, and why |", "|---|---|---|"]
    for row in rows:
        told = "; ".join(f"{count}: {_short(reason)}" for reason, count in row.refused.most_common())
        lines.append(f"| {row.op} | {row.taken} of {row.taken + sum(row.refused.values())} | {told} |")
    taken, refused = sum(row.taken for row in rows), sum(sum(row.refused.values()) for row in rows)
    failed = sum(len(row.failed) for row in rows)
    return f"{taken} of {taken + refused} model tests; {failed} failures.\n\n" + "\n".join(lines) + "\n"


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
    reason = reason.partition(";")[0]  # without what to do
    return " ".join(reason.replace("|", "/").split())[:110]


def with_table(page: str, name: str, text: str) -> str:
    """The page with a new table between the marks of that name (``node tests``, ``model tests``)."""
    begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
    before, _, rest = page.partition(begin)
    return f"{before}{begin}\n{text}{end}{rest.partition(end)[2]}"


def main() -> int:
    """Print the rows, or write the page; 1 when a test that is taken fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--op", action="append", default=[], help="only this operator; repeatable")
    parser.add_argument("--models", action="store_true", help="the package's model tests")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put both tables into this page")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows = [] if options.models and not options.write else measure(options.op)
    models = measure_models() if options.models or options.write else []
    if options.write:
        page = with_table(options.write.read_text(encoding="utf-8"), "node tests", table(rows))
        options.write.write_text(with_table(page, "model tests", model_table(models)), encoding="utf-8")
    else:
        print(model_table(models) if options.models else table(rows))
    for row in [*rows, *models]:
        for reason, count in row.refused.items() if options.op else ():
            print(f"{row.op}: {count} refused: {reason}")
        for line in row.failed:
            print(f"FAILED {row.op} {line}", file=sys.stderr)
    return 1 if any(row.failed for row in [*rows, *models]) else 0


if __name__ == "__main__":
    raise SystemExit(main())
