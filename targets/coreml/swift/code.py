"""The parts of the Swift files that depend on the network."""

from __future__ import annotations

import re

from edgewise.runtime.core_ml_ports import Port
from edgewise.runtime.preprocess import Preprocess

_KEYWORDS = frozenset(
    [
        "as",
        "associatedtype",
        "break",
        "case",
        "catch",
        "class",
        "continue",
        "default",
        "defer",
        "deinit",
        "do",
        "else",
        "enum",
        "extension",
        "false",
        "for",
        "func",
        "guard",
        "if",
        "import",
        "in",
        "init",
        "inout",
        "is",
        "let",
        "nil",
        "operator",
        "private",
        "protocol",
        "public",
        "repeat",
        "return",
        "self",
        "static",
        "struct",
        "subscript",
        "super",
        "switch",
        "throw",
        "throws",
        "true",
        "try",
        "typealias",
        "var",
        "where",
        "while",
    ]
)
Sizes = dict[str, tuple[int, int]]
_CHANNELS = {"rgb": "0, 1, 2", "bgr": "2, 1, 0", "gray": "3"}


def fill(text: str, parts: dict[str, str]) -> str:
    """The template with its ``@PARTS@`` filled in; lines that become empty by it are dropped."""
    lines = []
    for line in text.splitlines():
        filled = re.sub(r"@([A-Z_]+)@", lambda match: parts[match[1]], line)
        if filled.strip() or not line.strip():
            lines.append(filled)
    return "\n".join(lines) + "\n"


def swift_name(port: Port) -> str:
    """Core ML's name, which Swift takes as it is; its own words in backticks."""
    return f"`{port.coreml}`" if port.coreml in _KEYWORDS else port.coreml


def swift_type(port: Port) -> str:
    """The scalar of the array: Core ML gives and takes booleans and bytes as Int32, float64 as Float."""
    return {"float32": "Float", "float64": "Float", "float16": "Float16"}.get(port.dtype, "Int32")


def model_parts(
    name: str, inputs: list[Port], outputs: list[Port], has_states: bool, sizes: Sizes, classifier: dict[str, str]
) -> dict[str, str]:
    """Of ``Model.swift``; ``sizes``: height and width of image inputs; ``classifier``: the names of its two outputs, or empty."""
    label = _classified(name, classifier["label"], classifier["probabilities"]) if classifier else ("", "")
    state = {
        "STATE_PROPERTY": "    private var state: MLState",
        "STATE_INIT": "        state = model.makeState()",
        "STATE_USE": ", using: state",
        "STATE_RESET": "\n    /// Forget what was kept between predictions.\n    public func reset() {\n        state = model.makeState()\n    }",
    }
    return {
        "INPUT_PROPERTIES": _lines("    public var {name}: {type}", inputs),
        "INPUT_PARAMETERS": ", ".join(f"{swift_name(port)}: {_type(port)}" for port in inputs),
        "INPUT_ASSIGNMENTS": _lines("        self.{name} = {name}", inputs),
        "INPUT_FEATURES": "\n".join(f'            "{port.coreml}": {_feature(port, sizes)},' for port in inputs),
        "OUTPUT_PROPERTIES": _lines("    public let {name}: {type}", outputs) + label[0],
        "OUTPUT_ASSIGNMENTS": _lines('        {name} = try Self.array("{coreml}", in: features)', outputs) + label[1],
        **(state if has_states else dict.fromkeys(state, "")),
    }


def _classified(name: str, label: str, each: str) -> tuple[str, str]:
    """The properties of a classifier's label and probabilities, and how they are read."""
    read = f'Self.feature("{each}", in: features).dictionaryValue as? [String: NSNumber]'
    return (
        f"\n    public let {label}: String\n    public let {each}: [String: Double]",
        f'\n        {label} = try Self.feature("{label}", in: features).stringValue'
        f"\n        guard let found = try {read} else {{"
        f'\n            throw {name}Error.missingOutput("{each}")\n        }}'
        f"\n        {each} = found.mapValues {{ $0.doubleValue }}",
    )


def _lines(form: str, ports: list[Port]) -> str:
    return "\n".join(form.format(name=swift_name(port), type=_type(port), coreml=port.coreml) for port in ports)


def _type(port: Port) -> str:
    return "CGImage" if port.image is not None else f"MLShapedArray<{swift_type(port)}>"


def _feature(port: Port, sizes: Sizes) -> str:
    """An image is brought to the size of the network; the package normalizes it."""
    if port.image is None:
        return f"MLFeatureValue(shapedArray: {swift_name(port)})"
    kind = "OneComponent8" if port.image.color == "gray" else "32BGRA"
    height, width = sizes[port.name]
    return (
        f"try MLFeatureValue(cgImage: {swift_name(port)}, pixelsWide: {width}, pixelsHigh: {height}, "
        f"pixelFormatType: kCVPixelFormatType_{kind}, options: nil)"
    )


def preprocessing_parts(image: Preprocess, size: tuple[int, int]) -> dict[str, str]:
    """Of ``Preprocessing.swift``; ``size`` is the network's height and width."""
    count = 1 if image.color == "gray" else 3
    return {
        "HEIGHT": str(size[0]),
        "WIDTH": str(size[1]),
        "CHANNELS": _CHANNELS[image.color],
        "SCALE": repr(float(image.scale)),
        "MEAN": _numbers(image.mean, count),
        "STD": _numbers(image.std, count),
        "DRAWN_SIZE": _drawn_size(image),
    }


def _numbers(values: tuple[float, ...], count: int) -> str:
    return ", ".join(repr(float(value)) for value in (values if len(values) == count else values * count))


def _drawn_size(image: Preprocess) -> str:
    """A short side of so many pixels, an exact size, or the image as it is."""
    if image.resize is None:
        return "        CGSize(width: imageWidth, height: imageHeight)"
    if isinstance(image.resize, tuple):
        return f"        CGSize(width: {image.resize[1]}, height: {image.resize[0]})"
    return (
        f"        let factor = {image.resize} / min(imageWidth, imageHeight)\n"
        "        return CGSize(width: (imageWidth * factor).rounded(.down), height: (imageHeight * factor).rounded(.down))"
    )


def sample_parts(inputs: list[Port], outputs: list[Port], least_db: float) -> dict[str, str]:
    """Of ``Tests.swift``."""
    given = ", ".join(
        f'{swift_name(port)}: {"image" if port.image else "array"}(XCTUnwrap(sample.inputs["{port.coreml}"]))'
        for port in inputs
    )
    return {
        "LEAST_DB": repr(least_db),
        "TEST_INPUTS": given,
        "TEST_OUTPUTS": "\n".join(line for port in outputs for line in _compared(port)),
    }


def _compared(port: Port) -> list[str]:
    name, kind = swift_name(port), swift_type(port)
    want = f'            let want_{port.coreml}: MLShapedArray<{kind}> = try array(XCTUnwrap(sample.outputs["{port.coreml}"]))'
    if kind == "Int32":
        return [want, f"            XCTAssertEqual(want_{port.coreml}.scalars, output.{name}.scalars)"]
    return [
        want,
        f"            XCTAssertGreaterThan(decibels(want_{port.coreml}.scalars, output.{name}.scalars), Self.leastDecibels)",
    ]
