"""The export's gate: the ONNX model computes what the source computes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgewise.exporter.diverge import Divergence, Intermediates, first_divergence
from edgewise.exporter.source import Arrays
from edgewise.runtime.compare import TensorParity, compare_outputs
from edgewise.runtime.errors import GateError, RunError
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.runtime.progress import Progress


@dataclass(frozen=True)
class Trail:
    """What the search for the first node that diverges needs: the source's intermediate values, and lines by node name."""

    intermediates: Intermediates
    locations: Mapping[str, str] = field(default_factory=dict)


def verify(
    model: ir.Model,
    pairs: Sequence[tuple[Arrays, Arrays]],
    trail: Trail | None,
    *,
    min_sqnr_db: float,
    progress: Progress,
) -> list[TensorParity]:
    """Run the model in ONNX Runtime on every sample and compare; integers and booleans must be equal.

    Args:
        model: what was exported.
        pairs: samples, each with what the source gives.
        trail: to find the first node that diverges.
        min_sqnr_db: the gate, in dB.
        progress: called with each sample.

    Raises:
        GateError: an output has less than ``min_sqnr_db``; names the first node that diverges and its source line. Or the model does
            not run at a size of its dynamic dims at which the source does.
        RunError: ONNX Runtime refuses the model, or the outputs differ in shape or kind.
    """
    runner = OnnxRunner(model)
    samples, references = [sample for sample, _ in pairs], [reference for _, reference in pairs]
    outputs: list[Arrays] = []
    for index, sample in enumerate(samples):
        progress("verify", index, len(samples))
        try:
            outputs.append(runner.run(sample))
        except RunError as error:
            if not outputs:  # it does not run at all
                raise
            raise _fixed(runner, sample, f"sample {index} of {len(samples)}", error) from error
    progress("verify", len(samples), len(samples))
    parities = compare_outputs(references, outputs)
    for parity in parities:
        exact = references[0][parity.name].dtype.kind in "iub"
        if parity.sqnr_db >= (math.inf if exact else min_sqnr_db):
            continue
        errors = [_error(want[parity.name], have[parity.name]) for want, have in zip(references, outputs, strict=True)]
        worst = errors.index(max(errors))
        divergence = None
        if trail is not None:
            divergence = first_divergence(model, trail.intermediates, samples[worst], min_sqnr_db, trail.locations)
        expected = "the same numbers" if exact else f"at least {min_sqnr_db:g} dB SQNR"
        raise _differs(parity, f"sample {worst} of {len(samples)}", expected, divergence)
    return parities


def _fixed(runner: OnnxRunner, sample: Arrays, which: str, error: RunError) -> GateError:
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in sample.items())
    dims = dict.fromkeys(str(dim) for spec in runner.inputs for dim in spec.shape if not isinstance(dim, int))
    return GateError(
        "the exported network does not run where the source does",
        where=f"{which}: {shapes}",
        found=error.found,
        expected=f"a network that takes any size of {', '.join(dims)}" if dims else "a network that takes every sample",
        fix="Fix the dim that became a constant (a number for its name in --input), or make the network's code independent of its size",
    )


def _differs(parity: TensorParity, sample: str, expected: str, divergence: Divergence | None) -> GateError:
    found = f"{parity.sqnr_db:.1f} dB, largest error {parity.max_abs_error:.3g}"
    return GateError(
        "the exported network does not compute what the source computes",
        where=f"output {parity.name!r}, {sample}",
        found=found + (f"; {divergence}" if divergence is not None else ""),
        expected=expected,
        fix="Look at that line of the network, or report it; verify=False (--no-verify) exports all the same",
    )


def _error(want: np.ndarray, have: np.ndarray) -> float:
    error = np.abs(want.astype(np.float64) - have.astype(np.float64)).max(initial=0.0)
    return math.inf if math.isnan(error) else float(error)
