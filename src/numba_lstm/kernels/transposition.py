"""Rows to columns, a square tile at a time.

Number by number, one side would be written or read in strides that drive one another out of the L1
cache: 6 cycles a number where a tile takes less than one.
"""

from __future__ import annotations

from ..jit import device
from ..simd.tile import (
    keep_loop,
    square_tile,
    tile_accumulate,
    tile_load,
    tile_store,
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
    shape = square_tile(source)
    for row in range(0, rows, lanes):
        for column in range(0, columns, lanes):
            keep_loop()
            place = source + (row * source_row + column)
            result = target + (column * target_row + row)
            high, wide = min(lanes, rows - row), min(lanes, columns - column)
            if high == lanes and wide == lanes:
                tile = tile_transposed(tile_load(shape, place, source_row, 0))
                if added:
                    tile_accumulate(tile, result, target_row, 0)
                else:
                    tile_store(tile, result, target_row, 0)
                continue
            for r in range(high):
                for c in range(wide):
                    keep_loop()
                    number = place[r * source_row + c]
                    if added:
                        number = result[c * target_row + r] + number
                    result[c * target_row + r] = number
