"""Dropout between layers (Srivastava et al. 2014), from a counter-based generator.

Whether a number is dropped is a hash of (seed, call, layer, step, row, unit), so the backward pass
draws the same mask again instead of keeping it, whoever computes it in whatever order.
"""

from __future__ import annotations

import numpy as np

from ..jit import device, inlined

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST_FACTOR = np.uint64(0xBF58476D1CE4E5B9)
_SECOND_FACTOR = np.uint64(0x94D049BB133111EB)


@inlined
def _mixed(counter):
    """Finaliser of SplitMix64 (Steele, Lea & Flood 2014): each bit moves all others."""
    counter = (counter ^ (counter >> np.uint64(30))) * _FIRST_FACTOR
    counter = (counter ^ (counter >> np.uint64(27))) * _SECOND_FACTOR
    return counter ^ (counter >> np.uint64(31))


@inlined
def _joined(key, index):
    """Key of the part `index` of what `key` stands for."""
    return _mixed(key + (np.uint64(index) + np.uint64(1)) * _STEP)


@device
def dropout(call, layer, step, first, rows, units, values):
    """Drop some outputs of a layer at one step and scale the others by 1 / (1 - p); in place.

    Parameters
    ----------
    call : record of CALL
    layer, step : int
        The layer below the dropout, and t.
    first, rows : int
        Rows of the batch.
    units : int
        D H.
    values : Pointer
        All rows of the batch, one behind another; read and assigned.
    """
    dropped = np.uint64(call.dropped)
    share = call.dropped / 2.0**53
    scale = 1.0 / (1.0 - share) if share < 1.0 else 0.0
    key = _joined(_joined(_joined(np.uint64(call.seed), call.dropout_call), layer), step)
    for row in range(first, first + rows):
        row_key = _joined(key, row)
        place = values + row * units
        for unit in range(units):
            kept = (_joined(row_key, unit) >> np.uint64(11)) >= dropped
            place[unit] = place[unit] * scale if kept else 0.0
