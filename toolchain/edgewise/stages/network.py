"""A network on its way from stage to stage: the graph, what was done to it so far, and samples with the source's outputs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewise.errors import ToolchainError
from edgewise.runtime.bundle import REFERENCE, load_reference, save_reference
from edgewise.runtime.onnx_file import read_onnx, write_onnx
from edgewise.runtime.tensors import TensorSpec

if TYPE_CHECKING:
    import onnx_ir as ir

Arrays = dict[str, np.ndarray]
MODEL = "model.onnx"
_PROVENANCE = "edgewise"


@dataclass(frozen=True)
class Network:
    """``samples`` and ``references`` (the source's outputs for them) are as long as each other; both may be empty."""

    model: ir.Model
    samples: list[Arrays] = field(default_factory=list)
    references: list[Arrays] = field(default_factory=list)

    @property
    def inputs(self) -> list[TensorSpec]:
        """What the graph takes, in order."""
        return [tensor_spec(value) for value in self.model.graph.inputs]

    @property
    def outputs(self) -> list[TensorSpec]:
        """What the graph gives, in order."""
        return [tensor_spec(value) for value in self.model.graph.outputs]

    @property
    def provenance(self) -> dict[str, Any]:
        """What the stages so far wrote down, by stage, and ``source``; it travels inside the ONNX file."""
        try:
            found = json.loads(self.model.metadata_props.get(_PROVENANCE, "{}"))
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def after(self, model: ir.Model, **reports: Any) -> Network:
        """The next stage's network: ``model`` with this one's provenance and the stage's own report."""
        known = json.dumps(self.provenance | reports, sort_keys=True, ensure_ascii=False)
        model.metadata_props[_PROVENANCE] = known
        return Network(model, self.samples, self.references)

    def bare(self) -> ir.Model:
        """A copy of the graph without the provenance: what a target builds from, whichever way it came here."""
        model = self.model.clone()
        model.metadata_props.pop(_PROVENANCE, None)
        return model


def tensor_spec(value: ir.Value) -> TensorSpec:
    """Name, dtype and shape of a graph's input or output.

    Raises:
        ToolchainError: the graph does not say its dtype or rank.
    """
    if value.dtype is None or value.shape is None or value.name is None:
        raise ToolchainError(
            "cannot use the model",
            where=f"tensor {value.name!r}",
            found="no dtype or shape",
            expected="a graph that states them for its inputs and outputs",
            fix="Export it again, or run ONNX shape inference over it",
        )
    dims = [dim if isinstance(dim, int) else str(dim) for dim in value.shape]
    names = [f"dim_{i}" if dim == "None" else dim for i, dim in enumerate(dims)]
    return TensorSpec(value.name, str(value.dtype.numpy()), tuple(names))


def read_network(path: Path | str) -> Network:
    """An ONNX file as a stage's input, with the provenance that an earlier verb wrote into it."""
    return Network(read_onnx(path))


def read_runnable(path: Path | str) -> Network:
    """As :func:`read_network`, for whoever goes on to run the graph.

    Raises:
        ToolchainError: an input or output in bfloat16, which arrays cannot hold.
    """
    network = read_network(path)
    for value in (*network.model.graph.inputs, *network.model.graph.outputs):
        if value.dtype is not None and value.dtype.name == "BFLOAT16":
            raise ToolchainError(
                "cannot run the model", where=f"{path}, {value.name!r}", found="bfloat16", expected="a dtype of numpy",
                fix="Give the file that `edgewise export` makes of it: it computes in float32 what is bfloat16",
            )  # fmt: skip
    return network


def write_network(network: Network, path: Path) -> None:
    """Write the ONNX file with its provenance, whole or not at all."""
    write_onnx(network.model, path)


def save_network(network: Network, folder: Path) -> list[str]:
    """Write everything into a folder; gives the files' names."""
    write_network(network, folder / MODEL)
    if not network.samples:
        return [MODEL]
    save_reference(folder / REFERENCE, network.samples, network.references)
    return [MODEL, REFERENCE]


def load_network(folder: Path) -> Network:
    """The inverse of :func:`save_network`."""
    network = read_network(folder / MODEL)
    if not (folder / REFERENCE).is_file():
        return network
    return Network(network.model, *load_reference(folder / REFERENCE))


def only(arrays: Arrays, names: Iterable[str], where: str) -> Arrays:
    """The outputs of these names.

    Raises:
        ToolchainError: one is missing.
    """
    names = list(names)
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ToolchainError(
            "cannot compare the outputs",
            where=where,
            found=f"no output {missing[0]!r} but {', '.join(arrays)}",
            expected=", ".join(names),
            fix="Compare with the network that the bundle was made from",
        )
    return {name: arrays[name] for name in names}
