"""Halves of a batch that have sums of weight gradients of their own, added up at last."""

import numpy as np
import pytest

import reference
from numba_lstm import LSTM
from numba_lstm.layout import layout
from numba_lstm.pieces import segment_steps
from schedules import laid_out_with
from strategies import Case

# Odd halves, blocks of many rows, of several steps and of one, a narrow last panel, spans.
CASES = [
    Case(40, 13, 9, 8, dtype="float32"),
    Case(70, 21, 20, 16, layers=2),
    Case(9, 257, 7, 20, layers=2, batch_first=True),
    Case(3, 401, 5, 6, bias=False),
    Case(200, 50, 1, 18, dtype="float32"),
    Case(50, 12, 200, 17),
]


def groups(config, T, B, threads=1, checkpoint=None):
    segment = segment_steps(checkpoint, T, B)
    return int(layout(config, T, B, True, threads, segment).call["groups"][0])


@pytest.fixture(autouse=True)
def small_calls_are_shared(monkeypatch):
    monkeypatch.setattr("numba_lstm.threadpool.available", lambda: 7)
    with laid_out_with("schedule", _OPERATIONS_PER_WORKER=1, _NUMBERS_PER_WORKER=1):
        yield


def gradients_of(case, threads, checkpoint=None, accumulate=False):
    lstm = case.model()
    x, h0, c0, dy, dh, dc = case.arrays()
    assert groups(lstm.config, case.T, case.B, threads, checkpoint) == 2
    for _ in range(2 if accumulate else 1):
        lstm.forward(x, (h0, c0), threads=threads, checkpoint=checkpoint)
        lstm.backward(dy, (dh, dc), threads=threads, accumulate=accumulate)
    return lstm.gradients


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_the_bits_do_not_depend_on_threads_or_pieces(case, accumulate):
    expected = gradients_of(case, 1, accumulate=accumulate).flat.copy()
    for threads, checkpoint in ((2, None), (3, None), (5, 1), (1, 16), (2, "auto"), (7, None)):
        found = gradients_of(case, threads, checkpoint, accumulate).flat
        np.testing.assert_array_equal(found, expected, f"{threads} threads, {checkpoint}")
    with laid_out_with(_CACHES_OF_A_SPAN=0):
        np.testing.assert_array_equal(gradients_of(case, 2, None, accumulate).flat, expected)


@pytest.mark.parametrize("case", [case for case in CASES if case.dtype == "float64"])
def test_they_are_those_of_the_reference(case):
    found = gradients_of(case, 2)
    x, h0, c0, dy, dh, dc = case.arrays()
    x, dy = case.time_major(x), case.time_major(dy)
    parameters = case.model().parameters
    _, _, tape = reference.lstm_forward(x, (h0, c0), parameters, case.layers)
    _, _, expected = reference.lstm_backward(tape, dy, (dh, dc), parameters, case.layers)
    for name, gradient in expected.items():
        assert reference.relative_error(found[name], gradient) < 1e-13, name


def test_only_where_rows_are_shared_out_and_inputs_are_as_many():
    assert groups(LSTM(32, 64).config, 365, 256) == 2
    assert groups(LSTM(32, 64).config, 365, 11) == 1  # half of the rows would not fill a tile
    assert groups(LSTM(32, 64).config, 2, 256) == 1  # the sums would take more than the inputs
    assert groups(LSTM(32, 64, bidirectional=True).config, 365, 256) == 1  # a direction each
