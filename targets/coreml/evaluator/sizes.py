"""The shapes that a package says it takes: Core ML refuses others."""

from __future__ import annotations

from typing import Any


def takes(feature: Any, shape: tuple[int, ...]) -> bool:
    """Whether an array of this shape is one of a described input's (images: batch and channels, height and width)."""
    kind = feature.type.WhichOneof("Type")
    if kind == "imageType":
        return shape[2:] == (feature.type.imageType.height, feature.type.imageType.width)
    if kind != "multiArrayType":
        return True
    array = feature.type.multiArrayType
    flexible = array.WhichOneof("ShapeFlexibility")
    if flexible == "enumeratedShapes":
        return any(tuple(listed.shape) == shape for listed in array.enumeratedShapes.shapes)
    if flexible == "shapeRange":
        ranges = array.shapeRange.sizeRanges
        return len(ranges) == len(shape) and all(_within(size, one) for size, one in zip(shape, ranges, strict=True))
    return tuple(array.shape) == shape


def _within(size: int, allowed: Any) -> bool:
    """An upper bound below 0 stands for none."""
    return bool(allowed.lowerBound <= size and (allowed.upperBound < 0 or size <= allowed.upperBound))


def told(feature: Any) -> str:
    """The shapes, for an error."""
    array = feature.type.multiArrayType
    flexible = array.WhichOneof("ShapeFlexibility")
    if flexible == "enumeratedShapes":
        return " or ".join(str(list(listed.shape)) for listed in array.enumeratedShapes.shapes)
    if flexible == "shapeRange":
        ends = ((one.lowerBound, one.upperBound) for one in array.shapeRange.sizeRanges)
        return f"[{', '.join(str(low) if low == high else f'{low} to {high}' for low, high in ends)}]"
    if feature.type.WhichOneof("Type") == "imageType":
        return f"{feature.type.imageType.height} by {feature.type.imageType.width} pixels"
    return str(list(array.shape))
