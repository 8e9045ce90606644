"""A network that names what it sees: class labels in the package, so that Vision gives observations with their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx_ir as ir

from edgewise.targets.coreml.options import Options, wrong_option

LABEL = "classLabel"
PROBABILITIES = "classLabel_probs"


def read_labels(options: Options) -> list[str]:
    """The lines of the file ``labels``; none without one.

    Raises:
        TargetError: no such file, an empty line, or the same label twice.
    """
    if not options.labels:
        return []
    try:
        labels = Path(options.labels).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise wrong_option("labels", f"{options.labels!r} ({error})", "a text file, one label a line") from error
    seen: set[str] = set()
    for number, label in enumerate(labels, start=1):
        if not label.strip() or label in seen:
            found = f"line {number}: {label!r}" + (" a second time" if label in seen else "")
            raise wrong_option("labels", found, "one label a line, each once")
        seen.add(label)
    if not labels:
        raise wrong_option("labels", f"{options.labels!r}, which is empty", "one label a line")
    return labels


def scores_of(graph: ir.Graph, labels: list[str]) -> int:
    """Which output has a score for each label: float32 [1, labels] or [labels].

    Raises:
        TargetError: none or several of them.
    """
    fits = [
        index
        for index, value in enumerate(graph.outputs)
        if list(value.shape or ()) in ([1, len(labels)], [len(labels)]) and value.dtype == ir.DataType.FLOAT
    ]
    if len(fits) != 1:
        shapes = ", ".join(f"{value.name} {value.shape}" for value in graph.outputs)
        expected = f"one output float32 [1, {len(labels)}]: a score per label, the batch fixed"
        raise wrong_option("labels", f"{len(labels)} labels, and outputs {shapes}", expected)
    return fits[0]


def probabilities(mb: Any, scores: Any, value: ir.Value) -> Any:
    """The scores as probabilities: a softmax, unless the network ends in one."""
    maker = value.producer()
    done = maker is not None and maker.op_type == "Softmax"
    return mb.identity(x=scores) if done else mb.softmax(x=scores, axis=-1)


def config(ct: Any, labels: list[str], name: str) -> Any:
    """For coremltools: the label and a dictionary of probabilities become outputs beside the network's own."""
    return ct.ClassifierConfig(labels, predicted_feature_name=LABEL, predicted_probabilities_output=name)


def settings(labels: list[str]) -> dict[str, Any]:
    """For the manifest: the names of the two outputs that the network itself does not have."""
    return {"classifier": {"label": LABEL, "probabilities": PROBABILITIES, "labels": len(labels)}} if labels else {}
