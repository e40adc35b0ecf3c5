"""Sharing out the stages of a stack: any schedule of the workers leads to the same bits."""

import numpy as np
import pytest

import numba_lstm as nl
from numba_lstm import schedule
from schedules import SCHEDULES, laid_out_with


@pytest.fixture(autouse=True)
def small_work_is_shared():
    with laid_out_with("schedule", _OPERATIONS_PER_WORKER=1, _OPERATIONS_OF_A_WAVE=1):
        yield


@pytest.mark.parametrize("schedule_of_workers", list(SCHEDULES))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("T", "B", "I", "H", "L", "threads"),
    [
        *((400, 1, 1, 18, 3, 2), (800, 2, 3, 8, 2, 2), (70, 1, 130, 40, 2, 2)),
        *((60, 5, 9, 20, 5, 5), (49, 3, 16, 16, 4, 3), (500, 1, 300, 20, 1, 2)),
        *((100, 3, 400, 75, 1, 3), (100, 2, 700, 33, 2, 4)),
    ],
)
def test_same_bits(monkeypatch, T, B, I, H, L, threads, dtype, schedule_of_workers):
    random = np.random.default_rng(0)
    lstm = nl.LSTM(I, H, L, dtype=dtype, seed=0)
    x = random.standard_normal((T, B, I))
    hx = tuple(random.standard_normal((2, L, B, H)))
    alone = lstm(x, hx, threads=1)
    called = set()

    def share_out(kernel, arguments, workers):
        called.add(kernel.__name__)
        SCHEDULES[schedule_of_workers](kernel, arguments, workers)

    monkeypatch.setattr("numba_lstm.threadpool.available", lambda: threads)
    monkeypatch.setattr("numba_lstm.threadpool.share_out", share_out)
    if T > 700:  # chunks that are shorter than the schedule has in mind
        monkeypatch.setattr("numba_lstm.layout.LONGEST_CHUNK", 12)
    monkeypatch.setattr(schedule, "_gain_of_rows", lambda *sizes: 1)
    plan = lstm.plan(T, B)
    assert (plan.split, plan.threads) == ("stages", threads)
    shared = lstm(x, hx)
    assert called == {"lstm_wavefront"}
    np.testing.assert_array_equal(shared[0], alone[0])
    for part, expected in zip(shared[1], alone[1], strict=True):
        np.testing.assert_array_equal(part, expected)


def test_stages_are_shared_out_where_that_gains(monkeypatch):
    monkeypatch.setattr("numba_lstm.threadpool.available", lambda: 2)
    monkeypatch.setattr("numba_lstm.simd.cpu.cached_numbers", lambda itemsize: 10**9)

    def split(T, B, I, H, L, **options):
        return nl.LSTM(I, H, L, **options).plan(T, B).split

    assert split(500, 1, 64, 64, 2) == "stages"
    assert split(500, 6, 64, 64, 2) == "rows"  # from which several workers have enough to do
    assert split(500, 1, 64, 64, 1) != "stages"  # it would be handed over for next to nothing
    assert split(500, 1, 160, 64, 1) == "stages"
    assert split(500, 2, 160, 64, 1) == "stages"
    assert split(500, 2, 64, 64, 1) == "rows"  # each has as much to do
    assert split(500, 3, 64, 64, 1) == "stages"  # one would have two
    assert split(500, 1, 64, 64, 2, bidirectional=True) == "directions"
    assert split(9, 1, 2048, 64, 1) != "stages"  # too few steps for a tile, as in a stream
    assert split(10, 1, 2048, 64, 1) == "stages"
    assert split(12, 1, 64, 64, 2) != "stages"  # one would wait for the other most of the time
    assert split(500, 1, 2048, 64, 2) == "stages"  # nearly all of it is one layer's inputs
    recurrent = 4 * 64 * 64
    for numbers, found in ((recurrent, True), (recurrent // 2, False)):  # held, or read from afar
        with laid_out_with("simd.cpu", cached_numbers=lambda itemsize, kept=numbers: kept):
            assert (split(500, 1, 64, 64, 2) == "stages") is found
