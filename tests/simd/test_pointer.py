"""Pointers: made from an index, moved, read and written in the array's own dtype."""

import numba
import numpy as np
import pytest
from numba.core.errors import TypingError

from numba_lstm.simd.pointer import address

DTYPES = [np.float32, np.float64, np.int64, np.int8]


@numba.njit
def read(array, start, steps, index):
    return (address(array, start) + steps)[index]


@numba.njit
def read_behind(array, start, steps, index):
    return (address(array, start) - steps)[index]


@numba.njit
def write(array, start, index, value):
    pointer = address(array, start)
    pointer[index] = value


@numba.njit
def walk(array, count):
    """Sum of the first numbers, the pointer moved from one to the next."""
    pointer = address(array, 0)
    total = 0.0
    for _ in range(count):
        total += pointer[0]
        pointer = pointer + 1
    return total


@pytest.mark.parametrize("dtype", DTYPES)
def test_reads_at_start_plus_steps_plus_index(dtype):
    array = np.arange(3, 23).astype(dtype)
    for start, steps, index in [(0, 0, 0), (5, 0, 0), (5, 3, 0), (5, 3, 2), (9, -4, -5)]:
        value = read(array, start, steps, index)
        assert value == read_behind(array, start, -steps, index) == array[start + steps + index]


@pytest.mark.parametrize("dtype", DTYPES)
def test_writes_one_number_and_no_other(dtype):
    array = np.arange(10).astype(dtype)
    write(array, 4, 3, 42)
    assert array.tolist() == [0, 1, 2, 3, 4, 5, 6, 42, 8, 9]


@pytest.mark.parametrize("dtype", DTYPES)
def test_moves(dtype):
    assert walk(np.arange(10).astype(dtype), 7) == 21


def test_values_are_cast_to_the_dtype_behind_the_pointer():
    single = np.zeros(1, np.float32)
    write(single, 0, 0, 0.1)
    assert single[0] == np.float32(0.1)
    whole = np.zeros(1, np.int64)
    write(whole, 0, 0, 2.75)
    assert whole[0] == 2


@pytest.mark.parametrize("integer", [np.int32, np.uint8, np.int64])
def test_any_integer_type_moves_and_indexes(integer):
    assert read(np.arange(10.0), 0, integer(3), integer(4)) == 7
    array = np.zeros(10)
    write(array, integer(1), integer(2), 1.0)
    assert array[3] == 1


@pytest.mark.parametrize("array", [np.zeros((2, 2)), np.zeros(10)[::2]], ids=["2-D", "strided"])
def test_only_flat_contiguous_arrays_have_an_address(array):
    with pytest.raises(TypingError):
        read(array, 0, 0, 0)


def test_floats_neither_move_nor_index():
    with pytest.raises(TypingError):
        read(np.zeros(4), 0, 1.0, 0)
    with pytest.raises(TypingError):
        read(np.zeros(4), 0, 0, 1.0)
