"""Engines: what runs a bundle. One file each, found by the name in the manifest's ``engine.kind``."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from edgewise.runtime.bundle import Bundle
from edgewise.runtime.dlpack import DeviceTensor
from edgewise.runtime.errors import RunError


@dataclass(frozen=True)
class RunOptions:
    """How an app wants its engine opened. ``threads`` 0 means all cores; ``function`` is one of the bundle's, or empty."""

    threads: int = 0
    per_layer: bool = False
    function: str = ""


@dataclass(frozen=True)
class LayerTime:
    """One layer of a per-layer profile: median time and the unit (or library) that really ran it."""

    name: str
    op: str
    unit: str
    median_ms: float
    detail: dict[str, Any] = field(default_factory=dict)


class Engine(Protocol):
    """An opened engine. One context: not for two threads at once."""

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays by input name to arrays by output name; shapes and dtypes were checked by the caller."""

    def layer_times(self) -> list[LayerTime]:
        """Per-layer times of the runs so far; needs ``RunOptions(per_layer=True)``, else empty."""

    def facts(self) -> dict[str, str]:
        """Library, version, unit: for the profile's record."""


@runtime_checkable
class TensorEngine(Protocol):
    """An engine that also runs on tensors where they lie, on a GPU too."""

    @property
    def stream(self) -> int:
        """The CUDA stream that reads them."""

    def run_tensors(self, inputs: Mapping[str, DeviceTensor]) -> dict[str, DeviceTensor]:
        """Tensors by input name to tensors by output name; shapes and dtypes were checked by the caller."""


@runtime_checkable
class TimedEngine(Protocol):
    """An engine that times its runs closer than Python could around them."""

    def time(self, inputs: dict[str, np.ndarray]) -> int:
        """Run as with :meth:`Engine.run`; gives the nanoseconds without what Python adds, and no outputs."""


@runtime_checkable
class PhasedEngine(Protocol):
    """An engine whose runs have parts that are timed apart."""

    def phase_times(self) -> dict[str, float]:
        """Median milliseconds by name of the part."""


@runtime_checkable
class PlannedEngine(Protocol):
    """An engine that knows what memory it takes before it runs."""

    def memory(self) -> dict[str, int]:
        """Bytes by what they are for."""


@runtime_checkable
class TracedEngine(Protocol):
    """An engine that also gives out what it computes on the way, under the network's own names."""

    def inner_names(self) -> list[str]:
        """The tensors inside the network that :meth:`inner` gives."""

    def inner(self, inputs: dict[str, np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
        """Run, and give these tensors; real numbers where the engine holds integers that stand for them."""


def model_file(bundle: Bundle) -> Path:
    """The file that ``engine.settings.model`` names.

    Raises:
        RunError: the settings name none, or one that the bundle lacks.
    """
    name = bundle.manifest["engine"].get("settings", {}).get("model")
    if not isinstance(name, str):
        raise RunError(
            "cannot run the bundle", where=f"{bundle.path}, engine.settings.model", found=repr(name),
            expected="the name of the model's file", fix="Build it again",
        )  # fmt: skip
    return bundle.file(name)


def engine_kinds() -> list[str]:
    """The kinds there are: the modules of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def open_engine(bundle: Bundle, options: RunOptions) -> Engine:
    """Open a bundle's engine with the module that its manifest names.

    Raises:
        RunError: unknown kind, or this machine cannot run it (the module says why).
        MissingExtraError: the engine's library is not installed.
    """
    kind = bundle.manifest["engine"].get("kind")
    if kind not in engine_kinds():
        raise RunError(
            "cannot run the bundle", where=str(bundle.path), found=f"engine kind {kind!r}", expected=f"one of {', '.join(engine_kinds())}",
            fix="Update edgewise, or build the bundle again",
        )  # fmt: skip
    engine: Engine = importlib.import_module(f"edgewise.runtime.engines.{kind}").open_engine(bundle, options)
    return engine
