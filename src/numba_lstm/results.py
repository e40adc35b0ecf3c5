"""Room for what an LSTM gives, forward and back: new arrays, or those that a user lends."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .config import LSTMConfig
from .sequences import InputSequence, new_state, state_shape
from .validation import FloatArray, State, refuse_overlap, require_output, require_wanted


class _Names(NamedTuple):
    """What the user calls a sequence of results, a pair of states, and the pair that is given."""

    results: str
    h: str
    c: str
    given: str


_FORWARD = _Names("y", "h", "c", "hx")
_BACKWARD = _Names("dx", "dh0", "dc0", "dhx")


def outputs(
    config: LSTMConfig, sequence: InputSequence, hx: State, out: Any
) -> tuple[FloatArray, State]:
    """Return room for y and the states after the sequence.

    Raises
    ------
    TypeError, ValueError
        If what is lent has the wrong structure, kind, shape or layout, or overlaps what is read or
        what else is lent.
    MemoryError
        If there is no room for them.
    """
    shape = sequence.shape(config.output_size)
    if out is None:  # nothing to check, which would take a small call as long again
        return np.empty(shape, config.numpy_dtype), new_state(config, sequence)
    y, states = _lent(config, sequence, _FORWARD, out, shape, {"x": sequence.array}, hx)
    return (np.empty(shape, config.numpy_dtype) if y is None else y), states


def gradients_before(
    config: LSTMConfig,
    sequence: InputSequence,
    dy: FloatArray,
    dhx: State,
    wanted: bool,
    out: Any,
) -> tuple[FloatArray | None, State]:
    """Return room for dx, if it is wanted, and for the gradients of the states before.

    Raises
    ------
    TypeError, ValueError
        As for `outputs`, or if an array for dx is lent though it is not wanted.
    MemoryError
        If there is no room for them.
    """
    shape = sequence.array.shape
    dx, states = None, None
    if out is not None:
        read = {"x": sequence.array, "dy": dy}
        dx, states = _lent(config, sequence, _BACKWARD, out, shape, read, dhx)
        require_wanted("dx of out", dx, wanted)
    if dx is None and wanted:
        dx = np.empty(shape, config.numpy_dtype)
    return dx, new_state(config, sequence) if states is None else states


def _lent(
    config: LSTMConfig,
    sequence: InputSequence,
    names: _Names,
    out: Any,
    shape: tuple[int, ...],
    read: dict[str, FloatArray],
    given: State,
) -> tuple[FloatArray | None, State]:
    """Return results and states that a user lends: None or new states where there are none.

    The states may be the very ones that are given.
    """
    dtype = config.numpy_dtype
    results, states = _structured(out, names)
    name, h_name, c_name = (f"{part} of out" for part in names[:3])
    lent = {} if states is None else {h_name: states[0], c_name: states[1]}
    if results is not None:
        require_output(name, results, shape, dtype)
    for part, array in lent.items():
        require_output(part, array, state_shape(config, sequence.axes), dtype)
    h, c = given
    of_h, of_c = f"h of {names.given}", f"c of {names.given}"
    if results is not None:
        refuse_overlap(name, results, {**read, of_h: h, of_c: c, **lent})
    if states is None:
        return results, new_state(config, sequence)
    others = {**read, of_c: c, c_name: states[1]}
    refuse_overlap(h_name, states[0], others, same=(names.given, h))
    refuse_overlap(c_name, states[1], {**read, of_h: h}, same=(names.given, c))
    return results, states


def _structured(out: Any, names: _Names) -> tuple[Any, tuple[Any, Any] | None]:
    """Take apart what a user lends: results, and a pair of states or None."""
    pairs = (tuple, list)
    structured = isinstance(out, pairs) and len(out) == 2
    if structured and out[1] is None:
        return out[0], None
    if structured and isinstance(out[1], pairs) and len(out[1]) == 2:
        return out[0], tuple(out[1])
    got = f"{len(out)} items" if isinstance(out, pairs) else type(out).__name__
    got = f"({names.results}, {type(out[1]).__name__})" if structured else got
    structure = f"({names.results}, ({names.h}, {names.c})) or ({names.results}, None)"
    raise TypeError(f"out must have the structure {structure}; got {got}")
