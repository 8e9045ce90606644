"""Anything that can compute outputs: a bundle, an ONNX file, a checkpoint with its architecture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgewise.errors import ToolchainError
from edgewise.recipe import Recipe
from edgewise.runtime.bundle import Bundle, open_bundle
from edgewise.runtime.errors import MissingExtraError, RunError
from edgewise.runtime.preprocess import Preprocess
from edgewise.runtime.tensors import TensorSpec
from edgewise.stages.inputs import find_source
from edgewise.stages.network import Arrays
from edgewise.verbs.result import is_bundle, spec_texts


@dataclass(frozen=True)
class SourceOptions:
    """How a checkpoint is opened: ``--arch``, ``--arch-arg``, ``--input``, ``--trust-pickle``."""

    arch: str | None = None
    arch_args: Mapping[str, Any] = field(default_factory=dict)
    inputs: Sequence[str | TensorSpec] = ()
    trust_pickle: bool = False

    def recipe(self, source: str | Path) -> Recipe:
        """As the stages want it."""
        return Recipe(
            source=str(source), arch=self.arch, arch_args=dict(self.arch_args), inputs=spec_texts(self.inputs)
        )


@dataclass(frozen=True)
class Opened:
    """``run`` computes outputs by name, and ``how`` says by what. ``outputs`` is None where only running would tell.

    ``running`` gives the context for many runs.
    """

    run: Callable[[Arrays], Arrays]
    how: str
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec] | None = None
    preprocess: Preprocess | None = None
    running: Callable[[], AbstractContextManager[None]] = nullcontext
    bundle: Bundle | None = None  # kept alive: a zipped one lies in a temporary folder as long


def open_any(path: str | Path, options: SourceOptions, *, threads: int = 0) -> Opened:
    """Open whatever ``path`` is.

    Raises:
        RunError, ExportError: it cannot be read, or not be run here.
    """
    if is_bundle(path):
        return open_runnable(open_bundle(path), threads=threads)
    if Path(path).suffix == ".onnx":
        from edgewise.runtime.onnx_runner import OnnxRunner

        runner = OnnxRunner(Path(path), threads=threads)
        return Opened(runner.run, "ONNX Runtime on this machine's CPU", runner.inputs, runner.outputs)
    source = find_source(options.recipe(path), trust_pickle=options.trust_pickle)
    return Opened(source.run, "PyTorch on this machine's CPU", source.inputs, running=source.running)


def open_runnable(bundle: Bundle, *, threads: int = 0, function: str = "") -> Opened:
    """The bundle's engine as an app would run it; where this machine cannot, what its target has instead, and why.

    ``function`` is one of the bundle's; empty: the network itself.

    Raises:
        ToolchainError: neither can run here.
    """
    from edgewise.runtime.model import load
    from edgewise.targets import find_target

    entry = bundle.manifest.get("preprocess")
    preprocess = Preprocess.from_json(entry) if entry else None
    try:
        model = load(bundle.path, threads=threads, function=function)
    except (RunError, MissingExtraError) as error:
        executor = find_target(bundle.manifest["target"]).executor(bundle)
        if isinstance(executor, str):
            raise _not_here(bundle, executor) from error
        run = executor.functions[function] if function else executor.run
        own = bundle.functions[function] if function else bundle
        return Opened(run, executor.how, own.inputs, own.outputs, preprocess, bundle=bundle)
    facts = ", ".join(f"{key} {value}" for key, value in model.facts().items())
    return Opened(
        model.run,
        f"the bundle's engine on this machine ({facts})",
        model.inputs,
        model.outputs,
        preprocess,
        bundle=bundle,
    )


def _not_here(bundle: Bundle, reason: str) -> ToolchainError:
    return ToolchainError(
        "the bundle cannot run on this machine",
        where=str(bundle.path),
        found=reason,
        expected=f"a machine that target {bundle.manifest['target']!r} runs on",
        fix="Copy the bundle to the device and run the same command there",
    )
