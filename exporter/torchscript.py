"""TorchScript: converted to an exported program, then traced like any module."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch

from edgewise.exporter.errors import ExportError, first_line
from edgewise.exporter.quiet import quiet
from edgewise.exporter.torch_source import TorchSource
from edgewise.runtime.storage import sha256_of
from edgewise.runtime.tensors import TensorSpec


def open_torchscript(path: Path, inputs: Sequence[TensorSpec]) -> TorchSource:
    """Open what ``torch.jit.save`` wrote. It does not say its input shapes, so ``inputs`` must.

    Raises:
        ExportError: cut, no ``inputs``, or a construct that has no exported form.
    """
    with quiet():
        try:
            module = torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise ExportError(
                "cannot read the TorchScript file",
                where=str(path),
                found=first_line(error),
                expected="a whole file of torch.jit.save",
                fix="The file is probably cut: download or copy it again",
            ) from error
    names = [argument.name for argument in module.forward.schema.arguments[1:] if argument.default_value is None]
    if not inputs:
        raise ExportError(
            "TorchScript does not say what its inputs look like",
            where=str(path),
            found=f"inputs {', '.join(names) or 'without names'}, no shapes",
            expected="their dtypes and shapes",
            fix=f"Pass --input {names[0] if names else 'x'}=f32[1,3,224,224], one for each input",
        )
    facts = {"inputs": names}
    return TorchSource(
        "torchscript",
        sha256_of(path),
        list(inputs),
        facts,
        module,
        [None] * len(inputs),
        lambda arguments: nullcontext(_convert(module, arguments, path)),
    )


def _convert(module: torch.jit.ScriptModule, arguments: tuple[torch.Tensor, ...], path: Path) -> torch.nn.Module:
    """TorchScript as a module that ``torch.export`` can trace."""
    from torch._export.converter import TS2EPConverter

    try:
        program = TS2EPConverter(module, arguments).convert()
    except Exception as error:  # it raises whatever its handlers met
        raise ExportError(
            "the TorchScript cannot be converted",
            where=str(path),
            found=f"{type(error).__name__}: {first_line(error)}",
            expected="operators and control flow that torch.export has",
            fix="Export the original Python network: save its state dict and pass --arch",
        ) from error
    return program.module(check_guards=False)
