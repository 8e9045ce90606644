"""Arithmetic, comparison and logic on elements, with numpy's broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.row import ANY, FLOATS, NUMBERS, Row

Build = Callable[[Building], Any]


def binary(operation: str) -> Build:
    """The MIL operation of that name on two numbers."""

    def build(b: Building) -> Any:
        return getattr(b.mb, operation)(x=b.operand(0), y=b.operand(1))

    return build


def unary(operation: str) -> Build:
    """The MIL operation of that name on one input."""

    def build(b: Building) -> Any:
        return getattr(b.mb, operation)(x=b.x())

    return build


def _comparison(operation: str) -> Build:
    """MIL compares numbers: booleans go in as integers."""

    def build(b: Building) -> Any:
        return getattr(b.mb, operation)(x=b.number(0), y=b.number(1))

    return build


def _variadic(operation: str, mean: bool = False) -> Build:
    def build(b: Building) -> Any:
        count = len(b.node.inputs)
        y = b.operand(0)
        for index in range(1, count):
            y = getattr(b.mb, operation)(x=y, y=b.operand(index))
        if mean:
            y = b.mb.mul(x=y, y=b.like(1 / count))
        return b.mb.identity(x=y) if count == 1 else y

    return build


def _div(b: Building) -> Any:
    """ONNX rounds the quotient of integers towards zero; MIL's ``floor_div`` downwards."""
    if b.is_float():
        return b.mb.real_div(x=b.operand(0), y=b.operand(1))
    divisor = b.const(1)
    size = b.mb.floor_div(x=b.mb.abs(x=b.x(0)), y=b.mb.abs(x=b.x(1)))
    sign = b.mb.sign(x=b.x(0))
    if divisor is None or (divisor < 0).any():
        sign = b.mb.mul(x=sign, y=b.mb.sign(x=b.x(1)))
    return b.mb.mul(x=size, y=sign)


def _mod(b: Building) -> Any:
    """``fmod`` has the sign of the dividend, ONNX's other form and MIL's ``mod`` that of the divisor."""
    if not b.integer("fmod"):
        return b.mb.mod(x=b.x(0), y=b.x(1))
    rest = b.mb.mod(x=b.mb.abs(x=b.x(0)), y=b.mb.abs(x=b.x(1)))
    return b.mb.mul(x=b.mb.sign(x=b.x(0)), y=rest)


def _pow(b: Building) -> Any:
    """Squares and roots by their own operations; the exponent takes the dtype of the base."""
    exponent = b.const(1)
    if exponent is not None and exponent.size == 1 and b.rank(1) in (0, 1):
        number = float(exponent.reshape(-1)[0])
        if number == 2:
            return b.mb.square(x=b.x())
        if number == 0.5 and b.is_float():
            return b.mb.sqrt(x=b.x())
        return b.mb.pow(x=b.x(), y=b.like(number))
    if exponent is not None:
        return b.mb.pow(x=b.x(), y=b.array(exponent.astype(b.dtype(0))))
    y = b.x(1)
    if b.dtype(0) != b.dtype(1):
        kind = {"float16": "fp16", "float32": "fp32"}.get(b.dtype(0) or "", "int32")
        y = b.mb.cast(x=y, dtype=kind)
    return b.mb.pow(x=b.x(), y=y)


def _negative(b: Building) -> Any:
    return b.mb.mul(x=b.x(), y=b.like(-1))


def _reciprocal(b: Building) -> Any:
    """Not MIL's ``inverse``, which adds an epsilon."""
    return b.mb.real_div(x=b.like(1), y=b.x())


def _select(b: Building) -> Any:
    return b.mb.select(cond=b.x(0), a=b.x(1), b=b.x(2))


def _is_nan(b: Building) -> Any:
    return b.mb.not_equal(x=b.x(), y=b.x())


def _logical(b: Building) -> Any:
    operation = {"And": "logical_and", "Or": "logical_or", "Xor": "logical_xor"}[b.node.op_type]
    return getattr(b.mb, operation)(x=b.x(0), y=b.x(1))


_BOOL = frozenset({"bool"})

ROWS = (
    Row("Add", binary("add"), dtypes=NUMBERS, elementwise=True),
    Row("Sub", binary("sub"), dtypes=NUMBERS, elementwise=True),
    Row("Mul", binary("mul"), dtypes=NUMBERS, elementwise=True),
    Row("Div", _div, dtypes=NUMBERS, elementwise=True),
    Row("Mod", _mod, dtypes=NUMBERS, elementwise=True),
    Row("Pow", _pow, dtypes=NUMBERS),
    Row("Max", _variadic("maximum"), dtypes=NUMBERS, elementwise=True),
    Row("Min", _variadic("minimum"), dtypes=NUMBERS, elementwise=True),
    Row("Sum", _variadic("add"), dtypes=FLOATS, elementwise=True),
    Row("Mean", _variadic("add", mean=True), dtypes=FLOATS, elementwise=True),
    Row("Equal", _comparison("equal"), dtypes=ANY, elementwise=True),
    Row("Greater", _comparison("greater"), dtypes=NUMBERS | _BOOL, elementwise=True),
    Row("GreaterOrEqual", _comparison("greater_equal"), dtypes=NUMBERS | _BOOL, elementwise=True),
    Row("Less", _comparison("less"), dtypes=NUMBERS | _BOOL, elementwise=True),
    Row("LessOrEqual", _comparison("less_equal"), dtypes=NUMBERS | _BOOL, elementwise=True),
    Row("And", _logical, dtypes=_BOOL, elementwise=True),
    Row("Or", _logical, dtypes=_BOOL, elementwise=True),
    Row("Xor", _logical, dtypes=_BOOL, elementwise=True),
    Row("Not", unary("logical_not"), dtypes=_BOOL, elementwise=True),
    Row("Where", _select, dtypes=ANY, elementwise=True),
    Row("IsNaN", _is_nan, dtypes=FLOATS | _BOOL),
    Row("Abs", unary("abs"), dtypes=NUMBERS, elementwise=True),
    Row("Neg", _negative, dtypes=NUMBERS, elementwise=True),
    Row("Sign", unary("sign"), dtypes=NUMBERS, elementwise=True),
    Row("Reciprocal", _reciprocal, dtypes=FLOATS, elementwise=True),
    *(
        Row(name, unary(name.lower()), dtypes=FLOATS, elementwise=True)
        for name in (
            *("Floor", "Ceil", "Round", "Sqrt", "Exp", "Log", "Erf", "Sin", "Cos", "Tan"),
            *("Asin", "Acos", "Atan", "Sinh", "Cosh", "Atanh"),
        )
    ),
)
