"""Rows to columns, a square tile at a time.

Number by number, one side would be written or read in strides that drive one another out of the L1
cache: 6 cycles a number where a tile takes less than one.
"""

from __future__ import annotations

from ..jit import device
from ..simd.tile import (
    add_square_tile,
    keep_loop,
    load_square_tile,
    store_square_tile,
    tile_transposed,
)
from ..simd.vector import width


@device
def transpose(rows, columns, source, source_row, target, target_row, added):
    """Assign ``target[c, r] = source[r, c]``, or add it to what stands there.

    Parameters
    ----------
    rows, columns : int
        Of the source.
    source, source_row : Pointer, int
        (rows, columns), the rows so many numbers apart; read.
    target, target_row : Pointer, int
        (columns, rows), likewise; assigned or accumulated into.
    added : bool
    """
    lanes = width(source)
    for row in range(0, rows, lanes):
        for column in range(0, columns, lanes):
            keep_loop()
            place = source + (row * source_row + column)
            result = target + (column * target_row + row)
            high, wide = min(lanes, rows - row), min(lanes, columns - column)
            if high == lanes and wide == lanes:
                tile = tile_transposed(load_square_tile(place, source_row))
                if added:
                    add_square_tile(tile, result, target_row)
                else:
                    store_square_tile(tile, result, target_row)
                continue
            for r in range(high):
                for c in range(wide):
                    keep_loop()
                    number = place[r * source_row + c]
                    if added:
                        number = result[c * target_row + r] + number
                    result[c * target_row + r] = number
