"""What autotuning decides by: times of products by pattern, what is remembered of them, and which placement is shipped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgewise.errors import ToolchainError
from edgewise.runtime.storage import whole_file

if TYPE_CHECKING:
    import onnx_ir as ir

SCHEMA_VERSION = 1
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Measured:
    """A bundle's median latency with the ends of its 95 % interval, and the median of each layer by the engine's name for it; in ms."""

    median_ms: float
    low_ms: float
    high_ms: float
    layers_ms: dict[str, float] = field(default_factory=dict)


class Stand(Protocol):
    """A device at hand. ``name`` tells what times hold for: those of one stand say nothing of another."""

    @property
    def name(self) -> str:
        """Its own, the same in every search."""

    def measure(self, bundle: Path) -> Measured:
        """Run a bundle there, and time it and its layers."""


def pattern_of(node: ir.Node) -> str:
    """What a product's time depends on: operator, shapes of its two factors, attributes."""
    shapes = [[str(dim) for dim in value.shape or ()] if value is not None else [] for value in node.inputs[:2]]
    told = [f"{key}={attribute.value}" for key, attribute in sorted(node.attributes.items())]
    return " ".join([node.op_type, *(f"[{','.join(shape)}]" for shape in shapes), *told])


def times_by_node(
    layers_ms: Mapping[str, float], nodes: Mapping[str, list[str]], products: set[str]
) -> dict[str, float]:
    """Milliseconds of each product: its layers' times, shared with the other products in them."""
    found: dict[str, float] = {}
    for layer, took_ms in layers_ms.items():
        held = [node for node in nodes.get(layer, []) if node in products]
        for node in held:
            found[node] = found.get(node, 0.0) + took_ms / len(held)
    return found


@dataclass
class Memory:
    """A JSON file of what was measured; written after each measurement, so that an interrupted search goes on where it was.

    ``patterns`` has by stand and pattern the milliseconds of each precision; ``runs`` what was measured of a network, by its key.
    """

    path: Path
    patterns: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> Memory:
        """Read it; a file that is not there is empty.

        Raises:
            ToolchainError: it is no such file.
        """
        if not path.exists():
            return cls(path)
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            known = told.get("schema_version") == SCHEMA_VERSION
            return (
                cls(path, dict(told["patterns"]), dict(told["runs"])) if known else cls._refuse(path, "another version")
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return cls._refuse(path, type(error).__name__, error)

    @classmethod
    def _refuse(cls, path: Path, found: str, cause: Exception | None = None) -> Memory:
        raise ToolchainError(
            "cannot read what autotuning remembers", where=str(path), found=found,
            expected=f"JSON of schema_version {SCHEMA_VERSION} that `edgewise build --autotune` wrote", fix="Delete the file, or name another with --memory",
        ) from cause  # fmt: skip

    def measured(self, key: str) -> Measured | None:
        """What is known of a network under this key."""
        return Measured(**self.runs[key]) if key in self.runs else None

    def keep(self, key: str, measured: Measured) -> None:
        """Remember a measurement."""
        self.runs[key] = asdict(measured)
        self.save()

    def learn(self, stand: str, precision: str, times: Iterable[tuple[str, float]]) -> None:
        """Remember products' times by pattern: the mean of those alike."""
        grouped: dict[str, list[float]] = {}
        for pattern, took_ms in times:
            grouped.setdefault(pattern, []).append(took_ms)
        table = self.patterns.setdefault(stand, {})
        for pattern, values in grouped.items():
            table.setdefault(pattern, {})[precision] = sum(values) / len(values)
        self.save()

    def slower_in_int8(self, stand: str, pattern: str) -> bool | None:
        """Whether a pattern is to stay in float; None where its times are not known."""
        times = self.patterns.get(stand, {}).get(pattern, {})
        return times["int8"] >= times["float16"] if {"int8", "float16"} <= set(times) else None

    def save(self) -> None:
        """Write the file, whole or not at all."""
        told = {"schema_version": SCHEMA_VERSION, "patterns": self.patterns, "runs": self.runs}
        with whole_file(self.path) as draft:
            draft.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


@dataclass
class Candidate:
    """A placement of precision that was tried. ``refused`` says which gate it failed; empty: none."""

    placement: str
    bundle: Path
    keep_float: list[str] = field(default_factory=list)
    measured: Measured | None = None
    remembered: bool = False
    accuracy: float | None = None
    refused: str = ""

    def to_json(self) -> dict[str, Any]:
        """For the result."""
        times = (
            {key: value for key, value in asdict(self.measured).items() if key != "layers_ms"} if self.measured else {}
        )
        return {
            "placement": self.placement, "kept_float": self.keep_float, **times, "remembered": self.remembered,
            "accuracy": self.accuracy, "refused": self.refused or None,
        }  # fmt: skip


def choose(candidates: list[Candidate]) -> Candidate | None:
    """The first that passed its gates, unless a later one certainly beats it: its interval ends before the other's begins.

    float16 comes first, so integers that are slower, or not to be told from it, are never shipped.
    """
    passed = [each for each in candidates if not each.refused and each.measured is not None]
    best = next(iter(passed), None)
    for each in passed[1:]:
        if best and best.measured and each.measured:
            first = best is passed[0]
            limit = best.measured.low_ms if first else best.measured.median_ms
            if (each.measured.high_ms if first else each.measured.median_ms) < limit:
                best = each
    return best
