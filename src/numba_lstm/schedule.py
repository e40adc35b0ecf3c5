"""Who computes what: serially, by rows of the batch, by directions, or by units of every step.

Rows of a batch are independent, so workers that share them out never wait; each reads all weights.
Where a batch is so small that reading the weights is what takes the time, workers share out the
directions or the units instead: each reads its part, from its own cache, and waits for the others
once a chunk of steps or once a step.
"""

from __future__ import annotations

from dataclasses import dataclass

from .config import LSTMConfig
from .simd import cpu

# A worker with less to do than this (some 10 us) costs more to wake than it saves.
_OPERATIONS_PER_WORKER = 1_000_000
# A worker with no more rows than this waits for the weights rather than for the multiply-adds.
FEW_ROWS = 5
# Waiting for one another takes some 0.3 us a step. A worker reads as much as this from its L2 cache
# in a microsecond, which is the least that a step should save.
_BYTES_PER_WORKER_AND_STEP = 64 << 10


@dataclass(frozen=True)
class Split:
    """How a call is shared out.

    Attributes
    ----------
    workers : int
        At least 1.
    task_panels : int
        Panels of W units that a worker takes at once, where they share out the units; else 0.
    reason : str
        Why so.
    """

    workers: int
    task_panels: int
    reason: str


def inference_split(config: LSTMConfig, T: int, B: int, threads: int) -> Split:
    """Decide how inference is shared out.

    Parameters
    ----------
    config : LSTMConfig
    T, B : int
    threads : int
        Upper bound.

    Returns
    -------
    Split
    """
    operations = config.operations(T, B)
    if not worth_sharing(operations):
        return Split(1, 0, "a second worker would cost more than it saves")
    if threads == 1:
        return Split(1, 0, "one thread is allowed")
    if 0 < B <= FEW_ROWS:
        itemsize = config.numpy_dtype.itemsize
        read_in_a_step = 4 * config.hidden_size**2 * itemsize * config.directions
        panels = -(-config.hidden_size // cpu.lanes(itemsize))
        most = min(
            threads,
            panels * config.directions,
            read_in_a_step // _BYTES_PER_WORKER_AND_STEP,
            operations // _OPERATIONS_PER_WORKER,
        )
        if config.directions == 2 and most <= 2:
            return Split(2, panels, "the directions of a layer are independent: one a worker")
        if most > 1:
            # As many panels as a tile of one row takes, unless workers would be left without.
            task_panels = min(4, -(-panels * config.directions // most), panels)
            reason = f"few rows read {read_in_a_step >> 10} KiB of weights a step: shared by units"
            return Split(most, task_panels, reason)
    workers = row_workers(threads, B, operations)
    if workers == 1:
        return Split(1, 0, "one row is one worker's")
    return Split(workers, 0, f"rows of the batch are independent: {-(-B // workers)} a worker")


def training_split(B: int, threads: int) -> Split:
    """Decide how training is shared out.

    Parameters
    ----------
    B : int
    threads : int
        Upper bound.

    Returns
    -------
    Split
    """
    reason = f"training shares out rows of the batch, {-(-B // threads)} a worker or more"
    return Split(threads, 0, reason)


def worth_sharing(operations: int) -> bool:
    """Whether so many floating-point operations may be worth a second worker."""
    return operations >= 2 * _OPERATIONS_PER_WORKER


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
