"""Any number of Python threads at once: the bits of the calls one by one, and no harm to others."""

import threading

import numpy as np
import pytest

import numba_lstm as nl
from scripts import run_under

LAYERS = ("omp", "workqueue", "tbb")

MANY_THREADS = """
import random
import threading

import numba
import numpy as np

import numba_lstm as nl
from numba_lstm import threadpool

calls = int(sys.argv[1])
shared_out = {"rows": 0, "units": 0}
share_out = threadpool.share_out

def counting(kernel, arguments, workers):
    if workers > 1:
        shared_out["units" if kernel.__name__ == "lstm_units" else "rows"] += 1
    share_out(kernel, arguments, workers)

threadpool.share_out = counting

def normal(*shape):
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)

stack = nl.LSTM(32, 64, 2, seed=0)
both = nl.LSTM(20, 48, bidirectional=True, dtype="float64", seed=1)
wide = nl.LSTM(64, 512, seed=2)
if threadpool.available() > 1:
    assert stack.plan(20, 24).split == "rows", stack.plan(20, 24)
    assert wide.plan(12, 1).split == "units", wide.plan(12, 1)

# Whole sequences, of mixed sizes: what one thread of Python alone gets from one worker.
jobs = []
for model, T, B in [
    (stack, 20, 24), (stack, 3, 1), (stack, 7, 61), (both, 15, 40), (both, 30, 2),
    (wide, 12, 1), (wide, 5, 3),
]:
    x = normal(T, B, model.config.input_size)
    y, (h, c) = model(x, threads=1)
    jobs.append((model, x, (y, h, c)))

# Streams whose steps are large enough to be shared out, by rows and by units, and a small one.
batch = nl.LSTM(64, 128, seed=3)
streams = []
for model, B in [(batch, 32), (wide, 1), (stack, 1)]:
    x = normal(9, B, model.config.input_size)
    streams.append((model, x, model(x, threads=1)[0]))

def run(number):
    chosen = random.Random(number)
    own = [[model.stream(x.shape[1]), 0, x, y] for model, x, y in streams]
    for _ in range(calls):
        if chosen.random() < 0.3:
            stream = chosen.choice(own)
            feed, t, x, y = stream
            found, expected = (feed.step(x[t]),), (y[t],)
            stream[1] = (t + 1) % len(x)
            if stream[1] == 0:
                feed.reset()
        else:
            model, x, expected = chosen.choice(jobs)
            y, (h, c) = model(x, threads=chosen.choice([1, 2, None]))
            found = (y, h, c)
        for a, b in zip(found, expected):
            assert a.tobytes() == b.tobytes()

@numba.njit(parallel=True)
def host(values):
    total = 0
    for k in numba.prange(values.size):
        total += values[k]
    return total

stop = threading.Event()

def run_host():
    numba.set_num_threads(1 + numba.config.NUMBA_NUM_THREADS // 2)
    before = numba.get_num_threads()
    values = np.arange(1000)
    while not stop.wait(0.001):
        assert host(values) == 499500
        assert numba.get_num_threads() == before

host(np.arange(3))
errors = []

def catching(function, *arguments):
    try:
        function(*arguments)
    except BaseException as error:
        errors.append(repr(error))
        raise

beside = threading.Thread(target=catching, args=(run_host,))
workers = [threading.Thread(target=catching, args=(run, number)) for number in range(8)]
beside.start()
for thread in workers:
    thread.start()
for thread in workers:
    thread.join()
stop.set()
beside.join()
assert not errors, errors
print(shared_out)
if threadpool.available() > 1:
    assert min(shared_out.values()) > calls // 10, shared_out
"""


@pytest.mark.parametrize("layer", LAYERS)
def test_eight_threads_beside_a_host_with_regions_of_its_own(layer):
    run_under(layer, MANY_THREADS, 40)


@pytest.mark.exhaustive
@pytest.mark.parametrize("layer", LAYERS)
def test_eight_threads_for_long(layer):
    run_under(layer, MANY_THREADS, 1000, timeout=1800)


class Held:
    """Holds the first kernel that is called until it is let go."""

    def __init__(self, share_out):
        self.share_out = share_out
        self.reached, self.go = threading.Event(), threading.Event()

    def __call__(self, *arguments):
        if not self.reached.is_set():
            self.reached.set()
            assert self.go.wait(60)
        self.share_out(*arguments)


def forward_of(lstm, x, dy):
    lstm.forward(x)


def backward_of(lstm, x, dy):
    lstm.backward(dy)


@pytest.mark.parametrize("second", [forward_of, backward_of])
@pytest.mark.parametrize("first", [forward_of, backward_of])
def test_a_second_training_call_at_once_is_refused(first, second, monkeypatch):
    random = np.random.default_rng(0)
    x, dy = random.standard_normal((4, 3, 5)), random.standard_normal((4, 3, 6))

    def trained(lstm):
        lstm.forward(x)
        lstm.gradients.zero()
        lstm.gradients["bias_l0"] = np.arange(24)
        before = lstm.gradients.flat.copy()
        return before

    lstm, alone = (nl.LSTM(5, 6, dtype="float64", seed=1) for _ in range(2))
    before = trained(lstm)
    trained(alone)
    first(alone, x, dy)

    held = Held(nl.threadpool.share_out)
    monkeypatch.setattr("numba_lstm.threadpool.share_out", held)
    thread = threading.Thread(target=first, args=(lstm, x, dy))
    thread.start()
    try:
        assert held.reached.wait(60)
        with pytest.raises(RuntimeError, match="training state belongs to one call at a time"):
            second(lstm, x, dy)
        np.testing.assert_array_equal(lstm.gradients.flat, before)
        y, _ = lstm(x)  # inference goes on beside it
    finally:
        held.go.set()
        thread.join()
    np.testing.assert_array_equal(y, alone(x)[0])
    # The first call ended as if there had been no second.
    np.testing.assert_array_equal(lstm.gradients.flat, alone.gradients.flat)
    for model in (lstm, alone):
        if first is backward_of:
            model.forward(x)
        model.backward(dy)
    np.testing.assert_array_equal(lstm.gradients.flat, alone.gradients.flat)


def test_threads_run_a_model_whose_layers_borrow_while_another_goes_back():
    random = np.random.default_rng(0)
    model = nl.Sequential(
        nl.Linear(8, 30, seed=0), nl.LSTM(30, 40, seed=1), nl.Linear(40, 5, seed=2)
    )
    inputs = [random.standard_normal((T, B, 8)).astype(np.float32) for T, B in ((9, 4), (3, 30))]
    expected = [model(x)[0] for x in inputs]
    dy = np.ones((9, 4, 5), np.float32)
    model.forward(inputs[0])
    dx, _ = model.backward(dy, accumulate=False)
    wrong = []

    def infer(number):
        for turn in range(200):
            place = (number + turn) % 2
            y, _ = model(inputs[place])
            if not np.array_equal(y, expected[place]):
                wrong.append((number, turn))

    threads = [threading.Thread(target=infer, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(100):
        model.forward(inputs[0])
        np.testing.assert_array_equal(model.backward(dy, accumulate=False)[0], dx)
    for thread in threads:
        thread.join()
    assert not wrong
