"""Every operation of Tile against NumPy."""

import functools
from fractions import Fraction
from typing import Any, NamedTuple

import numba
import numpy as np
import pytest

from numba_lstm.simd import cpu
from numba_lstm.simd.pointer import address
from numba_lstm.simd.tile import (
    PANEL_VECTORS,
    keep_loop,
    panel_width,
    tile_accumulate,
    tile_load,
    tile_rank1,
    tile_store,
    tile_sum,
    tile_zeros,
)

SHAPES = [(2, 1), (3, 2), (3, 3), (3, 4), (6, 4), (1, 8), (2, 8), (1, 16)]


class Term(NamedTuple):
    """A term of a sum, whose numbers stand `row` apart."""

    values: Any
    row: int


@numba.njit
def following(term, step):
    return Term(term.values + step, term.row)


@functools.cache
def operations(rows, vectors):
    """Kernel that writes what every operation gives for a tile of a shape."""

    @numba.njit
    def run(weights, values, value_stride, step_stride, steps, outs, stride):
        zeros, repeated, loaded, product, summed, sums = outs
        start = address(weights, 0)
        empty = tile_zeros(rows, vectors, start)
        # Weights stand panel by panel, each with a row for the start and for every step.
        across = panel_width(empty)
        panel = (1 + steps) * across
        tile_store(empty, address(zeros, 0), stride, across)
        tile = tile_load(empty, start, 0, panel)
        tile_store(tile, address(repeated, 0), stride, across)
        again = tile_load(empty, address(sums, 0), stride, across)
        tile_store(again, address(loaded, 0), stride, across)
        for step in range(steps):
            keep_loop()
            terms = address(weights, (1 + step) * across)
            tile = tile_rank1(tile, terms, panel, address(values, step * step_stride), value_stride)
        tile_store(tile, address(product, 0), stride, across)
        tile_accumulate(tile, address(sums, 0), stride, across)
        # The same at once. What is asked for may lie anywhere: nothing is read.
        begin, nowhere = (start, 0, 0, panel), start + 10**15
        term = Term(address(values, 0) + -step_stride, value_stride)
        out = (address(summed, 0), 0, stride, across)
        weight = start + across
        task = (begin, steps, term, step_stride, weight, panel, nowhere, -(10**12), out)
        tile_sum(vectors, rows, following, task)
        return across

    return run


def numbers(random, *shape):
    """Random numbers whose products and sums of few are exact in float64 when they are float32."""
    return random.uniform(1, 2, shape) * random.choice([-1, 1], shape)


class Results:
    """Everything `operations` gave for random numbers, and what went in."""

    STEPS = 3
    GAP = 5
    UNTOUCHED = -77.0

    def __init__(self, rows, vectors, dtype):
        random = np.random.default_rng(rows)
        self.rows, self.vectors = rows, vectors
        self.columns = vectors * cpu.lanes(np.dtype(dtype).itemsize)
        self.weights = numbers(random, 1 + self.STEPS, self.columns).astype(dtype)
        self.values = numbers(random, self.STEPS, rows).astype(dtype)
        outs = np.full((6, rows, self.columns + self.GAP), self.UNTOUCHED, dtype)
        self.before = numbers(random, rows, self.columns).astype(dtype)
        outs[-1, :, : self.columns] = self.before
        # Values of a step lie a stride of 2 apart, the steps 2 * rows.
        spread = np.repeat(self.values.ravel(), 2)
        spread[1::2] = np.nan
        flat = tuple(out.reshape(-1) for out in outs)
        stride = self.columns + self.GAP
        panels = max(1, vectors // PANEL_VECTORS)
        packed = self.weights.reshape(1 + self.STEPS, panels, -1).swapaxes(0, 1)
        self.width = panels * operations(rows, vectors)(
            packed.ravel(), spread, 2, 2 * rows, self.STEPS, flat, stride
        )
        self.gaps = outs[:, :, self.columns :]
        (
            self.zeros,
            self.repeated,
            self.loaded,
            self.product,
            self.summed,
            self.sums,
        ) = outs[:, :, : self.columns]


@pytest.fixture(scope="module", params=[np.float32, np.float64])
def dtype(request):
    return request.param


@pytest.fixture(scope="module", params=SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
def results(request, dtype):
    return Results(*request.param, dtype)


def test_width(results):
    assert results.width == results.columns


def test_zeros(results):
    np.testing.assert_array_equal(results.zeros, 0)


def test_repeat(results):
    np.testing.assert_array_equal(
        results.repeated, np.broadcast_to(results.weights[0], results.repeated.shape)
    )


def test_load(results):
    np.testing.assert_array_equal(results.loaded, results.before)


def test_rank1_is_one_fused_chain_in_ascending_order(results, dtype):
    for r in range(results.rows):
        for column in range(results.columns):
            total = results.weights[0, column]
            for value, weight in zip(
                results.values[:, r], results.weights[1:, column], strict=True
            ):
                exact = Fraction(float(value)) * Fraction(float(weight)) + Fraction(float(total))
                total = dtype(float(exact))
            assert results.product[r, column] == total


def test_a_whole_sum_is_its_rank1_updates(results):
    """Of a tile that the registers hold; nothing is done for another."""
    vectors = results.vectors
    tallest = cpu.tile_rows(vectors) if vectors <= PANEL_VECTORS else 1
    expected = results.product if results.rows <= tallest else results.UNTOUCHED
    np.testing.assert_array_equal(results.summed, expected)


def test_accumulate_adds_once(results):
    np.testing.assert_array_equal(results.sums, results.before + results.product)


def test_stores_leave_the_gaps_between_rows(results):
    np.testing.assert_array_equal(results.gaps, results.UNTOUCHED)


@numba.njit
def run_with_variable_rows(array, rows):
    tile_store(tile_zeros(rows, 1, address(array, 0)), address(array, 0), 0, 0)


def test_the_shape_must_be_known_to_the_compiler(dtype):
    with pytest.raises(numba.TypingError):
        run_with_variable_rows(np.zeros(64, dtype), 2)
