"""No memory for arrays is taken in the steady state, beyond the results."""

import gc
import tracemalloc

import numpy as np
import pytest

import numba_lstm as nl

# Of Python's own objects while a call runs: arguments, views, tables of sizes (50,000 with the
# oldest Numba), and a buffer of NumPy's (65,536).
BESIDE = 80_000


def bytes_kept(call, times=3):
    """Bytes of NumPy's arrays that are there after a call and were not before."""
    for _ in range(3):
        call()
    gc.collect()
    domain = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
    tracemalloc.start()
    try:
        kept = [call() for _ in range(times)]
        after = tracemalloc.take_snapshot().filter_traces([domain])
        assert len(kept) == times
        return sum(trace.size for trace in after.traces) / times
    finally:
        tracemalloc.stop()


def most_bytes(call):
    """Most bytes that Python and NumPy held at any time of a call."""
    for _ in range(3):
        call()
    return most_bytes_now(call)


def most_bytes_now(call):
    """The same of the very next call."""
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


SHAPES = [
    (90, 30, 50, 20, 2, False, 1),
    (60, 80, 30, 64, 1, True, 2),
    (40, 20, 80, 256, 1, False, 2),
]


@pytest.mark.parametrize(("T", "B", "I", "H", "L", "bidirectional", "threads"), SHAPES)
def test_inference(T, B, I, H, L, bidirectional, threads):
    lstm = nl.LSTM(I, H, L, bidirectional=bidirectional, threads=threads)
    x = np.ones((T, B, I), np.float32)
    y, hx = lstm(x)
    assert x.nbytes > 3 * BESIDE
    assert bytes_kept(lambda: lstm(x, hx)) == nbytes((y, *hx))
    assert most_bytes(lambda: lstm(x, hx)) < nbytes((y, *hx)) + BESIDE
    out = (y, hx)
    assert bytes_kept(lambda: lstm(x, hx, out=out)) == 0
    assert most_bytes(lambda: lstm(x, hx, out=out)) < BESIDE


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

    assert bytes_kept(step) == nbytes((forward, backward))
    assert most_bytes(step) < nbytes((forward, backward)) + BESIDE

    def step_in_place():
        return lstm.forward(x, out=forward), lstm.backward(dy, out=backward)

    assert bytes_kept(step_in_place) == 0
    assert most_bytes(step_in_place) < BESIDE


def test_linear_and_embedding():
    linear, embedding = nl.Linear(300, 400), nl.Embedding(9, 300)
    tokens = np.zeros((200, 100), np.int64)
    x, y = np.empty((200, 100, 300), np.float32), np.empty((200, 100, 400), np.float32)
    for call in (lambda: embedding(tokens, out=x), lambda: linear(x, out=y)):
        assert bytes_kept(call) == 0
        assert most_bytes(call) < BESIDE < tokens.nbytes


@pytest.mark.parametrize("features", [10, 300])  # to look up for each token, or to project once
def test_what_passes_between_the_layers_of_a_model(features):
    tokens = np.arange(8000).reshape(400, 20) % 50
    model = nl.Sequential(nl.Embedding(50, features), nl.LSTM(features, 20), nl.Linear(20, 9))
    y, hx = model(tokens)
    dy = np.ones_like(y)
    most = BESIDE + 3 * tokens.nbytes  # to number them
    assert most < 8000 * 20 * 4

    def step():
        return model.forward(tokens, out=y), model.backward(dy)

    assert bytes_kept(lambda: model(tokens, out=y)) == nbytes(hx)
    assert most_bytes(lambda: model(tokens, out=y)) < most
    assert bytes_kept(step) == 2 * nbytes(hx)
    assert most_bytes(step) < most


def test_two_arrays_are_enough_between_the_layers_of_a_deep_model():
    model = nl.Sequential(*(nl.Linear(100, 100) for _ in range(8)))
    x = np.ones((2000, 100), np.float32)
    y, dy = np.empty_like(x), np.ones_like(x)
    model(x[:1])  # which packs the weights
    assert most_bytes_now(lambda: model(x, out=y)) < 2 * x.nbytes + BESIDE
    model.forward(x, out=y)
    model.backward(dy, input_gradient=False)
    model.forward(x, out=y)
    assert most_bytes_now(lambda: model.backward(dy, input_gradient=False)) < BESIDE


@pytest.mark.parametrize("loss", [nl.softmax_cross_entropy, nl.mse])
def test_a_trainer_asks_for_no_outputs_and_no_gradients_of_theirs(loss):
    """Of what a step makes, the loss of each prediction is left."""
    model = nl.Sequential(nl.LSTM(20, 30), nl.Linear(30, 5000))
    trainer = nl.Trainer(model, loss, nl.Adam(model.parameters), clip=1.0)
    x = np.ones((6, 4, 20), np.float32)
    classes, numbers = np.ones((6, 4), int), np.ones((6, 4, 5000), np.float32)
    target = classes if loss is nl.softmax_cross_entropy else numbers
    predictions = 6 * 4 * 5000 * 4
    assert most_bytes(lambda: trainer.step(x, target)) < predictions / 20


@pytest.mark.parametrize("build", [lambda: nl.LSTM(900, 600), lambda: nl.Linear(900, 2000)])
def test_weights_are_drawn_in_little_more_than_their_room(build):
    assert most_bytes(build) < 1.3 * build().parameters.flat.nbytes


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
