"""Engines side by side: the same weights and inputs, alternating rounds, results compared."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np

from ..lstm import LSTM
from ..simd import cpu
from ..validation import FloatArray, float_dtype, integer, number
from .engines import OWN, PEERS, Engine, NumbaLSTM, Task
from .limits import LEVELS, Limits, measure_limits, measure_multiply_adds, measure_reads
from .process import EngineProcess, Field, missing_packages
from .roofline import highest_rate, level_of_recurrence
from .shapes import Shape

MODES = ("inference", "stream", "training")
# For all engines of a shape and number of threads.
SECONDS = 2.0
# Largest difference of two right engines, as a share of the largest number of an array. Sums over
# 100,000 terms differ by some 1e-5 in float32; products in bfloat16 or TF32 by 1e-3 and more.
TOLERANCES = {"float32": 1e-4, "float64": 1e-9}
_SEED = 0
# Threads of ONNX Runtime look for work for 50 ms after a call before they sleep: meanwhile whoever
# comes next has a core to share with them (ocr-line on two threads at 46 in place of 90 GFLOP/s).
_SECONDS_TO_SLEEP = 0.06


class MismatchError(ArithmeticError):
    """Two engines computed different things."""


@dataclass(frozen=True)
class Measurement:
    """What an engine showed for a shape.

    Attributes
    ----------
    version : str
    seconds : float
        Of a call, the median of all samples.
    quartiles : (float, float)
        Half of the samples lay between these.
    samples : int
    difference : float
        Largest difference of a result from numba-lstm's, as a share of the largest number of that
        array.
    """

    version: str
    seconds: float
    quartiles: tuple[float, float]
    samples: int
    difference: float


@dataclass(frozen=True)
class Comparison:
    """All engines for one shape.

    Attributes
    ----------
    shape : Shape
    mode : str
    limits : Limits
        Of this machine, for the threads and the dtype of the comparison. Multiply-adds, and reads
        from where the recurrent weights stand, are medians of all rounds.
    measurements : mapping of str to Measurement
        By engine; numba-lstm first.
    skipped : mapping of str to str
        Why an engine was left out.
    share_of_limit : float
        Share of what is in reach that numba-lstm attains, the median of all rounds. What is in
        reach is measured just before: a CPU's clock moves by a third with its neighbours and its
        heat, and so does what a virtual machine has of it.
    """

    shape: Shape
    mode: str
    limits: Limits
    measurements: Mapping[str, Measurement]
    skipped: Mapping[str, str]
    share_of_limit: float

    @property
    def operations(self) -> int:
        """Floating-point operations of a call."""
        return _operations(self.shape, self.mode)

    def rate(self, engine: str) -> float:
        """Floating-point operations per second."""
        return self.operations / self.measurements[engine].seconds

    @property
    def best_peer(self) -> str | None:
        """The fastest of the others, if there are any."""
        peers = [engine for engine in self.measurements if engine != OWN]
        return min(peers, key=lambda peer: self.measurements[peer].seconds, default=None)

    @property
    def ratio(self) -> float | None:
        """How many times as fast as the fastest of the others numba-lstm is."""
        best = self.best_peer
        return None if best is None else self.rate(OWN) / self.rate(best)

    @property
    def highest_rate(self) -> float:
        """Floating-point operations per second that the limits leave in reach."""
        return highest_rate(self.shape, self.mode, self.limits)


def _operations(shape: Shape, mode: str) -> int:
    """Floating-point operations of a call."""
    return shape.operations(training=mode == "training")


def compare(
    shapes: Sequence[Shape],
    *,
    mode: str = "inference",
    threads: int = 1,
    dtype: Any = "float32",
    against: Mapping[str, type[Engine]] = PEERS,
    rounds: int = 5,
    seconds: float = SECONDS,
) -> Iterator[Comparison]:
    """Compare numba-lstm with other engines.

    Every engine has a process of its own. They take turns: while one runs, the others are blocked,
    and their threads asleep.

    Parameters
    ----------
    shapes : sequence of Shape
    mode : str
        "inference": a call runs a whole sequence. "stream": it runs its steps one by one, the state
        carried on. "training": forward, and back to x and all parameters.
    threads : int
    dtype : dtype
        float32 or float64.
    against : mapping of str to type
        The others by name. Those that are not installed, or cannot do it, are skipped.
    rounds : int
        How often the turn goes round.
    seconds : float
        Time for all rounds of all engines of a shape, pauses apart; a round has at least one call.

    Yields
    ------
    Comparison
        For every shape.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; nothing is run then.
    MismatchError
        If an engine's results are not those of numba-lstm.
    EngineError
        If numba-lstm itself fails.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}; got {mode!r}")
    for shape in shapes:
        if mode == "stream" and shape.bidirectional:
            raise ValueError(f"a stream must read forward; got {shape.name}, which reads both ways")
    threads = check_threads(threads)
    kind = float_dtype(dtype)
    rounds = integer("rounds", rounds, least=1)
    seconds = number("seconds", seconds, above=0.0)
    reasons = {name: _reason_to_skip(peer, mode, kind.name) for name, peer in against.items()}
    present = {name: peer for name, peer in against.items() if reasons[name] is None}
    skipped = {name: reason for name, reason in reasons.items() if reason is not None}

    def comparisons() -> Iterator[Comparison]:
        limits = measure_limits(threads, kind)
        with ExitStack() as stack:
            processes = {
                name: stack.enter_context(closing(EngineProcess(engine, threads)))
                for name, engine in {OWN: NumbaLSTM, **present}.items()
            }
            for shape in shapes:
                task = _task(mode, shape, threads, kind)
                field = Field(processes)
                measurements, in_reach, share = _alternate(field, task, rounds, seconds, limits)
                absent = {**skipped, **field.failed}
                yield Comparison(shape, mode, in_reach, measurements, absent, share)

    return comparisons()


def check_threads(threads: int) -> int:
    """Return a number of threads, once it is known that all can run at once.

    Raises
    ------
    TypeError, ValueError
        If it is no integer from 1 to the processors of this process.
    """
    if integer("threads", threads, least=1) > cpu.cores():
        raise ValueError(
            f"threads must be at most {cpu.cores()}, the processors of this process; got {threads}"
        )
    return int(threads)


def _reason_to_skip(peer: type[Engine], mode: str, dtype: str) -> str | None:
    """Why an engine cannot take part, or None if it can."""
    if mode not in peer.modes:
        return f"no {mode}"
    if dtype not in peer.dtypes:
        return f"no {dtype}"
    missing = missing_packages(peer.packages)
    return f"{' and '.join(missing)} not installed" if missing else None


def _task(mode: str, shape: Shape, threads: int, dtype: np.dtype[Any]) -> Task:
    """Draw weights and inputs, the same for the same shape."""
    config = replace(shape.config, dtype=dtype.name)
    weights = LSTM(**config.as_dict(), seed=_SEED).state_dict()
    random = np.random.default_rng(_SEED)
    x = random.standard_normal((shape.T, shape.B, shape.I), dtype)
    dy = random.standard_normal((shape.T, shape.B, config.output_size), dtype)
    return Task(mode, shape, threads, weights, x, dy)


def _let_threads_sleep(task: Task) -> None:
    """Wait until the threads of engines that ran no longer look for work."""
    if task.threads > 1:
        time.sleep(_SECONDS_TO_SLEEP)


def _alternate(
    field: Field, task: Task, rounds: int, seconds: float, limits: Limits
) -> tuple[dict[str, Measurement], Limits, float]:
    """Run one task on all engines in turn.

    Returns what they showed, the medians of the limits, and of numba-lstm's share of them.
    """
    versions = field.ask_all("build", task)
    results = field.ask_all("results")
    own = results.pop(OWN)
    differences = {OWN: 0.0}
    for name, others in results.items():
        differences[name] = largest_difference(name, own, others, task.shape)
    del own, results
    samples: dict[str, list[list[float]]] = {name: [] for name in field.engines}
    seconds_of_turn = seconds / (rounds * len(samples))
    limits_of_rounds = []
    _let_threads_sleep(task)
    for number_of_round in range(rounds):
        for name in field.in_turn(number_of_round):
            if name == OWN:
                limits_of_rounds.append(_limits_now(limits, task))
            samples[name].append(field.ask(name, "time_round", seconds_of_turn) or [])
            _let_threads_sleep(task)
    measurements = {}
    for name in field.engines:
        taken = np.concatenate(samples[name])
        lower, middle, upper = np.quantile(taken, (0.25, 0.5, 0.75)).tolist()
        measurements[name] = Measurement(
            versions[name], middle, (lower, upper), taken.size, differences[name]
        )
    operations = _operations(task.shape, task.mode)
    shares = [
        operations / median(taken) / highest_rate(task.shape, task.mode, now)
        for taken, now in zip(samples[OWN], limits_of_rounds, strict=True)
    ]
    return measurements, _medians(limits_of_rounds), median(shares)


def _limits_now(limits: Limits, task: Task) -> Limits:
    """Limits, of which those that matter most to a task are measured again.

    They are medians of some runs, as what is set against them is one of many calls.
    """
    level = level_of_recurrence(task.shape, task.mode, limits)
    reads = measure_reads(level, limits.threads, task.x.dtype, median)
    operations = measure_multiply_adds(limits.threads, task.x.dtype, median)
    return replace(limits, operations=operations, bandwidths={**limits.bandwidths, level: reads})


def _medians(limits: Sequence[Limits]) -> Limits:
    """Medians of what was measured at different times."""
    return replace(
        limits[0],
        operations=median(one.operations for one in limits),
        bandwidths={level: median(one.bandwidths[level] for one in limits) for level in LEVELS},
    )


def largest_difference(
    name: str, own: Mapping[str, FloatArray], others: Mapping[str, FloatArray], shape: Shape
) -> float:
    """Compare the results of an engine with numba-lstm's.

    Parameters
    ----------
    name : str
        The engine.
    own, others : mapping of str to ndarray
    shape : Shape

    Returns
    -------
    float
        The largest difference, as a share of the largest number of that array.

    Raises
    ------
    MismatchError
        If it is too large, or an array is missing or has another shape or dtype.
    """
    largest = 0.0
    for key, array in own.items():
        other = others.get(key)
        if other is None or other.shape != array.shape or other.dtype != array.dtype:
            got = "none" if other is None else f"{other.dtype} {other.shape}"
            raise MismatchError(
                f"{name} must give {key} of {shape.name} as {array.dtype} {array.shape}; got {got}"
            )
        scale = float(np.abs(array).max())
        difference = float(np.abs(array - other).max()) / (scale or 1.0)
        if not difference <= TOLERANCES[array.dtype.name]:
            raise MismatchError(
                f"{name} must give the {key} of {shape.name} that numba-lstm gives; "
                f"it differs by {difference:.1g} of the largest number"
            )
        largest = max(largest, difference)
    return largest
