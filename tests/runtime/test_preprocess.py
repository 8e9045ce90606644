"""Preprocessing: against torch's antialiased resize, on every kind of image, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgewise.runtime.errors import RunError
from edgewise.runtime.preprocess import Preprocess

RNG = np.random.default_rng(1)
FULL = "resize=256,crop=224,color=rgb,scale=255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225"


def picture(height: int, width: int, channels: int = 3) -> Image.Image:
    pixels = RNG.integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels.squeeze())


def test_the_full_form_is_read_and_survives_json():
    parsed = Preprocess.parse(FULL)
    assert parsed == Preprocess(256, 224, "rgb", 255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert Preprocess.from_json(json.loads(json.dumps(parsed.to_json()))) == parsed
    sized = Preprocess.parse("resize=240x320, crop=none, color=gray")
    assert sized == Preprocess(resize=(240, 320), color="gray")
    assert Preprocess.from_json(json.loads(json.dumps(sized.to_json()))) == sized


def test_an_absent_key_does_nothing():
    image = picture(5, 7)
    np.testing.assert_array_equal(Preprocess.parse("")(image)[0], np.asarray(image, np.float32).transpose(2, 0, 1))


def test_the_numbers_by_hand():
    image = picture(9, 6)
    got = Preprocess.parse("color=bgr,scale=255,mean=0.1:0.2:0.3,std=2:4:8")(image)
    bgr = np.asarray(image, np.float64)[:, :, ::-1].transpose(2, 0, 1)
    want = (bgr / 255 - np.array([0.1, 0.2, 0.3])[:, None, None]) / np.array([2, 4, 8])[:, None, None]
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    np.testing.assert_allclose(got[0], want, rtol=1e-5, atol=1e-7)


@settings(max_examples=25)
@given(height=st.integers(3, 70), width=st.integers(3, 70), side=st.integers(2, 50))
def test_resize_of_the_short_side_as_torch_does_it(height, width, side):
    torch = pytest.importorskip("torch")
    image = picture(height, width)
    got = Preprocess(resize=side)(image)[0]
    short = min(height, width)
    size = (int(side * height / short), int(side * width / short))
    assert got.shape == (3, *size)
    pixels = torch.tensor(np.asarray(image, np.float32).transpose(2, 0, 1))[None]
    want = torch.nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)
    assert np.abs(got - want[0].numpy()).max() < 1.5  # PIL rounds after each of its two passes


@given(height=st.integers(4, 12), width=st.integers(4, 12), top=st.integers(1, 4), left=st.integers(1, 4))
def test_the_crop_is_centred(height, width, top, left):
    image = picture(height, width)
    got = Preprocess(crop=(top, left))(image)[0]
    y, x = round((height - top) / 2), round((width - left) / 2)
    want = np.asarray(image, np.float32)[y : y + top, x : x + left].transpose(2, 0, 1)
    np.testing.assert_array_equal(got, want)


def test_an_exact_size():
    assert Preprocess.parse("resize=24x32")(picture(50, 50)).shape == (1, 3, 24, 32)


def test_a_crop_larger_than_the_image():
    with pytest.raises(RunError, match=r"found an image of 32x48; expected at least 40x40.*resize=40"):
        Preprocess(crop=40)(picture(32, 48))


def test_grey_images_and_grey_networks():
    grey = picture(4, 5, 1)
    got = Preprocess()(grey)[0]
    np.testing.assert_array_equal(got, np.repeat(np.asarray(grey, np.float32)[None], 3, axis=0))
    np.testing.assert_array_equal(Preprocess(color="gray")(grey)[0, 0], np.asarray(grey, np.float32))
    assert Preprocess.parse("color=gray,mean=3,std=2")(picture(4, 5)).shape == (1, 1, 4, 5)


def test_transparency_palette_bilevel_and_cmyk():
    base = picture(6, 6)
    want = Preprocess()(base)
    transparent = base.copy()
    transparent.putalpha(7)
    np.testing.assert_array_equal(Preprocess()(transparent), want)
    palette = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), mode="P")
    palette.putpalette([255, 0, 0, 0, 0, 255])
    np.testing.assert_array_equal(Preprocess()(palette)[0, :, 0], [[255, 0], [0, 0], [0, 255]])
    assert Preprocess()(Image.new("1", (3, 3), 1)).max() == 255
    cmyk = Image.new("CMYK", (2, 2), (0, 255, 255, 0))
    np.testing.assert_array_equal(Preprocess()(cmyk)[0, :, 0, 0], [255, 0, 0])


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_sixteen_bits_are_scaled_not_clipped(dtype):
    values = np.array([[0, 257, 25700, 65535]], dtype)
    np.testing.assert_array_equal(Preprocess(color="gray")(Image.fromarray(values))[0, 0], [[0, 1, 100, 255]])


def test_images_of_floats_are_refused():
    with pytest.raises(RunError, match="PIL mode F"):
        Preprocess()(Image.fromarray(np.ones((2, 2), np.float32)))


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_exif_orientation(orientation, turns, tmp_path):
    image = picture(4, 6)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "turned.png", exif=exif)
    want = np.rot90(np.asarray(image, np.float32), turns).transpose(2, 0, 1)
    with Image.open(tmp_path / "turned.png") as turned:
        np.testing.assert_array_equal(Preprocess()(turned)[0], want)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("size=3", r"\(size=3\): found 'size'; expected one of resize, crop"),
        ("resize=3,resize=4", "a key twice"),
        ("resize=big", r"\(resize\): found 'big'"),
        ("resize=0", r"\(resize\): found 0"),
        ("resize=-3", r"\(resize\): found -3"),
        ("resize=1x2x3", "HEIGHTxWIDTH"),
        ("resize=99999999", "a number up to 32768"),
        ("crop=1.5", r"\(crop\)"),
        ("color=cmyk", "expected rgb or bgr or gray"),
        ("scale=0", "a number above 0"),
        ("scale=inf", "a number above 0"),
        ("mean=1:2", "1 or 3 numbers"),
        ("mean=1:nan:2", "1 or 3 numbers"),
        ("std=1:0:1", "none 0"),
        ("std=", r"\(std\)"),
        ("color=gray,mean=1:2:3", "1 or 1 numbers"),
    ],
)
def test_what_cannot_be_read(text, says):
    with pytest.raises(RunError, match=says):
        Preprocess.parse(text)


@pytest.mark.parametrize(
    "entry",
    [[], {"sise": 3}, {"resize": "3"}, {"resize": [1, "2"]}, {"resize": True}, {"scale": None}, {"mean": 3}, {"mean": ["a"]},
     {"std": [[1]]}, {"color": ["rgb"]}],
)  # fmt: skip
def test_json_of_other_types(entry):
    with pytest.raises(RunError, match="cannot read the preprocessing"):
        Preprocess.from_json(entry)
