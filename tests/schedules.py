"""Ways in which a call is cut, and its workers may come by: in turn, backwards, or at once."""

import threading
from contextlib import contextmanager
from unittest.mock import patch

from numba_lstm.layout import layout

# What of `schedule` lets even the smallest calls be shared out.
SMALL_WORK_IS_SHARED = {
    "_OPERATIONS_PER_WORKER": 1,
    "_OPERATIONS_OF_A_WAVE": 1,
    "_BYTES_PER_WORKER_AND_STEP": 1,
    "_NUMBERS_PER_WORKER": 1,
}


@contextmanager
def laid_out_with(module="layout", **replaced):
    """Layouts of the present calls only, with something else in a module that makes them."""
    layout.cache_clear()
    try:
        with patch.multiple(f"numba_lstm.{module}", **replaced):
            yield
    finally:
        layout.cache_clear()


def one_after_another(order):
    def share_out(kernel, arguments, workers):
        for worker in order(workers):
            kernel(*arguments, worker, workers)

    return share_out


def at_once(kernel, arguments, workers):
    threads = [
        threading.Thread(target=kernel, args=(*arguments, worker, workers))
        for worker in range(workers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


SCHEDULES = {
    "in order": one_after_another(range),
    "backwards": one_after_another(lambda workers: reversed(range(workers))),
    "at once": at_once,
}
