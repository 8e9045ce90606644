"""Tensors of other libraries without a copy: what numpy and torch say of the same memory."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from edgewise.runtime import dlpack
from edgewise.runtime.dlpack import DeviceTensor, borrow, to_library
from edgewise.runtime.errors import RunError


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "uint8", "int8", "bool"])
@pytest.mark.parametrize("shape", [(3, 4), (), (0, 2), (1, 5, 1)])
def test_borrowed_and_given_are_the_same_memory(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.ones(shape, dtype)
    seen = borrow(array, None)
    assert (seen.shape, seen.dtype, seen.device, seen.nbytes) == (shape, array.dtype, (1, 0), array.nbytes)
    assert array.size == 0 or seen.address == array.ctypes.data
    given = np.from_dlpack(DeviceTensor(array.ctypes.data, shape, array.dtype, (1, 0), array))
    assert given.shape == shape and given.dtype == array.dtype
    assert array.size == 0 or np.shares_memory(given, array)


def test_torch_takes_and_gives_without_a_copy() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    seen = borrow(tensor, None)
    assert seen.address == tensor.data_ptr() and seen.shape == (2, 3)
    back = to_library({"y": seen}, tensor)["y"]
    assert isinstance(back, torch.Tensor) and back.data_ptr() == tensor.data_ptr()


def test_memory_is_let_go_by_whoever_had_it_last() -> None:
    gc.collect()
    before = len(dlpack._exported)
    array = np.arange(4.0)
    tensor = DeviceTensor(array.ctypes.data, (4,), array.dtype, (1, 0), array)
    taken, unused = np.from_dlpack(tensor), tensor.__dlpack__()
    assert len(dlpack._exported) == before + 2
    del taken, unused
    gc.collect()
    assert len(dlpack._exported) == before


def test_gaps_and_odd_types_are_refused() -> None:
    with pytest.raises(RunError, match="expected a tensor without gaps"):
        borrow(np.arange(6.0).reshape(2, 3).T, None)
    torch = pytest.importorskip("torch")
    with pytest.raises(RunError, match="type code 4 with 16 bits"):
        borrow(torch.ones(2, dtype=torch.bfloat16), None)


def test_a_library_without_from_dlpack_gets_what_there_is() -> None:
    assert to_library({"y": 1}, object()) == {"y": 1}
