"""Products on the register tile: rows times packed panels, and sums of outer products.

Every sum is one chain of fused multiply-adds in ascending order of its terms, whatever the height
and width of the tile, so a row's result does not depend on its neighbours.
"""

from __future__ import annotations

from typing import NamedTuple

from ..jit import device, inlined, variants
from ..simd import cpu
from ..simd.pointer import Pointer
from ..simd.tile import (
    keep_loop,
    panel_width,
    tile_accumulate,
    tile_load,
    tile_rank1,
    tile_store,
    tile_without_last_row,
    tile_zeros,
)
from ..simd.vector import load_first, store_first, width

# Rows of the tallest tile for 4, 2 and 1 vectors in a row.
ROWS = cpu.tile_rows(4)
ROWS_OF_PAIR = cpu.tile_rows(2)
ROWS_OF_ONE = cpu.tile_rows(1)
# Vectors of the largest of these: with 16 registers 6 x 2 is more than 2 x 4.
TILE_VECTORS = max(ROWS * 4, ROWS_OF_PAIR * 2, ROWS_OF_ONE)


@inlined
def next_rows(remaining, tallest):
    """Height of the next tile such that the tiles of the remaining rows are nearly equal.

    20 rows are four tiles of 5, not 6, 6, 6 and 2.
    """
    tiles = (remaining + tallest - 1) // tallest
    return (remaining + tiles - 1) // tiles


def panels_for_rows(rows, panels):
    """Panels that a tile of few rows takes side by side: 4, 2 or 1.

    One row of one panel keeps four multiply-adds in flight, and a CPU wants eight and more.
    """
    if rows == 1 and panels >= 4 and ROWS >= 4:
        return 4
    if rows == 1 and panels >= 2:
        return 2
    return 1


panels_at_once = inlined(panels_for_rows)


class Terms(NamedTuple):
    """Terms of a sum, for blocks of rows.

    `runs` times `run` numbers of row r of block b stand from
    ``values[b * block + r * row + k * next_run]`` on, for every run k.
    """

    runs: int
    run: int
    next_run: int
    values: Pointer
    block: int
    row: int


class Place(NamedTuple):
    """Where the results for row r of block b and panel p go: `start` and three strides."""

    start: Pointer
    block: int
    row: int
    panel: int


@inlined
def _rows_of(terms, block, row):
    """The same terms, for the rows from one of them on."""
    values = terms.values + (block * terms.block + row * terms.row)
    return Terms(terms.runs, terms.run, terms.next_run, values, terms.block, terms.row)


@inlined
def _tile_sum(shape, start, continued, first, second, weights, panel_size, out):
    """Sum both parts into a tile of this shape and write it.

    One loop, although the terms come in parts and runs: a loop around it would move the tile to the
    stack and back. The jump to the next run comes first in it: behind the multiply-adds it would
    cut their block in two, and LLVM, which reads values in the first block for the second, then
    runs out of registers for 6 x 4 and keeps a vector of the tile on the stack (66 to 97 GFLOP/s,
    as the stack happened to lie to the cache lines; 98 without).
    """
    if continued:
        begin, begin_row, begin_panel = out.start, out.row, out.panel
    else:
        begin, begin_row, begin_panel = start, 0, panel_size
    tile = tile_load(shape, begin, begin_row, begin_panel)
    row_of_panel = panel_width(tile)
    part = first if first.runs > 0 else second
    values, row, run, jump = part.values, part.row, part.run, part.next_run - part.run
    runs, left = part.runs, part.run
    for _ in range(first.runs * first.run + second.runs * second.run):
        keep_loop()
        if left == 0:
            runs -= 1
            values = values + jump
            if runs == 0:
                values, row, run, jump = (
                    second.values,
                    second.row,
                    second.run,
                    second.next_run - second.run,
                )
            left = run
        left -= 1
        tile = tile_rank1(tile, weights, panel_size, values, row)
        weights = weights + row_of_panel
        values = values + 1
    tile_store(tile, out.start, out.row, out.panel)


def sum_rows(shape, rows, start, continued, first, second, weights, panel_size, out):
    """Multiply `rows` rows of ``[first | second]`` by panels; see `tile_product`.

    The tile may be taller than `rows`: a variant for every height is compiled in.
    """


@variants(sum_rows)
def _sum_rows(shape, rows, start, continued, first, second, weights, panel_size, out):
    tallest = shape.rows

    def last(shape, rows, start, continued, first, second, weights, panel_size, out):
        _tile_sum(shape, start, continued, first, second, weights, panel_size, out)

    def at_most(shape, rows, start, continued, first, second, weights, panel_size, out):
        if rows == tallest:
            _tile_sum(shape, start, continued, first, second, weights, panel_size, out)
        else:
            shorter = tile_without_last_row(shape)
            sum_rows(shorter, rows, start, continued, first, second, weights, panel_size, out)

    return last if tallest == 1 else at_most


@device
def tile_product(panels, rows, start, continued, first, second, weights, panel_size, out):
    """Multiply the rows of one tile by panels: ``out = start + [first | second] @ weights``.

    Parameters
    ----------
    panels : int
        Of 4 vectors, from `panels_at_once`.
    rows : int
        At most the rows of the tallest tile for these panels.
    start, continued : Pointer, bool
        Every row's sums start from the vectors at `start`, those of the panels as far apart as the
        weights; or, if they are continued, from what stands in `out`.
    first, second : Terms
        Read.
    weights, panel_size : Pointer, int
        Rows of the panels for these terms, the panels so many numbers apart; read.
    out : Place
        Assigned.
    """
    if panels == 1:
        tile = tile_zeros(ROWS, 4, start)
        sum_rows(tile, rows, start, continued, first, second, weights, panel_size, out)
    elif panels == 2:
        wide = tile_zeros(1, 8, start)
        _tile_sum(wide, start, continued, first, second, weights, panel_size, out)
    else:
        widest = tile_zeros(1, 16, start)
        _tile_sum(widest, start, continued, first, second, weights, panel_size, out)


@device
def _narrow_tile_product(vectors, rows, start, continued, first, second, weights, out):
    """Multiply the rows of one tile by a panel of 2 vectors or 1; like `tile_product`."""
    if vectors == 2:
        pair = tile_zeros(ROWS_OF_PAIR, 2, start)
        sum_rows(pair, rows, start, continued, first, second, weights, 0, out)
    else:
        one = tile_zeros(ROWS_OF_ONE, 1, start)
        sum_rows(one, rows, start, continued, first, second, weights, 0, out)


@inlined
def panel_vectors(columns, lanes):
    """Vectors in a row of the next panel when `columns` columns are left: 4, 2 or 1."""
    vectors = (columns + lanes - 1) // lanes
    if vectors >= 4:
        return 4
    if vectors >= 2:
        return 2
    return 1


@inlined
def _copy_columns(rows, columns, source, source_row, target, target_row):
    """Copy the first columns of some rows."""
    lanes = width(source)
    for row in range(rows):
        for column in range(0, columns, lanes):
            count = min(lanes, columns - column)
            vector = load_first(source + (row * source_row + column), count)
            store_first(vector, target + (row * target_row + column), count)


@inlined
def _tallest(vectors, panels):
    """Rows of the tallest tile for so many panels of so many vectors."""
    if panels > 1:
        return 1
    if vectors == 4:
        return ROWS
    if vectors == 2:
        return ROWS_OF_PAIR
    return ROWS_OF_ONE


@device
def panels_product(blocks, rows, terms, panels, panel_rows, count, out):
    """Multiply blocks of rows by whole panels: ``out = start + terms @ matrix``.

    Parameters
    ----------
    blocks, rows : int
        Blocks, and rows in each. Tiles are cut within a block.
    terms : Terms
        Read.
    panels, panel_rows : Pointer, int
        Panels of 4 vectors, each (panel_rows, width): the start of every sum, then the matrix;
        read.
    count : int
        Number of panels.
    out : Place
        Assigned.
    """
    across = 4 * width(panels)
    size = panel_rows * across
    none = Terms(0, 0, 0, terms.values, 0, 0)
    panel = 0
    while panel < count:
        together = panels_at_once(rows, count - panel)
        for block in range(blocks):
            row = 0
            while row < rows:
                keep_loop()
                height = next_rows(rows - row, _tallest(4, together))
                place = out.start + (panel * out.panel + block * out.block + row * out.row)
                tile_product(
                    together,
                    height,
                    panels + panel * size,
                    False,
                    _rows_of(terms, block, row),
                    none,
                    panels + (panel * size + across),
                    size,
                    Place(place, 0, out.row, out.panel),
                )
                row += height
        panel += together


@device
def product(
    blocks, rows, first, second, panels, panel_rows, skipped, columns, continued, scratch, out
):
    """Multiply blocks of rows by a packed matrix: ``out = start + [first | second] @ matrix``.

    A panel is used for all blocks before the next one: it stays in the cache.

    Parameters
    ----------
    blocks, rows : int
        Blocks, and rows in each. Tiles are cut within a block.
    first, second : Terms
        Read.
    panels, panel_rows : Pointer, int
        Column panels of 4, 2 or 1 vectors (`panel_vectors`), each (panel_rows, width): the start of
        every sum, then the matrix. Padded with zeros; read.
    skipped : int
        Rows of the matrix before that of the first term.
    columns : int
    continued : bool
        Whether sums start from what stands in `out` instead.
    scratch : Pointer
        `TILE_VECTORS` vectors.
    out : Place
        (blocks, rows, columns), assigned; columns stand side by side.
    """
    lanes = width(scratch)
    column = 0
    while column < columns:
        left = columns - column
        vectors = panel_vectors(left, lanes)
        across = vectors * lanes
        together = panels_at_once(rows, left // across) if vectors == 4 else 1
        panel = panels + column * panel_rows
        size = panel_rows * across
        weights = panel + (1 + skipped) * across
        direct = left >= across and not continued
        wanted = min(left, across * together)
        held = across * together
        for block in range(blocks):
            row = 0
            while row < rows:
                keep_loop()
                height = next_rows(rows - row, _tallest(vectors, together))
                target = out.start + (block * out.block + row * out.row + column)
                if continued:
                    _copy_columns(height, wanted, target, out.row, scratch, held)
                some, more = _rows_of(first, block, row), _rows_of(second, block, row)
                place = Place(target if direct else scratch, 0, out.row if direct else held, across)
                if vectors == 4:
                    tile_product(
                        together, height, panel, continued, some, more, weights, size, place
                    )
                else:
                    _narrow_tile_product(
                        vectors, height, panel, continued, some, more, weights, place
                    )
                if not direct:
                    _copy_columns(height, wanted, scratch, held, target, out.row)
                row += height
        column += held


class Block(NamedTuple):
    """Terms (t, row) of a sum of outer products, and how far apart they stand in both factors."""

    steps: int
    rows: int
    value_step: int
    value_row: int
    weight_step: int
    weight_row: int


@inlined
def _block_sum(tile, block, values, value_stride, weights, out):
    """Sum the outer products of one block into the tile and add it to `out`."""
    value_jump = block.value_step - block.rows * block.value_row
    weight_jump = block.weight_step - block.rows * block.weight_row
    left = block.rows
    for _ in range(block.steps * block.rows):
        keep_loop()
        if left == 0:
            values = values + value_jump
            weights = weights + weight_jump
            left = block.rows
        left -= 1
        tile = tile_rank1(tile, weights, 0, values, value_stride)
        values = values + block.value_row
        weights = weights + block.weight_row
    tile_accumulate(tile, out, panel_width(tile), 0)


def outer_rows(tile, rows, block, values, value_stride, weights, out):
    """Add one block's outer products to `out`; the tile, of zeros, may be taller than `rows`."""


@variants(outer_rows)
def _outer_rows(tile, rows, block, values, value_stride, weights, out):
    tallest = tile.rows

    def last(tile, rows, block, values, value_stride, weights, out):
        _block_sum(tile, block, values, value_stride, weights, out)

    def at_most(tile, rows, block, values, value_stride, weights, out):
        if rows == tallest:
            _block_sum(tile, block, values, value_stride, weights, out)
        else:
            shorter = tile_without_last_row(tile)
            outer_rows(shorter, rows, block, values, value_stride, weights, out)

    return last if tallest == 1 else at_most


@device
def outer_products(features, block, values, value_stride, weights, out):
    """Add a block of outer products: ``out[f] += sum over terms of values[f] * weights``.

    The block's sum starts from zero and joins `out` in one addition.

    Parameters
    ----------
    features : int
    block : Block
        Where the terms stand.
    values, value_stride : Pointer, int
        Value of feature f in the first term at ``values[f * value_stride]``, read.
    weights : Pointer
        Four vectors in the first term, read.
    out : Pointer
        (features, 4 vectors), accumulated into.
    """
    tile = tile_zeros(ROWS, 4, out)
    feature = 0
    while feature < features:
        keep_loop()
        rows = next_rows(features - feature, ROWS)
        place = values + feature * value_stride
        outer_rows(
            tile, rows, block, place, value_stride, weights, out + feature * panel_width(tile)
        )
        feature += rows
