"""Processes that are forked or spawned from one that has called models: the same bits there."""

import os
import sys

import pytest

from scripts import run_script, run_under

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
LAYERS = ("omp", "workqueue")

# Models whose calls are shared out, and what they give on one thread.
MODELS = """
import numpy as np

import numba_lstm as nl
from numba_lstm import threadpool

def normal(*shape):
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)

rows, units = nl.LSTM(32, 64, 2, seed=0), nl.LSTM(64, 512, seed=1)
inputs = {rows: normal(20, 24, 32), units: normal(12, 1, 64)}
splits = {model.plan(*x.shape[:2]).split for model, x in inputs.items()}
assert splits == ({"rows", "units"} if threadpool.available() > 1 else {"none"}), splits
expected = {model: model(x, threads=1)[0].tobytes() for model, x in inputs.items()}

def infer(number=0):
    for model, x in inputs.items():
        y, _ = model(x)
        assert y.tobytes() == expected[model]

def train(number=0):
    y, _ = rows.forward(inputs[rows])
    rows.gradients.zero()
    dx, _ = rows.backward(np.ones_like(y))
    return y.tobytes() + dx.tobytes() + rows.gradients.flat.tobytes()
"""

CHILDREN = """
import os
import signal
import threading
import traceback

def begin_child(check):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(90)  # of which a child dies that waits for ever
            check()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child

def end_child(child):
    _, status = os.waitpid(child, 0)
    assert status == 0, f"a child ended with status {status}"

def in_child(check):
    end_child(begin_child(check))
"""

FORKS = """
def with_children_of_its_own():
    infer()
    in_child(infer)
    infer()

def check_training():
    assert train() == trained

if sys.argv[1] == "called":
    infer()

children = [begin_child(infer), begin_child(with_children_of_its_own)]
infer()
for child in children:
    end_child(child)
infer()
trained = train()
in_child(check_training)
in_child(infer)
"""


@pytest.mark.parametrize("parent", ["called", "imported"])
@pytest.mark.parametrize("layer", LAYERS)
def test_fork(layer, parent):
    start = run_under if parent == "called" else run_before_threads
    start(layer, MODELS + CHILDREN + FORKS, parent)


def run_before_threads(layer, script, *arguments):
    """Run a script that begins without Numba's threads."""
    return run_script("import sys\n" + script, *arguments, NUMBA_THREADING_LAYER=layer)


POOL = """
import multiprocessing
import jobs

context = multiprocessing.get_context(sys.argv[1])
if sys.argv[1] == "forkserver":
    context.set_forkserver_preload(["jobs"])
jobs.infer()
with context.Pool(2) as pool:
    pool.map(jobs.infer, range(8), chunksize=1)
    found = pool.map(jobs.train, range(4), chunksize=1)
jobs.infer()
assert set(found) == {jobs.train()}
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("layer", LAYERS)
def test_pools(layer, method, tmp_path):
    (tmp_path / "jobs.py").write_text(MODELS + "\ninfer()\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    run_under(layer, POOL, method, PYTHONPATH=path)


SERVICE = """
def serve():
    errors = []

    def handle():
        try:
            for _ in range(10):
                infer()
        except BaseException as error:
            errors.append(error)

    handlers = [threading.Thread(target=handle) for _ in range(4)]
    for handler in handlers:
        handler.start()
    for handler in handlers:
        handler.join()
    assert not errors, errors

infer()
children = [begin_child(serve) for _ in range(2)]
serve()
for child in children:
    end_child(child)
# A worker that died is forked again, while others are at work in the parent.
serving = threading.Thread(target=serve)
serving.start()
while serving.is_alive():
    in_child(infer)
serving.join()
"""


@pytest.mark.parametrize("layer", LAYERS)
def test_a_service_that_loads_its_model_before_it_forks(layer):
    run_under(layer, MODELS + CHILDREN + SERVICE)


# A thread is held at some place of its call, and a child is forked meanwhile.
HELD = """
import contextlib
import types

@contextlib.contextmanager
def held(owner, name, call):
    reached, go = threading.Event(), threading.Event()
    original = getattr(owner, name)

    def hold(*arguments, **options):
        if threading.current_thread() is thread:
            reached.set()
            assert go.wait(60)
        return original(*arguments, **options)

    thread = threading.Thread(target=call)
    setattr(owner, name, hold)
    thread.start()
    try:
        assert reached.wait(60)
        yield
    finally:
        go.set()
        thread.join()
        setattr(owner, name, original)

def stream_of_rows():
    stream.reset()
    for x, y in zip(inputs[rows], np.frombuffer(expected[rows], np.float32).reshape(20, 24, 64)):
        assert stream.step(x).tobytes() == y.tobytes()

def stream_of_one_row():
    single.reset()
    for x, y in zip(inputs[rows], np.frombuffer(expected[rows], np.float32).reshape(20, 24, 64)):
        assert single.step(x[:1]).tobytes() == y[:1].tobytes()

def train_anew():
    try:
        rows.backward()
    except RuntimeError as error:
        assert "needs a forward before it" in str(error), error
    else:
        raise AssertionError("a forward that never ended was taken for one")
    assert train() == trained
"""

HELD_IN = {
    "packing": """
from numba_lstm.layout import layout

infer()
with rows.parameters.edit():
    pass
form = layout(rows.config, 20, 24, False, threadpool.available()).form
with held(rows._passes.panels[form], "_pack", infer):
    in_child(infer)
""",
    "a stream": """
stream = rows.stream(24)
stream.step(inputs[rows][0])
with held(stream, "_packed", lambda: stream.step(inputs[rows][0])):
    in_child(stream_of_rows)
""",
    "a stream on one thread that finds new weights": """
single = rows.stream(1)
single.step(inputs[rows][0][:1])
with rows.parameters.edit():
    pass
with held(single, "_enter", lambda: single.step(inputs[rows][0][:1])):
    in_child(stream_of_one_row)
""",
    "training": """
trained = train()
with held(threadpool, "share_out", lambda: rows.forward(inputs[rows])):
    in_child(train_anew)
""",
    "starting threads": """
with held(threadpool.numba_pool, "_launch_threads", infer):
    in_child(infer)
""",
    "Numba as it starts threads": """
lock = threadpool.numba_pool._backend_init_thread_lock
pool = types.SimpleNamespace(start=lambda: None)

def start():
    with lock:
        pool.start()

with held(pool, "start", start):
    in_child(infer)
""",
}


@pytest.mark.parametrize("place", HELD_IN)
@pytest.mark.parametrize("layer", LAYERS)
def test_a_fork_in_the_midst_of_another_threads_call(layer, place):
    run_before_threads(layer, MODELS + CHILDREN + HELD + HELD_IN[place])
