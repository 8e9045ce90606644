"""Products: Einsum, vectors, Gemm of computed values, Fourier transforms, Col2Im."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgewise.targets.cpu.native.context import (
    attribute_float,
    attribute_int,
    attribute_ints,
    attribute_text,
    constant_array,
)
from edgewise.targets.cpu.native.value import Refusal
from edgewise.targets.cpu.native.written.writer import Writer, constant, given, need, rank_of, shape_of


def matmul(node: ir.Node, write: Writer) -> list[ir.Value] | None:
    """A vector as a matrix of one row or column."""
    a, b = need(node, 0), need(node, 1)
    left, right = a.shape is not None and rank_of(a) == 1, b.shape is not None and rank_of(b) == 1
    if not left and not right:
        return None
    product = write("MatMul", write("Unsqueeze", a, [0]) if left else a, write("Unsqueeze", b, [-1]) if right else b)
    return [write("Squeeze", product, [axis for axis, gone in ((-2, left), (-1, right)) if gone])]


def gemm(node: ir.Node, write: Writer) -> list[ir.Value] | None:
    """Where the weights are computed, or there are factors: a product, its factor, its sum."""
    a, b, c = need(node, 0), need(node, 1), given(node, 2)
    alpha, beta = attribute_float(node, "alpha", 1.0), attribute_float(node, "beta", 1.0)
    known = _known(b) and (c is None or (_known(c) and rank_of(c) == 1))
    if known and alpha == 1 and not attribute_int(node, "transA", 0):
        return None
    a = write("Transpose", a, perm=[1, 0]) if attribute_int(node, "transA", 0) else a
    b = write("Transpose", b, perm=[1, 0]) if attribute_int(node, "transB", 0) else b
    made = write("MatMul", a, b)
    made = made if alpha == 1 else write("Mul", made, alpha)
    if c is not None:
        made = write("Add", made, c if beta == 1 else write("Mul", c, beta))
    return [made]


def _known(value: ir.Value) -> bool:
    """Whether it is a constant, or integers that are one and stand for numbers."""
    maker = value.producer()
    if maker is not None and maker.op_type == "DequantizeLinear" and maker.inputs[0] is not None:
        value = maker.inputs[0]
    return constant_array(value) is not None


# -- Einsum


def einsum(node: ir.Node, write: Writer) -> list[ir.Value]:
    """Two operands at a time, as one product of matrices for each of the shared letters that stay."""
    values = [need(node, index) for index in range(len(node.inputs))]
    terms, wanted = _terms(attribute_text(node, "equation", ""), [rank_of(value) for value in values])
    value, letters = _summed(write, values[0], terms[0], wanted + "".join(terms[1:]))
    for index in range(1, len(values)):
        keep = wanted + "".join(terms[index + 1 :])
        other, own = _summed(write, values[index], terms[index], keep + letters)
        value, letters = _pair(write, (value, letters), (other, own), keep)
    value, letters = _summed(write, value, letters, wanted)
    if letters != wanted:
        value = write("Transpose", value, perm=[letters.index(letter) for letter in wanted])
    return [value]


def _terms(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """The letters of each operand and of the result, an ellipsis as capitals that the equation does not use."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    free = [letter for letter in "ZYXWVUTSRQPONMLKJIHGFEDCBA" if letter not in equation]
    spans = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True)]
    most = max((span for span, term in zip(spans, terms, strict=True) if "..." in term), default=0)
    names = "".join(free[:most])
    terms = [term.replace("...", names[most - span :] if span else "") for term, span in zip(terms, spans, strict=True)]
    if not arrow:
        letters = "".join(terms)
        right = names + "".join(sorted(letter for letter in set(letters) - set(names) if letters.count(letter) == 1))
    right = right.replace("...", names)
    if any(len(set(term)) < len(term) for term in [*terms, right]):
        raise Refusal("Einsum along a diagonal")
    return terms, right


def _summed(write: Writer, value: ir.Value, letters: str, keep: str) -> tuple[ir.Value, str]:
    """Without the letters that nothing needs."""
    gone = [index for index, letter in enumerate(letters) if letter not in keep]
    if not gone:
        return value, letters
    return write("ReduceSum", value, gone, keepdims=0), "".join(letter for letter in letters if letter in keep)


def _pair(write: Writer, a: tuple[ir.Value, str], b: tuple[ir.Value, str], keep: str) -> tuple[ir.Value, str]:
    shared = [letter for letter in a[1] if letter in b[1]]
    batch = "".join(letter for letter in shared if letter in keep)
    inner = "".join(letter for letter in shared if letter not in keep)
    rows = "".join(letter for letter in a[1] if letter not in shared)
    columns = "".join(letter for letter in b[1] if letter not in shared)
    if not inner:
        return _outer(write, a, b, batch, rows, columns), batch + rows + columns
    left = _ordered(write, a, batch + rows + inner)
    right = _ordered(write, b, batch + inner + columns)
    left = write("Reshape", left, _counts(len(batch), len(rows), shape_of(left)))
    right = write("Reshape", right, _counts(len(batch), len(inner), shape_of(right)))
    sizes = dict(zip(a[1] + b[1], shape_of(a[0]) + shape_of(b[0]), strict=True))
    letters = batch + rows + columns
    if not batch:
        left, right = write("Squeeze", left, [0]), write("Squeeze", right, [0])
    made = write.reshape(write("MatMul", left, right), [sizes[letter] for letter in letters])
    made.shape = ir.Shape([sizes[letter] for letter in letters])
    return made, letters


def _outer(
    write: Writer, a: tuple[ir.Value, str], b: tuple[ir.Value, str], batch: str, rows: str, columns: str
) -> ir.Value:
    """Where no letter is summed, each with each."""
    first, second = len(batch), len(batch + rows)
    left, right = _ordered(write, a, batch + rows), _ordered(write, b, batch + columns)
    left = write("Unsqueeze", left, list(range(second, second + len(columns)))) if columns else left
    right = write("Unsqueeze", right, list(range(first, second))) if rows else right
    made = write("Mul", left, right)
    sizes = dict(zip(a[1] + b[1], shape_of(a[0]) + shape_of(b[0]), strict=True))
    made.shape = ir.Shape([sizes[letter] for letter in batch + rows + columns])
    return made


def _counts(batch: int, first: int, sizes: list[int]) -> list[int]:
    return [int(np.prod(part)) for part in (sizes[:batch], sizes[batch : batch + first], sizes[batch + first :])]


def _ordered(write: Writer, operand: tuple[ir.Value, str], letters: str) -> ir.Value:
    value, own = operand
    perm = [own.index(letter) for letter in letters]
    made = write("Transpose", value, perm=perm) if perm != sorted(perm) else value
    sizes = shape_of(value)
    if made is not value:
        made.shape = ir.Shape([sizes[axis] for axis in perm])
    return made


# -- Fourier


def dft(node: ir.Node, write: Writer) -> list[ir.Value]:
    """Products with tables of cosines and sines."""
    x = need(node, 0)
    sizes, length, last = shape_of(x), constant(node, 1), constant(node, 2)
    axis = (
        attribute_int(node, "axis", 1)
        if last is None and (node.version or 20) < 20
        else -2
        if last is None
        else int(last.reshape(-1)[0])
    )
    axis %= len(sizes)
    inverse, one_sided = attribute_int(node, "inverse", 0), attribute_int(node, "onesided", 0)
    if inverse and one_sided:
        raise Refusal("an inverse DFT of one side")
    count = sizes[axis] if length is None else int(length.reshape(-1)[0])
    parts = [write.pick(x, len(sizes) - 1, index) for index in range(sizes[-1])]
    return [_fourier(write, parts, sizes[:-1], axis, count, inverse=bool(inverse), one_sided=bool(one_sided))]


def _fourier(
    write: Writer, parts: list[ir.Value], sizes: list[int], axis: int, count: int, *, inverse: bool, one_sided: bool
) -> ir.Value:
    """Of the real part and (if there is one) the imaginary part, joined as a new last axis."""
    used = min(sizes[axis], count)
    outputs = count // 2 + 1 if one_sided else count
    angle = 2 * np.pi * (np.outer(np.arange(used), np.arange(outputs)) % count) / count
    scale = 1 / count if inverse else 1.0
    cosine, sine = (
        np.asarray(table * scale, np.float32) for table in (np.cos(angle), np.sin(angle) * (-1 if inverse else 1))
    )
    perm = [index for index in range(len(sizes)) if index != axis] + [axis]
    back = [perm.index(index) for index in range(len(sizes))]
    lines = [write("Transpose", write.cut(part, axis, 0, used), perm=perm) for part in parts]
    real, imaginary = write("MatMul", lines[0], cosine), write("Neg", write("MatMul", lines[0], sine))
    if len(lines) > 1:
        real = write("Add", real, write("MatMul", lines[1], sine))
        imaginary = write("Add", imaginary, write("MatMul", lines[1], cosine))
    made = [write("Unsqueeze", write("Transpose", one, perm=back), [-1]) for one in (real, imaginary)]
    return write("Concat", *made, axis=-1)


def stft(node: ir.Node, write: Writer) -> list[ir.Value]:
    """The transforms of frames of a signal."""
    signal, step, window, length = need(node, 0), constant(node, 1), given(node, 2), constant(node, 3)
    sizes = shape_of(signal)
    if step is None or (window is None and length is None):
        raise Refusal("frames of an unknown length")
    count = shape_of(window)[0] if length is None and window is not None else int(np.asarray(length).reshape(-1)[0])
    hop = int(step.reshape(-1)[0])
    frames = (sizes[1] - count) // hop + 1
    places = np.arange(frames)[:, None] * hop + np.arange(count)
    parts = [
        write("Gather", write.pick(signal, 2, index), places, axis=1)
        for index in range(sizes[2] if len(sizes) > 2 else 1)
    ]
    parts = [part if window is None else write("Mul", part, window) for part in parts]
    one_sided = bool(attribute_int(node, "onesided", 1))
    return [_fourier(write, parts, [sizes[0], frames, count], 2, count, inverse=False, one_sided=one_sided)]


def col2im(node: ir.Node, write: Writer) -> list[ir.Value]:
    """A transposed convolution whose kernel puts each row of columns at its place."""
    x, image, block = need(node, 0), constant(node, 1), constant(node, 2)
    if image is None or block is None or image.size != 2:
        raise Refusal("Col2Im of other than two axes")
    kernel, size = [int(one) for one in block], [int(one) for one in image]
    strides, dilations = (attribute_ints(node, name) or [1, 1] for name in ("strides", "dilations"))
    pads = attribute_ints(node, "pads") or [0] * 4
    images, rows, _ = shape_of(x)
    each, reach = (
        int(np.prod(kernel)),
        [dilation * (one - 1) + 1 for dilation, one in zip(dilations, kernel, strict=True)],
    )
    counts = [(size[a] + pads[a] + pads[a + 2] - reach[a]) // strides[a] + 1 for a in range(2)]
    weights = np.tile(np.eye(each, dtype=np.float32).reshape(each, 1, *kernel), (rows // each, 1, 1, 1))
    made = write(
        "ConvTranspose",
        write.reshape(x, [images, rows, *counts]),
        weights,
        group=rows // each,
        strides=strides,
        dilations=dilations,
    )
    whole = [(counts[a] - 1) * strides[a] + reach[a] for a in range(2)]
    for axis in range(2):
        rest = pads[axis] + size[axis] - whole[axis]
        if rest > 0:
            ends = [0] * 8
            ends[6 + axis] = rest
            made = write("Pad", made, ends)
        made = write.cut(made, 2 + axis, pads[axis], pads[axis] + size[axis])
    return [made]


RULES = {"Col2Im": col2im, "DFT": dft, "Einsum": einsum, "Gemm": gemm, "MatMul": matmul, "STFT": stft}
