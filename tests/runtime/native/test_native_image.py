"""edgewise_image against the preprocessing of the evaluation, which is Pillow's: the same numbers to the last bit."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgewise.packing.image import preprocess_header
from edgewise.runtime.preprocess import Preprocess

_NATIVE = Path(__file__).resolve().parents[3] / "runtime" / "native"
_FORMS = ("L", "RGB", "BGR", "RGBA", "BGRA")
_COLORS = ("rgb", "bgr", "gray")
FULL = "resize=256,crop=224,color=rgb,scale=255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225"


class _Image(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p), ("width", ctypes.c_int32), ("height", ctypes.c_int32), ("stride", ctypes.c_int64), ("pixels", ctypes.c_int),
    )  # fmt: skip


class _Steps(ctypes.Structure):
    _fields_ = (
        ("resize", ctypes.c_int32 * 2), ("crop", ctypes.c_int32 * 2), ("color", ctypes.c_int), ("scale", ctypes.c_float),
        ("mean", ctypes.c_float * 3), ("std", ctypes.c_float * 3),
    )  # fmt: skip


class _Prepared(ctypes.Structure):
    _fields_ = (
        ("channels", ctypes.c_int32), ("height", ctypes.c_int32), ("width", ctypes.c_int32), ("bytes", ctypes.c_size_t),
        ("workspace", ctypes.c_size_t),
    )  # fmt: skip


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = os.environ.get("CXX", "c++")
    if not which(compiler):
        if "CI" in os.environ:
            pytest.fail("CI has a C++ compiler")
        pytest.skip("needs a C++ compiler")
    made = tmp_path_factory.mktemp("image") / "image.so"
    # As CMakeLists.txt builds it: without contraction, or some numbers differ in the last bit.
    options = [
        "-std=c++17",
        "-O2",
        "-fPIC",
        "-shared",
        "-ffp-contract=off",
        "-fno-exceptions",
        "-fno-rtti",
        "-I",
        _NATIVE / "include",
    ]
    subprocess.run([compiler, *map(str, options), str(_NATIVE / "image" / "image.cpp"), "-o", str(made)], check=True)
    loaded = ctypes.CDLL(str(made))
    loaded.ew_preprocess_error.restype = ctypes.c_char_p
    return loaded


def steps_of(preprocess: Preprocess) -> _Steps:
    """What the header that a pack writes says: its numbers, in the order of the struct."""
    text = preprocess_header("net", preprocess).split("= {", 1)[1]
    text = re.sub(r"/\*.*?\*/", "", text)
    color, words = re.search(r"EW_COLOR_(\w+)", text), re.findall(r"-?\d[\w.+-]*", re.sub(r"EW_COLOR_\w+", "", text))
    assert color
    numbers = [float(word.removesuffix("f")) for word in words]
    resize, crop = ([int(number) for number in numbers[at : at + 2]] for at in (0, 2))
    mean, std = ((ctypes.c_float * 3)(*numbers[at : at + 3]) for at in (5, 8))
    sides = [(ctypes.c_int32 * 2)(*part) for part in (resize, crop)]
    return _Steps(*sides, _COLORS.index(color[1].lower()), numbers[4], mean, std)


def prepared(library: Any, preprocess: Preprocess, pixels: np.ndarray, form: str) -> np.ndarray:
    """What the library makes of pixels [height, width(, bytes)] whose rows may have gaps."""
    image = _Image(pixels.ctypes.data, pixels.shape[1], pixels.shape[0], pixels.strides[0], _FORMS.index(form))
    steps, told = steps_of(preprocess), _Prepared()
    status = library.ew_preprocess_plan(ctypes.byref(steps), ctypes.byref(image), ctypes.byref(told))
    assert status == 0, library.ew_preprocess_error()
    output = np.full((1, told.channels, told.height, told.width), np.nan, np.float32)
    assert output.nbytes == told.bytes
    workspace = np.full(told.workspace // 8 + 1, -1, np.int64)
    place = ctypes.c_void_p(workspace.ctypes.data)
    status = library.ew_preprocess_run(
        ctypes.byref(steps), ctypes.byref(image), ctypes.c_void_p(output.ctypes.data), ctypes.c_size_t(told.bytes), place,
        ctypes.c_size_t(told.workspace),
    )  # fmt: skip
    assert status == 0, library.ew_preprocess_error()
    return output


def pictures(generator: np.random.Generator, height: int, width: int, form: str) -> tuple[np.ndarray, Image.Image]:
    """Pixels in memory with a gap behind each row, and the same picture for Pillow."""
    count = len(form)
    memory = generator.integers(0, 256, (height, width * count + 5), np.uint8)
    pixels = memory[:, : width * count].reshape(height, width, count) if count > 1 else memory[:, :width]
    if count == 1:
        return memory[:, :width], Image.fromarray(np.ascontiguousarray(pixels))
    view = np.lib.stride_tricks.as_strided(memory, (height, width, count), (memory.strides[0], count, 1))
    order = [form.index(channel) for channel in "RGB"]
    return view, Image.fromarray(np.ascontiguousarray(view[..., order]))


@settings(max_examples=150, deadline=None)
@given(
    height=st.integers(1, 70), width=st.integers(1, 70), form=st.sampled_from(_FORMS), color=st.sampled_from(_COLORS),
    resize=st.one_of(st.none(), st.integers(1, 60), st.tuples(st.integers(1, 90), st.integers(1, 90))),
    crop=st.one_of(st.none(), st.integers(1, 40), st.tuples(st.integers(1, 40), st.integers(1, 40))), seed=st.integers(0, 9),
)  # fmt: skip
def test_every_size_form_and_step_gives_the_evaluations_numbers(
    library: Any, height: int, width: int, form: str, color: str, resize: Any, crop: Any, seed: int
) -> None:
    pixels, picture = pictures(np.random.default_rng(seed), height, width, form)
    mean, std = ((0.4,), (0.25,)) if color == "gray" else ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    uncropped = Preprocess(resize, None, color, 255.0, mean, std)(picture)
    sides = (crop, crop) if isinstance(crop, int) else crop or (1, 1)
    fits = sides[0] <= uncropped.shape[2] and sides[1] <= uncropped.shape[3]
    preprocess = Preprocess(resize, crop if fits else None, color, 255.0, mean, std)
    np.testing.assert_array_equal(prepared(library, preprocess, pixels, form), preprocess(picture))


@pytest.mark.parametrize(("height", "width"), [(480, 640), (227, 1024), (3024, 257)])
def test_photographs_sizes(library: Any, height: int, width: int) -> None:
    pixels, picture = pictures(np.random.default_rng(2), height, width, "RGBA")
    preprocess = Preprocess.parse(FULL)
    np.testing.assert_array_equal(prepared(library, preprocess, pixels, "RGBA"), preprocess(picture))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"crop": (41, 30)}, "a crop that is larger"),
        ({"resize": (65536, 4)}, "more than 65535"),
        ({"resize": (0, 4)}, "neither a side nor"),
        ({"crop": (4, 0)}, "not a height and a width"),
        ({"scale": 0.0}, "not above 0"),
        ({"std": (0.1, 0.0, 0.1)}, "std of 0"),
        ({"mean": (float("nan"), 0.0, 0.1)}, "no number"),
        ({"color": 3}, "unknown color"),
        ({"pixels": 5}, "unknown form"),
        ({"width": 0}, "sides are not"),
        ({"height": 65536}, "sides are not"),
        ({"stride": 119}, "less than a row"),
        ({"data": 0}, "null pointer"),
    ],
)
def test_what_it_refuses(library: Any, change: dict[str, Any], said: str) -> None:
    pixels = np.zeros((40, 40, 3), np.uint8)
    image, steps = _Image(pixels.ctypes.data, 40, 40, 120, 1), steps_of(Preprocess())
    for key, value in change.items():
        owner = image if key in dict(_Image._fields_) else steps
        kind = dict(type(owner)._fields_)[key]
        setattr(owner, key, kind(*value) if isinstance(value, tuple) else value)
    assert library.ew_preprocess_plan(ctypes.byref(steps), ctypes.byref(image), ctypes.byref(_Prepared())) == 1
    assert said in library.ew_preprocess_error().decode()
