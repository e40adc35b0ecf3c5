"""Who computes what: how many workers a call is worth."""

from __future__ import annotations

# A worker with less to do than this (some 10 us) costs more to wake than it saves.
_OPERATIONS_PER_WORKER = 1_000_000


def row_workers(threads: int, B: int, operations: int) -> int:
    """Workers among which the rows of a batch are shared out.

    Parameters
    ----------
    threads : int
        Upper bound.
    B : int
        Rows; a worker has at least one.
    operations : int
        Floating-point operations of the whole call.

    Returns
    -------
    int
        At least 1.
    """
    return max(1, min(threads, B, operations // _OPERATIONS_PER_WORKER))


def task_workers(threads: int, operations: int) -> int:
    """Workers among which independent tasks are shared out, whatever the batch.

    Parameters
    ----------
    threads : int
        Upper bound.
    operations : int
        Floating-point operations of all tasks.

    Returns
    -------
    int
        At least 1.
    """
    return max(1, min(threads, operations // _OPERATIONS_PER_WORKER))
