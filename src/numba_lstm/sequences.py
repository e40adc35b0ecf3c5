"""Sequences as an LSTM takes them: inputs, and the states before and after."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .config import LSTMConfig
from .memory import NOTHING, flat
from .validation import FloatArray, State, real_array, require_shape, state_pair

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


def steps_and_rows(config: LSTMConfig, axes: tuple[int, ...]) -> tuple[int, int]:
    """T and B of a sequence that has these axes beside the features: (T, B), (B, T) or (T,)."""
    if len(axes) == 1:
        return axes[0], 1
    first, second = axes
    return (second, first) if config.batch_first else (first, second)


def state_shape(config: LSTMConfig, axes: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of h and c of such a sequence."""
    if len(axes) == 1:
        return config.cells, config.hidden_size
    return config.cells, steps_and_rows(config, axes)[1], config.hidden_size


class InputSequence(NamedTuple):
    """An input as kernels see it.

    Attributes
    ----------
    array : ndarray
        C-contiguous, in the model's dtype; or the table that tokens name rows of.
    axes : tuple of int
        Beside the features: (T, B), (B, T) with `batch_first`, or (T,).
    T, B : int
    tokens : ndarray of int64
        (T B), those of a step side by side; None if there is no table.
    """

    array: FloatArray
    axes: tuple[int, ...]
    T: int
    B: int
    tokens: NDArray[np.int64] | None = None

    @property
    def vocabulary(self) -> int:
        """Rows that a table needs room for; 0 if there is none.

        Some more than it has, or each of its sizes would be laid out anew.
        """
        return 0 if self.tokens is None else -(-len(self.array) // _ROWS_OF_ROOM) * _ROWS_OF_ROOM

    def enter_tokens(self, call: NDArray[Any]) -> None:
        """Enter the tokens, if there are any, in the table of a call of its own."""
        if self.tokens is not None:
            call["tokens"], call["vocabulary"] = self.tokens.ctypes.data, len(self.array)

    def shape(self, features: int) -> tuple[int, ...]:
        """Shape of an array with the same axes and so many features."""
        return (*self.axes, features)


def input_sequence(config: LSTMConfig, x: Any) -> InputSequence:
    """Validate an input.

    Raises
    ------
    TypeError, ValueError
        If it has the wrong kind or shape.
    """
    tokens = None
    if isinstance(x, TokenSequence):
        array, tokens, axes = x.table, x.tokens, x.tokens.shape
    else:
        array = real_array("x", x, config.numpy_dtype)
        axes = array.shape[:-1]
        if array.ndim not in (2, 3) or array.shape[-1] != config.input_size:
            both = ("B", "T") if config.batch_first else ("T", "B")
            names = ("T",) if array.ndim == 2 else both
            meaning = f"{config.input_size} = input_size"
            require_shape("x", array, (*names, config.input_size), meaning)
    if tokens is not None:
        tokens = flat(np.ascontiguousarray(tokens.T if config.batch_first else tokens))
    return InputSequence(array, axes, *steps_and_rows(config, axes), tokens)


def given_state(config: LSTMConfig, sequence: InputSequence, name: str, state: Any) -> State:
    """Validate a pair of states of a sequence; arrays of size 0 stand for None.

    Raises
    ------
    TypeError, ValueError
        If it is no pair of arrays of real numbers, or has the wrong shape.
    """
    if state is None:
        nothing = NOTHING[config.dtype]
        return nothing, nothing
    return state_pair(name, state, state_shape(config, sequence.axes), config.numpy_dtype)


def new_state(config: LSTMConfig, sequence: InputSequence) -> State:
    """Room for a pair of states."""
    shape, dtype = state_shape(config, sequence.axes), config.numpy_dtype
    return np.empty(shape, dtype), np.empty(shape, dtype)
