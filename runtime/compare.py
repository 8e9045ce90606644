"""How far a candidate's outputs are from the reference's. Strict: what cannot be compared is an error, never a pass."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgewise.runtime.errors import GateError, RunError

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class TensorParity:
    """How well one output agrees with its reference, over all samples together.

    Attributes:
        name: the output.
        max_abs_error: the largest absolute difference; ``inf`` where NaN or an infinity stands in one of them alone.
        sqnr_db: 10·log10(Σ reference² / Σ (reference − candidate)²); ``inf`` for an exact match, ``-inf`` when nothing
            can be said for the candidate (NaN or infinities of its own, or any error on a reference of zeros).
        cosine: of the two tensors as vectors; 1 when both are zero, 0 when one is.
        argmax_agreement: share of rows with the same largest entry, for floating outputs of shape [rows, at least 2]; else None.
        samples: how many samples were compared.
    """

    name: str
    max_abs_error: float
    sqnr_db: float
    cosine: float
    argmax_agreement: float | None
    samples: int

    @property
    def exact(self) -> bool:
        """Whether every element is equal."""
        return self.sqnr_db == math.inf

    def to_json(self) -> dict[str, Any]:
        """As it stands in a manifest; JSON has no infinities, so they become null, and ``exact`` tells them apart."""
        entry = {key: _finite(value) for key, value in asdict(self).items()}
        return entry | {"exact": self.exact}


def compare_outputs(reference: Sequence[Arrays], candidate: Sequence[Arrays]) -> list[TensorParity]:
    """Compare two lists of outputs, sample by sample; one result per output, in the reference's order.

    Floating types may differ in width (float16 against float32): the comparison is in float64. NaN and infinities
    agree only with themselves at the same places.

    Raises:
        RunError: no samples, another number of samples, missing or additional outputs, another shape or kind of dtype.
    """
    return [total.parity(name, len(reference)) for name, total in _added_up(reference, candidate).items()]


def sums_of(reference: Sequence[Arrays], candidate: Sequence[Arrays]) -> list[dict[str, Any]]:
    """What :func:`parity_of_sums` makes parities of: one entry per output, for the side of a device.

    Raises:
        RunError: as :func:`compare_outputs`.
    """
    return [{"name": name, **vars(total)} for name, total in _added_up(reference, candidate).items()]


def _added_up(reference: Sequence[Arrays], candidate: Sequence[Arrays]) -> dict[str, _Sums]:
    if not reference or len(reference) != len(candidate):
        raise _incomparable(
            "the samples", f"{len(candidate)} of the candidate", f"as many as the reference's {len(reference)}, at least one"
        )  # fmt: skip
    sums = {name: _Sums() for name in reference[0]}
    for index, (wants, haves) in enumerate(zip(reference, candidate, strict=True)):
        if set(wants) != set(sums) or set(haves) != set(sums):
            raise _incomparable(f"the outputs of sample {index}", _names(haves), f"{_names(sums)} as in the reference")
        for name, total in sums.items():
            _check_alike(wants[name], haves[name], f"output {name!r} of sample {index}")
            total.add(wants[name], haves[name])
    return sums


def parity_of_sums(entry: Mapping[str, Any], samples: int) -> TensorParity:
    """The parity of what a device added up over its samples.

    ``entry`` has ``name, signal, noise, energy, dot, largest, rows, agreeing, broken``.
    """
    sums = _Sums()
    for key in ("signal", "noise", "energy", "dot", "largest", "rows", "agreeing", "broken"):
        setattr(sums, key, entry[key])
    return sums.parity(entry["name"], samples)


def empty_promises(reference: Sequence[Arrays]) -> list[str]:
    """A sentence for each output that is one value (or NaN) throughout: that a candidate has the same there shows nothing."""
    return [
        f"output {name!r} is {float(flat[0]):g} wherever it was computed, so agreement there shows nothing; give real samples with --data (to convert, without labels: --metric none)"
        for name in reference[0]
        if (flat := np.concatenate([arrays[name].ravel() for arrays in reference])).size > 1
        and np.all((flat == flat[0]) | (np.isnan(flat) & np.isnan(flat[0])))
    ]


def require_parity(parities: Sequence[TensorParity], *, min_sqnr_db: float, where: str) -> None:
    """The gate: every output has at least ``min_sqnr_db``.

    Raises:
        GateError: one has less (the worst is named), or there is no output.
    """
    worst = min(parities, key=lambda parity: parity.sqnr_db, default=None)
    if worst is not None and worst.sqnr_db >= min_sqnr_db:
        return
    raise GateError(
        "the outputs do not agree with the reference",
        where=where if worst is None else f"{where}, output {worst.name!r}",
        found="no output" if worst is None else f"{worst.sqnr_db:.1f} dB SQNR, largest error {worst.max_abs_error:.3g}",
        expected=f"at least {min_sqnr_db:g} dB",
        fix="Look for the first layer that diverges with `edgewise verify --per-layer`; give real inputs if these were random; or allow less with --min-sqnr",
    )


class _Sums:
    """What one output's samples add up to; float64 throughout."""

    def __init__(self) -> None:
        self.signal = self.noise = self.energy = self.dot = self.largest = 0.0
        self.rows = self.agreeing = 0
        self.broken = False

    def add(self, want: np.ndarray, have: np.ndarray) -> None:
        ref, got = want.astype(np.float64), have.astype(np.float64)
        usable = np.isfinite(ref) & np.isfinite(got)
        same = (ref == got) | (np.isnan(ref) & np.isnan(got))
        self.broken |= not bool(np.all(usable | same))
        self._count_rows(want, ref, got)
        ref, got, differ = ref[usable], got[usable], (want != have)[usable]
        # Integers beyond 2^53 may differ and still be the same float64.
        error = np.maximum(np.abs(ref - got), differ if want.dtype.kind in "iu" else 0.0)
        self.largest = max(self.largest, float(error.max(initial=0.0)))
        self.signal += float(ref @ ref)
        self.noise += float(error @ error)
        self.energy += float(got @ got)
        self.dot += float(ref @ got)

    def _count_rows(self, want: np.ndarray, ref: np.ndarray, got: np.ndarray) -> None:
        if want.dtype.kind == "f" and want.ndim == 2 and want.shape[1] > 1:
            self.rows += len(ref)
            self.agreeing += int(np.count_nonzero(ref.argmax(axis=1) == got.argmax(axis=1)))

    def parity(self, name: str, samples: int) -> TensorParity:
        agreement = self.agreeing / self.rows if self.rows else None
        if self.broken:
            return TensorParity(name, math.inf, -math.inf, 0.0, agreement, samples)
        return TensorParity(name, self.largest, self._sqnr_db(), self._cosine(), agreement, samples)

    def _sqnr_db(self) -> float:
        if self.largest == 0:
            return math.inf
        # The squares of tiny numbers underflow: an error is there all the same.
        if self.signal == 0 or self.noise == 0:
            return -math.inf
        return 10 * (math.log10(self.signal) - math.log10(self.noise))

    def _cosine(self) -> float:
        if self.signal == 0 or self.energy == 0:
            return float(self.signal == self.energy)
        return max(-1.0, min(1.0, self.dot / (math.sqrt(self.signal) * math.sqrt(self.energy))))


def _check_alike(want: np.ndarray, have: np.ndarray, what: str) -> None:
    if want.shape != have.shape:
        raise _incomparable(what, f"shape {list(have.shape)}", f"shape {list(want.shape)}")
    if want.dtype.kind != have.dtype.kind or want.dtype.kind not in "fiub":
        raise _incomparable(what, f"dtype {have.dtype.name}", f"numbers of the same kind as {want.dtype.name}")


def _incomparable(what: str, found: str, expected: str) -> RunError:
    return RunError(
        "cannot compare the outputs",
        where=what,
        found=found,
        expected=expected,
        fix="Run both networks on the same inputs and keep every output as it comes",
    )


def _names(arrays: Any) -> str:
    return ", ".join(sorted(arrays)) or "nothing"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
