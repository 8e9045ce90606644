"""Inputs given as images: the preprocessing of the recipe becomes part of the network."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from edgewise.targets.base import TargetError
from edgewise.targets.coreml.options import Options

_LAYOUTS = {"rgb": "RGB", "bgr": "BGR", "gray": "GRAYSCALE"}


@dataclass(frozen=True)
class Image:
    """``(pixel / scale − mean) / std``, pixels 0 to 255 in the order of ``color``; mean and std have 1 or 3 numbers."""

    color: str
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """As it stands in the manifest's engine settings."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def type(self, ct: Any, name: str, shape: list[Any]) -> Any:
        """Coremltools' description. Scale and bias stay out of it: it has one scale for all channels."""
        return ct.ImageType(name=name, shape=shape, color_layout=getattr(ct.colorlayout, _LAYOUTS[self.color]))

    def normalize(self, mb: Any, pixels: Any) -> Any:
        """The operations from pixels [1, channels, height, width] to what the network takes."""
        factor, shift = self._affine()
        return mb.add(x=mb.mul(x=pixels, y=factor), y=shift)

    def pixels(self, array: np.ndarray) -> Any:
        """The pixels (floats, not rounded) that give this input."""
        factor, shift = self._affine()
        return ((array - shift) / factor).astype(np.float32)

    def _affine(self) -> tuple[np.ndarray, np.ndarray]:
        mean, std = (np.asarray(value, np.float64).reshape(-1, 1, 1) for value in (self.mean, self.std))
        factor = np.broadcast_to(1 / (self.scale * std), np.broadcast_shapes(mean.shape, std.shape))
        return factor.astype(np.float32)[None], np.broadcast_to(-mean / std, factor.shape).astype(np.float32)[None]


def image_inputs(graph: ir.Graph, options: Options, preprocess: dict[str, Any] | None) -> dict[str, Image]:
    """The inputs that are to be images, by ONNX's name.

    Raises:
        TargetError: no preprocessing in the recipe, an unknown name, or an input that is no float image of 1 or 3 channels.
    """
    names = options.image_inputs
    if not names:
        return {}
    if preprocess is None:
        raise _bad("image_inputs", "no preprocessing in the recipe", "one", "Give --preprocess")
    known = {value.name or "": value for value in graph.inputs}
    image = Image(
        preprocess.get("color", "rgb"), float(preprocess.get("scale", 1.0)),
        tuple(preprocess.get("mean", (0.0,))), tuple(preprocess.get("std", (1.0,))),
    )  # fmt: skip
    for name in names:
        if name not in known:
            raise _bad(f"input {name!r}", "no such input", f"one of {', '.join(known)}", "Check the name")
        _check(known[name], image)
    return dict.fromkeys(names, image)


def _check(value: ir.Value, image: Image) -> None:
    channels = 1 if image.color == "gray" else 3
    shape = list(value.shape or ())
    fits = len(shape) == 4 and shape[0] == 1 and shape[1] == channels and all(isinstance(dim, int) for dim in shape)
    if not fits or value.dtype != ir.DataType.FLOAT:
        raise _bad(
            f"input {value.name!r}", f"{value.dtype} {value.shape}", f"float32 [1, {channels}, height, width], all fixed",
            "Leave it out of image_inputs",
        )  # fmt: skip


def _bad(where: str, found: str, expected: str, fix: str) -> TargetError:
    return TargetError("cannot make an input an image", where=where, found=found, expected=expected, fix=fix)
