"""Engines in processes of their own, where thread variables are set before anything is imported."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

from .engines import OWN

# The pools of OpenMP, the BLAS libraries and Numba read these when they are loaded.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


class EngineError(RuntimeError):
    """An engine could not do what it was asked to."""


class EngineProcess:
    """An object of a class in another process.

    Parameters
    ----------
    kind : type
        At the top level of a module. Its `environment` tells further variables of the process, and
        its objects have a `version`.
    threads : int
    """

    def __init__(self, kind: Any, threads: int) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            **dict.fromkeys(_THREAD_VARIABLES, str(threads)),
            **kind.environment(threads),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.worker", f"{kind.__module__}:{kind.__name__}"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._replies = self._process.stdin, self._process.stdout

    @property
    def alive(self) -> bool:
        """Whether the process can be asked."""
        return self._process.poll() is None

    def send(self, method: str, *arguments: Any) -> None:
        """Ask for a method call; "build" makes the object.

        Raises
        ------
        EngineError
            If the process has ended.
        """
        try:
            pickle.dump((method, arguments), self._requests, protocol=pickle.HIGHEST_PROTOCOL)
            self._requests.flush()
        except OSError:
            raise EngineError(self._end()) from None

    def receive(self) -> Any:
        """Wait for the result of what was asked last.

        Raises
        ------
        EngineError
            If the call raised, or the process has ended.
        """
        try:
            succeeded, result = pickle.load(self._replies)
        except (EOFError, OSError, pickle.UnpicklingError):
            raise EngineError(self._end()) from None
        if not succeeded:
            raise EngineError(result)
        return result

    def ask(self, method: str, *arguments: Any) -> Any:
        """Send, and wait for the result.

        Raises
        ------
        EngineError
            If the call raised, or the process has ended.
        """
        self.send(method, *arguments)
        return self.receive()

    def _end(self) -> str:
        """How the process ended."""
        self.close()
        return f"its process ended with status {self._process.returncode}"

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._requests, self._replies):
            with suppress(OSError):  # what was not yet sent has nowhere to go
                pipe.close()


class Field:
    """The engines that take part, of which those that fail drop out.

    Parameters
    ----------
    processes : mapping of str to EngineProcess
        By engine, numba-lstm among them: without it there is nothing to compare.

    Attributes
    ----------
    failed : dict of str to str
        Why engines dropped out.
    """

    def __init__(self, processes: Mapping[str, EngineProcess]) -> None:
        self._processes = {name: process for name, process in processes.items() if process.alive}
        self.failed = {
            name: "its process has ended" for name in processes if name not in self._processes
        }

    @property
    def engines(self) -> list[str]:
        """Those that are left."""
        return list(self._processes)

    def in_turn(self, number_of_round: int) -> list[str]:
        """Those that are left, another one first in every round."""
        names = self.engines
        first = number_of_round % len(names)
        return names[first:] + names[:first]

    def _drop(self, name: str, error: EngineError) -> None:
        """Leave an engine out from now on."""
        if name == OWN:
            raise EngineError(f"{name} failed: {error}") from None
        del self._processes[name]
        self.failed[name] = f"failed: {error}"

    def ask(self, name: str, method: str, *arguments: Any) -> Any:
        """Ask one engine; returns None if it drops out.

        Raises
        ------
        EngineError
            If it is numba-lstm that fails.
        """
        try:
            return self._processes[name].ask(method, *arguments)
        except EngineError as error:
            self._drop(name, error)
            return None

    def ask_all(self, method: str, *arguments: Any) -> dict[str, Any]:
        """Ask all engines at once; returns the results of those that are left.

        Raises
        ------
        EngineError
            If it is numba-lstm that fails.
        """
        for name in self.engines:
            try:
                self._processes[name].send(method, *arguments)
            except EngineError as error:
                self._drop(name, error)
        results = {}
        for name in self.engines:
            try:
                results[name] = self._processes[name].receive()
            except EngineError as error:
                self._drop(name, error)
        return results


def missing_packages(packages: tuple[str, ...]) -> list[str]:
    """Return which of some packages are not installed."""
    return [package for package in packages if find_spec(package) is None]
