"""Turns: one call at a time, and none that is kept by a call that was interrupted."""

import signal
import threading
import time

import numpy as np
import pytest

import numba_lstm as nl
from numba_lstm.locks import Turn


@pytest.fixture
def turn():
    return Turn("one at a time")


def take(turn):
    with turn:
        return True


def interrupted(turn):
    """Take a turn, and be interrupted before anything could give it up again."""
    turn.begin()


def test_one_after_another(turn):
    assert take(turn)
    assert take(turn)


def test_nobody_has_it_whom_an_interrupt_took_out_of_the_call(turn):
    interrupted(turn)
    assert take(turn)
    assert take(turn)


def test_not_within_one_elses(turn):
    with turn:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="one at a time"):
                take(turn)
    assert take(turn)


def test_not_beside_another_threads(turn):
    taken, done = threading.Event(), threading.Event()

    def hold():
        with turn:
            taken.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="one at a time"):
            take(turn)
    done.set()
    thread.join()
    assert take(turn)


def test_an_error_gives_it_up(turn):
    with pytest.raises(ZeroDivisionError), turn:
        _ = 1 / 0
    assert take(turn)


def test_threads_that_find_one_left_behind_take_turns(turn):
    inside, most, refused = [], [], []

    def run():
        for _ in range(300):
            try:
                with turn:
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
                interrupted(turn)
            except RuntimeError:
                refused.append(1)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}
    assert len(most) + len(refused) >= 900


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no timers here")
@pytest.mark.parametrize("what", ["trainer", "stream"])
def test_whatever_moment_ctrl_c_comes_at_the_next_call_goes_on(what):
    lstm = nl.LSTM(3, 8, seed=0, threads=1)
    if what == "trainer":
        x, target = np.zeros((4, 2, 3), np.float32), np.zeros((4, 2, 8), np.float32)
        trainer = nl.Trainer(lstm, nl.mse, nl.SGD(lstm.parameters))

        def call():
            trainer.step(x, target)
    else:
        stream, frame = lstm.stream(2), np.zeros((2, 3), np.float32)

        def call():
            stream.step(frame)

    def interrupt(*_):
        raise KeyboardInterrupt

    call()
    interruptions = 0
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for number in range(300):
            try:
                signal.setitimer(signal.ITIMER_REAL, 2e-5 + number % 50 * 1e-5)
                # What comes during a callback of the collector is lost: no other one would come.
                given_up = time.monotonic() + 5
                while time.monotonic() < given_up:
                    call()
            except KeyboardInterrupt:
                interruptions += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interruptions > 280
    call()
