"""Damaged and hostile engine files: a status and a message each, in a process that would not survive a crash of ours.

The slow half of this is C++ under sanitizers: ``test_native_sanitized.py``.
"""

from __future__ import annotations

import struct
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.targets.cpu.native.engine_file import encode
from edgewise.targets.cpu.native.plan import DType, Isa, Op, Plan, Storage, Tensor, dim

_BAD_FILE, _UNSUPPORTED = 3, 4
_ARRAYS = [np.full((3, 4), 2, np.float32), np.full((3, 4), 3, np.float32)]


def small() -> Plan:
    """Two inputs that share a dim, a constant, something between: every kind of entry that a file has."""
    shape = (dim("N"), dim(4))
    a, b, s, y = (Tensor(name, DType.F32, shape) for name in "absy")
    t = Tensor("t", DType.F32, shape, storage=Storage((dim("N") * 32).maximum(64)), offset_bytes=dim("N") * 16)
    c = Tensor("c", DType.F32, (dim(1), dim(4)), data=np.ones((1, 4), np.float32))
    return Plan(
        Isa.GENERIC,
        [a, b],
        [y],
        [
            Op("binary", "sum", [a, b], [s], {"function": "add"}),
            Op("binary", "more", [s, c], [t], {"function": "add", "real": 1.5, "whole": 3, "list": [1, 2], "dims": [dim("N")]}),
            Op("binary", "product", [t, a], [y], {"function": "mul"}),
        ],
    )  # fmt: skip


FILE = encode(small())


def sealed(data: bytes) -> bytes:
    """With its own length and the checksum of its plan."""
    if len(data) < 64:
        return data
    offset, size = struct.unpack_from("<QQ", data, 24)
    head = bytearray(data[:64])
    struct.pack_into("<Q", head, 16, len(data))
    struct.pack_into("<I", head, 56, zlib.crc32(data[offset : offset + size]))
    return bytes(head) + data[64:]


@pytest.fixture(params=["generic", "vec4"], ids=["here", "32 bits"])
def isa(request: pytest.FixtureRequest) -> str:
    """Of this machine, and of an emulated one whose addresses have 32 bits."""
    level: str = request.param
    return level


@pytest.fixture
def attempt(isa: str, servers: Any, tmp_path: Path) -> Any:
    """Open, prepare and run in the other process: arrays, or (status, message)."""
    file = tmp_path / "hostile.engine"

    def run(data: bytes, arrays: Any = _ARRAYS) -> Any:
        file.unlink(missing_ok=True)
        file.write_bytes(data)
        return servers.of(isa).ask("run", str(file), arrays, 1)

    return run


def refused(answer: Any) -> bool:
    return isinstance(answer, tuple) and answer[0] in range(1, 7) and len(answer[1]) > 0


def test_the_file_itself_runs(attempt):
    np.testing.assert_array_equal(attempt(FILE)[0], np.full((3, 4), 12, np.float32))


def test_cut_anywhere(attempt):
    for size in range(0, len(FILE), 3):
        answer = attempt(FILE[:size])
        assert refused(answer)
        assert answer[0] == _BAD_FILE
        assert refused(attempt(sealed(FILE[:size]))) or size > len(FILE) - 64


def test_every_flipped_byte_of_header_and_plan_is_refused(attempt):
    plan_end = 64 + struct.unpack_from("<Q", FILE, 32)[0]
    for at in [*range(60), *range(64, plan_end, 2)]:
        assert refused(attempt(FILE[:at] + bytes([FILE[at] ^ 0x55]) + FILE[at + 1 :])), at


@pytest.mark.parametrize("value", [b"\0", b"\x01", b"\x7f", b"\xff"], ids=bytes.hex)
def test_every_byte_changed_beneath_a_right_checksum(attempt, value):
    for at in range(8, len(FILE)):
        answer = attempt(sealed(FILE[:at] + value + FILE[at + 1 :]))
        assert refused(answer) or isinstance(answer, list)


@settings(max_examples=400)
@given(
    places=st.lists(st.tuples(st.integers(8, len(FILE) - 1), st.sampled_from([1, 2, 4, 8])), min_size=1, max_size=4),
    value=st.sampled_from([0, 1, 3, 5, 64, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**46, 2**63 - 1, 2**63, 2**64 - 1]),
    batch=st.sampled_from([0, 1, 3, 1000]),
)
def test_hostile_numbers_beneath_a_right_checksum(attempt, places, value, batch):
    data = bytearray(FILE)
    for at, size in places:
        field = (value % 2 ** (8 * size)).to_bytes(size, "little")
        data[at : at + size] = field[: len(data) - at]
    answer = attempt(sealed(bytes(data)), [np.ones((batch, 4), np.float32)] * 2)
    assert refused(answer) or isinstance(answer, list)


@settings(max_examples=200)
@given(data=st.binary(max_size=300), header=st.booleans())
def test_bytes_that_are_no_engine_file(attempt, data, header):
    start = (
        b"EDGEWISE" + struct.pack("<II", 1, 0) + struct.pack("<5Q", 0, 64, max(0, len(data) - 64), 0, 0)
        if header
        else b""
    )
    assert refused(attempt(sealed((start + data).ljust(64, b"\0"))))


def test_a_newer_format_and_a_foreign_processor(attempt, isa):
    version, message = attempt(FILE[:8] + b"\x02" + FILE[9:])
    assert version == _BAD_FILE
    assert "format version 2, this library reads 1" in message
    status, message = attempt(FILE[:12] + b"\x04" + FILE[13:])
    assert status == _UNSUPPORTED
    assert f"built for avx512bf16, this processor has {isa}" in message


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ([np.ones((3, 4), np.float32), np.ones((2, 4), np.float32)], "N is 3 in input a and 2 in input b"),
        ([np.ones((3, 5), np.float32)] * 2, "dim 1 of input a is 4, not 5"),
        ([np.ones((3, 4, 1), np.float32)] * 2, "input a has 2 dims, not 3"),
        ([np.ones((3, 4), np.float64)] * 2, "input a must be float32"),
        ([np.ones((3, 4), np.float32)], "wrong number of inputs"),
        ([np.ones((1,) * 12, np.float32)] * 2, "input a has 2 dims, not 9"),
    ],
)
@pytest.mark.parametrize("isa", ["generic"])  # the agent of the other one takes no such requests
def test_arrays_that_do_not_fit(attempt, arrays, expected):
    status, message = attempt(FILE, arrays)
    assert status == 1
    assert expected in message


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda plan: plan.ops[0].outputs.__setitem__(0, plan.inputs[0]), "writes into an input"),
        (lambda plan: setattr(plan.outputs[0], "storage", plan.inputs[0].storage), "in one storage"),
        (lambda plan: setattr(plan.outputs[0].storage, "size_bytes", dim(4096)), "the storage of y is larger"),
        (lambda plan: setattr(plan.outputs[0].storage, "size_bytes", dim(8)), "tensor y does not fit"),
        (lambda plan: setattr(plan.ops[1].outputs[0], "offset_bytes", dim(2)), "tensor t does not fit"),
        (
            lambda plan: setattr(plan.ops[1].outputs[0], "dims", (dim("N") - 10, dim(4))),
            "dim 0 of tensor t would be -7",
        ),
        (
            lambda plan: setattr(plan.ops[1].outputs[0], "dims", (dim("N") * 2**62, dim(4))),
            "too large, or divided by nothing",
        ),
        (
            lambda plan: setattr(plan.ops[1].outputs[0], "dims", (dim("N") // (dim("N") - 3), dim(4))),
            "too large, or divided",
        ),
        (lambda plan: setattr(plan.ops[0], "op", "nonesuch"), "no operator nonesuch"),
        (lambda plan: setattr(plan.ops[0], "outputs", [plan.ops[1].inputs[1]]), "writes a constant"),
    ],
)
def test_plans_that_contradict_themselves(attempt, change, expected):
    plan = small()
    change(plan)
    answer = attempt(encode(plan))
    assert refused(answer)
    assert expected in answer[1]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        # 2^26 rows of 16 bytes: a tensor of 2^30 bytes fits, one of more does not, though its size fits 64 bits.
        (lambda t: setattr(t, "dims", (dim("N") * 2**25, dim(4))), "tensor t is too large for any memory"),
        # Less than 2^32, more when the address is added: it would wrap.
        (lambda t: setattr(t.storage, "size_bytes", dim("N") * (2**32 // 3)), "tensor t does not fit its place"),
        (lambda t: setattr(t.storage, "size_bytes", dim("N") * 2**32 + 64), "tensor t does not fit its place"),
        # Each fits, all together do not.
        (lambda t: setattr(t.storage, "size_bytes", dim(2**30)), "the activations are too large for any memory"),
    ],
)
@pytest.mark.parametrize("isa", ["vec4"])
def test_more_than_32_bits_hold_is_refused_there(attempt, change, expected):
    plan = small()
    change(plan.ops[1].outputs[0])
    answer = attempt(encode(plan))
    assert refused(answer)
    assert expected in answer[1]


def test_a_name_that_is_no_text(native, tmp_path):
    file = tmp_path / "name.engine"
    file.write_bytes(sealed(FILE.replace(b"\x01\0\0\0y", b"\x01\0\0\0\xff")))
    assert native.Engine(str(file)).outputs[0][0] == "\ufffd"


def test_other_files(native, tmp_path):
    for path, status in ((tmp_path, 2), (tmp_path / "none", 2), (Path("/dev/null"), 2)):
        with pytest.raises(native.NativeError) as caught:
            native.Engine(str(path))
        assert caught.value.args[0] == status


def test_two_threads_in_one_context(native, tmp_path):
    plan = small()
    file = tmp_path / "small.engine"
    file.write_bytes(encode(plan))
    context = native.Context(native.Engine(str(file)), threads=2)
    arrays = [np.ones((20000, 4), np.float32)] * 2
    answers: list[Any] = []

    def use() -> None:
        for _ in range(20):
            try:
                answers.append(float(context.run(arrays)[0][-1, -1]))
            except native.NativeError as error:
                answers.append(error.args[0])

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(answers) <= {3.0, 6}
    assert 3.0 in answers
