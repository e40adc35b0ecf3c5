"""Inputs as an LSTM takes them: sequences of numbers, or of the rows of a table."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .validation import FloatArray

# What the room for the rows of a table is a multiple of.
_ROWS_OF_ROOM = 64


class TokenSequence(NamedTuple):
    """A sequence of the rows of a table: in the place of x, where each row is projected once.

    Attributes
    ----------
    tokens : ndarray of int64
        (T, B), (B, T) with `batch_first`, or (T,) in [0, N).
    table : ndarray
        (N, I), in the model's dtype.
    """

    tokens: NDArray[np.int64]
    table: FloatArray


class InputSequence(NamedTuple):
    """An input as kernels see it.

    Attributes
    ----------
    array : ndarray
        C-contiguous, in the model's dtype; or the table that tokens name rows of.
    T, B : int
    batched, batch_first : bool
        How the axes lie: (T, B, ·), (B, T, ·) or (T, ·).
    tokens : ndarray of int64
        (T B), those of a step side by side; None if there is no table.
    """

    array: FloatArray
    T: int
    B: int
    batched: bool
    batch_first: bool
    tokens: NDArray[np.int64] | None = None

    @property
    def vocabulary(self) -> int:
        """Rows that a table needs room for; 0 if there is none.

        Some more than it has, or each of its sizes would be laid out anew.
        """
        return 0 if self.tokens is None else -(-len(self.array) // _ROWS_OF_ROOM) * _ROWS_OF_ROOM

    def entered(self, call: NDArray[Any]) -> NDArray[Any]:
        """Table of a call in which the tokens are entered, if there are any."""
        if self.tokens is None:
            return call
        call = call.copy()
        call["tokens"], call["vocabulary"] = self.tokens.ctypes.data, len(self.array)
        return call

    @property
    def axes(self) -> tuple[int, ...]:
        """Sizes of the axes beside the features."""
        if not self.batched:
            return (self.T,)
        return (self.B, self.T) if self.batch_first else (self.T, self.B)

    def shape(self, features: int) -> tuple[int, ...]:
        """Shape of an array with the same axes and so many features."""
        return (*self.axes, features)

    def state_shape(self, cells: int, hidden: int) -> tuple[int, ...]:
        """Shape of h and c."""
        return (cells, self.B, hidden) if self.batched else (cells, hidden)
