"""Sharing out the units of a step: any schedule of the workers leads to the same bits."""

import numpy as np
import pytest

import numba_lstm as nl
from numba_lstm import schedule
from numba_lstm.layout import layout
from numba_lstm.pieces import segment_steps
from schedules import SCHEDULES, laid_out_with


@pytest.fixture(autouse=True)
def small_work_is_shared():
    with laid_out_with("schedule", _OPERATIONS_PER_WORKER=1, _BYTES_PER_WORKER_AND_STEP=1):
        yield


SIZES = pytest.mark.parametrize(
    ("T", "B", "I", "H", "L", "directions", "abreast"),
    [
        (70, 1, 3, 130, 1, 1, 1),
        (30, 2, 9, 50, 2, 2, 2),
        (3, 5, 4, 33, 3, 1, 1),
        (0, 1, 2, 40, 1, 2, 2),
        (40, 7, 11, 150, 2, 1, 1),
        (20, 16, 5, 150, 2, 2, 2),
        (20, 5, 5, 130, 2, 2, 1),
    ],
)


@pytest.fixture
def distant_weights(monkeypatch):
    """An L2 cache so small that larger batches share out units as well."""
    monkeypatch.setattr("numba_lstm.simd.cpu.cached_numbers", lambda itemsize: 1000)


@SIZES
@pytest.mark.parametrize("schedule_of_workers", list(SCHEDULES))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.usefixtures("distant_weights")
def test_same_bits(monkeypatch, T, B, I, H, L, directions, abreast, dtype, schedule_of_workers):
    random = np.random.default_rng(0)
    lstm = nl.LSTM(I, H, L, bidirectional=directions == 2, dtype=dtype, seed=0)
    x = random.standard_normal((T, B, I))
    hx = tuple(random.standard_normal((2, lstm.config.cells, B, H)))
    alone = lstm(x, hx, threads=1)
    monkeypatch.setattr("numba_lstm.threadpool.available", lambda: 5)
    monkeypatch.setattr("numba_lstm.threadpool.share_out", SCHEDULES[schedule_of_workers])
    monkeypatch.setattr(schedule, "_LEAST_GAIN_OF_STAGES", 100)
    monkeypatch.setattr(schedule, "_directions_abreast", lambda config: abreast)
    plan = layout(lstm.config, T, B, False, 5)
    assert (plan.split.tasks > 0 and plan.split.abreast == abreast) or T == 0
    shared = lstm(x, hx, threads=5)
    np.testing.assert_array_equal(shared[0], alone[0])
    for part, expected in zip(shared[1], alone[1], strict=True):
        np.testing.assert_array_equal(part, expected)


def trained(lstm, x, hx, dy, dhx, threads_back, **options):
    """Everything that a training step gives."""
    y, (h, c) = lstm.forward(x, hx, **options)
    dx, (dh0, dc0) = lstm.backward(dy, dhx, accumulate=False, threads=threads_back)
    return y, h, c, dx, dh0, dc0, lstm.gradients.flat.copy()


@SIZES
@pytest.mark.parametrize("schedule_of_workers", list(SCHEDULES))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("checkpoint", "threads"), [(None, (5, 5)), (1, (5, 5)), (None, (5, 2)), (1, (4, 5))]
)
@pytest.mark.usefixtures("distant_weights")
def test_same_bits_in_training(
    monkeypatch,
    T,
    B,
    I,
    H,
    L,
    directions,
    abreast,
    dtype,
    schedule_of_workers,
    checkpoint,
    threads,
):
    random = np.random.default_rng(0)
    lstm = nl.LSTM(
        *(I, H, L), bidirectional=directions == 2, dropout=0.5 * (L > 1), dtype=dtype, seed=0
    )
    state_shape = (2, lstm.config.cells, B, H)
    x, dy = (
        random.standard_normal((T, B, I)),
        random.standard_normal((T, B, directions * H)),
    )
    hx, dhx = (tuple(random.standard_normal(state_shape)) for _ in range(2))
    masks = lstm.dropout_state
    alone = trained(lstm, x, hx, dy, dhx, 1, threads=1)
    called = set()

    def share_out(kernel, arguments, workers):
        called.add(kernel.__name__)
        SCHEDULES[schedule_of_workers](kernel, arguments, workers)

    monkeypatch.setattr("numba_lstm.threadpool.available", lambda: 5)
    monkeypatch.setattr("numba_lstm.threadpool.share_out", share_out)
    monkeypatch.setattr(schedule, "_directions_abreast", lambda config: abreast)
    lstm.dropout_state = masks
    forward, back = threads
    shared = trained(lstm, x, hx, dy, dhx, back, checkpoint=checkpoint, threads=forward)
    if T > 0 and H > 64:
        assert {"lstm_units", "lstm_units_back"} <= called
    if checkpoint and T * B > 200:
        pieces = layout(lstm.config, T, B, True, forward, segment_steps(checkpoint, T, B)).pieces
        assert pieces.are_several
    for part, expected in zip(shared, alone, strict=True):
        np.testing.assert_array_equal(part, expected)
