"""Products on the register tile: rows times packed panels.

Every sum is one chain of fused multiply-adds in ascending order of its terms, whatever the height
and width of the tile, so a row's result does not depend on its neighbours.
"""

from __future__ import annotations

from typing import NamedTuple

from ..jit import device, inlined
from ..simd import cpu
from ..simd.pointer import Pointer
from ..simd.tile import (
    PANEL_VECTORS,
    keep_loop,
    tile_sum,
)
from ..simd.vector import width
from .lanes import copy_columns
from .workers import first_of_share

# Rows of the tallest tile by the vectors in a row, up to 4: 8 8 6 6 where there are 32 registers,
# 6 6 4 3 of 16.
_TALLEST = tuple(cpu.tile_rows(vectors) for vectors in range(1, 5))
ROWS = _TALLEST[3]
_MANY_REGISTERS = ROWS > 3
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
    if rows == 1 and panels >= 4 and _MANY_REGISTERS:
        return 4
    if rows == 1 and panels >= 2:
        return 2
    return 1


panels_for_rows_compiled = inlined(panels_for_rows)


class Terms(NamedTuple):
    """Terms of a sum, for blocks of rows.

    `count` numbers of row r of block b stand in runs, each of `run` numbers but the last, which may
    be shorter; run k from ``values[b * block + r * row + k * next_run]`` on.
    """

    count: int
    run: int
    next_run: int
    values: Pointer
    block: int
    row: int


@inlined
def no_terms(values):
    """Terms of an empty sum."""
    return Terms(0, 0, 0, values, 0, 0)


class Place(NamedTuple):
    """Where row r of block b stands in panel p of a result: `start` and three strides."""

    start: Pointer
    block: int
    row: int
    panel: int


@inlined
def rows_of(terms, block, row):
    """The same terms, for the rows from one of them on."""
    values = terms.values + (block * terms.block + row * terms.row)
    return Terms(terms.count, terms.run, terms.next_run, values, terms.block, terms.row)


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
    most = 2 if _MANY_REGISTERS else 1
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


class Upcoming(NamedTuple):
    """Weights that come next, which the tiles over the present ones ask for: `tile` of `tiles`.

    Where they come from beyond L2, the first tile would wait for them: with 20 rows of 650 units
    130 GFLOP/s, and 170 where the tiles before it have asked (L3 at 30 GB/s).
    """

    weights: Pointer
    tile: int
    tiles: int  # 0 if nothing is asked for


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


_share_of_row_compiled = inlined(share_of_row)


@inlined
def _asked_by_tile(upcoming, vectors, terms):
    """Where a tile begins to ask for weights, how far on with every term, and what beside it.

    With every term a tile asks for as many numbers as it has of a row, up to two vectors of four;
    of narrower rows for one vector. So a single tall tile asks for every other one, a cache line of
    AVX-512 (for both, 8 rows of 2048 units went at 153 GFLOP/s, and at 162 so).
    """
    lanes = width(upcoming.weights)
    before, share = _share_of_row_compiled(upcoming.tile, upcoming.tiles, vectors * lanes)
    return upcoming.weights + before * terms, share, lanes if share > lanes else 0


class _Run(NamedTuple):
    """Terms of a sum that stand one behind another, and what tells where the next ones do."""

    values: Pointer
    row: int
    count: int
    following: Pointer  # where the next run begins
    next_run: int  # from there to the one after it
    length: int  # of every run but the last
    rest: int  # terms behind this run


@inlined
def _run_of(part, number, within):
    """One of the runs of a part of a sum, from one of its terms on."""
    start = part.values + number * part.next_run
    left = part.count - number * part.run
    count = min(part.run, left)
    following = start + part.next_run
    return _Run(
        start + within, part.row, count - within, following, part.next_run, part.run, left - count
    )


@inlined
def _run_behind(first, second, count):
    """What is left of the run in which so many terms of a sum end."""
    if count < first.count:
        number = count // first.run
        return _run_of(first, number, count - number * first.run)
    count -= first.count
    number = count // max(1, second.run)
    return _run_of(second, number, count - number * second.run)


@inlined
def _next_run(run, second):
    """The run after another, whose part the second one follows."""
    if run.rest == 0:
        return _run_of(second, 0, 0)
    count = min(run.length, run.rest)
    following = run.following + run.next_run
    return _Run(
        run.following, run.row, count, following, run.next_run, run.length, run.rest - count
    )


@device
def tile_product(
    vectors,
    rows,
    start,
    continued,
    first,
    second,
    stretch,
    weights,
    panel_size,
    upcoming,
    out,
):
    """Multiply the rows of one tile by panels: ``out = start + [first | second] @ weights``.

    Parameters
    ----------
    vectors : int
        In a row of the product: those of a panel, up to 4; or 8 or 16, of panels of 4.
    rows : int
        From `height_of`.
    start, continued : Pointer, bool
        Every row's sums start from the vectors at `start`, those of the panels as far apart as the
        weights; or, if they are continued, from what stands in `out`.
    first, second : Terms
        Read.
    stretch : Stretch
        Which of them.
    weights, panel_size : Pointer, int
        Rows of the panels for these terms, the panels so many numbers apart; read.
    upcoming : Upcoming
    out : Place
        Assigned.
    """
    begin = out if continued else Place(start, 0, 0, panel_size)
    run = _run_behind(first, second, stretch.before)
    asked, step, beside = _asked_by_tile(upcoming, vectors, stretch.count)
    task = (begin, stretch.count, run, second, weights, panel_size, asked, step, beside, out)
    if vectors == 4:
        tile_sum(4, rows, _next_run, task)
    elif vectors == 3:
        tile_sum(3, rows, _next_run, task)
    elif vectors == 2:
        tile_sum(2, rows, _next_run, task)
    elif vectors == 1:
        tile_sum(1, rows, _next_run, task)
    elif vectors == 8:
        tile_sum(8, rows, _next_run, task)
    elif _MANY_REGISTERS and vectors == 16:
        tile_sum(16, rows, _next_run, task)


@inlined
def panel_vectors(columns, lanes, widest):
    """Vectors in a row of the next panel when so many columns are left: `widest`, or fewer."""
    return min((columns + lanes - 1) // lanes, widest)


@device
def product(
    blocks,
    rows,
    first,
    second,
    panels,
    panel_rows,
    skipped,
    columns,
    widest,
    continued,
    cached,
    asked,
    scratch,
    out,
):
    """Multiply blocks of rows by a packed matrix: ``out = start + [first | second] @ matrix``.

    A panel is used for all blocks before the next one, and stays in the cache; so does, for all
    panels, a stretch of the terms of rows. (Panel by panel, each with all its stretches, training
    of T12 B20 I400 H1150 went at 127 GFLOP/s on an Intel CPU, and goes at 130.)

    Parameters
    ----------
    blocks, rows : int
        Blocks, and rows in each. Tiles are cut within a block.
    first, second : Terms
        Read.
    panels, panel_rows : Pointer, int
        Column panels of `widest` vectors, the last of what is left (`panel_vectors`), each
        (panel_rows, width): the start of every sum, then the matrix. Padded with zeros; read.
    skipped : int
        Rows of the matrix before that of the first term.
    columns, widest : int
    continued : bool
        Whether sums start from what stands in `out` instead.
    cached : int
        Numbers of a matrix that the L2 cache keeps from one use to the next.
    asked : bool
        Whether tiles ask for the weights that come next.
    scratch : Pointer
        `TILE_VECTORS` vectors.
    out : Place
        (blocks, rows, columns), assigned; every four vectors of columns are a panel.
    """
    lanes = width(scratch)
    tiles = blocks * tiles_for_rows_compiled(rows, widest)
    terms = first.count + second.count
    stretches = stretches_for_terms_compiled(terms, widest, tiles, cached, asked, lanes)
    for number in range(stretches):
        stretch = stretch_of(terms, number, stretches)
        begun = continued or number > 0
        column = 0
        while column < columns:
            keep_loop()
            left = columns - column
            panel_of_out = column // (WIDE * lanes)
            aside = column - panel_of_out * WIDE * lanes
            results = out.start + (panel_of_out * out.panel + aside)
            vectors = panel_vectors(left, lanes, widest)
            across = vectors * lanes
            direct = left >= across and not continued
            together = (
                panels_for_rows_compiled(rows, left // across) if direct and vectors == WIDE else 1
            )
            panel = panels + column * panel_rows
            wanted = min(left, across)
            next_column, term = column + across * together, stretch.before
            follows = next_column < columns
            if not follows:
                next_column, term = 0, stretch.before + stretch.count
                follows = term < terms
            next_across = panel_vectors(columns - next_column, lanes, widest) * lanes
            following = panels + (next_column * panel_rows + (1 + skipped + term) * next_across)
            heights = tiling(vectors * together, rows)
            asking = asking_tiles(blocks * heights.count, widest) if asked and follows else 0
            for block in range(blocks):
                row = 0
                for tile in range(heights.count):
                    keep_loop()
                    height = height_of(heights, tile)
                    target = results + (block * out.block + row * out.row)
                    place = Place(target, 0, out.row, out.panel)
                    if not direct:
                        place = Place(scratch, 0, across, 0)
                        if begun:
                            copy_columns(height, wanted, target, out.row, scratch, across)
                    tile_product(
                        vectors * together,
                        height,
                        panel,
                        begun,
                        rows_of(first, block, row),
                        rows_of(second, block, row),
                        stretch,
                        panel + (1 + skipped + stretch.before) * across,
                        panel_rows * across,
                        Upcoming(following, block * heights.count + tile, asking),
                        place,
                    )
                    if not direct:
                        copy_columns(height, wanted, scratch, across, target, out.row)
                    row += height
            column += across * together
