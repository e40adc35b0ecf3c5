"""Rows times a matrix, and the gradients of the matrix: the linear layer."""

from __future__ import annotations

from typing import NamedTuple

from ..jit import device, inlined, kernel
from ..simd.mode import enter_default_mode, restore_mode
from ..simd.pointer import address, as_integers
from ..simd.vector import load, load_first, store_first, width
from .gemm import Place, Terms, no_terms, product
from .gradient_tasks import task_of_number, task_or_nothing, tasks_of_gradients
from .lanes import copy_columns
from .outer_products import (
    Ahead,
    RowsOfSteps,
    TermRows,
    no_results,
    outer_products,
    share_ahead,
)
from .tables import BLOCK_TERMS, ROOM_FOR_TERMS, TASK_FEATURES, TASK_PANELS
from .term_numbers import number_in_a_row
from .tiling import TILE_VECTORS, WIDE, panel_vectors
from .workers import first_of_share


@kernel
def linear_product(values, rows, terms, packed, columns, cached, out, scratches, worker, workers):
    """One worker's rows of ``out = start + values @ matrix``.

    Parameters
    ----------
    values : array
        (rows, terms) flat, read.
    rows, terms : int
    packed : array
        The matrix (terms, columns) and the start of every column, from `panels.pack_matrix`; read.
    columns, cached : int
        Columns of the matrix, and numbers of it that the L2 cache keeps.
    out : array
        (rows, columns) flat, assigned.
    scratches : array
        `TILE_VECTORS` vectors for each worker.
    worker, workers : int
        Which share of the rows, of how many.
    """
    mode = enter_default_mode()
    first = first_of_share(rows, worker, workers)
    count = first_of_share(rows, worker + 1, workers) - first
    source = address(values, first * terms)
    lanes = width(source)
    product(
        1,
        count,
        Terms(terms, terms, 0, source, 0, terms),
        no_terms(source),
        address(packed, 0),
        1 + terms,
        0,
        columns,
        WIDE,
        False,
        cached,
        terms * columns > cached,
        address(scratches, worker * TILE_VECTORS * lanes),
        Place(address(out, first * columns), 0, columns, 4 * lanes),
    )
    restore_mode(mode)


class GradientScratch(NamedTuple):
    """What a worker needs for the gradients of a linear layer: places in its scratch, and a size.

    The numbers of terms stand at 0.
    """

    block_of_x: int
    block_of_dy: int
    sums_of_rows: int
    sums: int
    size: int


def places_for_gradients(inputs, outputs, lanes):
    """Places for the largest task, all at the start of a vector."""
    panels = min(TASK_PANELS, (inputs + 4 * lanes - 1) // (4 * lanes))
    features = (min(TASK_FEATURES, outputs) + lanes - 1) // lanes * lanes
    block_of_x = ROOM_FOR_TERMS
    block_of_dy = block_of_x + BLOCK_TERMS * 4 * lanes
    sums_of_rows = block_of_dy + BLOCK_TERMS * features
    sums = sums_of_rows + features
    size = sums + panels * features * 4 * lanes
    return GradientScratch(block_of_x, block_of_dy, sums_of_rows, sums, size)


_places_for_gradients_compiled = inlined(places_for_gradients)


@inlined
def _give(vector, place, held, added):
    """Write the first numbers of a vector, or add them to what stands there."""
    if added:
        vector = load_first(place, held) + vector
    store_first(vector, place, held)


@device
def _sum_rows(features, terms, count, begun, sums):
    """Add a block of rows to their sums: within the block first."""
    lanes = width(sums)
    for first in range(0, count, lanes):
        held = min(lanes, count - first)
        total = load_first(features + first, held)
        for term in range(1, terms):
            total = total + load_first(features + (term * count + first), held)
        _give(total, sums + first, held, begun)


@inlined
def _rows_ahead(dy, rows, outputs, task, row):
    """What a task wants of dy from a row on; short rows come by themselves, one behind another."""
    terms = min(BLOCK_TERMS, rows - row) if outputs > TASK_FEATURES else 0
    start = address(dy, row * outputs + task.first)
    wanted = RowsOfSteps(start, 0, outputs, task.last - task.first)
    return Ahead(0, terms, BLOCK_TERMS, wanted, RowsOfSteps(start, 0, 0, 0))


@device
def _gradient_task(
    x, dy, rows, inputs, outputs, task, next_task, accumulate, weight, bias, scratch
):
    """Gradients of some outputs, which are the features, with respect to some panels of inputs.

    What a block takes of dy and x is copied side by side, as `gradients` does for a cell. Tiles ask
    for what is copied next: x of another panel, and dy of another block. (GFLOP/s of one thread and
    of two not asked and asked: 3200 rows of 512 to 2000 185 191 and 413 448, 400 of 200 to 10,000
    178 186 and 311 338, 2500 of 128 to 65 196 203 and 347 353.)
    """
    first_panel, last_panel, first, last = task
    lanes = width(scratch)
    across, count = 4 * lanes, last - first
    places = _places_for_gradients_compiled(inputs, outputs, lanes)
    block_of_x, block_of_dy = scratch + places.block_of_x, scratch + places.block_of_dy
    sums_of_rows, first_sums = scratch + places.sums_of_rows, scratch + places.sums
    numbers = as_integers(scratch)
    number_in_a_row(0, BLOCK_TERMS, numbers)
    with_bias = bias.size > 0 and first_panel == 0
    blocks = (rows + BLOCK_TERMS - 1) // BLOCK_TERMS
    for later in range(blocks):
        row = (blocks - 1 - later) * BLOCK_TERMS
        terms = min(BLOCK_TERMS, rows - row)
        source = address(dy, row * outputs + first)
        following, next_row = task, row - BLOCK_TERMS
        if next_row < 0:
            following, next_row = next_task, (blocks - 1) * BLOCK_TERMS
        ahead = _rows_ahead(dy, rows, outputs, following, next_row)
        copy_columns(terms, count, source, outputs, block_of_dy, count)
        if with_bias:
            _sum_rows(block_of_dy, terms, count, later > 0, sums_of_rows)
        for panel in range(first_panel, last_panel):
            column = panel * across
            sums = first_sums + (panel - first_panel) * count * across
            wanted = min(across, inputs - column)
            asked = address(x, row * inputs + column + across)
            if panel + 1 == last_panel:
                asked = address(x, next_row * inputs + following.first_panel * across)
            copy_columns(
                terms, wanted, address(x, row * inputs + column), inputs, block_of_x, across
            )
            outer_products(
                count,
                terms,
                panel_vectors(inputs - column, lanes, WIDE),
                block_of_dy,
                count,
                numbers,
                TermRows(block_of_x, across),
                TermRows(asked, inputs),
                no_results(sums),
                share_ahead(ahead, panel - first_panel, last_panel - first_panel),
                later > 0,
                sums,
            )
            if later < blocks - 1:
                continue
            for output in range(count):
                target = address(weight, (first + output) * inputs + column)
                for k in range(0, wanted, lanes):
                    held = min(lanes, wanted - k)
                    _give(load(sums + (output * across + k)), target + k, held, accumulate)
    if with_bias:
        for k in range(0, count, lanes):
            held = min(lanes, count - k)
            _give(load(sums_of_rows + k), address(bias, first + k), held, accumulate)


@kernel
def linear_gradients(
    x, dy, rows, inputs, outputs, accumulate, weight, bias, scratches, worker, workers
):
    """One worker's share of the gradients of a linear layer.

    Rows are summed in blocks, each from zero, from the last to the first.

    Parameters
    ----------
    x, dy : array
        (rows, inputs) and (rows, outputs) flat, read.
    rows, inputs, outputs : int
        At least 1.
    accumulate : bool
        Whether gradients are added to what is there, or take its place.
    weight : array
        (outputs, inputs) flat, accumulated into or assigned.
    bias : array
        (outputs,), likewise; empty if there is none.
    scratches : array
        `places_for_gradients` for each worker.
    worker, workers : int
        Which share of the tasks, of how many.
    """
    mode = enter_default_mode()
    lanes = width(address(scratches, 0))
    scratch = address(
        scratches, worker * _places_for_gradients_compiled(inputs, outputs, lanes).size
    )
    across = 4 * lanes
    panels = (inputs + across - 1) // across
    panel_tasks, output_tasks = tasks_of_gradients(panels, outputs, workers)
    for number in range(worker, panel_tasks * output_tasks, workers):
        task = task_of_number(panels, panel_tasks, outputs, output_tasks, number)
        next_task = task_or_nothing(panels, panel_tasks, outputs, output_tasks, number + workers)
        _gradient_task(
            x, dy, rows, inputs, outputs, task, next_task, accumulate, weight, bias, scratch
        )
    restore_mode(mode)
