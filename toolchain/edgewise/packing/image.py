"""A bundle's preprocessing as a table in C, for edgewise_image.h."""

from __future__ import annotations

from edgewise.packing.example import identifier
from edgewise.runtime.preprocess import Preprocess, Size

_HEADER = """\
/* How a picture becomes the input of {name}: `{text}` */
#ifndef {guard}
#define {guard}
#include "edgewise_image.h"

static const ew_preprocess {symbol} = {{
    {resize}, /* resize */
    {crop}, /* crop */
    {color}, {scale}, {mean}, {std},
}};
#endif
"""


def preprocess_header(name: str, steps: Preprocess) -> str:
    """The header's text; the table is called ``NAME_preprocess``."""
    symbol = f"{identifier(name)}_preprocess"
    resize = f"{steps.resize}, 0" if isinstance(steps.resize, int) else _pair(steps.resize)
    crop = f"{steps.crop}, {steps.crop}" if isinstance(steps.crop, int) else _pair(steps.crop)
    return _HEADER.format(
        name=name,
        text=", ".join(f"{key} {value}" for key, value in steps.to_json().items()),
        guard=f"{symbol.upper()}_H",
        symbol=symbol,
        resize=resize,
        crop=crop,
        color=f"EW_COLOR_{steps.color.upper()}",
        scale=_number(steps.scale),
        mean=_three(steps.mean),
        std=_three(steps.std),
    )


def _pair(size: Size) -> str:
    return f"{size[0]}, {size[1]}" if isinstance(size, tuple) else "0, 0"


def _three(values: tuple[float, ...]) -> str:
    return f"{{{', '.join(_number(value) for value in (values * 3)[:3])}}}"


def _number(value: float) -> str:
    """Nine digits and more give a float32 back as it was."""
    return f"{float(value)!r}f"
