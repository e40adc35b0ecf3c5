"""Vectors of which as many lanes as are left belong to a row."""

from __future__ import annotations

from ..jit import device, inlined
from ..simd.tile import keep_loop
from ..simd.vector import load, load_first, store, store_first, width


@inlined
def load_up_to(place, left):
    """Vector of the next numbers of a row, of which so many are left; zeros behind them."""
    return load(place) if left >= width(place) else load_first(place, left)


@inlined
def store_up_to(vector, place, left):
    """Write the lanes of a vector for which there is room."""
    if left >= width(place):
        store(vector, place)
    else:
        store_first(vector, place, left)


@device
def copy_columns(rows, columns, source, source_row, target, target_row):
    """Copy the first columns of some rows."""
    lanes = width(source)
    whole = columns // lanes * lanes
    for row in range(rows):
        keep_loop()
        for column in range(0, whole, lanes):
            keep_loop()
            store(load(source + (row * source_row + column)), target + (row * target_row + column))
        if whole < columns:
            vector = load_first(source + (row * source_row + whole), columns - whole)
            store_first(vector, target + (row * target_row + whole), columns - whole)
