"""What a target is. One file (or folder) in ``targets/`` with a module-level ``TARGET``; nothing else names it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgewise.quantize.spec import QuantSpec
from edgewise.runtime.bundle import Bundle
from edgewise.targets.devices import DeviceProfile
from edgewise.targets.errors import TargetError as TargetError
from edgewise.targets.options import Option

if TYPE_CHECKING:
    import onnx_ir as ir

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class NodeSupport:
    """Whether a target takes a node natively; ``reason`` says why not (and is empty when it does)."""

    node: str
    op: str
    taken: bool
    reason: str = ""


@dataclass(frozen=True)
class BuildRequest:
    """What a build starts from. ``folder`` is a draft that is thrown away when the build fails.

    ``options`` are the recipe's ``build.options`` for this target; unknown keys are refused by the target.
    """

    model: ir.Model
    folder: Path
    device: DeviceProfile
    options: dict[str, Any] = field(default_factory=dict)
    preprocess: dict[str, Any] | None = None


@dataclass(frozen=True)
class BuildResult:
    """What a build made, for the manifest's ``engine``.

    Attributes:
        kind: the runtime engine that opens it (``runtime/engines/KIND.py``).
        files: the engine's own files, relative to the folder.
        versions: libraries that built it.
        layers: per layer what was read back from the engine: ``{"name", "op", "precision", "unit"}``; where it is known also
            ``bytes``, an integer: what the layer reads and writes.
        settings: whatever the engine needs again at load time (JSON).
        notes: sentences for the user: what was not done, what runs elsewhere.
        varying: files whose bytes the vendor's builder does not repeat; all others are the same in every build.
        dims: symbolic dims of the network that have one size in the engine.
        functions: what else the engine computes beside the network, each with an interface of its own:
            ``{"name", "inputs", "outputs", "reference"}``, the last a file as ``save_reference`` writes it.
        proof: what was read back beyond the layers, by name: counts, texts and lists, shown as they are.
    """

    kind: str
    files: list[str]
    versions: dict[str, str]
    layers: list[dict[str, Any]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    varying: list[str] = field(default_factory=list)
    dims: dict[str, int] = field(default_factory=dict)
    functions: list[dict[str, Any]] = field(default_factory=list)
    proof: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Executor:
    """A way to compute a bundle's outputs on this machine, and how: the sentence goes into the manifest.

    ``stand_in`` is true when it is not the engine itself that computes; ``functions`` has the engine's other functions;
    ``graph`` is the ONNX graph that a stand-in runs, whose inner tensors can be looked at.
    """

    run: Callable[[Arrays], Arrays]
    how: str
    stand_in: bool = False
    functions: Mapping[str, Callable[[Arrays], Arrays]] = field(default_factory=dict)
    graph: ir.Model | None = None


class Target(Protocol):
    """What ``edgewise build --target NAME`` needs."""

    name: str
    summary: str
    min_opset: int
    schemes: tuple[str, ...]

    @property
    def default_device(self) -> str:
        """The profile to build for when none is asked for; a plain attribute will do."""

    @property
    def options(self) -> Mapping[str, Option]:
        """What ``build.options`` may say; a plain attribute will do."""

    def support(self, model: ir.Model, device: DeviceProfile) -> list[NodeSupport]:
        """One entry per node of the graph, in order."""

    def quantization(self, scheme: str, device: DeviceProfile) -> QuantSpec:
        """The QDQ form for a scheme (``int8``, …); TargetError when the target has no such scheme."""

    def build(self, request: BuildRequest) -> BuildResult:
        """Write the engine into ``request.folder``. Raises TargetError naming node, operator and attribute."""

    def executor(self, bundle: Bundle) -> Executor | str:
        """A way to compute the bundle's outputs here, or the reason why there is none."""
