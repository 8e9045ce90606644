"""DATA as folders and zips of images: labels, order, odd files, and every kind of bad image."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgewise.runtime.data import open_data
from edgewise.runtime.errors import RunError
from edgewise.runtime.preprocess import Preprocess
from edgewise.runtime.tensors import TensorSpec

X = [TensorSpec.parse("x=f32[N,3,4,4]")]
RAW = Preprocess()


def png(value: int, side: int = 4) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (value, 0, 0)).save(buffer, "png")
    return buffer.getvalue()


def make(path: Path, files: dict[str, bytes], *, zipped: bool) -> str:
    if zipped:
        with zipfile.ZipFile(path.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return str(path.with_suffix(".zip"))
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return str(path)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["0003_cat.png", "0000_dog.PNG", "12.png", "7x.png"], {"0000_dog.PNG": 0, "0003_cat.png": 3, "12.png": 12, "7x.png": 7}),
        (["cat.png", "1_dog.png"], {"1_dog.png": 1, "cat.png": None}),
        (["pear/9.png", "apple/1.png", "apple/2.png", "fig/deep/er/3.png"], {"apple/1.png": 0, "apple/2.png": 0, "fig/deep/er/3.png": 1, "pear/9.png": 2}),
        (["2/a.png", "10/a.png", "9/a.png"], {"10/a.png": 10, "2/a.png": 2, "9/a.png": 9}),
        (["wrapped/5_a.png", "wrapped/1_b.png"], {"wrapped/1_b.png": 1, "wrapped/5_a.png": 5}),
        (["w/v/b/a.png", "w/v/a/b.png"], {"w/v/a/b.png": 0, "w/v/b/a.png": 1}),
        (["1_top.png", "cat/a.png"], {"1_top.png": None, "cat/a.png": None}),
    ],
)  # fmt: skip
def test_labels_and_order(tmp_path: Path, zipped, names, labels):
    values = {name: index for index, name in enumerate(sorted(names), start=1)}
    shuffled = {name: png(values[name]) for name in names}
    data = open_data(make(tmp_path / "images", shuffled, zipped=zipped), X, RAW)
    samples = list(data)
    assert len(data) == len(names)
    assert [sample.inputs["x"][0, 0, 0, 0] for sample in samples] == sorted(values.values())
    assert [sample.label for sample in samples] == [labels[name] for name in sorted(names)]


@pytest.mark.parametrize("zipped", [False, True])
def test_what_is_no_image_is_left_out(tmp_path: Path, zipped):
    files = {
        "a/1.png": png(1),
        "a/README.txt": b"text",
        "__MACOSX/a/._1.png": b"shadow",
        "__MACOSX/a/2.png": b"shadow",
        "a/.hidden.png": b"hidden",
        ".git/x.png": b"hidden",
    }
    assert [sample.label for sample in open_data(make(tmp_path / "i", files, zipped=zipped), X, RAW)] == [1]


@pytest.mark.parametrize("zipped", [False, True])
def test_a_broken_image_is_named(tmp_path: Path, zipped):
    whole = png(2)
    for broken in (whole[:40], whole[:50], b"<html>", b""):
        source = make(tmp_path / "i", {"1.png": png(1), "2_bad.png": broken}, zipped=zipped)
        samples = iter(open_data(source, X, RAW))
        assert next(samples).label == 1
        with pytest.raises(RunError, match=r"image 2_bad\.png\): found .*expected an image that can be read"):
            next(samples)


def test_a_damaged_zip_entry_is_named(tmp_path: Path):
    source = Path(make(tmp_path / "i", {"1.png": png(1)}, zipped=True))
    raw = source.read_bytes()
    at = raw.index(b"1.png") + 30
    source.write_bytes(raw[:at] + bytes([raw[at] ^ 255]) + raw[at + 1 :])
    with pytest.raises(RunError, match=r"image 1\.png\): found (BadZipFile|error)"):
        list(open_data(str(source), X, RAW))


def test_a_zip_entry_that_claims_to_be_huge(tmp_path: Path):
    source = tmp_path / "i.zip"
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("1.png", png(1))
    raw = source.read_bytes()
    directory = raw.index(b"PK\x01\x02")
    size = (1 << 30).to_bytes(4, "little")
    source.write_bytes(raw[: directory + 24] + size + raw[directory + 28 :])
    with pytest.raises(RunError, match="1073741824 bytes, more than"):
        list(open_data(str(source), X, RAW))


def test_a_decompression_bomb(tmp_path: Path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        import zlib

        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    size = (60000).to_bytes(4, "big") * 2
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size + b"\x08\x02\x00\x00\x00")
        + chunk(b"IDAT", b"")
        + chunk(b"IEND", b"")
    )
    with pytest.raises(RunError, match=r"1\.png\): found DecompressionBombError"):
        list(open_data(make(tmp_path / "i", {"1.png": bomb}, zipped=False), X, RAW))


def test_an_image_that_does_not_fit(tmp_path: Path):
    source = make(tmp_path / "i", {"1.png": png(1, 5)}, zipped=False)
    with pytest.raises(
        RunError, match=r"image 1\.png\): found float32\[1, 3, 5, 5\]; expected float32\[N, 3, 4, 4\].*crop"
    ):
        list(open_data(source, X, RAW))
    with pytest.raises(RunError, match=r"larger than the image \(.*image 1\.png\): found an image of 5x5"):
        list(open_data(source, X, Preprocess(crop=9)))


def test_other_dtypes_and_ranks(tmp_path: Path):
    source = make(tmp_path / "i", {"1.png": png(200)}, zipped=False)
    for text, prepare in [
        ("x=f16[1,3,4,4]", Preprocess(scale=255.0)),
        ("x=u8[1,3,4,4]", RAW),
        ("x=f32[3,4,4]", RAW),
        ("x=f32[N,1,H,W]", Preprocess(color="gray")),
    ]:
        spec = TensorSpec.parse(text)
        (sample,) = open_data(source, [spec], prepare)
        spec.check(sample.inputs["x"])
    with pytest.raises(RunError, match="found float32"):
        list(open_data(source, [TensorSpec.parse("x=u8[1,3,4,4]")], Preprocess(scale=255.0)))
    with pytest.raises(RunError, match="found float32"):
        list(open_data(source, [TensorSpec.parse("x=i32[1,3,4,4]")], RAW))


def test_images_want_preprocessing_and_one_input(tmp_path: Path):
    source = make(tmp_path / "i", {"1.png": png(1)}, zipped=False)
    with pytest.raises(RunError, match=r"no preprocessing.*--preprocess resize=256"):
        open_data(source, X)
    with pytest.raises(RunError, match="arrays for the inputs x, y"):
        open_data(source, [*X, TensorSpec.parse("y=f32[1]")], RAW)


@pytest.mark.parametrize("zipped", [False, True])
def test_empty(tmp_path: Path, zipped):
    (tmp_path / "i").mkdir()
    with pytest.raises(RunError, match="found no images; expected files such as"):
        open_data(make(tmp_path / "i", {"notes.txt": b""}, zipped=zipped), X, RAW)


@pytest.mark.shared
def test_the_shared_images(shared_dir: Path):
    inputs = [TensorSpec.parse("x=f32[1,3,32,32]")]
    data = open_data(str(shared_dir / "data" / "cifar10_test.zip"), inputs, RAW, limit=40)
    assert len(data) == 40
    assert sorted({sample.label for sample in data}) == list(range(10))
    imagenet = open_data(
        str(shared_dir / "data" / "imagenet_calib.zip"),
        [TensorSpec.parse("x=f32[1,3,224,224]")],
        Preprocess(256, 224),
        limit=4,
    )
    assert np.stack([sample.inputs["x"] for sample in imagenet]).shape == (4, 1, 3, 224, 224)
