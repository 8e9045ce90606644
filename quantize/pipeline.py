"""Post-training quantization: decide, calibrate, rewrite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from edgewise.quantize.calibrate import calibrate
from edgewise.quantize.casting import cast
from edgewise.quantize.errors import QuantizeError
from edgewise.quantize.observations import Observations
from edgewise.quantize.observers import find_observer
from edgewise.quantize.partition import check_partition
from edgewise.quantize.passes.balance_channels import BalanceChannels
from edgewise.quantize.passes.correct_biases import CorrectBiases
from edgewise.quantize.passes.deciding import DecidingPass
from edgewise.quantize.passes.grow_integers import GrowIntegers
from edgewise.quantize.passes.hoist_activations import HoistActivations
from edgewise.quantize.passes.hoist_rounding import HoistRounding
from edgewise.quantize.passes.learn_rounding import LearnRounding
from edgewise.quantize.passes.note_float import NoteFloat
from edgewise.quantize.passes.palettize import palettized
from edgewise.quantize.passes.prepare import prepare
from edgewise.quantize.passes.quantize_activations import QuantizeActivations
from edgewise.quantize.passes.quantize_at_run import QuantizeAtRun
from edgewise.quantize.passes.quantize_biases import QuantizeBiases
from edgewise.quantize.passes.quantize_tables import QuantizeTables
from edgewise.quantize.passes.quantize_weights import QuantizeWeights
from edgewise.quantize.passes.reconstruct_blocks import ReconstructBlocks
from edgewise.quantize.passes.relu_mlps import ReluMlps
from edgewise.quantize.passes.round_by_gptq import RoundByGptq, is_linear
from edgewise.quantize.passes.round_residuals import RoundResiduals
from edgewise.quantize.passes.search_scales import SearchScales
from edgewise.quantize.passes.select_layers import SelectLayers
from edgewise.quantize.passes.shift_biases import ShiftBiases
from edgewise.quantize.passes.split_channels import SplitChannels
from edgewise.quantize.passes.widen_layers import WidenLayers
from edgewise.quantize.plan import Plan
from edgewise.quantize.report import describe_plan
from edgewise.quantize.rewritten import Rewritten
from edgewise.quantize.sensitivity import JUDGED, MEASURES, sensitivities, worst_sqnr
from edgewise.quantize.spec import FLOAT, QuantSpec, check_spec
from edgewise.quantize.walking import MOST_SAMPLES, Arrays, kept_samples
from edgewise.quantize.without_data import quantize_without_data
from edgewise.runtime.progress import Progress, silent

if TYPE_CHECKING:
    from edgewise.runtime.data import Dataset

_GLANCED = 4  # samples that tell which layers make the noise: it is a sum over many outputs
ROUNDINGS = ("auto", "squant", "gptq", "adaround", "blocks")


def quantize(
    model: ir.Model,
    spec: QuantSpec,
    data: Dataset | None,
    *,
    method: str = "mse",
    samples: int | None = None,
    keep_float: Sequence[str] = (),
    wide: Sequence[str] = (),
    allow_random: bool = False,
    rounding: str = "auto",
    partition: str = "parts",
    relu_mlps: bool = False,
    search_scales: bool = False,
    correct_biases: bool = False,
    shift_biases: bool = False,
    split_channels: bool = False,
    analyze: bool = False,
    sensitivity: str = "sqnr",
    floor: float | None = None,
    observations: Observations | None = None,
    progress: Progress = silent,
) -> Rewritten:
    """Quantize a float network after training, to int8 weights and 8-bit activations with QDQ as the target wants it.

    Args:
        model: a float32 network; not changed.
        spec: the QDQ form; targets give theirs by ``target.quantization(scheme, device)``.
        data: calibration samples that look like what the network will see. None: there are none, for a scheme whose ranges are
            found at run time (``w8d8g32``); weights are then rounded to the nearest.
        method: how a tensor's range is found: ``minmax``, ``average``, ``percentile``, ``entropy`` or ``mse``.
        samples: how many samples to use, spread evenly over ``data``; None: ``usual_samples``.
        keep_float: names of layers to leave in float.
        wide: names of layers that get 8 bits, where the scheme has fewer.
        allow_random: accept data that is random; the ranges are then of no meaning for real inputs.
        rounding: how weights become integers, one of ``ROUNDINGS``. ``auto``: ``gptq`` below 7 bits; else ``gptq`` for linear
            layers and ``squant`` for convolutions. ``adaround`` and ``blocks`` learn on from ``gptq``.
        partition: which layers ``blocks`` trains together: ``parts``, or ``entropy`` (see ``partition.py``).
        relu_mlps: let MLPs compute with a ReLU in place of GELU, trained anew, where held-out samples gain by it.
        search_scales: where weights alone have fewer than 7 bits, first scale those that large inputs meet (AWQ).
        correct_biases: take back the mean shift that rounding makes, wherever the error falls by it.
        shift_biases: first take the mean of the weights' rounding error out of each bias (analytic bias correction).
        split_channels: let linear layers read channels of enormous range as several copies, where that gains 2 dB.
        analyze: also measure what each layer costs alone; the report's ``sensitivity``.
        sensitivity: how that is found, one of ``MEASURES``: measured, or foretold by the Fisher information of the outputs.
        floor: in dB: also measure the signal-to-noise ratio of the outputs on calibration samples (the report's ``sqnr_db``),
            and where it is lower also what each layer costs, on a few samples.
        observations: what was seen of networks before: where the same is asked again it is not computed again.
        progress: told how far the work is.

    Returns:
        The new model, and a report with ``layers``, ``kept_float``, ``notes``, ``method`` and ``samples``.

    Raises:
        QuantizeError: no layer to quantize, unknown names, random or unusable data.
        RunError: ONNX Runtime refuses the model or the data.
    """
    check_spec(spec)
    find_observer(method)
    rounding = find_rounding(rounding, spec)
    check_partition(partition, rounding)
    _check_measure(sensitivity)
    if data is None:
        options = {
            "rounding": rounding, "relu_mlps": relu_mlps, "search_scales": search_scales, "correct_biases": correct_biases,
            "shift_biases": shift_biases, "split_channels": split_channels, "analyze": analyze, "floor": floor,
        }  # fmt: skip
        return _without_data(model, spec, keep_float, wide, options)
    asked, samples = samples, samples if samples is not None else usual_samples(rounding, spec)
    _check_data(data, samples, allow_random)
    if spec.float_dtype != FLOAT:
        return cast(model, spec, data.take(samples), keep_float=keep_float, progress=progress)
    model = prepare(model, spec.opset)
    chosen = data.take(samples)
    relu = ReluMlps(spec, chosen, method=method, keep_float=keep_float, wide=wide, progress=progress)
    balance = BalanceChannels(spec, chosen, keep_float=keep_float, progress=progress, observations=observations)
    search = SearchScales(spec, chosen, keep_float=keep_float, progress=progress)
    split = SplitChannels(spec, chosen, keep_float=keep_float, progress=progress)
    rewrites: list[tuple[ir.passes.InPlacePass, bool]] = [
        (relu, relu_mlps),
        (HoistActivations(spec), True),
        (split, split_channels),
        (balance, True),
        (search, search_scales and spec.weights_only and spec.bits < 7),
    ]
    for rewrite in [rewrite for rewrite, wanted in rewrites if wanted]:
        model = rewrite(model).model
    plan = Plan(spec, notes=relu.notes)
    for decide in decisions(plan, keep_float, wide):
        decide(model)
    if not plan.layers:
        return _nothing_to_do(model, plan, method)
    if spec.palette_bits:
        return palettized(model, plan, chosen, progress)
    used = calibrate(model, plan, chosen, method=method, progress=progress, observations=observations)
    _note_data(plan, data, asked, used)
    reference = model.clone()
    for write in (
        QuantizeWeights(plan),
        QuantizeTables(plan),
        QuantizeBiases(plan),
        QuantizeActivations(plan),
        QuantizeAtRun(plan),
        RemoveUnusedNodesPass(),
    ):
        model = write(model).model
    solves = rounding in ("gptq", "adaround", "blocks") or (rounding == "auto" and any(map(is_linear, plan.stored)))
    most = MOST_SAMPLES if solves or correct_biases or shift_biases else JUDGED if analyze or floor is not None else 0
    kept: Sequence[Arrays] = kept_samples(reference, chosen, most=most) if most else ()
    rounder = RoundByGptq(reference, plan, kept, progress, only_linear=rounding == "auto")
    correct = CorrectBiases(reference, plan, kept, progress)
    learn = LearnRounding(reference, plan, kept, progress)
    rebuild = ReconstructBlocks(reference, plan, kept, progress, partition)
    shift = ShiftBiases(reference, plan, kept, progress)
    steps: list[tuple[ir.passes.InPlacePass, bool]] = [
        (rounder, solves),
        (learn, rounding == "adaround"),
        (rebuild, rounding == "blocks"),
        (shift, shift_biases),
        (correct, correct_biases),
    ]
    for step in [step for step, wanted in steps if wanted]:
        model = step(model).model
    report = describe_plan(model.graph, plan) | {"balanced": balance.balanced, "rounded": rounder.rounded}
    report |= {"scaled": search.scaled, "split": split.split, "relu_mlps": relu.replaced}
    report["learned"] = learn.learned
    report["reconstructed"] = rebuild.reconstructed
    report["biases_shifted"] = shift.shifted
    report["biases_corrected"] = correct.corrected
    if floor is not None:
        report["sqnr_db"] = worst_sqnr(reference, model, kept)
    if analyze or _is_below(report.get("sqnr_db"), floor):
        seen = JUDGED if analyze else _GLANCED
        report["sensitivity"] = sensitivities(reference, plan, kept, progress, measure=sensitivity, most=seen)
    return Rewritten(model, report | {"method": method, "samples": used})


def decisions(plan: Plan, keep_float: Sequence[str], wide: Sequence[str]) -> list[DecidingPass]:
    """What is decided about a graph, in this order."""
    return [
        SelectLayers(plan, keep_float),
        WidenLayers(plan, wide),
        GrowIntegers(plan),
        RoundResiduals(plan),
        HoistRounding(plan),
        NoteFloat(plan),
    ]


def find_rounding(name: str, spec: QuantSpec) -> str:
    """The rounding of a name; ``auto`` is ``gptq`` below 7 bits, where the steps are wide.

    Raises:
        QuantizeError: there is none of that name.
    """
    if name not in ROUNDINGS:
        raise QuantizeError(
            "unknown rounding",
            where=f"rounding {name!r}",
            found=repr(name),
            expected=f"one of {', '.join(ROUNDINGS)}",
            fix="Choose one of these",
        )
    return "gptq" if name == "auto" and spec.bits < 7 else name


def _is_below(ratio: float | None, floor: float | None) -> bool:
    return ratio is not None and floor is not None and ratio < floor


def _check_measure(name: str) -> None:
    if name not in MEASURES:
        raise QuantizeError(
            "unknown measure of sensitivity",
            where=f"sensitivity {name!r}",
            found=repr(name),
            expected=f"one of {', '.join(MEASURES)}",
            fix="Choose one of these",
        )


def usual_samples(rounding: str, spec: QuantSpec) -> int:
    """How many samples are used when nobody says: ranges want fewer than weights that are solved for what they read."""
    return 128 if rounding in ("auto", "squant") or spec.palette_bits or spec.float_dtype != FLOAT else 512


def _check_data(data: Dataset, samples: int, allow_random: bool) -> None:
    if data.random and not allow_random:
        raise QuantizeError(
            "refusing to calibrate on random data",
            where=data.source,
            found="random numbers",
            expected="samples that look like real inputs",
            fix="Pass real samples (--calib DATA), or allow_random=True (--allow-random-calibration) if accuracy does not matter",
        )
    if samples < 1:
        raise QuantizeError(
            "cannot calibrate",
            where=f"samples {samples}",
            found="no samples asked for",
            expected="at least 1",
            fix="A few dozen real samples are enough",
        )


def _without_data(
    model: ir.Model, spec: QuantSpec, keep_float: Sequence[str], wide: Sequence[str], options: dict[str, Any]
) -> Rewritten:
    made, plan = quantize_without_data(model, spec, keep_float=keep_float, wide=wide, **options)
    return made if plan.layers else _nothing_to_do(made.model, plan, "none")


def _note_data(plan: Plan, data: Dataset, asked: int | None, used: int) -> None:
    """What the user may not expect of the samples."""
    if asked is not None and used < asked and not plan.spec.weights_only:
        plan.notes.append(f"{asked} calibration samples were asked for, {data.source} has {used}")
    if data.random:
        plan.notes.append("calibrated on random data, as asked for: the ranges mean nothing for real inputs")


def _nothing_to_do(model: ir.Model, plan: Plan, method: str) -> Rewritten:
    """A model that came quantized stays as it is; one without any layer to quantize is a mistake."""
    if plan.already:
        return Rewritten(model, describe_plan(model.graph, plan) | {"method": method, "samples": 0})
    reasons = [f"{node.op_type} {node.name!r} ({reason})" for node, reason in plan.refused.items()]
    raise QuantizeError(
        "nothing to quantize",
        where=f"graph {model.graph.name!r}",
        found=f"{len(reasons)} that stay in float, the first being {reasons[0]}"
        if reasons
        else "no layer with weights",
        expected=f"at least one of {', '.join(plan.spec.op_types)} with constant float32 weights",
        fix="Export the network again with its weights, or leave this stage out",
    )
