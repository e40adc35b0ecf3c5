"""No memory for arrays is taken in the steady state, beyond the results."""

import gc
import tracemalloc

import numpy as np
import pytest

import numba_lstm as nl


def peak_of_arrays(call, times=3):
    """Most bytes of NumPy's arrays that calls held beyond what was there before."""
    for _ in range(3):
        call()
    gc.collect()
    domain = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
    tracemalloc.start()
    try:
        kept = []
        for _ in range(times):
            kept.append(call())
        after = tracemalloc.take_snapshot().filter_traces([domain])
        return sum(trace.size for trace in after.traces) / times
    finally:
        tracemalloc.stop()


def most_of_arrays(call):
    """Most bytes of NumPy's arrays that a call held at any time."""
    for _ in range(3):
        call()
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def nbytes(result):
    """Bytes of all arrays in nested tuples."""
    if isinstance(result, tuple):
        return sum(map(nbytes, result))
    return 0 if result is None else result.nbytes


SHAPES = [(9, 3, 5, 20, 2, False, 1), (60, 8, 30, 64, 1, True, 2), (40, 2, 30, 256, 1, False, 2)]


@pytest.mark.parametrize(("T", "B", "I", "H", "L", "bidirectional", "threads"), SHAPES)
def test_inference(T, B, I, H, L, bidirectional, threads):
    lstm = nl.LSTM(I, H, L, bidirectional=bidirectional, threads=threads)
    x = np.ones((T, B, I), np.float32)
    y, hx = lstm(x)
    assert peak_of_arrays(lambda: lstm(x, hx)) == nbytes((y, *hx))
    out = (y, hx)
    assert peak_of_arrays(lambda: lstm(x, hx, out=out)) == 0


@pytest.mark.parametrize(("T", "B", "I", "H", "L", "bidirectional", "threads"), SHAPES)
def test_training(T, B, I, H, L, bidirectional, threads):
    lstm = nl.LSTM(I, H, L, bidirectional=bidirectional, threads=threads)
    x = np.ones((T, B, I), np.float32)
    dy = np.ones((T, B, lstm.config.output_size), np.float32)
    forward = lstm.forward(x)
    backward = lstm.backward(dy)

    def step():
        lstm.gradients.zero()
        return lstm.forward(x), lstm.backward(dy)

    assert peak_of_arrays(step) == nbytes((forward, backward))


def test_linear_and_embedding():
    linear, embedding = nl.Linear(30, 40), nl.Embedding(9, 30)
    tokens = np.zeros((5, 6), np.int64)
    x, y = np.empty((5, 6, 30), np.float32), np.empty((5, 6, 40), np.float32)
    assert peak_of_arrays(lambda: embedding(tokens, out=x)) == 0
    assert peak_of_arrays(lambda: linear(x, out=y)) == 0


@pytest.mark.parametrize("loss", [nl.softmax_cross_entropy, nl.mse])
def test_a_trainer_asks_for_no_outputs_and_no_gradients_of_theirs(loss):
    """Of what a step makes, the loss of each prediction and what passes between layers is left."""
    model = nl.Sequential(nl.LSTM(20, 30), nl.Linear(30, 5000))
    trainer = nl.Trainer(model, loss, nl.Adam(model.parameters), clip=1.0)
    x = np.ones((6, 4, 20), np.float32)
    classes, numbers = np.ones((6, 4), int), np.ones((6, 4, 5000), np.float32)
    target = classes if loss is nl.softmax_cross_entropy else numbers
    predictions = 6 * 4 * 5000 * 4
    assert most_of_arrays(lambda: trainer.step(x, target)) < predictions / 20


def resident():
    """Bytes of memory that this process holds."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * 4096


@pytest.mark.parametrize("calls", [3000, pytest.param(100_000, marks=pytest.mark.exhaustive)])
def test_memory_stays_flat_over_calls_of_any_shape(calls):
    random = np.random.default_rng(0)
    lstm = nl.LSTM(6, 20, 2)
    memory = np.ones((40, 20, 6), np.float32)

    def run(count):
        for _ in range(count):
            T, B = random.integers(1, 40), random.integers(1, 20)
            lstm(memory[:T, :B])

    run(1000)
    before = resident()
    run(calls)
    assert resident() - before < 4 << 20
