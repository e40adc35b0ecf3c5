"""Where the rows of a batch stand, and which are a worker's."""

import numba
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from numba_lstm.kernels.gradient_tasks import BlockTerms
from numba_lstm.kernels.kept import kept_term
from numba_lstm.kernels.rooms import room_with, rows_in_room
from numba_lstm.kernels.tables import CALL
from numba_lstm.kernels.term_numbers import number_terms
from numba_lstm.simd.pointer import address


def call_of(batch, rooms, steps):
    call = np.zeros(1, CALL)
    call["batch"], call["rooms"], call["gate_steps"] = batch, min(batch, rooms), steps
    return call


@numba.njit
def rows_of_workers(calls, workers):
    """Worker, room, row, and whether it stands there, of all rows that anybody takes."""
    call = calls[0]
    taken = []
    for worker in range(workers):
        for number in range(call.rooms):
            room, first, rows = rows_in_room(call, number, worker, workers)
            for row in range(first, first + rows):
                taken.append((worker, number, row, 0 <= row - room.first < room.rows))
    return taken


@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 9))
def test_every_row_is_one_workers(batch, rooms, workers):
    call = call_of(batch, rooms, 1)
    taken = rows_of_workers(call, workers)
    assert [row for _, _, row, _ in taken] == list(range(batch))
    assert all(is_there for *_, is_there in taken)
    if workers == call["rooms"][0]:
        assert all(worker == room for worker, room, *_ in taken)


@numba.njit
def number_block(calls, kept, step, steps, row, rows, numbers):
    number_terms(calls[0], kept, BlockTerms(step, steps, row, rows), address(numbers, 0))


@numba.njit
def number_of(calls, step, row):
    return kept_term(calls[0], step, room_with(calls[0], row), row)


@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 9), st.integers(0, 5), st.data())
def test_terms_are_numbered_room_by_room(batch, rooms, steps, kept, data):
    call = call_of(batch, rooms, steps)
    all_numbers = np.array([[number_of(call, t, b) for b in range(batch)] for t in range(steps)])
    np.testing.assert_array_equal(np.sort(all_numbers, axis=None), np.arange(steps * batch))
    # Within a room one step stands behind another.
    _, room, *_ = zip(*rows_of_workers(call, int(call["rooms"][0])), strict=True)
    assert (np.diff(all_numbers[0])[np.diff(room) == 0] == 1).all()
    first, last = sorted(data.draw(st.lists(st.integers(0, steps), min_size=2, max_size=2)))
    row, end = sorted(data.draw(st.lists(st.integers(0, batch), min_size=2, max_size=2)))
    numbers = np.full((last - first, end - row), -1)
    number_block(call, kept, kept + first, last - first, row, end - row, numbers.reshape(-1))
    np.testing.assert_array_equal(numbers, all_numbers[first:last, row:end])
