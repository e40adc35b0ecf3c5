"""Locks that a forked child finds open, and turns that Ctrl-C cannot keep."""

from __future__ import annotations

import sys
import threading
import weakref
from types import FrameType
from typing import Any

_locks: weakref.WeakSet[Any] = weakref.WeakSet()


def lock() -> threading.Lock:
    """Return a lock that a forked child finds open, whoever held it in the parent.

    The thread that held it did not come along, and would never open it there.
    """
    made = threading.Lock()
    _locks.add(made)
    return made


def reentrant_lock() -> Any:
    """Return such a lock that the thread that holds it may take once more."""
    made = threading.RLock()
    _locks.add(made)
    return made


class Turn:
    """Lets one call at a time go on, and refuses others: a context manager.

    Ctrl-C may come between taking a turn and whatever would give it up again. So it is not a lock:
    who has the turn is a call, and one that no thread is in any more has lost it.

    Parameters
    ----------
    refusal : str
        What the RuntimeError of a second one says.
    """

    def __init__(self, refusal: str) -> None:
        self._calls: dict[None, FrameType] = {}  # at most one, which enters atomically
        self._refusal = refusal
        self.end = self._calls.clear

    def begin(self) -> None:
        """Take the turn for the function that calls this one, until `end`; or raise."""
        call = sys._getframe(1)
        if self._calls.setdefault(None, call) is not call:
            self._take_over(call)

    def _take_over(self, call: FrameType) -> None:
        """Take the turn if who has it was interrupted, or raise."""
        with _taking_over:
            before = self._calls.get(None)
            running = _is_running(before)
            # If it has not been given up since, nobody but this thread will do so.
            if before is not None and not running and self._calls.get(None) is before:
                self.end()
            if running or self._calls.setdefault(None, call) is not call:
                raise RuntimeError(self._refusal)

    __enter__ = begin

    def __exit__(self, *unused: object) -> None:
        self.end()


_taking_over = reentrant_lock()  # a handler of a signal may come by again


def _is_running(call: FrameType | None) -> bool:
    """Whether a thread is in a call, or in what that calls."""
    for innermost in sys._current_frames().values():
        frame: FrameType | None = innermost
        while frame is not None:
            if frame is call:
                return True
            frame = frame.f_back
    return False


def after_fork() -> None:
    """Open all locks in a child: the threads that held them did not come along."""
    for inherited in _locks:
        inherited._at_fork_reinit()
