"""Accuracy: a metric's mean over a data set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgewise.runtime.callables import find_callable
from edgewise.runtime.data import Dataset, Sample
from edgewise.runtime.errors import RunError
from edgewise.runtime.progress import Progress, silent

Arrays = dict[str, np.ndarray]
Score = Callable[[Arrays, Sample], float]
AGREEMENT = "agreement"
METRICS = "top1, top5, agreement or module:function"
_PLACES = {"top1": 1, "top5": 5, AGREEMENT: 1}


def evaluate(
    run: Callable[[Arrays], Arrays],
    data: Dataset,
    metric: str,
    *,
    classes: Sequence[int] | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Run every sample and take the metric's mean.

    Args:
        run: arrays by input name to arrays by output name.
        data: the samples, one at a time.
        metric: ``top1``, ``top5``, ``agreement`` or ``module:function``. The former want a label per sample and a single
            output with one score per class; ``agreement`` wants ``classes`` instead of labels. The function takes
            (outputs, sample) and gives a finite number.
        classes: for ``agreement``, another network's class of each sample (:func:`classes_of`).
        progress: told after every sample.

    Returns:
        ``{"metric", "value", "n"}``: the mean (for the metrics with a name the fraction of samples that are right, or
        alike) and the number of samples.

    Raises:
        RunError: unknown metric, no labels, nothing to agree with, an output that is no list of scores, or a function that fails.
    """
    score = _find(metric)
    if metric == AGREEMENT and classes is None:
        raise _unusable(
            "nothing to agree with", f"--metric {metric}", "one network", "another one, to compare its classes with",
            "Pass the source network with --against, or choose another metric",
        )  # fmt: skip
    total, count = 0.0, 0
    for sample in data if classes is None else _labelled(data, classes):
        total += score(run(sample.inputs), sample)
        count += 1
        progress("evaluate", count, data.known_length)
    return {"metric": metric, "value": total / count, "n": count}


def classes_of(run: Callable[[Arrays], Arrays], data: Dataset, *, progress: Progress = silent) -> list[int]:
    """The class with the highest score for each sample, of equal ones the lowest.

    Raises:
        RunError: an output that is no list of scores.
    """
    found = []
    for sample in data:
        found.append(int(np.argmax(_scores(run(sample.inputs)))))
        progress("classes of the source", len(found), data.known_length)
    return found


def _labelled(data: Dataset, classes: Sequence[int]) -> Iterator[Sample]:
    count = 0
    for count, sample in enumerate(data, 1):
        if count > len(classes):
            break
        yield replace(sample, label=classes[count - 1])
    if count != len(classes):
        raise _unusable(
            "the samples are not those that the classes are of", data.source, f"{count} samples or more", str(len(classes)),
            "Make the function start anew in every call",
        )  # fmt: skip


def _find(metric: str) -> Score:
    if places := _PLACES.get(metric):
        return lambda outputs, sample: _hit(outputs, sample, places)
    if ":" not in metric:
        raise _unusable("unknown metric", f"--metric {metric}", repr(metric), METRICS, "Check the name")
    function = find_callable(metric, option="--metric")
    return lambda outputs, sample: _number(function, outputs, sample, metric)


def _hit(outputs: Arrays, sample: Sample, places: int) -> float:
    """1 when fewer than ``places`` classes are ahead of the label's; of equal scores the lower class is ahead."""
    if sample.label is None:
        raise _unusable(
            "the metric needs labels", "the data", "a sample without one",
            "file names that begin with the class number, one folder per class, or an array 'label'",
            "Add labels, or use --metric agreement (the class that the source network gives), none (compare outputs alone) or module:function",
        )  # fmt: skip
    scores = _scores(outputs)
    if not 0 <= sample.label < len(scores):
        raise _unusable(
            "a label is no class of the network", "the data", f"label {sample.label}", f"0 to {len(scores) - 1}",
            "Check that the data belongs to this network",
        )  # fmt: skip
    own = scores[sample.label]
    # Written so that NaN is never right.
    behind = np.count_nonzero(scores < own) + np.count_nonzero(scores[sample.label :] == own)
    return float(len(scores) - behind < min(places, len(scores)))


def _scores(outputs: Arrays) -> np.ndarray:
    shapes = {name: list(array.shape) for name, array in outputs.items()}
    array = next(iter(outputs.values())) if len(outputs) == 1 else np.empty(0)
    if array.size < 2 or max(array.shape) != array.size:
        raise _unusable(
            "the outputs are not the scores of one sample", "the network", str(shapes), "one output [1, classes]",
            "Use --metric module:function",
        )  # fmt: skip
    return array.ravel()


def _number(function: Callable[..., Any], outputs: Arrays, sample: Sample, metric: str) -> float:
    try:
        value = float(function(outputs, sample))
    except Exception as error:  # whatever the user's function does
        raise _unusable(
            "the metric failed", f"--metric {metric}", f"{type(error).__name__}: {error}", "a number for each sample",
            "Call the function in Python to see the traceback",
        ) from error  # fmt: skip
    if not math.isfinite(value):
        raise _unusable("the metric failed", f"--metric {metric}", str(value), "a finite number", "Check the function")
    return value


def _unusable(what: str, where: str, found: str, expected: str, fix: str) -> RunError:
    return RunError(what, where=where, found=found, expected=expected, fix=fix)
