"""Memory that calls work in, borrowed for the time of one."""

from __future__ import annotations

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
    """Workspaces of one model: as many as there were calls at the same time.

    Parameters
    ----------
    dtype : dtype
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._free: list[FloatArray] = []

    def borrow(self, size: int) -> FloatArray:
        """Take memory for at least `size` numbers that no other call has."""
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
