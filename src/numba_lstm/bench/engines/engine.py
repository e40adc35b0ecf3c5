"""What an engine is to a comparison."""

from __future__ import annotations

import gc
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...validation import FloatArray
from ..shapes import Shape

# After its turn comes an engine first runs untimed: what it needs gets back into the caches, its
# threads wake up.
_SETTLING_SECONDS = 0.02
# Short calls are timed in groups, so that reading the clock costs nothing beside them.
_GROUP_SECONDS = 2e-4


@dataclass(frozen=True)
class Task:
    """What every engine is to compute.

    Attributes
    ----------
    mode : str
        "inference", "stream" or "training".
    shape : Shape
    threads : int
    weights : mapping of str to ndarray
        Under PyTorch's names.
    x : ndarray
        (T, B, I).
    dy : ndarray
        (T, B, D H), gradient of the outputs, for training.
    """

    mode: str
    shape: Shape
    threads: int
    weights: Mapping[str, FloatArray]
    x: FloatArray
    dy: FloatArray


class Engine(ABC):
    """Runs a task, over and over; lives in a process of its own.

    Parameters
    ----------
    task : Task

    Attributes
    ----------
    packages : tuple of str
        What must be installed; imported only when a task comes.
    modes, dtypes : frozenset of str
        What it can do.
    """

    packages: ClassVar[tuple[str, ...]] = ()
    modes: ClassVar[frozenset[str]] = frozenset({"inference"})
    dtypes: ClassVar[frozenset[str]] = frozenset({"float32"})

    def __init__(self, task: Task) -> None:
        self.task = task

    @staticmethod
    def environment(threads: int) -> dict[str, str]:
        """Variables that must be set before the engine is imported, beside those of all."""
        return {}

    @property
    @abstractmethod
    def version(self) -> str:
        """Version of what runs."""

    @abstractmethod
    def infer(self) -> Any:
        """Run the whole sequence from zero states."""

    def step(self, x: Any) -> Any:
        """Run one step, x of (1, B, I), from the state of the step before; returns y."""
        raise NotImplementedError

    def stream(self) -> None:
        """Run the sequence step by step, the state carried on from the call before."""
        step, x = self.step, self.task.x
        for t in range(self.task.shape.T):
            step(x[t : t + 1])

    def steps(self) -> FloatArray:
        """Outputs of the sequence, (T, B, H), step by step."""
        return np.concatenate([self.step(x) for x in self.task.x[:, np.newaxis]])

    def train(self) -> Any:
        """Run the sequence from zero states, and back to x and all parameters."""
        raise NotImplementedError

    @property
    def work(self) -> Callable[[], Any]:
        """What the task asks for, once."""
        return {"inference": self.infer, "stream": self.stream, "training": self.train}[
            self.task.mode
        ]

    @abstractmethod
    def results(self) -> dict[str, FloatArray]:
        """Do the task once, from zero states, and return all results.

        ``y``, ``h`` and ``c``; in training ``dx`` and, with a ``d`` before their names in
        `numba_lstm.LSTM.parameters`, the gradients of the parameters as well.
        """

    def time_round(self, seconds: float) -> list[float]:
        """Call for a while; return samples of the seconds that a call takes, at least one."""
        clock, call = time.perf_counter, self.work
        collecting = gc.isenabled()
        gc.disable()
        try:
            began = clock()
            call()
            estimate = clock() - began
            samples = [estimate] if estimate >= _SETTLING_SECONDS else []
            while clock() - began < _SETTLING_SECONDS:
                started = clock()
                call()
                estimate = clock() - started
            group = max(1, round(_GROUP_SECONDS / estimate))
            end = clock() + seconds - sum(samples)
            while not samples or clock() < end:
                started = clock()
                for _ in range(group):
                    call()
                samples.append((clock() - started) / group)
        finally:
            if collecting:
                gc.enable()
        return samples
