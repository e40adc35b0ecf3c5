"""How products are cut: rows into tiles, sums into stretches, and what tiles ask for ahead."""

from __future__ import annotations

from typing import NamedTuple

from ..jit import inlined
from ..simd import cpu
from ..simd.tile import PANEL_VECTORS
from .workers import first_of_share

# Rows of the tallest tile by the vectors in a row, up to 4: 8 8 6 6 where there are 32 registers,
# 6 6 4 3 of 16.
_TALLEST = tuple(cpu.tile_rows(vectors) for vectors in range(1, 5))
ROWS = _TALLEST[3]
MANY_REGISTERS = ROWS > 3
# Vectors in a row of a panel, and of one for tall tiles (`widest_for_rows`).
WIDE, NARROW = PANEL_VECTORS, 2
# Vectors that hold the rows of any tile, as far apart as four vectors each.
TILE_VECTORS = 4 * max(_TALLEST)


class Tiling(NamedTuple):
    """Tiles that rows are cut into: `height` rows each, and one more in the first `higher` ones."""

    count: int
    height: int
    higher: int


@inlined
def tiling(vectors, rows):
    """Cut rows into tiles of so many vectors in a row that are nearly equal.

    20 rows are four tiles of 5, not 6, 6, 6 and 2.
    """
    tallest = 1 if vectors > 4 else _TALLEST[vectors - 1]
    if rows <= tallest:  # a division takes as long as five terms of a small tile
        return Tiling(1, rows, 0)
    count = (rows + tallest - 1) // tallest
    height = rows // count
    return Tiling(count, height, rows - count * height)


@inlined
def height_of(tiles, tile):
    """Rows of one of the tiles."""
    return tiles.height + (1 if tile < tiles.higher else 0)


def panels_for_rows(rows, panels):
    """Panels that a tile of few rows takes side by side: 4, 2 or 1.

    One row of one panel keeps four multiply-adds in flight, and a CPU wants eight and more.
    """
    if rows == 1 and panels >= 4 and MANY_REGISTERS:
        return 4
    if rows == 1 and panels >= 2:
        return 2
    return 1


panels_for_rows_compiled = inlined(panels_for_rows)


def tiles_for_rows(rows, vectors):
    """Tiles that so many rows are cut into, across so many vectors of a panel."""
    tallest = _TALLEST[vectors - 1]
    return (rows + tallest - 1) // tallest


tiles_for_rows_compiled = inlined(tiles_for_rows)


def widest_for_rows(rows):
    """Vectors in a row of the panels that so many rows want: 2 where tall tiles are fewer, or 4.

    Every tile reads all weights once more, and waits for them. (GFLOP/s of one thread on Zen 5 in
    tiles across four vectors and across two: B8 H300 221 and 232, H650 216 and 239, H1024 210 and
    215, B15 H650 232 and 241, B16 H1024 223 and 233. Where the weights are read more often than
    twice it is no gain: B24 H512 248 and 245; nor with the few registers of AVX2: B8 H256 111 and
    107.)
    """
    tall = tiles_for_rows(rows, NARROW)
    most = 2 if MANY_REGISTERS else 1
    return NARROW if tall <= most and tall < tiles_for_rows(rows, WIDE) else WIDE


def stretches_for_terms(terms, widest, tiles, cached, asked, lanes):
    """Stretches that a sum is cut into, so that L2 keeps the weights of one for all tiles.

    A panel of four fifths of what it keeps is taken at once, but of two fifths where tiles ask for
    the next one, which is to come into L2 beside it. Of a longer one, three tenths leave room for
    the next stretch and for the rows of the tiles: 4600 terms took 113 GFLOP/s at once, and 179 in
    stretches of 1024 to 512; three tiles over 2048 terms from memory 42 at once, and 46 in three. A
    sum that waits in memory for its next stretch goes on with the same bits. (What is not asked for
    only waits more often in shorter stretches: 1024 terms in three and at once B50 H512 244 and 250
    on one thread, 450 and 477 on two. Of what is asked for, on an Intel CPU, at most four fifths
    and two fifths at once: training T20 B20 H650 124 and 135, inference B96 H1024 147 and 153.)
    """
    tenth = cached // 10
    panel = terms * widest * lanes
    if tiles < 2 or panel <= (4 if asked else 8) * tenth:
        return 1
    longest = max(1, 3 * tenth // (widest * lanes))
    return (terms + longest - 1) // longest


stretches_for_terms_compiled = inlined(stretches_for_terms)


class Stretch(NamedTuple):
    """Some terms of a sum: how many come before them, and their number."""

    before: int
    count: int


@inlined
def stretch_of(terms, number, stretches):
    """One of the stretches of a sum."""
    if stretches == 1:
        return Stretch(0, terms)
    before = first_of_share(terms, number, stretches)
    return Stretch(before, first_of_share(terms, number + 1, stretches) - before)


@inlined
def asking_tiles(tiles, widest):
    """Tiles that ask for what comes next, of all those across so many vectors; or 0.

    A single one is done before what it asks for comes: a row that asks 4 KiB ahead of itself takes
    as long at H 2048. But not a tall one (8 rows of 2048 units 153 GFLOP/s, and 163 asked for).
    """
    return tiles if tiles > 1 or widest == NARROW else 0


def share_of_row(tile, tiles, numbers):
    """What a tile asks for of a row of weights: how many numbers come before it, and their number.

    Each asks for as much as any other, the last of very many for nothing. (While the first tiles
    asked for a vector each, L3 on an Intel CPU, at 25 GB/s, fell behind the first four of 16: 96
    rows of 1024 units went at 134 GFLOP/s, and go at 145; the last vector of four was left out by
    three tiles: 17 rows of 650 units 134 and 142.)
    """
    if tiles == 0:
        return 0, 0
    share = (numbers + tiles - 1) // tiles
    before = tile * share
    return (before, share) if before < numbers else (0, 0)


share_of_row_compiled = inlined(share_of_row)


@inlined
def panel_vectors(columns, lanes, widest):
    """Vectors in a row of the next panel when so many columns are left: `widest`, or fewer."""
    return min((columns + lanes - 1) // lanes, widest)
