"""``.pt2``: an archive written by ``torch.export.save``."""

from __future__ import annotations

import io
import json
import pickle
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from edgewise.exporter.errors import ExportError, first_line
from edgewise.exporter.in_float32 import FACT, widen_specs
from edgewise.exporter.quiet import quiet
from edgewise.exporter.torch_source import TorchSource
from edgewise.runtime.storage import sha256_of
from edgewise.runtime.tensors import TensorSpec

# Shape expressions are evaluated as Python when an archive is loaded: symbols, numbers and sympy's arithmetic, nothing else.
_WORD = re.compile(r"[A-Za-z_]\w*")
_ARITHMETIC = frozenset(
    _WORD.findall(
        "Symbol Integer Rational Float Add Mul Pow Mod PythonMod FloorDiv CleanDiv CeilDiv ModularIndexing IntTrueDiv ToFloat "
        "FloatTrueDiv TruncToInt TruncToFloat CeilToInt FloorToInt RoundToInt PowByNatural FloatPow Max Min Abs Eq Ne Le Lt Ge "
        "Gt And Or Not Where Piecewise Identity floor ceiling sqrt True False positive integer nonnegative real oo int_oo"
    )
)
_SYMBOL = re.compile(r"^(s|u|zf|zuf)\d+$|^OpaqueUnaryFn_[a-z0-9]+$")


def open_pt2(path: Path, inputs: Sequence[TensorSpec], *, trust_pickle: bool) -> TorchSource:
    """Open an exported program; its own shapes hold, ``inputs`` may rename its inputs, and rename or fix its dynamic dims.

    Raises:
        ExportError: cut, not from ``torch.export.save``, holds code (without ``trust_pickle``), or ``inputs`` do not fit.
    """
    if not trust_pickle:
        _refuse_code(path)
    with quiet():
        try:
            program = torch.export.load(path)
        except Exception as error:  # torch raises whatever its parser met
            raise ExportError(
                "cannot read the exported program",
                where=str(path),
                found=f"{type(error).__name__}: {first_line(error)}",
                expected=f"an archive that torch {torch.__version__} can load",
                fix="Save it again with torch.export.save, by the version of torch that is installed here",
            ) from error
        module = program.module(check_guards=False)
    specs = _named(widen_specs(_specs(program)), widen_specs(inputs), path)
    positional, by_name = program.call_spec.in_spec.children()
    keywords: list[str | None] = [None] * positional.num_children + list(by_name.context)
    if len(keywords) != len(specs):
        raise ExportError(
            "the exported program takes nested inputs",
            where=str(path),
            found=f"{len(specs)} tensors in {len(keywords)} arguments",
            expected="one tensor for each argument",
            fix="Export a wrapper whose forward takes the tensors one by one",
        )
    source = TorchSource("pt2", sha256_of(path), specs, {"program": "torch.export"}, module, keywords)
    if FACT not in source.facts and [_pattern(spec) for spec in specs] == [_pattern(spec) for spec in _specs(program)]:
        source.tracing = lambda _: nullcontext(program)  # as it is: traced again, it would lose its source lines
    return source


def _specs(program: torch.export.ExportedProgram) -> list[TensorSpec]:
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    specs, symbols = list[TensorSpec](), dict[str, str]()
    for name in program.graph_signature.user_inputs:
        value = values.get(str(name))
        if not isinstance(value, torch.Tensor):  # a Python number that was fixed when it was exported
            continue
        shape: tuple[Any, ...] = tuple(value.shape)  # integers and SymInts
        dims = [
            dim if isinstance(dim, int) else symbols.setdefault(str(dim), "batch" if axis == 0 else f"{name}_{axis}")
            for axis, dim in enumerate(shape)
        ]
        specs.append(TensorSpec(str(name), str(value.dtype).removeprefix("torch."), tuple(dims)))
    return specs


def _named(own: Sequence[TensorSpec], wanted: Sequence[TensorSpec], path: Path) -> list[TensorSpec]:
    if not wanted:
        return list(own)
    fits = len(own) == len(wanted) and all(
        have.dtype == want.dtype
        and len(have.shape) == len(want.shape)
        and all(isinstance(a, str) or a == b for a, b in zip(have.shape, want.shape, strict=True))
        for have, want in zip(own, wanted, strict=True)
    )  # fmt: skip
    if not fits:
        raise ExportError(
            "the inputs do not fit the exported program",
            where=str(path),
            found=_describe(wanted),
            expected=_describe(own),
            fix="Leave --input out to take the program's own, or rename its inputs, and rename or fix its dynamic dims",
        )
    return list(wanted)


def _pattern(spec: TensorSpec) -> list[bool]:
    return [isinstance(dim, str) for dim in spec.shape]


def _describe(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.name}={spec.dtype}{list(spec.shape)}".replace("'", "") for spec in specs)


def _refuse_code(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name = info.filename
            if "custom_obj" in name or "opaque_obj" in name:
                raise _code(path, f"a pickled object, {name}")
            if name.endswith(".json"):
                _check_expressions(path, name, archive.read(info))
            elif _may_be_pickle(archive, info):
                try:
                    torch.load(io.BytesIO(archive.read(info)), map_location="cpu", weights_only=True)
                except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
                    raise _code(path, f"{name}, which is more than tensors") from error


def _may_be_pickle(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
    with archive.open(info) as file:
        head = file.read(4)
    return info.filename.endswith(".pt") or head.startswith(b"PK\x03\x04")


def _check_expressions(path: Path, name: str, data: bytes) -> None:
    try:
        content = json.loads(data)
    except ValueError as error:
        raise ExportError(
            "cannot read the exported program",
            where=str(path),
            found=f"{name}, which is not JSON",
            expected="an archive of torch.export.save",
            fix="Save it again",
        ) from error
    for text in _expressions(content):
        if not _is_arithmetic(text):
            raise _code(path, f"the shape expression {text[:60]!r} in {name}")


def _is_arithmetic(text: str) -> bool:
    words = _WORD.findall(text)
    calm = re.fullmatch(r"[\w\s+\-*/%(),.<>=&|~!']*", text) is not None
    return calm and all(word in _ARITHMETIC or _SYMBOL.match(word) for word in words)


def _expressions(content: Any) -> Iterator[str]:
    """Every string under a key ``expr_str``."""
    if isinstance(content, dict):
        for key, value in content.items():
            if key == "expr_str" and isinstance(value, str):
                yield value
            else:
                yield from _expressions(value)
    elif isinstance(content, list):
        for entry in content:
            yield from _expressions(entry)


def _code(path: Path, found: str) -> ExportError:
    return ExportError(
        "the exported program holds code",
        where=str(path),
        found=found,
        expected="weights and a graph",
        fix="If you trust the file's origin, pass --trust-pickle, which runs the code in it",
    )
