"""The limits of this machine: multiply-adds and reads per second, by loops that do nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ..kernels import probes
from ..memory import aligned_empty
from ..simd import cpu
from ..validation import FloatArray, float_dtype, integer

# Runs of a measurement. A limit is what the best reached: others on the machine only ever slow one
# down, and new threads may share a core for tens of milliseconds.
_RUNS = 20
_SECONDS_OF_A_RUN = 0.005
# What stands in the last cache is so many times larger than L2, if half of it has the room.
_TIMES_LEVEL2 = 8
# What stands in memory is so many times larger than the last cache: nothing of it is found there.
_BEYOND_CACHES = 4
# Arrays to read are a multiple of this many bytes: 8 vectors of the widest kind.
_READ_UNIT = 512

LEVELS = ("L1", "L2", "L3", "memory")

# The rate that counts, of those of several runs.
Summary: TypeAlias = Callable[[list[float]], float]


@dataclass(frozen=True)
class Limits:
    """What a number of threads can do at most.

    Attributes
    ----------
    threads : int
    dtype : str
        "float32" or "float64".
    operations : float
        Floating-point operations per second of fused multiply-adds; each counts as two.
    bandwidths : mapping of str to float
        Bytes per second that all threads together read from "L1", "L2", "L3" and "memory".
    """

    threads: int
    dtype: str
    operations: float
    bandwidths: Mapping[str, float]

    def level(self, nbytes: int) -> str:
        """Level from which the threads read, over and over, what they share.

        L1 and L2 belong to one core each, so that every thread need keep its own part there only.
        """
        level1, level2, level3 = cpu.cache_sizes()
        if nbytes <= level1 * self.threads:
            return "L1"
        if nbytes <= level2 * self.threads:
            return "L2"
        return "L3" if nbytes <= level3 else "memory"

    def bandwidth(self, nbytes: int) -> float:
        """Bytes per second at which the threads read, over and over, what they share."""
        return self.bandwidths[self.level(nbytes)]


def measure_limits(threads: int = 1, dtype: Any = "float32") -> Limits:
    """Measure what this machine can do; takes about half a second.

    Parameters
    ----------
    threads : int
        1 for one core, or as many as are to work at once.
    dtype : dtype
        float32 or float64.

    Returns
    -------
    Limits

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    """
    threads = integer("threads", threads, least=1)
    kind = float_dtype(dtype)
    bandwidths = {level: measure_reads(level, threads, kind) for level in LEVELS}
    return Limits(threads, kind.name, measure_multiply_adds(threads, kind), bandwidths)


def measure_reads(level: str, threads: int, dtype: np.dtype[Any], summary: Summary = max) -> float:
    """Measure bytes per second that all threads together read, in a tenth of a second.

    Parameters
    ----------
    level : str
        One of `LEVELS`.
    threads : int
    dtype : dtype
        float32 or float64.
    summary : callable
        Takes the rates of several runs, and gives the one that counts.

    Returns
    -------
    float
    """
    nbytes = _read_sizes(threads)[LEVELS.index(level)]
    return summary(_rates([_Reading(nbytes, dtype) for _ in range(threads)], _Reading.run))


def measure_multiply_adds(threads: int, dtype: np.dtype[Any], summary: Summary = max) -> float:
    """Measure floating-point operations per second of fused multiply-adds, in a tenth of a second.

    Parameters
    ----------
    threads : int
    dtype : dtype
        float32 or float64.
    summary : callable
        Takes the rates of several runs, and gives the one that counts.

    Returns
    -------
    float
    """
    return summary(_rates([_MultiplyAdds(dtype) for _ in range(threads)], _MultiplyAdds.run))


def _read_sizes(threads: int) -> tuple[int, ...]:
    """Bytes that each thread reads to measure each level.

    Half of a level leaves room for what else is kept there. The last cache is shared: what a core
    reads from it must not fit into its own, nor ask for more than its part of it, which on a
    virtual machine is less than the size that it shows.
    """
    level1, level2, level3 = cpu.cache_sizes()
    shared = max(2 * level2, min(_TIMES_LEVEL2 * level2, level3 // (2 * threads)))
    beyond = max(2 * shared, _BEYOND_CACHES * level3 // threads)
    sizes = (level1 // 2, level2 // 2, shared, beyond)
    return tuple(size // _READ_UNIT * _READ_UNIT for size in sizes)


class _Reading:
    """One thread's array to read; an amount of work is a byte."""

    def __init__(self, nbytes: int, dtype: np.dtype[Any]) -> None:
        self._values: FloatArray = aligned_empty(nbytes // dtype.itemsize, dtype)
        self._values.fill(1)
        self._total: FloatArray = aligned_empty(cpu.lanes(dtype.itemsize), dtype)

    def run(self, repetitions: int) -> int:
        """Read it so many times; return the amount of work done."""
        probes.read(self._values, repetitions, self._total)
        return repetitions * self._values.nbytes


class _MultiplyAdds:
    """One thread's vectors in registers; an amount of work is an operation."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._lanes = cpu.lanes(dtype.itemsize)
        self._values: FloatArray = aligned_empty((probes.CHAINS + 1) * self._lanes, dtype)

    def run(self, repetitions: int) -> int:
        """Do so many rounds; return the amount of work done."""
        # Small enough to be added up forever, and no sum is that of another chain.
        self._values[:] = np.linspace(0.1, 0.2, self._values.size)
        probes.multiply_add(self._values, repetitions)
        return 2 * probes.CHAINS * self._lanes * repetitions


def _rates(works: list[Any], run: Callable[[Any, int], int]) -> list[float]:
    """Work per second that threads reach together in several runs, each with a work of its own."""
    repetitions = 1
    run(works[0], repetitions)  # compiles
    while True:
        started = time.perf_counter()
        run(works[0], repetitions)
        seconds = time.perf_counter() - started
        if seconds >= _SECONDS_OF_A_RUN:
            break
        repetitions *= 2
    with ThreadPoolExecutor(len(works)) as pool:
        return [_rate(pool, works, run, repetitions) for _ in range(_RUNS)]


def _rate(
    pool: ThreadPoolExecutor, works: list[Any], run: Callable[[Any, int], int], repetitions: int
) -> float:
    """Work per second of one run on all threads at once."""
    together = threading.Barrier(len(works))

    def timed(work: Any) -> tuple[float, float, int]:
        together.wait()
        started = time.perf_counter()
        amount = run(work, repetitions)
        return started, time.perf_counter(), amount

    starts, ends, amounts = zip(*pool.map(timed, works), strict=True)
    return float(sum(amounts) / (max(ends) - min(starts)))
