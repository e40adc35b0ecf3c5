"""Products on the register tile: rows times packed panels, and sums of outer products.

Every sum is one chain of fused multiply-adds in ascending order of its terms, whatever the height
of the tile, so a row's result does not depend on its neighbours.
"""

from __future__ import annotations

from typing import NamedTuple

from ..jit import device, inlined, variants
from ..simd import cpu
from ..simd.pointer import Pointer
from ..simd.tile import (
    keep_loop,
    tile_accumulate,
    tile_rank1,
    tile_repeat,
    tile_store,
    tile_width,
    tile_without_last_row,
    tile_zeros,
)
from ..simd.vector import load, store_first, width

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


@inlined
def accumulate(tile, steps, values, row_stride, step_stride, weights, weight_stride):
    """Add `steps` rank-1 terms to a tile: ``tile[r, v] += values[r, k] * weights[k, v]``.

    Parameters
    ----------
    tile : Tile
    steps : int
        Number of terms k.
    values, row_stride, step_stride : Pointer, int, int
        Value of row r and term k stands at ``values[r * row_stride + k * step_stride]``.
    weights, weight_stride : Pointer, int
        Vectors of term k start at ``weights[k * weight_stride]``.

    Returns
    -------
    Tile
    """
    for _ in range(steps):
        keep_loop()
        tile = tile_rank1(tile, weights, values, row_stride)
        values = values + step_stride
        weights = weights + weight_stride
    return tile


class Terms(NamedTuple):
    """Terms of a sum for several rows: `count` numbers of row r from ``values[r * stride]`` on."""

    count: int
    values: Pointer
    stride: int


@inlined
def _row_product(tile, first, second, panel, out, out_stride):
    """Sum both parts into the tile and write it."""
    panel_width = tile_width(tile)
    tile = accumulate(tile, first.count, first.values, first.stride, 1, panel, panel_width)
    panel = panel + first.count * panel_width
    tile = accumulate(tile, second.count, second.values, second.stride, 1, panel, panel_width)
    tile_store(tile, out, out_stride)


def product_rows(tile, rows, first, second, panel, out, out_stride):
    """Multiply `rows` rows of ``[first | second]`` by a panel, on top of a tile of start values.

    The tile may be taller than `rows`: a variant for every height is compiled in.

    Parameters
    ----------
    tile : Tile
        Start of every sum.
    rows : int
        From 1 to the rows of the tile.
    first, second : Terms
        Read.
    panel : Pointer
        (first.count + second.count, width of the tile), read.
    out, out_stride : Pointer, int
        Row r at ``out[r * out_stride]``, assigned.
    """


@variants(product_rows)
def _product_rows(tile, rows, first, second, panel, out, out_stride):
    tallest = tile.rows

    def last(tile, rows, first, second, panel, out, out_stride):
        _row_product(tile, first, second, panel, out, out_stride)

    def at_most(tile, rows, first, second, panel, out, out_stride):
        if rows == tallest:
            _row_product(tile, first, second, panel, out, out_stride)
        else:
            shorter = tile_without_last_row(tile)
            product_rows(shorter, rows, first, second, panel, out, out_stride)

    return last if tallest == 1 else at_most


@inlined
def _product_panel(tile, tallest, rows, first, second, panel, scratch, out, out_stride, columns):
    """Multiply any number of rows by one panel; `columns` of its columns are wanted."""
    lanes = width(out)
    panel_width = tile_width(tile)
    row = 0
    while row < rows:
        keep_loop()
        height = next_rows(rows - row, tallest)
        some = Terms(first.count, first.values + row * first.stride, first.stride)
        more = Terms(second.count, second.values + row * second.stride, second.stride)
        target = out + row * out_stride
        if columns >= panel_width:
            place, stride = target, out_stride
        else:
            place, stride = scratch, panel_width
        product_rows(tile, height, some, more, panel, place, stride)
        if columns < panel_width:
            for r in range(height):
                for column in range(0, columns, lanes):
                    vector = load(scratch + (r * panel_width + column))
                    store_first(vector, target + (r * out_stride + column), columns - column)
        row += height


@inlined
def panel_vectors(columns, lanes):
    """Vectors in a row of the next panel when `columns` columns are left: 4, 2 or 1."""
    vectors = (columns + lanes - 1) // lanes
    if vectors >= 4:
        return 4
    if vectors >= 2:
        return 2
    return 1


@device
def product(rows, first, second, panels, columns, scratch, out, out_stride):
    """Multiply rows by a packed matrix: ``out = start + [first | second] @ matrix``.

    Parameters
    ----------
    rows : int
    first, second : Terms
        Read.
    panels : Pointer
        Column panels of 4, 2 or 1 vectors (`panel_vectors`), each (1 + first.count + second.count,
        width): the start of every sum, then the matrix. Padded with zeros; read.
    columns : int
    scratch : Pointer
        `TILE_VECTORS` vectors.
    out, out_stride : Pointer, int
        (rows, columns), row r at ``out[r * out_stride]``, assigned.
    """
    lanes = width(out)
    rows_of_panel = 1 + first.count + second.count
    column = 0
    while column < columns:
        left = columns - column
        vectors = panel_vectors(left, lanes)
        panel = panels + column * rows_of_panel
        terms = panel + vectors * lanes
        place = out + column
        if vectors == 4:
            tile = tile_repeat(ROWS, 4, panel)
            _product_panel(tile, ROWS, rows, first, second, terms, scratch, place, out_stride, left)
        elif vectors == 2:
            pair = tile_repeat(ROWS_OF_PAIR, 2, panel)
            _product_panel(
                pair, ROWS_OF_PAIR, rows, first, second, terms, scratch, place, out_stride, left
            )
        else:
            one = tile_repeat(ROWS_OF_ONE, 1, panel)
            _product_panel(
                one, ROWS_OF_ONE, rows, first, second, terms, scratch, place, out_stride, left
            )
        column += vectors * lanes


class Block(NamedTuple):
    """Terms (t, row) of a sum of outer products, and how far apart they stand in both factors."""

    steps: int
    rows: int
    value_step: int
    value_row: int
    weight_step: int
    weight_row: int


@inlined
def merged(block):
    """The same terms as one run where the rows of consecutive steps follow one another."""
    follow = (
        block.value_step == block.rows * block.value_row
        and block.weight_step == block.rows * block.weight_row
    )
    if follow:
        return Block(1, block.steps * block.rows, 0, block.value_row, 0, block.weight_row)
    return block


@inlined
def _block_sum(tile, block, values, value_stride, weights, out):
    """Sum the outer products of one block into the tile and add it to `out`."""
    for _ in range(block.steps):
        keep_loop()
        tile = accumulate(
            tile, block.rows, values, value_stride, block.value_row, weights, block.weight_row
        )
        values = values + block.value_step
        weights = weights + block.weight_step
    tile_accumulate(tile, out, tile_width(tile))


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
    run = merged(block)
    tile = tile_zeros(ROWS, 4, out)
    feature = 0
    while feature < features:
        keep_loop()
        rows = next_rows(features - feature, ROWS)
        place = values + feature * value_stride
        outer_rows(tile, rows, run, place, value_stride, weights, out + feature * tile_width(tile))
        feature += rows
