"""Accuracy: against numpy's own sorting, on ties, NaN, missing labels and functions that fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgewise.runtime.data import open_data
from edgewise.runtime.errors import RunError
from edgewise.runtime.metrics import classes_of, evaluate
from edgewise.runtime.tensors import TensorSpec

RNG = np.random.default_rng(3)
SCORES = RNG.standard_normal((60, 7)).astype(np.float32)
LABELS = RNG.integers(0, 7, 60)


def dataset(tmp_path: Path, scores=SCORES, labels=LABELS):
    arrays = {"x": scores} if labels is None else {"x": scores, "label": labels}
    np.savez(tmp_path / "d.npz", **arrays)
    return open_data(str(tmp_path / "d.npz"), [TensorSpec("x", scores.dtype.name, ("N", *scores.shape[1:]))])


def identity(inputs):
    return {"y": inputs["x"]}


@pytest.mark.parametrize(("metric", "places"), [("top1", 1), ("top5", 5)])
def test_topk(tmp_path: Path, metric, places):
    want = np.mean([label in np.argsort(-row)[:places] for row, label in zip(SCORES, LABELS, strict=True)])
    seen = []
    result = evaluate(identity, dataset(tmp_path), metric, progress=lambda *step: seen.append(step))
    assert result == {"metric": metric, "value": pytest.approx(want), "n": 60}
    assert seen[-1] == ("evaluate", 60, 60)


def test_agreement_needs_another_network_and_no_labels(tmp_path: Path):
    data = dataset(tmp_path, labels=None)

    def shifted(inputs):
        return {"y": inputs["x"] + np.linspace(0, 1, 7, dtype=np.float32)}

    want = np.mean(SCORES.argmax(1) == (SCORES + np.linspace(0, 1, 7)).argmax(1))
    classes = classes_of(identity, data)
    assert classes == SCORES.argmax(1).tolist()
    assert evaluate(shifted, data, "agreement", classes=classes) == {
        "metric": "agreement",
        "value": pytest.approx(want),
        "n": 60,
    }
    for others in (classes[1:], [*classes, 0]):
        with pytest.raises(RunError, match="the samples are not those that the classes are of"):
            evaluate(shifted, data, "agreement", classes=others)
    with pytest.raises(RunError, match=r"nothing to agree with \(--metric agreement\).*--against"):
        evaluate(shifted, data, "agreement")


def test_scores_may_have_other_dims_of_one(tmp_path: Path):
    data = dataset(tmp_path)
    want = evaluate(identity, data, "top1")
    assert evaluate(lambda inputs: {"y": inputs["x"][:, :, None, None]}, data, "top1") == want
    assert evaluate(lambda inputs: {"y": inputs["x"][0]}, data, "top1") == want


def test_a_constant_network_is_right_only_about_the_first_class(tmp_path: Path):
    result = evaluate(lambda inputs: {"y": np.zeros((1, 7))}, dataset(tmp_path), "top1")
    assert result["value"] == pytest.approx(np.mean(LABELS == 0))


@pytest.mark.parametrize("classes", [3, 7])
def test_nan_is_never_right(tmp_path: Path, classes):
    data = dataset(tmp_path, np.ones((4, classes), np.float32), np.array([0, 1, 2, 0]))
    for metric in ("top1", "top5"):
        assert evaluate(lambda inputs: {"y": np.full((1, classes), np.nan)}, data, metric)["value"] == 0
    most = np.array([[np.nan] * (classes - 1) + [1.0]])
    assert evaluate(lambda inputs: {"y": most}, data, "top1")["value"] == 0


@pytest.mark.parametrize(
    ("run", "labels", "metric", "says"),
    [
        (identity, None, "top1", "needs labels.*file names that begin with the class number"),
        (identity, LABELS + 3, "top1", r"label \d+; expected 0 to 6"),
        (identity, LABELS - 7, "top1", r"found label -\d"),
        (lambda inputs: {}, LABELS, "top1", r"found \{\}; expected one output \[1, classes\]"),
        (lambda inputs: {"a": SCORES[0], "b": SCORES[0]}, LABELS, "top1", "expected one output"),
        (lambda inputs: {"a": SCORES[:2]}, LABELS, "top1", r"\{'a': \[2, 7\]\}"),
        (lambda inputs: {"a": np.float32(1)}, LABELS, "top1", r"\{'a': \[\]\}"),
        (identity, LABELS, "top3", "unknown metric .*expected top1, top5, agreement or module:function"),
        (identity, LABELS, "metric_for_test.py:absent", "no 'absent'"),
        (identity, LABELS, "metric_for_test.py:fails", "found KeyError: 'z'"),
        (identity, LABELS, "metric_for_test.py:text", "found ValueError"),
        (identity, LABELS, "metric_for_test.py:nan", "found nan; expected a finite number"),
    ],
)
def test_what_cannot_be_measured(tmp_path: Path, monkeypatch, run, labels, metric, says):
    monkeypatch.chdir(tmp_path)
    Path("metric_for_test.py").write_text(
        "fails = lambda outputs, sample: outputs['z']\ntext = lambda outputs, sample: 'much'\nnan = lambda *_: float('nan')"
    )
    with pytest.raises(RunError, match=says):
        evaluate(run, dataset(tmp_path, labels=labels), metric)


def test_a_function_gets_outputs_and_sample(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("metric_for_test.py").write_text(
        "def half(outputs, sample):\n    return (outputs['y'] == sample.inputs['x']).all() / 2 + sample.label"
    )
    result = evaluate(identity, dataset(tmp_path), "metric_for_test.py:half")
    assert result["value"] == pytest.approx(0.5 + LABELS.mean())
