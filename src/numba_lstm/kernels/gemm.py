"""Products on the register tile: rows times packed panels.

Every sum is one chain of fused multiply-adds in ascending order of its terms, whatever the height
and width of the tile, so a row's result does not depend on its neighbours.
"""

from __future__ import annotations

from typing import NamedTuple

from ..jit import device, inlined
from ..simd.pointer import Pointer
from ..simd.tile import keep_loop, tile_sum
from ..simd.vector import width
from .lanes import copy_columns
from .tiling import (
    MANY_REGISTERS,
    WIDE,
    asking_tiles,
    height_of,
    panel_vectors,
    panels_for_rows_compiled,
    share_of_row_compiled,
    stretch_of,
    stretches_for_terms_compiled,
    tiles_for_rows_compiled,
    tiling,
)


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


class Upcoming(NamedTuple):
    """Weights that come next, which the tiles over the present ones ask for: `tile` of `tiles`.

    Where they come from beyond L2, the first tile would wait for them: with 20 rows of 650 units
    130 GFLOP/s, and 170 where the tiles before it have asked (L3 at 30 GB/s).
    """

    weights: Pointer
    tile: int
    tiles: int  # 0 if nothing is asked for


@inlined
def _asked_by_tile(upcoming, vectors, terms):
    """Where a tile begins to ask for weights, how far on with every term, and what beside it.

    With every term a tile asks for as many numbers as it has of a row, up to two vectors of four;
    of narrower rows for one vector. So a single tall tile asks for every other one, a cache line of
    AVX-512 (for both, 8 rows of 2048 units went at 153 GFLOP/s, and at 162 so).
    """
    lanes = width(upcoming.weights)
    before, share = share_of_row_compiled(upcoming.tile, upcoming.tiles, vectors * lanes)
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
    elif MANY_REGISTERS and vectors == 16:
        tile_sum(16, rows, _next_run, task)


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
