"""Quantizing as much as a metric allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from edgewise.quantize.errors import QuantizeError
from edgewise.quantize.pipeline import quantize
from edgewise.quantize.rewritten import Rewritten
from edgewise.quantize.spec import QuantSpec

if TYPE_CHECKING:
    from edgewise.runtime.data import Dataset


def quantize_within(
    model: ir.Model,
    spec: QuantSpec,
    data: Dataset,
    metric: Callable[[ir.Model], float],
    *,
    max_drop: float,
    keep_float: Sequence[str] = (),
    wide: Sequence[str] = (),
    **options: Any,
) -> Rewritten:
    """Quantize, and put back as few layers as the metric asks for, those that cost most first.

    The layers are ordered by what each of them costs alone (``sensitivities``). A search by halves finds how many from the
    top have to go back: to 8 bits where the scheme has fewer and that is enough, else to float. The metric must not look
    at the test set, or the test set no longer tells anything.

    Args:
        model: a float32 network; not changed.
        spec: the QDQ form.
        data: calibration samples.
        metric: of a model, the higher the better; called for the float network and about log2(layers) times more.
        max_drop: what the metric may fall by, in its own unit.
        keep_float: layers that stay in float anyway.
        wide: layers that get 8 bits anyway.
        options: of ``quantize``.

    Returns:
        what ``quantize`` returns, with ``search`` in the report: the metric of the float network and of each trial.

    Raises:
        QuantizeError: even with all of these layers put back the metric falls by more; or what ``quantize`` raises.
    """
    goal = metric(model) - max_drop
    made = quantize(model, spec, data, keep_float=keep_float, wide=wide, **options | {"analyze": True})
    order = [str(row["name"]) for row in made.report["sensitivity"]]
    found = metric(made.model)
    trials: list[dict[str, Any]] = [{"wide": 0, "float": 0, "metric": found}]
    if found >= goal:
        return _told(made, goal + max_drop, trials)

    def attempt(back: str, count: int) -> Rewritten | None:
        chosen = order[:count]
        floats, eights = (
            [*keep_float, *(chosen if back == "float" else ())],
            [*wide, *(chosen if back == "wide" else ())],
        )
        tried = quantize(model, spec, data, keep_float=floats, wide=eights, **options)
        value = metric(tried.model)
        trials.append({"wide": 0, "float": 0, back: count, "metric": value})
        return tried if value >= goal else None

    for back in ("wide", "float") if spec.bits < 7 else ("float",):
        most = len(order) if back == "wide" else len(order) - 1  # without any layer left there is nothing to quantize
        if (best := _fewest(partial(attempt, back), most)) is not None:
            return _told(best, goal + max_drop, trials)
    raise QuantizeError(
        "cannot quantize within the allowed drop",
        where=f"max_drop {max_drop:g}",
        found=f"{max(trial['metric'] for trial in trials):g} at best, with up to {len(order) - 1} layers put back",
        expected=f"at least {goal:g}",
        fix="Allow a larger drop, use a scheme of more bits, or leave quantization out",
    )


def _fewest(attempt: Callable[[int], Rewritten | None], most: int) -> Rewritten | None:
    """What the smallest count gives that passes, when more never hurt; None when ``most`` does not pass."""
    best = attempt(most) if most > 0 else None
    if best is None:
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        if (tried := attempt(middle)) is not None:
            best, high = tried, middle
        else:
            low = middle
    return best


def _told(made: Rewritten, reference: float, trials: list[dict[str, Any]]) -> Rewritten:
    return Rewritten(made.model, made.report | {"search": {"float_metric": reference, "trials": trials}})
