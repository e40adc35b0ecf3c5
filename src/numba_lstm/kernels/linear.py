"""Rows times a matrix, and the gradients of the matrix: the linear layer."""

from __future__ import annotations

from ..jit import device, kernel
from ..simd.mode import enter_default_mode, restore_mode
from ..simd.pointer import address
from ..simd.vector import load_first, store, width
from .gemm import (
    TILE_VECTORS,
    Place,
    Terms,
    no_results,
    no_terms,
    outer_products,
    panel_vectors,
    product,
)
from .tables import BLOCK_TERMS
from .workers import first_of_share

# Outputs of one task of weight gradients: with four vectors each they stay in L1.
_TASK_OUTPUTS = 48
# Vectors that a worker needs for its sums and for a block of inputs.
GRADIENT_VECTORS = (_TASK_OUTPUTS + BLOCK_TERMS) * 4


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
        False,
        cached,
        address(scratches, worker * TILE_VECTORS * lanes),
        Place(address(out, first * columns), 0, columns, 4 * lanes),
    )
    restore_mode(mode)


@device
def _column_block(x, row, rows, columns, column, target):
    """Copy a panel of four vectors of columns out of some rows, padded with zeros."""
    lanes = width(x)
    for r in range(rows):
        for v in range(4):
            left = columns - column - v * lanes
            if left > 0:
                source = x + ((row + r) * columns + column + v * lanes)
                store(load_first(source, min(left, lanes)), target + (r * 4 + v) * lanes)
            else:
                for lane in range(lanes):
                    target[(r * 4 + v) * lanes + lane] = 0.0


@device
def _gradient_task(x, dy, rows, inputs, outputs, first, last, column, weight, scratch):
    """Gradient of the weights from four vectors of inputs to the outputs [first, last)."""
    lanes = width(scratch)
    panel = 4 * lanes
    sums = scratch
    block_of_x = scratch + _TASK_OUTPUTS * panel
    blocks = (rows + BLOCK_TERMS - 1) // BLOCK_TERMS
    for later in range(blocks):
        row = (blocks - 1 - later) * BLOCK_TERMS
        count = min(BLOCK_TERMS, rows - row)
        _column_block(address(x, 0), row, count, inputs, column, block_of_x)
        values = address(dy, row * outputs + first)
        vectors = panel_vectors(inputs - column, lanes)
        outer_products(
            last - first,
            count,
            vectors,
            values,
            outputs,
            block_of_x,
            block_of_x,
            no_results(sums),
            later > 0,
            sums,
        )
    for output in range(first, last):
        for k in range(min(panel, inputs - column)):
            weight[output * inputs + column + k] += sums[(output - first) * panel + k]


@device
def _bias_gradient(dy, rows, outputs, bias):
    """Sums over the rows, in the same blocks as the weights."""
    blocks = (rows + BLOCK_TERMS - 1) // BLOCK_TERMS
    for output in range(outputs):
        for later in range(blocks):
            row = (blocks - 1 - later) * BLOCK_TERMS
            added = dy[row * outputs + output]
            for k in range(row + 1, min(rows, row + BLOCK_TERMS)):
                added += dy[k * outputs + output]
            bias[output] += added


@kernel
def linear_gradients(x, dy, rows, inputs, outputs, weight, bias, scratches, worker, workers):
    """One worker's share of ``weight += dy.T @ x`` and ``bias += sum of dy over the rows``.

    Rows are summed in blocks, each from zero, from the last to the first.

    Parameters
    ----------
    x, dy : array
        (rows, inputs) and (rows, outputs) flat, read.
    rows, inputs, outputs : int
        At least 1.
    weight : array
        (outputs, inputs) flat, accumulated into.
    bias : array
        (outputs,), accumulated into; empty if there is none.
    scratches : array
        `GRADIENT_VECTORS` vectors for each worker.
    worker, workers : int
        Which share of the tasks, of how many.
    """
    mode = enter_default_mode()
    lanes = width(address(x, 0))
    size = GRADIENT_VECTORS * lanes
    scratch = address(scratches, worker * size)
    task = 0
    for column in range(0, inputs, 4 * lanes):
        for first in range(0, outputs, _TASK_OUTPUTS):
            if task % workers == worker:
                last = min(outputs, first + _TASK_OUTPUTS)
                _gradient_task(
                    x, dy, rows, inputs, outputs, first, last, column, address(weight, 0), scratch
                )
            task += 1
    if bias.size > 0 and task % workers == worker:
        _bias_gradient(address(dy, 0), rows, outputs, bias)
    restore_mode(mode)
