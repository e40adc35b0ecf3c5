"""Ctrl-C: put off while something runs that must not be cut in two, but not for long."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# Exit status of a process that Ctrl-C ended.
INTERRUPTED_STATUS = 130
# How long a training step and its checkpoint may take after Ctrl-C.
_SECONDS_TO_FINISH = 0.7


class Interruption:
    """Ctrl-C, put off while something runs that must not be cut in two."""

    def __init__(self) -> None:
        self._wanted = False
        self._deferred = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._wanted = True
        if not self._deferred:
            raise KeyboardInterrupt

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Take over SIGINT, where it reaches this thread."""
        self._wanted = False
        here = threading.current_thread() is threading.main_thread()
        if not here or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            yield  # Ctrl-C does not arrive, or is not meant for this process
            return
        before = signal.signal(signal.SIGINT, self._handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Finish what is within first."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if self._wanted:
            raise KeyboardInterrupt


@contextmanager
def prompt_end(say: Callable[[], None]) -> Iterator[None]:
    """End within a second of Ctrl-C, also in a long kernel or a compilation.

    Python hears of a signal only between two of its own instructions, but the byte that the signal
    writes wakes a thread. Ending there costs what was done since the last checkpoint.

    Parameters
    ----------
    say : callable
        What the user is told then.
    """
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    finished = threading.Event()

    def watch() -> None:
        while received := receiver.recv(1):
            if received[0] == signal.SIGINT and not finished.wait(_SECONDS_TO_FINISH):
                say()
                os._exit(INTERRUPTED_STATUS)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        finished.set()
        signal.set_wakeup_fd(before)
        sender.close()
        watcher.join()
        receiver.close()
