"""Inputs given as images: the preprocessing of the recipe becomes part of the network."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from edgewise.runtime.preprocess import Preprocess
from edgewise.targets.coreml.options import Options
from edgewise.targets.errors import TargetError

_LAYOUTS = {"rgb": "RGB", "bgr": "BGR", "gray": "GRAYSCALE"}


def image_type(ct: Any, name: str, shape: list[Any], image: Preprocess) -> Any:
    """How coremltools describes the input. Scale and bias stay out of it: it has one scale for all channels."""
    return ct.ImageType(name=name, shape=shape, color_layout=getattr(ct.colorlayout, _LAYOUTS[image.color]))


def normalized(mb: Any, pixels: Any, image: Preprocess) -> Any:
    """The operations from pixels [1, channels, height, width], 0 to 255, to ``(pixel / scale − mean) / std``."""
    factor, shift = _affine(image)
    return mb.add(x=mb.mul(x=pixels, y=factor), y=shift)


def pixels_of(array: np.ndarray, image: Preprocess) -> Any:
    """The pixels (floats, not rounded) that give this input."""
    factor, shift = _affine(image)
    return ((array - shift) / factor).astype(np.float32)


def _affine(image: Preprocess) -> tuple[np.ndarray, np.ndarray]:
    mean, std = (np.asarray(value, np.float64).reshape(-1, 1, 1) for value in (image.mean, image.std))
    factor = np.broadcast_to(1 / (image.scale * std), np.broadcast_shapes(mean.shape, std.shape))
    return factor.astype(np.float32)[None], np.broadcast_to(-mean / std, factor.shape).astype(np.float32)[None]


def image_inputs(graph: ir.Graph, options: Options, preprocess: dict[str, Any] | None) -> dict[str, Preprocess]:
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
    image = Preprocess.from_json(preprocess)
    for name in names:
        if name not in known:
            raise _bad(f"input {name!r}", "no such input", f"one of {', '.join(known)}", "Check the name")
        _check(known[name], image)
    return dict.fromkeys(names, image)


def _check(value: ir.Value, image: Preprocess) -> None:
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
