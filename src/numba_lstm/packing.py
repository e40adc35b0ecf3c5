"""Packed weights: panels made once per version of the parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from . import threads
from .memory import aligned_empty
from .parameters import Parameters
from .validation import FloatArray


class PackedCopy:
    """One packed copy: the version that it holds, and how many read it now."""

    def __init__(self, buffer: FloatArray) -> None:
        self.buffer = buffer
        self.version = 0
        self.readers = 0


class PackedWeights:
    """Panels of a layer's weights, packed again when the parameters have changed.

    Parameters
    ----------
    parameters : Parameters
    size : int
        Numbers in the packed weights.
    pack : callable
        ``pack(flat, packed)`` fills a packed copy from the flat parameters.
    """

    def __init__(
        self,
        parameters: Parameters,
        size: int,
        pack: Callable[[FloatArray, FloatArray], None],
    ) -> None:
        self._parameters = parameters
        self._size = size
        self._pack = pack
        self._lock = threads.lock()
        self._copy: PackedCopy | None = None

    @property
    def version(self) -> int:
        """Version of the parameters that a copy would be packed from now."""
        return self._parameters.version

    def lease(self) -> PackedCopy:
        """Return a packed copy of the present weights, unchanged until it is given back.

        A call that still reads older weights keeps its copy; the present ones then get another.
        """
        with self._lock:
            copy = self._copy
            version = self._parameters.version
            if copy is None or (copy.version != version and copy.readers > 0):
                copy = PackedCopy(aligned_empty(self._size, self._parameters.dtype))
                self._copy = copy
            if copy.version != version:
                copy.version = 0  # packed halfway, it would be of no version
                self._pack(self._parameters._writable, copy.buffer)
                copy.version = version
            copy.readers += 1
        return copy

    def give_back(self, copy: PackedCopy) -> None:
        """End a lease."""
        with self._lock:
            copy.readers -= 1

    @contextmanager
    def borrow(self) -> Iterator[FloatArray]:
        """Lend panels of the present weights.

        Yields
        ------
        ndarray
            The packed weights.
        """
        copy = self.lease()
        try:
            yield copy.buffer
        finally:
            self.give_back(copy)
