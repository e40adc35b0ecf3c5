"""Threads: how many, on which layer, and what holds after a fork.

Workers normally run in one parallel region of Numba. Two situations forbid that: Numba's workqueue
layer aborts the process when two Python threads enter regions at once, and GNU OpenMP terminates a
child that was forked from a process with a running pool. There the same workers run on threads of
our own.
"""

from __future__ import annotations

import functools
import math
import os
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numba
from numba.np.ufunc import parallel as numba_pool

from . import garbage, jit, locks
from .kernels.region import all_shares
from .schedule import pass_workers
from .simd import cpu
from .validation import integer


class _State:
    """What this process knows of its thread pools."""

    def __init__(self) -> None:
        self.lock = locks.lock()
        self.forked_from_pool = False
        self.layer: str | None = None
        self.queue: SimpleQueue[_Share] | None = None

    def after_fork(self) -> None:
        """Forget the parent's threads, which did not come along, and what bounds their number."""
        locks.after_fork()
        garbage.after_fork()
        self.forked_from_pool |= bool(numba_pool._is_initialized) or _forked_while_launching()
        self.layer = None
        self.queue = None
        _quota.cache_clear()


def _forked_while_launching() -> bool:
    """Whether another thread of the parent holds Numba's lock around its pool for ever."""
    launching = numba_pool._backend_init_thread_lock
    if not launching.acquire(blocking=False):
        return True
    launching.release()
    return False


_state = _State()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_state.after_fork)


@functools.cache
def _quota() -> float:
    """Processors that the control group grants, or infinity."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return math.inf


def available() -> int:
    """Threads that a call may use at most: bounded by affinity, cgroup quota and Numba's limit."""
    quota = max(1.0, _quota())
    return int(min(cpu.cores(), quota, numba.config.NUMBA_NUM_THREADS))


def resolve(threads: int | None) -> int:
    """Return the number of threads that an upper bound comes to here.

    Parameters
    ----------
    threads : int or None
        Upper bound; None for all.

    Raises
    ------
    TypeError, ValueError
        If it is no integer of at least 1.
    """
    if threads is None:
        return available()
    most = integer("threads", threads, least=1)
    return most if most == 1 else min(most, available())


def check(threads: int | None) -> int | None:
    """Return an upper bound as it was given, once it is known to be one.

    Raises
    ------
    TypeError, ValueError
        If it is neither None nor an integer of at least 1.
    """
    return None if threads is None else integer("threads", threads, least=1)


def workers_of_pass(threads: int | None, numbers: int) -> int:
    """Return among how many workers one pass over so many numbers is shared out.

    How many threads there may be takes longer to find out than a small pass.

    Parameters
    ----------
    threads : int or None
        Upper bound; None for all.
    numbers : int

    Raises
    ------
    TypeError, ValueError
        If `threads` is no integer of at least 1.
    """
    if pass_workers(2, numbers) == 1:
        check(threads)
        return 1
    return pass_workers(resolve(threads), numbers)


def layer() -> str:
    """Name of the threading layer; starts Numba's threads if nothing did so before."""
    name = _state.layer
    if name is None:
        with _state.lock:
            numba_pool._launch_threads()
        name = _state.layer = str(numba.threading_layer())
    return name


class _Share:
    """One worker's share of a call, which runs once: on whichever thread claims it first.

    Ctrl-C may come anywhere on the calling thread, and locks that are written in Python, like those
    of an executor, then stay closed for ever. So a claim is one step, and who waits can ask again.

    Parameters
    ----------
    run : callable
        Computes the share.
    """

    def __init__(self, run: Callable[[], None]) -> None:
        self._run = run
        self._claims: dict[None, str] = {}  # at most one, which enters atomically
        self._at_work = threading.Lock()
        self._at_work.acquire()
        self._error: BaseException | None = None

    def serve(self) -> None:
        """Run it on a thread of our own, unless the caller has begun."""
        if self._claims.setdefault(None, "thread") == "thread":
            try:
                self._run()
            except BaseException as error:
                self._error = error
            finally:
                self._at_work.release()

    def complete(self) -> None:
        """Run it on the thread of the caller, or wait for the other one."""
        if self._claims.setdefault(None, "caller") == "caller":
            self._run()
            return
        with self._at_work:
            pass
        if self._error is not None:
            raise self._error

    @property
    def is_at_work(self) -> bool:
        """Whether a thread of our own still uses the arrays of the call."""
        return self._claims.get(None) == "thread" and self._at_work.locked()


def _serve(shares: SimpleQueue[_Share]) -> None:
    """Run what is in the queue, for as long as the process lives."""
    while True:
        shares.get().serve()


def _queue_of_own_threads() -> SimpleQueue[_Share]:
    """What threads of our own for this process run."""
    with _state.lock:
        if _state.queue is None:
            queue: SimpleQueue[_Share] = SimpleQueue()
            for number in range(available()):
                name = f"numba-lstm-{number}"
                threading.Thread(target=_serve, args=(queue,), name=name, daemon=True).start()
            _state.queue = queue
        return _state.queue


def _share_out_among_own_threads(
    kernel: Callable[..., None], arguments: tuple[Any, ...], workers: int
) -> None:
    """Run a share on this thread, and the others on our own or, if those are late, here as well.

    Interrupted or not, it ends when nobody uses the arrays of the call any more.
    """
    shares = [
        _Share(functools.partial(kernel, *arguments, worker, workers)) for worker in range(workers)
    ]
    first_error: BaseException | None = None
    try:
        queue = _queue_of_own_threads()
        for share in shares[1:]:
            queue.put(share)
    except RuntimeError:
        # As the interpreter ends, after the main thread, no thread is started any more.
        if threading.main_thread().is_alive():
            raise
    except KeyboardInterrupt as error:
        first_error = error
    for share in shares:
        completed = False
        while not completed:
            try:
                share.complete()
                completed = True
            except BaseException as error:
                first_error = first_error or error
                completed = not share.is_at_work
    if first_error is not None:
        raise first_error


def share_out(kernel: Callable[..., None], arguments: tuple[Any, ...], workers: int) -> None:
    """Run all workers of a kernel.

    Parameters
    ----------
    kernel : callable
        ``kernel(*arguments, worker, workers)`` does one worker's share.
    arguments : tuple
    workers : int
        At most `available`.
    """
    if workers == 1:
        kernel(*arguments, 0, 1)
    elif not _state.forked_from_pool and layer() != "workqueue":
        all_shares(jit.entry_of(kernel, arguments), arguments, workers)
    else:
        _share_out_among_own_threads(kernel, arguments, workers)
