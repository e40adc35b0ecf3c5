"""Packed weights: panels made once per version of the parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .locks import reentrant_lock
from .memory import aligned_empty
from .parameters import Parameters
from .schedule import pass_workers
from .validation import FloatArray


class PackedCopies:
    """Room for some packed copies alike: how many hold a version, and who reads them now.

    Attributes
    ----------
    readers : list of None
        An item for each. Taking one in or out needs no lock.
    """

    def __init__(self, size: int, room: int, dtype: np.dtype[Any]) -> None:
        self.buffer = aligned_empty(size * room, dtype)
        self.parts = self.buffer.reshape(room, size)
        self.filled = 0
        self.version = 0
        self.readers: list[None] = []


class PackedWeights:
    """Panels of a layer's weights, packed again when the parameters have changed.

    Parameters
    ----------
    parameters : Parameters
    size : int
        Numbers in the packed weights.
    pack : callable
        ``pack(flat, packed, workers)`` fills a packed copy from the flat parameters.
    """

    def __init__(
        self,
        parameters: Parameters,
        size: int,
        pack: Callable[[FloatArray, FloatArray, int], None],
    ) -> None:
        self._parameters = parameters
        self._size = size
        self._pack = pack
        # The collector may give a copy back in the midst of a lease: a stream that nobody has.
        self._lock = reentrant_lock()
        self._copy: PackedCopies | None = None

    @property
    def version(self) -> int:
        """Version of the parameters that a copy would be packed from now."""
        return self._parameters.version

    def lease(self, alike: int = 1, workers: int = 1) -> PackedCopies:
        """Return a packed copy of the present weights, unchanged until it is given back.

        A call that still reads older weights keeps its copy; the present ones then get another.
        There are `alike` of it, one behind another: a worker reads its own faster than one that
        other cores read as well. So many workers at most pack it.
        """
        copy = self._copy
        if copy is not None:
            # A lock would take a twentieth of a small call. Whoever packs a copy anew sees first
            # that nobody reads it, and it has an older version then: one of the two gives way.
            copy.readers.append(None)
            if copy.version == self._parameters.version and copy.filled >= alike:
                return copy
            copy.readers.pop()
        return self._lease_anew(alike, workers)

    def _lease_anew(self, alike: int, workers: int) -> PackedCopies:
        """Return a packed copy that had to be packed, unless another thread has just done so."""
        with self._lock:
            copy = self._copy
            version = self._parameters.version
            in_use = copy is not None and copy.version != version and copy.readers
            if copy is None or in_use or len(copy.parts) < alike:
                copy = PackedCopies(self._size, alike, self._parameters.dtype)
                self._copy = copy
            if copy.version != version:
                copy.version = copy.filled = 0  # packed halfway, it would be of no version
                packers = pass_workers(workers, self._size)
                self._pack(self._parameters._writable, copy.parts[0], packers)
                copy.version, copy.filled = version, 1
            # Who reads already has the first ones; each version is copied as often as it is wanted.
            while copy.filled < alike:
                copy.parts[copy.filled] = copy.parts[0]
                copy.filled += 1
            copy.readers.append(None)
        return copy

    def give_back(self, copy: PackedCopies) -> None:
        """End a lease."""
        copy.readers.pop()

    @contextmanager
    def borrow(self, workers: int) -> Iterator[FloatArray]:
        """Lend panels of the present weights, which so many workers pack at most.

        Yields
        ------
        ndarray
            The packed weights.
        """
        copy = self.lease(1, workers)
        try:
            yield copy.buffer
        finally:
            self.give_back(copy)
