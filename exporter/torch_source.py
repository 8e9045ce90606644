"""A PyTorch module as a source, whatever file it came from."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from edgewise.exporter.errors import ExportError
from edgewise.exporter.quiet import quiet
from edgewise.exporter.source import Arrays, Source
from edgewise.runtime.tensors import TensorSpec
from torch.utils import _pytree as pytree


@dataclass
class TorchSource(Source):
    """A network that PyTorch computes.

    Attributes:
        module: called with the inputs; for ``pt2`` and ``torchscript`` the loaded program.
        traceable: what the tracer takes: the module itself, or an ``ExportedProgram``.
    """

    module: Callable[..., Any] = torch.nn.Identity()
    traceable: Any = None

    def __post_init__(self) -> None:
        if self.traceable is None:
            self.traceable = self.module

    def arguments(self, inputs: Arrays) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
        """The arrays as the module takes them: by keyword where its parameters have the inputs' names, else in order."""
        tensors = {spec.name: torch.from_numpy(np.ascontiguousarray(inputs[spec.name])) for spec in self.inputs}
        if takes_by_name(self.module, list(tensors)):
            return (), tensors
        return tuple(tensors.values()), {}

    def run(self, inputs: Arrays) -> Arrays:
        """Compute the network in PyTorch on the CPU, in evaluation mode, without gradients."""
        self.check_inputs(inputs)
        args, kwargs = self.arguments(inputs)
        with quiet(), torch.no_grad():
            try:
                result = self.module(*args, **kwargs)
            except Exception as error:  # whatever the user's own code raises
                raise _refused(self, inputs, error) from error
        return {name: _numpy(leaf) for name, leaf in named_leaves(result)}


def takes_by_name(module: Callable[..., Any], names: Sequence[str]) -> bool:
    """Whether every name is a parameter of the module's ``forward`` that takes a keyword."""
    forward = getattr(module, "forward", module)
    if isinstance(module, torch.jit.ScriptModule):
        return False
    try:
        parameters = inspect.signature(forward).parameters.values()
    except (TypeError, ValueError):
        return False
    named = {entry.name for entry in parameters if entry.kind in (entry.POSITIONAL_OR_KEYWORD, entry.KEYWORD_ONLY)}
    return set(names) <= named


def named_leaves(result: Any) -> list[tuple[str, torch.Tensor]]:
    """The tensors in what a module returned, with names: a mapping's keys, ``output_0`` …, or ``output`` for one tensor."""
    leaves = [
        (path, torch.as_tensor(leaf))
        for path, leaf in pytree.tree_flatten_with_path(result)[0]
        if isinstance(leaf, torch.Tensor | bool | int | float)
    ]
    if not leaves:
        raise ExportError(
            "the network returns no tensor",
            found=type(result).__name__,
            expected="a tensor, or a tuple, list or dict of tensors",
            fix="Wrap the network in a module that returns its tensors",
        )
    if len(leaves) == 1 and not _word(leaves[0][0]):
        return [("output", leaves[0][1])]
    return [(_leaf_name(path), leaf) for path, leaf in leaves]


def _word(path: tuple[Any, ...]) -> str:
    """The parts of a leaf's path that are words: keys and field names."""
    parts = (getattr(key, "key", getattr(key, "name", None)) for key in path)
    return "_".join(str(part) for part in parts if isinstance(part, str))


def _leaf_name(path: tuple[Any, ...]) -> str:
    parts = [getattr(key, "key", getattr(key, "name", getattr(key, "idx", ""))) for key in path]
    name = "_".join(str(part) for part in parts)
    return name if isinstance(parts[0], str) else f"output_{name}"


def _numpy(leaf: torch.Tensor) -> np.ndarray:
    leaf = leaf.detach().cpu()
    if leaf.dtype is torch.bfloat16:
        import ml_dtypes

        return leaf.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return np.asarray(leaf.resolve_conj().resolve_neg().numpy())


def _refused(source: TorchSource, inputs: Arrays, error: Exception) -> ExportError:
    shapes = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in inputs.items())
    return ExportError(
        "the network does not take the inputs",
        where=f"{source.kind}, running it in PyTorch",
        found=f"{type(error).__name__}: {first_line(error)}; inputs {shapes}",
        expected="inputs of the shape and dtype that it was made for",
        fix="Give their names, dtypes and shapes with --input NAME=f32[1,3,224,224], one for each",
    )


def first_line(error: BaseException) -> str:
    """An exception's first non-empty line, at most 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


def digest_of(tensors: Mapping[str, torch.Tensor]) -> str:
    """Hex sha256 over names, dtypes, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
