"""Memory that calls work in, borrowed for the time of one or until what it holds is used up."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .memory import aligned_empty
from .validation import FloatArray


class Workspace:
    """Memory for one call at a time; it grows to the largest call and stays.

    Parameters
    ----------
    dtype : dtype
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self.buffer: FloatArray = aligned_empty(0, dtype)

    def reserve(self, size: int) -> FloatArray:
        """Return memory for at least `size` numbers; without room for it, the old one is there."""
        if self.buffer.size < size:
            self.buffer = aligned_empty(size, self._dtype)
        return self.buffer


class WorkspacePool:
    """Workspaces of one model: as many as were borrowed at the same time.

    Parameters
    ----------
    dtype : dtype
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._free: list[FloatArray] = []

    def borrow(self, size: int) -> FloatArray:
        """Take memory for at least `size` numbers that nobody else has."""
        try:
            workspace = self._free.pop()
        except IndexError:
            return aligned_empty(size, self._dtype)
        if workspace.size < size:
            del workspace  # before there is a larger one
            return aligned_empty(size, self._dtype)
        return workspace

    def give_back(self, workspace: FloatArray) -> None:
        """Let other calls have a workspace."""
        self._free.append(workspace)


class Loan:
    """Arrays that a call has from a pool, and may leave to a later one to give back.

    Parameters
    ----------
    pool : WorkspacePool
    """

    def __init__(self, pool: WorkspacePool) -> None:
        self._pool = pool
        self._borrowed: list[FloatArray] = []

    def array(self, shape: tuple[int, ...]) -> FloatArray:
        """Borrow an uninitialised array."""
        size = math.prod(shape)
        workspace = self._pool.borrow(size)
        self._borrowed.append(workspace)
        return workspace[:size].reshape(shape)

    def end_but_for_the_last(self) -> None:
        """Give back all but what was borrowed last."""
        while len(self._borrowed) > 1:
            self._pool.give_back(self._borrowed.pop(0))

    def end(self) -> None:
        """Give everything back, the first last: who borrows next then finds the same size."""
        while self._borrowed:
            self._pool.give_back(self._borrowed.pop())
