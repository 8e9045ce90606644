"""Quantizing all but a few layers: those whose 8 bits make much of the noise and which compute little."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from edgewise.quantize.pipeline import quantize
from edgewise.quantize.rewritten import Rewritten
from edgewise.quantize.spec import QuantSpec

if TYPE_CHECKING:
    from edgewise.runtime.data import Dataset

# Of the multiply-accumulates: where float16 takes twice the time of int8, the whole takes 15 % more at most.
FLOAT_SHARE = 0.15
_LEAST_GAIN_DB = 1.0  # less is not worth a layer in another precision
_WORTH = 2.0  # times its share of the multiply-accumulates is what a layer's share of the noise that is left has to be


def quantize_above(
    model: ir.Model,
    spec: QuantSpec,
    data: Dataset | None,
    *,
    floor: float | None = None,
    float_share: float = FLOAT_SHARE,
    keep_float: Sequence[str] = (),
    **options: Any,
) -> Rewritten:
    """Quantize; where the outputs have less signal to noise than the floor, put back what brings most for least.

    Before, 25 dB::

        Conv(int8) ─► Conv(int8) ─► Conv(int8) ─► Gemm(int8)       share of the noise: 60 %, 10 %, 5 %, 25 %

    After, 31 dB, a floor of 35 and a tenth of the multiply-accumulates allowed::

        Conv(float) ─► Conv(int8) ─► Conv(int8) ─► Gemm(float)     of the multiply-accumulates: 4 %, 40 %, 52 %, 4 %

    All on calibration samples, without labels. Layers go back by noise per multiply-accumulate until the noise that is left
    (the sum of what each layer makes alone) meets the floor, as far as ``float_share`` reaches; where it reaches no further,
    a convolutional network's other biases are corrected (``passes/correct_biases.py``; not where a MatMul reads tokens, few of
    which may rule the mean). The greedy choice is that of Z. Dong et al., "HAWQ"
    (ICCV 2019), by measured noise. Where that would bring less than a decibel everything stays in integers, for the loss then
    lies in many layers alike.

    Args:
        model: a float32 network; not changed.
        spec: the QDQ form.
        data: calibration samples; None as for ``quantize``.
        floor: least signal-to-noise ratio of every output, in dB; not an error where it is out of reach. None: the spec's; 0: none.
            Random samples say nothing of the noise that real ones meet, so there is none for them.
        float_share: the largest share of the quantizable layers' multiply-accumulates that may go back to float.
        keep_float: layers that stay in float anyway; they do not count.
        options: of ``quantize``.

    Returns:
        what ``quantize`` returns. Below the floor the report has ``spared``: ``floor_db``, ``float_share`` (as reached),
        ``layers``, ``before_db``, ``after_db``, ``told``: the note that says the same.

    Raises:
        QuantizeError: what ``quantize`` raises.
    """
    floor = spec.floor_db if floor is None else floor
    if floor <= 0 or float_share <= 0 or (data is not None and data.random):
        return quantize(model, spec, data, keep_float=keep_float, **options)
    made = quantize(model, spec, data, keep_float=keep_float, floor=floor, **options)
    before = made.report.get("sqnr_db")
    if before is None or before >= floor:
        return made
    choice = _choose(made.report["sensitivity"], floor, before, float_share)
    if choice.gain_db < _LEAST_GAIN_DB:
        return _told(made, floor, before, _Choice())
    convolutional = all(row["op"] != "MatMul" for row in made.report["sensitivity"])
    more = {"correct_biases": True} if convolutional and before + choice.gain_db < floor else {}
    tried = quantize(model, spec, data, keep_float=[*keep_float, *choice.layers], floor=-math.inf, **options | more)
    after = tried.report["sqnr_db"]
    if after is not None and after < before + _LEAST_GAIN_DB / 2:  # the noises were no sum
        return _told(made, floor, before, _Choice())
    why = f"in 8 bits it makes much of the noise: {before:.1f} dB, below {floor:g}"
    for entry in tried.report["kept_float"]:
        entry["reason"] = why if entry["node"] in choice.layers else entry["reason"]
    for row in tried.report["layers"]:
        row["reason"] = why if row["name"] in choice.layers else row["reason"]
    return _told(tried, floor, before, choice)


@dataclass(frozen=True)
class _Choice:
    """Layers to put back, their share of the multiply-accumulates, and what that should bring."""

    layers: tuple[str, ...] = ()
    share: float = 0.0
    gain_db: float = 0.0


def _choose(rows: list[dict[str, Any]], floor: float, before: float, float_share: float) -> _Choice:
    noises = {str(row["name"]): 10 ** (-row["sqnr_db"] / 10) for row in rows if row["sqnr_db"] is not None}
    macs = {str(row["name"]): float(row["macs"]) for row in rows}
    noise, work = sum(noises.values()), sum(macs.values())
    if noise <= 0 or work <= 0 or not math.isfinite(noise):
        return _Choice()
    allowed = 10 ** ((before - floor) / 10)  # of the noise that there is
    chosen: list[str] = []
    share, left = 0.0, 1.0
    for name in sorted(noises, key=lambda name: noises[name] / max(macs[name], 1.0), reverse=True):
        own, cost = noises[name] / noise, macs[name] / work
        if left <= allowed or own < _WORTH * cost * left:
            break
        if share + cost <= float_share and len(chosen) + 1 < len(rows):
            chosen.append(name)
            share, left = share + cost, left - own
    return _Choice(tuple(chosen), share, -10 * math.log10(max(left, 1e-9)))


def _told(made: Rewritten, floor: float, before: float, choice: _Choice) -> Rewritten:
    after = made.report.get("sqnr_db")
    lost = f"in 8 bits the outputs have {before:.1f} dB on calibration samples, less than the floor of {floor:g}"
    if choice.layers:
        every = len(choice.layers) + sum(row["precision"] != "float32" for row in made.report["layers"])
        result = "they are exact" if after is None else f"they have {after:.1f} dB"
        note = (
            f"{len(choice.layers)} of {every} layers ({choice.share:.1%} of the multiply-accumulates) stay in float: all {lost}, "
            f"and so {result}; --floor 0 quantizes these too"
        )
        if corrected := len(made.report["biases_corrected"]):
            note += f"; the biases of {corrected} take back the mean of their rounding errors"
    else:
        note = f"all {lost}; no few layers make that noise, so none was put back"
    spared = {
        "floor_db": floor, "float_share": round(choice.share, 4), "layers": list(choice.layers),
        "before_db": before, "after_db": after, "told": note,
    }  # fmt: skip
    return Rewritten(made.model, made.report | {"spared": spared, "notes": [*made.report["notes"], note]})
