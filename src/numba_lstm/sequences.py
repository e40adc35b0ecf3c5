"""Sequences as an LSTM takes and gives them: inputs, the states before and after, and outputs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .config import LSTMConfig
from .memory import NOTHING, flat
from .validation import (
    FloatArray,
    State,
    real_array,
    refuse_overlap,
    require_output,
    require_shape,
    state_pair,
)

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

    def entered(self, call: NDArray[Any]) -> NDArray[Any]:
        """Table of a call in which the tokens are entered, if there are any."""
        if self.tokens is None:
            return call
        call = call.copy()
        call["tokens"], call["vocabulary"] = self.tokens.ctypes.data, len(self.array)
        return call

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


def outputs(
    config: LSTMConfig, sequence: InputSequence, hx: State, out: Any
) -> tuple[FloatArray, State]:
    """Allocate y and the pair of states after the sequence, or validate those that the user lends.

    Raises
    ------
    TypeError, ValueError
        If what is lent has the wrong structure, kind, shape or layout, or overlaps what is read.
    MemoryError
        If there is no room for them.
    """
    dtype = config.numpy_dtype
    y_shape = sequence.shape(config.output_size)
    if out is None:  # nothing to check, which would take a small call as long again
        return np.empty(y_shape, dtype), new_state(config, sequence)
    pairs = (tuple, list)
    structured = isinstance(out, pairs) and len(out) == 2
    if structured and out[1] is None:
        out = out[0], new_state(config, sequence)
    elif not structured or not isinstance(out[1], pairs) or len(out[1]) != 2:
        got = f"{len(out)} items" if isinstance(out, pairs) else type(out).__name__
        got = f"(y, {type(out[1]).__name__})" if structured else got
        raise TypeError(f"out must have the structure (y, (h, c)) or (y, None); got {got}")
    y, (h, c) = out
    shape_after = state_shape(config, sequence.axes)
    require_output("y of out", y, y_shape, dtype)
    require_output("h of out", h, shape_after, dtype)
    require_output("c of out", c, shape_after, dtype)
    h0, c0 = hx
    x = sequence.array
    read = {"x": x, "h of hx": h0, "c of hx": c0, "h of out": h, "c of out": c}
    refuse_overlap("y of out", y, read)
    refuse_overlap("h of out", h, {"x": x, "c of hx": c0, "c of out": c}, same=("hx", h0))
    refuse_overlap("c of out", c, {"x": x, "h of hx": h0}, same=("hx", c0))
    return y, (h, c)
