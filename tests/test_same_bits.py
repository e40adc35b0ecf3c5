"""The same bits, whatever shares out the work, is in the batch, or cuts the sequence."""

import copy
import os
import platform
import secrets
import subprocess
import sys

import numpy as np
import pytest

from numba_lstm import (
    SGD,
    Adam,
    AdamW,
    Parameters,
    RMSprop,
    clip_by_global_norm,
    mse,
    softmax_cross_entropy,
)
from numba_lstm.optimizers import global_norm
from schedules import SMALL_WORK_IS_SHARED, laid_out_with
from strategies import Case

SEED = int(os.environ.get("NUMBA_LSTM_SEED", 0))


def random_case(random):
    """A model of any size, and a few with more units or steps than fit the usual ones."""
    dtype = ("float32", "float64")[random.integers(2)]
    return Case(
        T=int(random.choice([0, 1, 2, 3, 7, 13, 30, 60, 130])),
        B=int(random.choice([1, 2, 3, 4, 5, 6, 7, 11, 13, 20])),
        I=int(random.integers(1, 131)),
        H=int(random.integers(1, 131)),
        layers=int(random.integers(1, 4)),
        bidirectional=bool(random.integers(2)),
        bias=bool(random.integers(2)),
        batch_first=bool(random.integers(2)),
        dtype=dtype,
        seed=int(random.integers(2**31)),
    )


def bits(array):
    """The bits of an array: NaNs count with their payload, and zeros with their sign."""
    array = np.ascontiguousarray(array)
    return array.view(f"u{array.itemsize}")


def assert_same(found, expected, what):
    for name, array in expected.items():
        np.testing.assert_array_equal(bits(found[name]), bits(array), f"{name}: {what}")


def trained(case, x, h0, c0, dy, dh, dc, threads=None, threads_back=None, checkpoint=None):
    """All results of a forward and a backward pass by name."""
    lstm = case.model()
    y, (h, c) = lstm.forward(x, (h0, c0), threads=threads, checkpoint=checkpoint)
    dx, (dh0, dc0) = lstm.backward(dy, (dh, dc), threads=threads_back or threads)
    gradients = lstm.gradients.flat
    return {"y": y, "h": h, "c": c, "dx": dx, "dh0": dh0, "dc0": dc0, "gradients": gradients}


def inferred(lstm, x, h0, c0, **options):
    """All results of inference by name."""
    y, (h, c) = lstm(x, (h0, c0), **options)
    return {"y": y, "h": h, "c": c}


def rows_of(results, rows, batch_axis):
    """The part of results by name that belongs to some rows."""
    axes = {"y": batch_axis, "dx": batch_axis}
    return {
        name: np.take(array, rows, axis=axes.get(name, 1))
        for name, array in results.items()
        if name != "gradients"
    }


class Workers:
    """Shares out every kernel among so many workers, who run one by one in any order."""

    def __init__(self, random):
        self.random = random
        self.calls = 0
        self.kernels = set()

    def share_out(self, kernel, arguments, workers):
        self.calls += workers > 1
        self.kernels.add(kernel.__name__)
        for worker in self.random.permutation(workers):
            kernel(*arguments, int(worker), workers)


@pytest.fixture
def workers(monkeypatch):
    """Let even the smallest calls be shared among as many as 7."""
    many = Workers(np.random.default_rng(SEED))
    monkeypatch.setattr("numba_lstm.threadpool.share_out", many.share_out)
    monkeypatch.setattr("numba_lstm.threadpool.available", lambda: 7)
    with laid_out_with("schedule", **SMALL_WORK_IS_SHARED):
        yield many


def stages_preferred():
    """Sharing out stages wherever there are several, whatever that gains."""
    preferred = {"_LEAST_GAIN_OF_STAGES": 0, "_BYTES_PER_WORKER_AND_STEP": 1 << 40}
    return laid_out_with("schedule", **preferred, _gain_of_rows=lambda *sizes: 0)


def small_cache(numbers):
    """A CPU whose L2 cache keeps so few numbers that sums go on panel by panel in stretches."""
    return laid_out_with("simd.cpu", cached_numbers=lambda itemsize: numbers)


def check(case, random):
    """Compare all ways to the same results."""
    x, h0, c0, dy, dh, dc = case.arrays()
    # What begins with zeros leaves out a product: all rows, some, or none.
    h0[:, random.random(case.B) < random.choice([0, 0.5, 1])] = 0
    arrays = (x, h0, c0, dy, dh, dc)
    batch_axis = 0 if case.batch_first else 1
    lstm = case.model()
    whole = trained(case, *arrays, threads=1)
    forward = {name: whole[name] for name in ("y", "h", "c")}
    for threads in (1, 2, int(random.integers(3, 8))):
        what = f"{threads} threads, {case}"
        assert_same(trained(case, *arrays, threads=threads), whole, what)
        for _ in range(2):  # the second time through the panels the other way
            assert_same(inferred(lstm, x, h0, c0, threads=threads), forward, f"inference, {what}")
    checkpointed = trained(case, *arrays, threads=2, checkpoint=int(random.integers(1, 20)))
    assert_same(checkpointed, whole, f"checkpoints, {case}")
    # Fewer workers on the way back take the rows that others have left.
    fewer = trained(case, *arrays, threads=7, threads_back=int(random.integers(1, 7)))
    assert_same(fewer, whole, f"fewer threads on the way back, {case}")
    threads, checkpoint = (int(random.integers(1, 8)) for _ in range(2))
    with laid_out_with(_CACHES_OF_A_SPAN=0):
        for segments in (None, checkpoint):
            spans = trained(case, *arrays, threads=threads, checkpoint=segments)
            assert_same(spans, whole, f"spans, {segments} steps a segment, {threads}, {case}")

    with stages_preferred():
        assert_same(inferred(lstm, x, h0, c0), forward, f"inference, by stages, {case}")

    with small_cache(int(random.choice([0, 1000, 3000, 10000]))):
        assert_same(trained(case, *arrays, threads=2), whole, f"small cache, {case}")
        assert_same(inferred(lstm, x, h0, c0), forward, f"inference, small cache, {case}")

    def part(rows):
        axes = (batch_axis, 1, 1, batch_axis, 1, 1)
        return [np.take(a, rows, axis=axis) for a, axis in zip(arrays, axes, strict=True)]

    for rows in ([int(random.integers(case.B))], random.permutation(case.B)):
        expected = rows_of(whole, rows, batch_axis)
        some = part(rows)
        smaller = Case(**{**case.__dict__, "B": len(rows)})
        found = trained(smaller, *some)
        assert_same(found, expected, f"rows {rows}, {case}")
        forward_of_rows = {name: expected[name] for name in ("y", "h", "c")}
        assert_same(inferred(lstm, *some[:3]), forward_of_rows, f"rows {rows}, {case}")

    if not case.bidirectional:
        cuts = np.sort(random.integers(0, case.T + 1, 2))
        state, pieces = (h0, c0), []
        for chunk in np.split(x, cuts, axis=1 - batch_axis):
            piece, state = lstm(chunk, state)
            pieces.append(piece)
        found = {"y": np.concatenate(pieces, 1 - batch_axis), "h": state[0], "c": state[1]}
        assert_same(found, forward, f"chunks at {cuts}, {case}")


def test_random_configurations(workers):
    random = np.random.default_rng(0)
    for _ in range(25):
        check(random_case(random), random)
    assert workers.calls > 100
    assert {"lstm_forward", "lstm_units", "lstm_wavefront"} <= workers.kernels


@pytest.mark.exhaustive
def test_more_random_configurations(workers):
    seed = SEED or secrets.randbelow(2**32)
    print(f"NUMBA_LSTM_SEED={seed}")
    random = np.random.default_rng(seed)
    for _ in range(300):
        check(random_case(random), random)


def test_on_real_threads():
    random = np.random.default_rng(1)
    for T, B, I, H, L in [(50, 20, 30, 64, 2), (40, 3, 20, 256, 1), (9, 1, 300, 300, 2)]:
        for bidirectional in (False, True):
            check(Case(T, B, I, H, L, bidirectional, dtype="float32"), random)


FLUSHED = """
import sys
import numba
import numpy as np
from numba import prange
import numba_lstm as nl
from numba_lstm.simd.mode import enter_default_mode, restore_mode

FLUSH_AND_DENORMALS_ARE_ZERO_AND_ROUND_DOWN = 0x1F80 | 0x8040 | 0x2000

@numba.njit
def set_mode(mode):
    restore_mode(mode)

@numba.njit
def mode():
    before = enter_default_mode()
    restore_mode(before)
    return before & ~0x3F  # without the flags of past exceptions

@numba.njit(parallel=True)
def set_everywhere(mode):
    for k in prange(64):
        restore_mode(mode)

def results():
    tiny = np.float32(1e-30)
    random = np.random.default_rng(0)
    lstm = nl.LSTM(20, 40, 2, bias=False, seed=0)
    with lstm.parameters.edit() as flat:
        flat *= np.float32(1e-5)
    x = random.standard_normal((40, 12, 20)).astype(np.float32) * tiny
    found = []
    for threads in (1, 2):
        y, (h, c) = lstm.forward(x, threads=threads)
        inferred, _ = lstm(x, threads=threads)
        lstm.gradients.zero()
        dy = np.ones_like(y)
        dx, _ = lstm.backward(dy * tiny, threads=threads)
        found += [y, inferred, h, c, dx, lstm.gradients.flat.copy()]
    linear = nl.Linear(20, 3, bias=False, seed=0)
    found += [linear(x * np.float32(1e-8))]
    _, dy = nl.mse(y * np.float32(1e-3), np.zeros_like(y))
    found += [dy]
    nl.SGD(lstm.parameters, lr=1e-6).step(lstm.gradients)
    found += [lstm.parameters.flat.copy()]
    return found
"""


def updated(kind, options, scale, workers, dtype):
    """Parameters and moments behind two steps."""
    parameters, gradients = (Parameters({"a": (100_003,)}, dtype) for _ in range(2))
    random = np.random.default_rng(SEED)
    parameters["a"], gradients["a"] = random.standard_normal((2, 100_003))
    optimizer = kind(parameters, **options)
    for _ in range(2):
        optimizer.step(gradients, scale=scale, threads=workers)
    return {"parameters": parameters.flat, **optimizer.state_dict()}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (SGD, {"momentum": 0.9}),
        (SGD, {"momentum": 0.9, "nesterov": True}),
        (Adam, {"weight_decay": 0.1}),
        (AdamW, {}),
        (RMSprop, {"momentum": 0.5}),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_update_has_the_same_bits_however_it_is_shared_out(workers, dtype, kind, options):
    expected = updated(kind, options, 0.37, 1, dtype)
    for count in (2, 3, 7):
        assert_same(updated(kind, options, 0.37, count, dtype), expected, (kind, count))
    assert workers.calls


@pytest.mark.parametrize("size", [1, 16_384, 16_385, 100_003])
def test_a_norm_has_the_same_bits_however_it_is_shared_out(workers, size):
    gradients = Parameters({"a": (size,)}, "float32")
    gradients["a"] = np.random.default_rng(SEED).standard_normal(size)
    expected = global_norm(gradients, threads=1)
    assert {global_norm(gradients, threads=count) for count in range(2, 8)} == {expected}
    clipped = copy.deepcopy(gradients)
    clip_by_global_norm(clipped, 0.5 * expected, threads=1)
    for count in (2, 7):
        again = copy.deepcopy(gradients)
        assert clip_by_global_norm(again, 0.5 * expected, threads=count) == expected
        np.testing.assert_array_equal(bits(again.flat), bits(clipped.flat))
    assert workers.calls or size == 1


@pytest.mark.parametrize("shape", [(1, 1), (5, 7, 33), (3, 20_000), (70_000,)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", [mse, softmax_cross_entropy])
def test_a_loss_has_the_same_bits_however_it_is_shared_out(workers, loss, dtype, weighted, shape):
    random = np.random.default_rng(SEED)
    y = random.standard_normal(shape).astype(dtype)
    classes = random.integers(0, shape[-1], shape[:-1])
    target = classes if loss is softmax_cross_entropy else random.standard_normal(shape)
    options = {"weights": random.integers(1, 3, shape[:-1])} if weighted else {}
    expected, gradient = loss(y, target, threads=1, **options)
    for count in (2, 3, 7):
        over = y.copy()
        found, dy = loss(over, target, out=over, threads=count, **options)
        assert found == expected
        np.testing.assert_array_equal(bits(dy), bits(gradient))
    by_pieces = loss is mse and not weighted
    assert bool(workers.calls) == (y.size > 16_384 if by_pieces else y.size > shape[-1])


# Every kernel runs between a change to the host's mode and one back, so that NumPy's own part of
# the test is computed alike in both.
HOST = """
from numba_lstm import threadpool

share_out = threadpool.share_out
host = {"mode": 0x1F80}

def in_the_hosts_mode(function):
    def run(*arguments):
        set_mode(host["mode"])
        try:
            result = function(*arguments)
            assert mode() == host["mode"], hex(mode())
            return result
        finally:
            set_mode(0x1F80)
    return run

threadpool.share_out = in_the_hosts_mode(share_out)

plain = results()
denormal = sum(int(((a != 0) & (np.abs(a) < 1.2e-38)).sum()) for a in plain)
assert denormal > 100, denormal
host["mode"] = FLUSH_AND_DENORMALS_ARE_ZERO_AND_ROUND_DOWN
set_everywhere(host["mode"])
set_mode(host["mode"])
assert float(np.float32(1e-30) * np.float32(1e-10)) == 0, "the mode was not set"
set_mode(0x1F80)
flushed = results()
for number, (a, b) in enumerate(zip(plain, flushed)):
    assert np.array_equal(a, b), number
"""


def test_the_hosts_floating_point_mode_does_not_matter():
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("sets the mode of x86")
    done = subprocess.run(
        [sys.executable, "-c", FLUSHED + HOST], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
