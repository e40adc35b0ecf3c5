"""Packed weights: panels made once per version of the parameters."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .config import LSTMConfig
from .kernels.panels import pack_cells, pack_products
from .memory import aligned_empty
from .parameters import Parameters
from .validation import FloatArray
from .workspace import packed_layout


class _Copy:
    """One packed copy of the weights and the calls that read it now."""

    def __init__(self, size: int, dtype: object) -> None:
        self.buffer = aligned_empty(size, dtype)
        self.forward_version = -1
        self.backward_version = -1
        self.readers = 0


class PackedWeights:
    """Panels of an LSTM's weights, packed again when the parameters have changed.

    Parameters
    ----------
    config : LSTMConfig
    parameters : Parameters
    """

    def __init__(self, config: LSTMConfig, parameters: Parameters) -> None:
        self._parameters = parameters
        self._layout = packed_layout(config)
        self._directions = config.directions
        self._lock = threading.Lock()
        self._copy: _Copy | None = None

    @contextmanager
    def borrow(self, *, backward: bool) -> Iterator[FloatArray]:
        """Lend panels of the present weights.

        A call that still reads older weights keeps its copy; the new panels then get another.

        Parameters
        ----------
        backward : bool
            Whether the panels of the backward pass are wanted, or those of the forward pass.

        Yields
        ------
        ndarray
            The packed weights.
        """
        with self._lock:
            copy = self._current(self._layout.size if backward else self._layout.forward_size)
            version = self._parameters.version
            flat = self._parameters._writable
            if backward and copy.backward_version != version:
                pack_products(self._layout.cells, self._directions, flat, copy.buffer)
                copy.backward_version = version
            elif not backward and copy.forward_version != version:
                pack_cells(self._layout.cells, flat, copy.buffer)
                copy.forward_version = version
            copy.readers += 1
        try:
            yield copy.buffer
        finally:
            with self._lock:
                copy.readers -= 1

    def _current(self, size: int) -> _Copy:
        """Return a copy of at least `size` numbers that may be written where it is stale."""
        copy = self._copy
        version = self._parameters.version
        if copy is not None and copy.buffer.size >= size:
            stale = version not in (copy.forward_version, copy.backward_version)
            if not stale or copy.readers == 0:
                return copy
        self._copy = copy = _Copy(size, self._parameters.dtype)
        return copy
