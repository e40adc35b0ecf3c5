"""Vectors of which as many lanes as are left belong to a row."""

from __future__ import annotations

from ..jit import inlined
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
