"""Products, sums of outer products, and the panels that they read."""

import numba
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from numba_lstm.kernels.gemm import (
    ROWS,
    TILE_VECTORS,
    Block,
    Terms,
    next_rows,
    outer_products,
    product,
)
from numba_lstm.kernels.panels import pack_matrix
from numba_lstm.simd import cpu
from numba_lstm.simd.pointer import address

DTYPES = st.sampled_from([np.float32, np.float64])
SIZES = st.sampled_from([1, 2, 3, 7, 16, 17, 40, 64, 65, 130])


@numba.njit
def run_product(first, second, rows, packed, columns, scratch, out):
    product(
        rows,
        Terms(first.size // rows, address(first, 0), first.size // rows),
        Terms(second.size // rows, address(second, 0), second.size // rows),
        address(packed, 0),
        columns,
        address(scratch, 0),
        address(out, 0),
        columns + 3,
    )


# The last panel is two vectors wide and not full, for vectors of 256 and of 128 bits.
@example(6, 3, 0, 12, np.float32, True)
@example(6, 3, 0, 7, np.float64, True)
@example(6, 3, 0, 7, np.float32, True)
@example(6, 3, 0, 3, np.float64, True)
@given(st.integers(1, 20), SIZES, st.integers(0, 9), SIZES, DTYPES, st.booleans())
def test_product(rows, first, second, columns, dtype, started):
    random = np.random.default_rng(rows + 100 * first + columns)
    lanes = cpu.lanes(np.dtype(dtype).itemsize)
    terms = first + second
    values = random.standard_normal((rows, terms)).astype(dtype)
    matrix = random.standard_normal((terms, columns)).astype(dtype)
    start = random.standard_normal(columns if started else 0).astype(dtype)
    packed = np.full((1 + terms) * -(-columns // lanes) * lanes, np.nan, dtype)
    pack_matrix(matrix.reshape(-1), terms, columns, columns, 1, start, packed)
    assert np.isfinite(packed).all()
    out = np.full((rows, columns + 3), np.nan, dtype)
    parts = [np.ascontiguousarray(values[:, :first]), np.ascontiguousarray(values[:, first:])]
    scratch = np.full((TILE_VECTORS + 1) * lanes, np.nan, dtype)
    run_product(*(p.reshape(-1) for p in parts), rows, packed, columns, scratch, out.reshape(-1))
    exact = values.astype(np.longdouble) @ matrix.astype(np.longdouble)
    if started:
        exact += start
    bound = (1 + terms) * np.finfo(dtype).eps * (1 + np.abs(values) @ np.abs(matrix)).max()
    assert np.abs(out[:, :columns] - exact).max() < bound
    assert np.isnan(out[:, columns:]).all()
    assert np.isnan(scratch[-lanes:]).all()
    # A row's bits do not depend on the tile it stands in.
    alone = np.empty((1, columns + 3), dtype)
    last = [np.ascontiguousarray(p[-1]) for p in parts]
    run_product(*last, 1, packed, columns, scratch, alone.reshape(-1))
    assert np.array_equal(alone[0, :columns], out[-1, :columns])


@numba.njit
def run_outer(x, steps, rows, features, x_step, weights, out):
    width = weights.size // (steps * rows)
    block = Block(steps, rows, x_step, features, rows * width, width)
    outer_products(features, block, address(x, 0), 1, address(weights, 0), address(out, 0))


@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 20), st.booleans(), DTYPES)
def test_outer_products(steps, rows, features, apart, dtype):
    random = np.random.default_rng(steps + 10 * rows + 100 * features)
    columns = 4 * cpu.lanes(np.dtype(dtype).itemsize)
    whole = random.standard_normal((steps, rows + apart, features)).astype(dtype)
    weights = random.standard_normal((steps, rows, columns)).astype(dtype)
    out = np.ones((features, columns), dtype)
    x_step = (rows + apart) * features
    run_outer(
        whole.reshape(-1), steps, rows, features, x_step, weights.reshape(-1), out.reshape(-1)
    )
    x = whole[:, :rows].reshape(-1, features).astype(np.longdouble)
    exact = 1 + x.T @ weights.reshape(-1, columns)
    bound = steps * rows * np.finfo(dtype).eps * (1 + np.abs(x).T @ np.abs(weights).max(2).ravel())
    assert np.abs(out - exact).max() < bound.max()


@numba.njit
def heights_of(rows):
    heights = []
    while rows > 0:
        heights.append(next_rows(rows, ROWS))
        rows -= heights[-1]
    return heights


@pytest.mark.parametrize("rows", range(1, 40))
def test_tiles_of_a_batch_are_nearly_equal(rows):
    heights = heights_of(rows)
    assert sum(heights) == rows
    assert max(heights) - min(heights) <= 1
    assert max(heights) <= ROWS
    assert len(heights) == -(-rows // ROWS)
