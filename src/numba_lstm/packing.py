"""Packed weights: panels made once per version of the parameters."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .memory import aligned_empty
from .parameters import Parameters
from .validation import FloatArray


class _Copy:
    """One packed copy: the version that it holds, and the calls that read it now."""

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
        self._lock = threading.Lock()
        self._copy: _Copy | None = None

    @contextmanager
    def borrow(self) -> Iterator[FloatArray]:
        """Lend panels of the present weights.

        A call that still reads older weights keeps its copy; the present ones then get another.

        Yields
        ------
        ndarray
            The packed weights.
        """
        with self._lock:
            copy = self._copy
            version = self._parameters.version
            if copy is None or (copy.version != version and copy.readers > 0):
                copy = _Copy(aligned_empty(self._size, self._parameters.dtype))
                self._copy = copy
            if copy.version != version:
                copy.version = 0  # packed halfway, it would be of no version
                self._pack(self._parameters._writable, copy.buffer)
                copy.version = version
            copy.readers += 1
        try:
            yield copy.buffer
        finally:
            with self._lock:
                copy.readers -= 1
