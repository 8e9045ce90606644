"""The export's gate: the ONNX model computes what the source computes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from edgewise.exporter.diverge import Intermediates, first_divergence
from edgewise.exporter.source import Arrays
from edgewise.runtime.compare import TensorParity, compare_outputs
from edgewise.runtime.errors import GateError
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.runtime.progress import Progress


def verify(
    model: ir.Model,
    samples: Sequence[Arrays],
    references: Sequence[Arrays],
    intermediates: Intermediates | None,
    *,
    min_sqnr_db: float,
    progress: Progress,
) -> list[TensorParity]:
    """Run the model in ONNX Runtime on every sample and compare; integers and booleans must be equal.

    Raises:
        GateError: an output has less than ``min_sqnr_db``; names the first node that diverges and its source line.
        RunError: ONNX Runtime refuses the model, or the outputs differ in shape or kind.
    """
    runner = OnnxRunner(model)
    outputs = []
    for index, sample in enumerate(samples):
        progress("verify", index, len(samples))
        outputs.append(runner.run(sample))
    progress("verify", len(samples), len(samples))
    parities = compare_outputs(references, outputs)
    for parity in parities:
        exact = references[0][parity.name].dtype.kind in "iub"
        if parity.sqnr_db < (math.inf if exact else min_sqnr_db):
            expected = "the same numbers" if exact else f"at least {min_sqnr_db:g} dB SQNR"
            raise _differs(model, samples, references, outputs, parity, expected, intermediates, min_sqnr_db)
    return parities


def _differs(
    model: ir.Model,
    samples: Sequence[Arrays],
    references: Sequence[Arrays],
    outputs: Sequence[Arrays],
    parity: TensorParity,
    expected: str,
    intermediates: Intermediates | None,
    min_sqnr_db: float,
) -> GateError:
    worst = max(
        range(len(samples)), key=lambda index: _error(references[index][parity.name], outputs[index][parity.name])
    )
    found = f"{parity.sqnr_db:.1f} dB, largest error {parity.max_abs_error:.3g}"
    divergence = None if intermediates is None else first_divergence(model, intermediates, samples[worst], min_sqnr_db)
    if divergence is not None:
        found += f"; {divergence}"
    return GateError(
        "the exported network does not compute what the source computes",
        where=f"output {parity.name!r}, sample {worst} of {len(samples)}",
        found=found,
        expected=expected,
        fix="Look at that line of the network, or report it; verify=False (--no-verify) exports all the same",
    )


def _error(want: np.ndarray, have: np.ndarray) -> float:
    error = np.abs(want.astype(np.float64) - have.astype(np.float64)).max(initial=0.0)
    return math.inf if math.isnan(error) else float(error)
