"""From an image to what a network takes: resize, crop, colour, scale, mean and standard deviation."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewise.runtime.errors import RunError
from edgewise.runtime.extras import needs

if TYPE_CHECKING:
    from PIL.Image import Image

Size = int | tuple[int, int] | None
_COLORS = ("rgb", "bgr", "gray")
_KEYS = ("resize", "crop", "color", "scale", "mean", "std")
_LARGEST_SIDE = 1 << 15
_FORM = "resize=256,crop=224,color=rgb,scale=255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225"


@dataclass(frozen=True)
class Preprocess:
    """``(pixel / scale - mean) / std`` after resizing and cropping; a step whose key is absent is not done.

    Attributes:
        resize: a number: the short side's length, the other side in proportion; ``(height, width)``: exactly that.
            Bilinear with antialiasing, as torchvision's ``Resize`` on PIL images.
        crop: the side, or ``(height, width)``, of the centre crop.
        color: ``rgb``, ``bgr`` or ``gray`` (one channel).
        scale: pixels, 0 to 255, are divided by it.
        mean: one number, or one per channel in the order of ``color``.
        std: likewise.
    """

    resize: Size = None
    crop: Size = None
    color: str = "rgb"
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        channels = 1 if self.color == "gray" else 3
        checks = {
            "resize": (self.resize, _is_size(self.resize), f"none, a number up to {_LARGEST_SIDE} or HEIGHTxWIDTH"),
            "crop": (self.crop, _is_size(self.crop), f"none, a number up to {_LARGEST_SIDE} or HEIGHTxWIDTH"),
            "color": (self.color, self.color in _COLORS, " or ".join(_COLORS)),
            "scale": (self.scale, _is_number(self.scale) and self.scale > 0, "a number above 0"),
            "mean": (self.mean, _is_numbers(self.mean, channels), f"1 or {channels} numbers"),
            "std": (
                self.std,
                _is_numbers(self.std, channels) and 0 not in self.std,
                f"1 or {channels} numbers, none 0",
            ),
        }
        for key, (value, fine, expected) in checks.items():
            if not fine:
                raise _unreadable(key, repr(value), expected)

    @classmethod
    def parse(cls, text: str) -> Preprocess:
        """Read the command line's ``--preprocess``: ``KEY=VALUE`` parted by commas, each key optional.

        >>> Preprocess.parse("resize=none,crop=227,color=bgr,mean=104:117:123").mean
        (104.0, 117.0, 123.0)

        Raises:
            RunError: unknown or repeated key, or a value of another form.
        """
        values: dict[str, Any] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            key, _, value = (piece.strip() for piece in part.partition("="))
            if key not in _KEYS or key in values:
                raise _unreadable(part, "a key twice" if key in values else f"{key!r}", f"one of {', '.join(_KEYS)}")
            try:
                values[key] = _parse_value(key, value)
            except ValueError as error:
                raise _unreadable(key, repr(value), f"a value as in {_FORM}") from error
        return cls(**values)

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Preprocess:
        """The inverse of :meth:`to_json`.

        Raises:
            RunError: unknown keys or values of another type.
        """
        if not isinstance(entry, dict) or not set(entry) <= set(_KEYS):
            raise _unreadable("its JSON form", repr(entry), f"an object with the keys {', '.join(_KEYS)}")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """As it stands in a bundle's manifest."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def __call__(self, image: Image) -> np.ndarray:
        """One image to float32 [1, channels, height, width].

        The orientation that EXIF asks for is applied, transparency is dropped, 16-bit grey becomes 8-bit.

        Raises:
            RunError: the crop is larger than the image, or the image is of floats or 32-bit integers.
        """
        with needs("images"):
            from PIL import ImageOps
        image = _to_eight_bits(ImageOps.exif_transpose(image)).convert("L" if self.color == "gray" else "RGB")
        image = _center_crop(_resize(image, self.resize), self.crop)
        pixels = np.asarray(image, dtype=np.float32)
        channels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        if self.color == "bgr":
            channels = channels[::-1]
        mean, std = (np.asarray(value, np.float32).reshape(-1, 1, 1) for value in (self.mean, self.std))
        result = (channels / np.float32(self.scale) - mean) / std
        return np.ascontiguousarray(result[None], dtype=np.float32)


def _parse_value(key: str, value: str) -> Any:
    if key in ("resize", "crop"):
        if value == "none":
            return None
        sides = tuple(int(side) for side in value.split("x"))
        return sides[0] if len(sides) == 1 else sides
    if key in ("mean", "std"):
        return tuple(float(number) for number in value.split(":"))
    return value if key == "color" else float(value)


def _is_size(value: Any) -> bool:
    sides = value if isinstance(value, tuple) else (1 if value is None else value,) * 2
    return len(sides) == 2 and all(type(side) is int and 0 < side <= _LARGEST_SIDE for side in sides)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_numbers(value: Any, channels: int) -> bool:
    return isinstance(value, tuple) and len(value) in (1, channels) and all(map(_is_number, value))


def _unreadable(where: str, found: str, expected: str) -> RunError:
    return RunError(
        "cannot read the preprocessing",
        where=where,
        found=found,
        expected=expected,
        fix=f"Write it as --preprocess {_FORM}, each key optional",
    )


def _to_eight_bits(image: Image) -> Image:
    """PIL itself would clip 16-bit grey at 255 instead of scaling it."""
    with needs("images"):
        from PIL.Image import fromarray
    if image.mode not in ("F", "I", "I;16", "I;16B", "I;16L", "I;16N"):
        return image
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 0xFFFF:
        raise RunError(
            "cannot use the image", found=f"PIL mode {image.mode}", expected="8 or 16 bits per channel",
            fix="Convert it, or pass the data as .npz",
        )  # fmt: skip
    return fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))


def _resize(image: Image, size: Size) -> Image:
    if size is None:
        return image
    with needs("images"):
        from PIL.Image import Resampling
    width, height = image.size
    if isinstance(size, int):
        short = min(width, height)
        size = (size * height // short, size * width // short)
    if size == (height, width):
        return image
    return image.resize((size[1], size[0]), Resampling.BILINEAR)


def _center_crop(image: Image, size: Size) -> Image:
    if size is None:
        return image
    height, width = (size, size) if isinstance(size, int) else size
    if height > image.height or width > image.width:
        raise RunError(
            "the crop is larger than the image",
            found=f"an image of {image.height}x{image.width}",
            expected=f"at least {height}x{width} (height x width)",
            fix=f"Resize first: resize={max(height, width)}",
        )
    # round, half to even, as torchvision does; // would shift odd margins by a pixel.
    top, left = round((image.height - height) / 2), round((image.width - width) / 2)
    return image.crop((left, top, left + width, top + height))
