"""Every operation of Tile against NumPy."""

import functools
from fractions import Fraction
from typing import Any, NamedTuple

import numba
import numpy as np
import pytest

from numba_lstm.simd import cpu
from numba_lstm.simd.pointer import address, as_integers
from numba_lstm.simd.tile import (
    PANEL_VECTORS,
    add_square_tile,
    load_square_tile,
    store_square_tile,
    tile_outer_sum,
    tile_sum,
)

SHAPES = [(2, 1), (3, 2), (8, 2), (3, 3), (3, 4), (6, 4), (7, 4), (1, 8), (2, 8), (1, 16)]


class Run(NamedTuple):
    """Terms one behind another, their rows `row` apart, and how far on the next run begins."""

    values: Any
    row: int
    count: int
    jump: int


@numba.njit
def next_run(run, ordinal):
    return Run(run.values + run.jump, run.row, run.count, run.jump)


@functools.cache
def sums(rows, vectors):
    """Kernel that writes the sums of products and of outer products in a tile of a shape."""

    @numba.njit
    def run(
        weights, panel, values, length, of_rows, numbers, product, stride, across, outer, outer_only
    ):
        steps = of_rows.size // rows
        start = address(weights, 0)
        # What is asked for may lie anywhere: nothing is read.
        nowhere, far = start + 10**15, -(10**12)
        first = Run(address(values, 0), length, length, rows * length)
        begin, out = (start, 0, 0, panel), (address(product, 0), 0, stride, across)
        task = (begin, steps, first, 0, start + across, panel, nowhere, far, far, out)
        tile_sum(vectors, rows, next_run, task)
        if vectors <= PANEL_VECTORS:
            of_terms = (steps, address(of_rows, 0), rows, address(numbers, 0), start, across)
            asked = (nowhere, far, far)
            for added, target in ((True, address(outer, 0)), (False, address(outer_only, 0))):
                tile_outer_sum(vectors, rows, of_terms + asked + (added, target, across))

    return run


def numbers(random, *shape):
    """Random numbers whose products and sums of few are exact in float64 when they are float32."""
    return random.uniform(1, 2, shape) * random.choice([-1, 1], shape)


def chain(start, weights, values):
    """Fused multiply-adds in ascending order, each rounded once."""
    dtype = weights.dtype.type
    total = dtype(start)
    for value, weight in zip(values, weights, strict=True):
        exact = Fraction(float(value)) * Fraction(float(weight)) + Fraction(float(total))
        total = dtype(float(exact))
    return total


def chains(starts, values, weights):
    """All sums of a tile: (rows, columns) from (columns,), (terms, rows) and (terms, columns)."""
    columns = list(zip(starts, weights.T, strict=True))
    return np.array([[chain(*column, of_row) for column in columns] for of_row in values.T])


class Results:
    """Both sums of a tile, and what went in."""

    # Two runs, the last shorter, so that there are terms by twos and single ones.
    LENGTH, STEPS = 3, 5
    # Rows of the weights that belong to the terms of an outer product.
    NUMBERS = np.array([4, 1, 5, 3, 1])
    GAP = 5
    UNTOUCHED = -77.0

    def __init__(self, rows, vectors, dtype):
        random = np.random.default_rng(rows)
        self.columns = vectors * cpu.lanes(np.dtype(dtype).itemsize)
        tallest = cpu.tile_rows(vectors) if vectors <= PANEL_VECTORS else 1
        self.fits = rows <= tallest
        self.panels = max(1, vectors // PANEL_VECTORS)
        across = self.columns // self.panels
        self.weights = numbers(random, 1 + self.STEPS, self.columns).astype(dtype)
        self.values = numbers(random, self.STEPS, rows).astype(dtype)
        self.before = numbers(random, rows, self.columns).astype(dtype)
        self.product = np.full((rows, self.columns + self.GAP), self.UNTOUCHED, dtype)
        self.outer, self.outer_only = self.before.copy(), self.before.copy()
        # Weights stand panel by panel, each with a row for the start and for every step; values run
        # by run, and there row by row.
        packed = self.weights.reshape(1 + self.STEPS, self.panels, -1).swapaxes(0, 1)
        runs = np.full((2, rows, self.LENGTH), np.nan, dtype)
        runs[0], runs[1, :, :-1] = self.values[:3].T, self.values[3:].T
        sums(rows, vectors)(
            packed.ravel(),
            packed[0].size,
            runs.ravel(),
            self.LENGTH,
            self.values.ravel(),
            self.NUMBERS,
            self.product.reshape(-1),
            self.columns + self.GAP,
            across,
            self.outer.reshape(-1),
            self.outer_only.reshape(-1),
        )


@pytest.fixture(scope="module", params=[np.float32, np.float64])
def dtype(request):
    return request.param


@pytest.fixture(scope="module", params=SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
def results(request, dtype):
    return Results(*request.param, dtype)


def test_a_product_is_one_fused_chain_in_ascending_order(results):
    """Of a tile that the registers hold; nothing is done for another."""
    expected = np.full_like(results.product, results.UNTOUCHED)
    if results.fits:
        starts, weights = results.weights[0], results.weights[1:]
        expected[:, : results.columns] = chains(starts, results.values, weights)
    np.testing.assert_array_equal(results.product, expected)


def test_outer_products_are_a_chain_from_zero_that_is_written_or_added_once(results):
    outer = outer_only = results.before
    if results.fits and results.panels == 1:
        starts = np.zeros(results.columns)
        outer_only = chains(starts, results.values, results.weights[results.NUMBERS])
        outer = results.before + outer_only
    np.testing.assert_array_equal(results.outer, outer)
    np.testing.assert_array_equal(results.outer_only, outer_only)


@numba.njit
def move(source, source_row, copy, added, target_row):
    tile = load_square_tile(address(source, 0), source_row)
    store_square_tile(tile, address(copy, 0), target_row)
    add_square_tile(tile, address(added, 0), target_row)


def test_a_tile_is_loaded_stored_and_added_row_by_row(dtype):
    lanes = cpu.lanes(np.dtype(dtype).itemsize)
    random = np.random.default_rng(0)
    source = numbers(random, lanes, lanes + 3).astype(dtype)
    copy, added = numbers(random, 2, lanes, lanes + 5).astype(dtype)
    expected_copy, expected_sum = copy.copy(), added.copy()
    move(source.reshape(-1), lanes + 3, copy.reshape(-1), added.reshape(-1), lanes + 5)
    expected_copy[:, :lanes] = source[:, :lanes]
    expected_sum[:, :lanes] += source[:, :lanes]
    np.testing.assert_array_equal(copy, expected_copy)
    np.testing.assert_array_equal(added, expected_sum)


@numba.njit
def sum_with_variable_vectors(array, vectors):
    start = address(array, 0)
    numbers = as_integers(start)
    tile_outer_sum(vectors, 1, (1, start, 1, numbers, start, 0, start, 0, 0, True, start, 0))


def test_the_vectors_in_a_row_must_be_known_to_the_compiler(dtype):
    with pytest.raises(numba.TypingError):
        sum_with_variable_vectors(np.zeros(64, dtype), 2)
