"""How many threads a call takes, what bounds them, and that the host's settings stay."""

import os
import pathlib
import signal
import threading
import time

import numba
import numpy as np
import pytest

import numba_lstm as nl
from numba_lstm import schedule, threadpool
from scripts import run_script, run_under

ROWS = (20, 24, nl.LSTM(32, 64, seed=0))
UNITS = (12, 1, nl.LSTM(64, 512, seed=1))


def call(T, B, lstm, **options):
    x = np.random.default_rng(0).standard_normal((T, B, lstm.config.input_size))
    return lstm(x, **options)[0]


@pytest.fixture
def shares(monkeypatch):
    """Workers of every kernel but those that pack weights, which one thread runs one by one."""
    counted = []

    def share_out(kernel, arguments, workers):
        if not kernel.__name__.startswith("pack_"):
            counted.append(workers)
        for worker in range(workers):
            kernel(*arguments, worker, workers)

    monkeypatch.setattr(threadpool, "share_out", share_out)
    return counted


@pytest.fixture
def machine(monkeypatch):
    """A machine with 64 cores, all of which this process may use."""
    monkeypatch.setattr(threadpool.cpu, "cores", lambda: 64)
    monkeypatch.setattr(threadpool, "_quota", lambda: float("inf"))
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 64)
    return monkeypatch


def test_threads_is_an_upper_bound(machine):
    assert threadpool.available() == threadpool.resolve(None) == threadpool.resolve(1000) == 64
    assert [threadpool.resolve(most) for most in (1, 2, 63, 64)] == [1, 2, 63, 64]


@pytest.mark.parametrize(
    ("cores", "quota", "limit", "expected"),
    [
        (8, 64.0, 64, 8),
        (64, 8.0, 64, 8),
        (64, 64.0, 8, 8),
        (64, 7.9, 64, 7),
        (64, 0.1, 64, 1),
        (1, 64.0, 64, 1),
    ],
)
def test_what_bounds_all_of_them(machine, cores, quota, limit, expected):
    machine.setattr(threadpool.cpu, "cores", lambda: cores)
    machine.setattr(threadpool, "_quota", lambda: quota)
    machine.setattr(numba.config, "NUMBA_NUM_THREADS", limit)
    assert threadpool.available() == threadpool.resolve(None) == threadpool.resolve(64) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("150000 100000\n", 1.5),
        ("max 100000\n", float("inf")),
        ("", float("inf")),
        ("a b\n", float("inf")),
        (None, float("inf")),
    ],
)
def test_quota_of_the_control_group(content, expected, monkeypatch):
    def read_text(path):
        assert str(path) == "/sys/fs/cgroup/cpu.max"
        if content is None:
            raise FileNotFoundError(path)
        return content

    monkeypatch.setattr(pathlib.Path, "read_text", read_text)
    threadpool._quota.cache_clear()
    try:
        assert threadpool._quota() == expected
    finally:
        threadpool._quota.cache_clear()


AVAILABLE = """
import os, sys
if sys.argv[1] != "all":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import numba_lstm as nl
from numba_lstm import threadpool
print(threadpool.available(), nl.LSTM(32, 64).plan(100, 64).threads)
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="there is no affinity here")
@pytest.mark.parametrize(
    ("affinity", "environment"),
    [("one", {}), ("all", {"NUMBA_NUM_THREADS": "1"})],
)
def test_one_core_or_one_thread_of_numba(affinity, environment):
    assert run_script(AVAILABLE, affinity, **environment).split() == ["1", "1"]


FORGOTTEN = """
import os
from numba_lstm import threadpool
threadpool._quota = threadpool.functools.cache(lambda: next(quotas))
quotas = iter([1.0, float("inf")])
assert threadpool._quota() == threadpool._quota() == 1
name = threadpool.layer()
assert threadpool._state.layer == name
child = os.fork()
if child == 0:
    forgotten = threadpool._state.layer is None and threadpool._quota() == float("inf")
    os._exit(0 if forgotten and threadpool.layer() == name else 1)
assert os.waitpid(child, 0)[1] == 0
assert threadpool._state.layer == name and threadpool._quota() == 1
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_looks_at_its_layer_and_quota_anew():
    run_script(FORGOTTEN)


def test_the_layer_is_asked_for_once(monkeypatch):
    name = threadpool.layer()

    def launch():
        raise AssertionError("Numba takes locks here")

    monkeypatch.setattr(threadpool.numba_pool, "_launch_threads", launch)
    assert threadpool.layer() == name


@pytest.mark.parametrize(("T", "B", "lstm"), [ROWS, UNITS])
def test_a_call_takes_as_many_workers_as_its_plan_says(machine, shares, T, B, lstm):
    y = call(T, B, lstm, threads=1)
    for most in (1, 2, 5, 64, None):
        bounded = nl.LSTM.from_state_dict(lstm.state_dict(), threads=most)
        plan = bounded.plan(T, B)
        shares.clear()
        np.testing.assert_array_equal(call(T, B, bounded), y)
        assert shares == [plan.threads]
        assert plan.threads <= (most or 64)
        assert (plan.threads > 1) == (most != 1)


def test_the_bound_of_the_model_holds_unless_the_call_has_one(machine, shares):
    T, B, _ = ROWS
    lstm = nl.LSTM(32, 64, seed=0, threads=2)
    call(T, B, lstm)
    call(T, B, lstm, threads=1)
    call(T, B, lstm, threads=3)
    assert shares == [2, 1, 3]


@pytest.mark.parametrize("sizes", [(1, 1, 64, 64), (10, 1, 64, 64), (1, 8, 64, 64), (0, 9, 3, 4)])
def test_a_small_call_is_one_workers(machine, shares, sizes):
    T, B, I, H = sizes
    lstm = nl.LSTM(I, H, seed=0)
    x = np.ones((T, B, I), np.float32)
    assert lstm.plan(T, B).threads == 1
    lstm(x, threads=64)
    lstm(x)
    lstm.forward(x)
    lstm.backward()
    if T == 1:
        lstm.stream(B).step(x[0])
    assert set(shares) == {1}
    assert len(shares) == 5  # a step of one worker goes straight to the kernel


@pytest.mark.parametrize("bound_of", ["model", "stream"])
def test_the_bound_of_a_stream_holds_for_all_layers(machine, shares, bound_of):
    x = np.ones((10, 256, 32), np.float32)
    for most in (1, 3):
        layers = nl.Linear(32, 256), nl.LSTM(256, 256), nl.Linear(256, 512)
        model = nl.Sequential(*layers, threads=most if bound_of == "model" else None)
        stream = model.stream(256, threads=None if bound_of == "model" else most)
        shares.clear()
        stream.step(x[0])
        stream.process(x)
        assert set(shares) == {most}


@pytest.mark.parametrize("failing", [0, 1])
def test_a_call_that_fails_leaves_nobody_at_work(failing):
    """Its workspace goes to the next call."""
    finished = []

    def kernel(worker, workers):
        if worker == failing:
            raise KeyboardInterrupt
        time.sleep(0.2)
        finished.append(worker)

    with pytest.raises(KeyboardInterrupt):
        threadpool._share_out_among_own_threads(kernel, (), 3)
    assert sorted(finished) == [worker for worker in range(3) if worker != failing]


def test_whatever_interrupts_a_call_nobody_is_left_at_work(monkeypatch):
    """Ctrl-C between handing a share over and anything else; and while it is waited for."""
    finished = []

    def kernel(worker, workers):
        time.sleep(0.1)
        finished.append(worker)

    class Interrupted:
        def __init__(self, queue):
            self.queue = queue

        def put(self, share):
            self.queue.put(share)
            raise KeyboardInterrupt

    queue = threadpool._queue_of_own_threads()
    monkeypatch.setattr(threadpool, "_queue_of_own_threads", lambda: Interrupted(queue))
    with pytest.raises(KeyboardInterrupt):
        threadpool._share_out_among_own_threads(kernel, (), 3)
    assert sorted(finished) == [0, 1, 2]
    monkeypatch.undo()

    finished.clear()
    late = threading.Timer(0.02, signal.raise_signal, [signal.SIGINT])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        late.start()
        with pytest.raises(KeyboardInterrupt):
            threadpool._share_out_among_own_threads(kernel, (), 2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert finished == [1]


def test_workers_grow_with_the_work(machine, shares):
    lstm = nl.LSTM(64, 128, seed=0)
    for T in (1, 4, 16, 64):
        call(T, 64, lstm)
    assert shares == sorted(shares)
    assert 1 < shares[0] < shares[-1] <= 64
    operations = lstm.config.operations(1, 64)
    assert shares[0] <= operations // schedule._OPERATIONS_PER_WORKER


AT_EXIT = """
import atexit
import numpy as np
import numba_lstm as nl
lstm = nl.LSTM(32, 64, 2, seed=0)
x = np.ones((20, 24, 32))
y = lstm(x, threads=1)[0].tobytes()
atexit.register(lambda: print(lstm(x)[0].tobytes() == y))
if sys.argv[1] == "called":
    assert lstm(x)[0].tobytes() == y
"""


@pytest.mark.parametrize("before", ["called", "not called"])
@pytest.mark.parametrize("layer", ["omp", "workqueue"])
def test_a_call_as_the_interpreter_ends(layer, before):
    assert run_under(layer, AT_EXIT, before) == "True\n"


# What the host has set.


@pytest.fixture
def host():
    """A host that lets Numba use one thread, and hands out its iterations three by three."""
    threads_before = numba.get_num_threads()
    chunk_before = numba.set_parallel_chunksize(3)
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(threads_before)
    numba.set_parallel_chunksize(chunk_before)


def settings_of_host():
    return numba.get_num_threads(), numba.get_parallel_chunksize()


@pytest.fixture
def regions(monkeypatch):
    """Workers of each parallel region."""
    if threadpool.available() < 2 or threadpool.layer() == "workqueue":
        pytest.skip("calls enter no parallel region here")
    seen = []
    region = threadpool.all_shares

    def observed(entry, arguments, workers):
        seen.append(workers)
        region(entry, arguments, workers)

    monkeypatch.setattr(threadpool, "all_shares", observed)
    return seen


@pytest.mark.parametrize(("T", "B", "lstm"), [ROWS, UNITS])
def test_numbas_settings_are_the_hosts_again(host, regions, T, B, lstm):
    y = call(T, B, lstm, threads=1)
    assert settings_of_host() == (1, 3)
    assert regions == []
    np.testing.assert_array_equal(call(T, B, lstm, threads=2), y)
    assert settings_of_host() == (1, 3)
    assert regions == [2]
    lstm.forward(np.ones((T, B, lstm.config.input_size)), threads=2)
    lstm.backward(threads=2)
    assert settings_of_host() == (1, 3)
    assert len(regions) >= 2
    assert set(regions) == {2}


@numba.njit(nogil=True)
def note_thread(threads_of_workers, worker, workers):
    threads_of_workers[worker] = numba.get_thread_id()


def test_workers_have_a_thread_each_whatever_the_host_has_set(host, regions):
    if threadpool.layer() != "omp":
        pytest.skip("elsewhere one thread may come by before the other wakes up")
    threads_of_workers = np.full(2, -1)
    threadpool.share_out(note_thread, (threads_of_workers,), 2)
    assert regions == [2]
    assert sorted(threads_of_workers) == [0, 1]
    assert settings_of_host() == (1, 3)


@pytest.mark.usefixtures("regions")
def test_numbas_settings_are_the_hosts_again_after_an_error(host, monkeypatch):
    def fail(*arguments):
        raise KeyboardInterrupt

    T, B, lstm = ROWS
    with monkeypatch.context() as patch:
        patch.setattr(threadpool, "all_shares", fail)
        with pytest.raises(KeyboardInterrupt):
            call(T, B, lstm, threads=2)
    assert settings_of_host() == (1, 3)
    with pytest.raises(ValueError, match="x must have shape"):
        lstm(np.ones((T, B, 7)))
    with pytest.raises(ValueError, match="threads must be"):
        call(T, B, lstm, threads=0)
    assert settings_of_host() == (1, 3)


def test_blas_pools_are_as_they_were():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    T, B, lstm = ROWS
    x = np.ones((T, B, 32))
    np.ones((50, 50)) @ np.ones((50, 50))
    lstm(x)  # loads Numba's threading layer

    def pools():
        return {pool["filepath"]: pool["num_threads"] for pool in threadpoolctl.threadpool_info()}

    for limit in (1, 2):
        with threadpoolctl.threadpool_limits(limit):
            before = pools()
            assert before
            for most in (1, None):
                lstm.forward(x, threads=most)
                lstm.backward(threads=most)
                call(*UNITS, threads=most)
            with pytest.raises(ValueError, match="x must have shape"):
                lstm(x[0, :, :7])
            assert pools() == before
