"""The engine ``null``: computes nothing. Every output is zeros of the shape and dtype that the manifest declares.

It is there to try the machinery around an engine (loading, profiling, reports) without one. Comparing its outputs with the
reference fails, as it should.
"""

from __future__ import annotations

import numpy as np

from edgewise.runtime.bundle import Bundle
from edgewise.runtime.engines import LayerTime, RunOptions
from edgewise.runtime.errors import RunError
from edgewise.runtime.tensors import TensorSpec


def open_engine(bundle: Bundle, options: RunOptions) -> NullEngine:
    """Needs no file and takes no notice of ``options``.

    Raises:
        RunError: an output of a dtype that numpy does not have.
    """
    for spec in bundle.outputs:
        if spec.dtype == "bfloat16":
            raise RunError(
                "cannot run the bundle", where=f"{bundle.path}, output {spec.name!r}", found=spec.dtype,
                expected="a dtype of numpy", fix="Use another target",
            )  # fmt: skip
    return NullEngine(bundle.inputs, bundle.outputs)


class NullEngine:
    """Zeros. A symbolic dim has the length that the input with a dim of that name has, otherwise 1."""

    def __init__(self, inputs: list[TensorSpec], outputs: list[TensorSpec]) -> None:
        self._inputs, self._outputs = inputs, outputs

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Zeros by output name."""
        lengths: dict[int | str, int] = {}
        for spec in self._inputs:
            lengths |= dict(zip(spec.shape, inputs[spec.name].shape, strict=True))
        return {
            spec.name: np.zeros([_length(dim, lengths) for dim in spec.shape], spec.dtype) for spec in self._outputs
        }

    def layer_times(self) -> list[LayerTime]:
        """There are no layers."""
        return []

    def facts(self) -> dict[str, str]:
        """That nothing is computed."""
        return {"library": "none", "version": "0", "unit": "none"}


def _length(dim: int | str, lengths: dict[int | str, int]) -> int:
    return dim if isinstance(dim, int) else lengths.get(dim, 1)
