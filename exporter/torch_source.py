"""A PyTorch module as a source, whatever file it came from."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from edgewise.exporter.errors import ExportError, first_line
from edgewise.exporter.in_float32 import FACT, TOLD, widen_specs
from edgewise.exporter.quiet import quiet, silent_loggers
from edgewise.exporter.source import Arrays, Source
from edgewise.exporter.widen_module import widen_module

# From the arguments to what the tracer takes.
Tracing = Callable[[tuple[torch.Tensor, ...]], AbstractContextManager[Any]]


@dataclass
class TorchSource(Source):
    """A network that PyTorch computes; one in bfloat16 is a copy in float32 (``in_float32.py``).

    Attributes:
        module: called with the inputs; for ``pt2`` and ``torchscript`` the loaded program.
        keywords: for each input the keyword that it is passed by, or None: by its place. Left out: by name where ``forward`` has
            parameters of the inputs' names.
        tracing: given the arguments, a context that gives what the tracer takes (a module or an ``ExportedProgram``); None: the
            module itself.
    """

    module: Callable[..., Any] = field(default_factory=torch.nn.Identity)
    keywords: list[str | None] = field(default_factory=list)
    tracing: Tracing | None = None

    def __post_init__(self) -> None:
        wide = widen_module(self.module)
        if wide is not None:
            self.module, self.facts[FACT] = wide, TOLD
        self.inputs = widen_specs(self.inputs)
        names = [spec.name for spec in self.inputs]
        if not self.keywords:
            self.keywords = list(names) if takes_by_name(self.module, names) else [None] * len(names)

    def traceable(self, arguments: tuple[torch.Tensor, ...]) -> AbstractContextManager[Any]:
        """What the tracer takes, for as long as the context lasts."""
        return nullcontext(self.module) if self.tracing is None else self.tracing(arguments)

    def arguments(self, inputs: Arrays) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
        """The arrays as tensors, those that the module takes by place and those that it takes by keyword."""
        tensors = [torch.from_numpy(np.ascontiguousarray(inputs[spec.name])) for spec in self.inputs]
        pairs = list(zip(self.keywords, tensors, strict=True))
        return tuple(tensor for key, tensor in pairs if key is None), {
            key: tensor for key, tensor in pairs if key is not None
        }

    def running(self) -> AbstractContextManager[None]:
        """Around many runs: PyTorch's loggers are silent."""
        return silent_loggers()

    def run(self, inputs: Arrays) -> Arrays:
        """Compute the network in PyTorch on the CPU, in evaluation mode, without gradients."""
        self.check_inputs(inputs)
        args, kwargs = self.arguments(inputs)
        with quiet(), torch.no_grad():
            try:
                result = self.module(*args, **kwargs)
            except Exception as error:  # whatever the user's own code raises
                told = f"{type(error).__name__}: {first_line(error)}"
                raise self.refused(inputs, f"{self.kind}, running it in PyTorch", told) from error
        return {name: _numpy(leaf) for name, leaf in named_leaves(result)}


def compute_traced(source: TorchSource, program: torch.export.ExportedProgram) -> None:
    """Let a source compute what was traced of it, in float32 where its code casts to bfloat16."""
    traced = program.module(check_guards=False)
    source.module = widen_module(traced) or traced
    source.facts[FACT] = TOLD


def takes_by_name(module: Callable[..., Any], names: Sequence[str]) -> bool:
    """Whether every name is a parameter of the module's ``forward`` that takes a keyword."""
    forward = getattr(module, "forward", module)
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


def digest_of(tensors: Mapping[str, torch.Tensor]) -> str:
    """Hex sha256 over names, dtypes, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
