"""Build options: every mistake in a recipe is refused with a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from edgewise.targets.errors import TargetError
from edgewise.targets.options import Option, read_options

KNOWN = {"format": Option("onnx", str, ("onnx", "ort")), "count": Option(None, int), "flag": Option(False, bool)}


def test_defaults_stand_in_for_what_is_not_given() -> None:
    assert read_options({"count": 3, "format": None}, KNOWN, "cpu") == {"format": "onnx", "count": 3, "flag": False}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fromat": "ort"}, "found 'fromat'; expected one of format, count, flag"),
        ({"format": "tflite"}, "found format = 'tflite'; expected onnx or ort"),
        ({"count": "3"}, "found count = '3'; expected a value of type int"),
        ({"count": True}, "found count = True; expected a value of type int"),
        ({"flag": 1}, "found flag = 1; expected a value of type bool"),
    ],
)
def test_mistakes_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(TargetError) as caught:
        read_options(given, KNOWN, "cpu")
    assert message in str(caught.value)


def test_a_target_without_options_says_so() -> None:
    with pytest.raises(TargetError, match="expected no options"):
        read_options({"x": 1}, {}, "null")
