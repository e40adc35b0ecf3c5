"""Sums of outer products on the register tile: what weight gradients are.

Every sum is one chain of fused multiply-adds in ascending order of its terms. While tiles sum, they
ask for what comes next.
"""

from __future__ import annotations

from typing import NamedTuple

from ..jit import device, inlined
from ..simd.pointer import Pointer, fetch
from ..simd.tile import keep_loop, tile_outer_sum
from ..simd.vector import width
from .tiling import WIDE, height_of, tiling
from .workers import first_of_share


class Rows(NamedTuple):
    """Columns of some rows of a matrix, by gates: where they begin, and how far apart they are."""

    start: Pointer
    row: int
    gate: int
    columns: int


class Results(NamedTuple):
    """Rows that sums are written to, in two parts, which tiles ask for column by column.

    A tile asks for a vector of columns of one gate, in as many rows as it has terms: those of its
    own units, and of units that come next. `asked` columns were asked for before; -1 if it is too
    early to ask.
    """

    first: Rows
    second: Rows
    asked: int


@inlined
def no_results(place):
    """Rows of sums that stay where they are."""
    nothing = Rows(place, 0, 0, 0)
    return Results(nothing, nothing, -1)


@inlined
def _column_of_tile(results, number):
    """Where a tile begins to ask for a vector of columns, and how far on the next row is."""
    lanes = width(results.first.start)
    # A vector more, as rows begin in the midst of a cache line.
    first_count = (results.first.columns + 2 * lanes - 1) // lanes
    second_count = (results.second.columns + 2 * lanes - 1) // lanes
    number = number % (4 * (first_count + second_count))
    column = number // 4
    gate = number - 4 * column
    rows = results.first
    if column >= first_count:
        rows = results.second
        column -= first_count
    return rows.start + (gate * rows.gate + column * lanes), rows.row


@inlined
def columns_asked(features):
    """Columns of results that tiles over so many features ask for."""
    return max(0, tiling(WIDE, features).count - WIDE)


class TermRows(NamedTuple):
    """Rows of a matrix by the numbers of their terms, so many numbers apart."""

    start: Pointer
    row: int


class RowsOfSteps(NamedTuple):
    """Columns of the rows of some steps: where they begin, and how far apart both are."""

    start: Pointer
    step: int
    row: int
    columns: int


class Ahead(NamedTuple):
    """Rows of two matrices that are wanted later, from one to another in the order of the steps."""

    begin: int
    end: int
    rows: int  # in a step
    first: RowsOfSteps
    second: RowsOfSteps


@inlined
def nothing_ahead(place):
    """No rows."""
    nowhere = RowsOfSteps(place, 0, 0, 0)
    return Ahead(0, 0, 1, nowhere, nowhere)


@inlined
def share_ahead(ahead, share, shares):
    """One of nearly equal shares of rows that are wanted later."""
    count = ahead.end - ahead.begin
    begin = ahead.begin + first_of_share(count, share, shares)
    end = ahead.begin + first_of_share(count, share + 1, shares)
    return Ahead(begin, end, ahead.rows, ahead.first, ahead.second)


@device
def _ask_ahead(ahead):
    """Ask for rows that are wanted later."""
    for number in range(ahead.begin, ahead.end):
        step = number // ahead.rows
        row = number - step * ahead.rows
        for wanted in (ahead.first, ahead.second):
            place = wanted.start + (step * wanted.step + row * wanted.row)
            for column in range(0, wanted.columns, width(place)):
                keep_loop()
                fetch(place + column)


@device
def outer_products(
    features,
    terms,
    vectors,
    values,
    values_row,
    numbers,
    weights,
    following,
    results,
    ahead,
    added,
    out,
):
    """Sum a block of outer products: ``out[f] = sum over terms k of values[k, f] * weights[k]``.

    The block's sum starts from zero, and joins what stands in `out` in one addition.

    Parameters
    ----------
    features, terms : int
    vectors : int
        Vectors in a row that are of interest: 4, or fewer.
    values, values_row : Pointer, int
        (terms, features), the rows so many numbers apart; read.
    numbers : Pointer
        (terms,) of int64, read: which of the weights belong to each term.
    weights : TermRows
        `vectors` of each term; read, and what stands behind the last.
    following : TermRows
        Those that come next and are fetched meanwhile; or the same where nobody knows.
    results : Results
        Where it is written to once it is complete: later on each of these cache lines would be
        waited for, a tenth of the time where there are three blocks.
    ahead : Ahead
        What each tile asks for some of: too much at once would have to wait.
    added : bool
        Whether there is something in `out` for it to join.
    out : Pointer
        (features, 4 vectors), assigned or accumulated into.
    """
    heights = tiling(4 if vectors > 2 else 2, features)
    lanes = width(out)
    row = 4 * lanes
    apart = WIDE // min(WIDE, heights.count) * lanes
    feature = 0
    for tile in range(heights.count):
        keep_loop()
        rows = height_of(heights, tile)
        # A single tile is done before what it asks for comes.
        asked, asked_row, step = following.start, 0, 0
        if heights.count > 1 and tile < WIDE:
            asked, asked_row = following.start + tile * apart, following.row
        # So many tiles have asked for all there is.
        if results.asked >= 0 and tile >= WIDE:
            asked, step = _column_of_tile(results, results.asked + tile - WIDE)
            asked_row = 0
        task = (
            terms,
            values + feature,
            values_row,
            numbers,
            weights.start,
            weights.row,
            asked,
            asked_row,
            step,
            added,
            out,
            row,
        )
        if vectors > 2:
            tile_outer_sum(4, rows, task)
        else:
            tile_outer_sum(2, rows, task)
        _ask_ahead(share_ahead(ahead, tile, heights.count))
        out = out + rows * row
        feature += rows
