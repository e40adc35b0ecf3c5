"""Garbage is collected as before, however many put that off."""

import contextlib
import gc
import os
import threading

import pytest

from numba_lstm.garbage import without_collections


@pytest.mark.parametrize("collecting", [True, False])
def test_collections_go_on_as_before(collecting):
    before = gc.isenabled()
    (gc.enable if collecting else gc.disable)()
    try:
        with without_collections():
            assert not gc.isenabled()
            with pytest.raises(KeyError), without_collections():
                raise KeyError
            assert not gc.isenabled()
        assert gc.isenabled() == collecting
    finally:
        (gc.enable if before else gc.disable)()


@contextlib.contextmanager
def another_thread_within():
    """Another thread wants no collections until the end of this context."""
    begun, ended = threading.Event(), threading.Event()

    def want_none():
        with without_collections():
            begun.set()
            ended.wait()

    thread = threading.Thread(target=want_none)
    thread.start()
    begun.wait()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_the_last_thread_that_wants_none_lets_them_go_on():
    with another_thread_within():
        with without_collections():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_of_a_fork_collects():
    """The thread that wanted no collections did not come along."""
    with another_thread_within():
        child = os.fork()
        if child == 0:
            with without_collections():
                pass
            os._exit(0 if gc.isenabled() else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
