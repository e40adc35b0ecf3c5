"""Products, and the panels that they read."""

import numba
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from numba_lstm.kernels.gemm import Place, Terms, product
from numba_lstm.kernels.panels import pack_matrix
from numba_lstm.kernels.tiling import (
    NARROW,
    ROWS,
    TILE_VECTORS,
    WIDE,
    height_of,
    share_of_row,
    tiling,
)
from numba_lstm.simd import cpu
from numba_lstm.simd.pointer import address

DTYPES = st.sampled_from([np.float32, np.float64])
SIZES = st.sampled_from([1, 2, 3, 7, 16, 17, 40, 64, 65, 130])


@numba.njit
def run_product(
    first,
    second,
    counts,
    runs,
    blocks,
    rows,
    packed,
    columns,
    widest,
    continued,
    cached,
    asked,
    scratch,
    out,
    stride,
    panel,
):
    """Both parts are (runs, blocks, rows, terms of a run), so many of which count."""
    parts = []
    for k, part in enumerate((first, second)):
        run = part.size // (runs * blocks * rows)
        parts.append(Terms(counts[k], run, blocks * rows * run, address(part, 0), rows * run, run))
    product(
        blocks,
        rows,
        parts[0],
        parts[1],
        address(packed, 0),
        1 + counts[0] + counts[1],
        0,
        columns,
        widest,
        continued,
        cached,
        asked,
        address(scratch, 0),
        Place(address(out, 0), rows * stride, stride, panel),
    )


@given(st.integers(1, 200), st.sampled_from([8, 16, 32, 48, 64]))
@example(3, 64)
def test_tiles_ask_for_every_number_of_a_row_once(tiles, numbers):
    shares = [share_of_row(tile, tiles, numbers) for tile in range(tiles)]
    asked = [before + k for before, share in shares for k in range(share)]
    assert asked == list(range(len(asked)))
    assert numbers <= len(asked) < numbers + max(count for _, count in shares)


def in_runs(values, runs):
    """(blocks, rows, terms) values as (runs, blocks, rows, terms of a run), flat.

    What the last run is shorter by is NaN.
    """
    blocks, rows, terms = values.shape
    run = -(-terms // runs)
    whole = np.pad(values, ((0, 0), (0, 0), (0, runs * run - terms)), constant_values=np.nan)
    apart = whole.reshape(blocks, rows, runs, run).transpose(2, 0, 1, 3)
    return np.ascontiguousarray(apart).reshape(-1)


def in_two_parts(packed, rows, across):
    """Panels with the first half of their columns ahead of the second, where these are more."""
    size = rows * across
    panels = [packed[k : k + size].reshape(rows, -1) for k in range(0, packed.size, size)]
    half = across // 2
    return np.concatenate(
        [p.ravel() for panel in panels for p in (panel[:, :half], panel[:, half:])]
    )


# The last panel is two vectors wide and not full, for vectors of 256 and of 128 bits.
@example(1, 6, 1, 3, 0, 12, np.float32, "start", False, WIDE)
@example(1, 6, 1, 3, 0, 7, np.float64, "start", True, WIDE)
@example(2, 6, 2, 6, 0, 7, np.float32, "zero", False, WIDE)
@example(1, 1, 1, 3, 4, 130, np.float32, "continued", True, WIDE)
@example(1, 6, 3, 9, 5, 3, np.float64, "continued", False, WIDE)
@example(2, 1, 3, 40, 0, 130, np.float32, "zero", True, WIDE)
@example(1, 8, 1, 40, 3, 130, np.float32, "start", True, NARROW)
@example(2, 17, 1, 40, 3, 130, np.float32, "continued", False, NARROW)
@given(
    st.integers(1, 3),
    st.integers(1, 20),
    st.integers(1, 3),
    SIZES,
    st.integers(0, 9),
    SIZES,
    DTYPES,
    st.sampled_from(["zero", "start", "continued"]),
    st.booleans(),
    st.sampled_from([WIDE, NARROW]),
)
def test_product(blocks, rows, runs, first, second, columns, dtype, begin, apart, widest):
    random = np.random.default_rng(rows + 100 * first + columns)
    lanes = cpu.lanes(np.dtype(dtype).itemsize)
    across = 4 * lanes
    # Every run but the last is as long as the others, and the last not empty.
    first, second = (max(count, runs**2) if count else 0 for count in (first, second))
    terms = first + second
    values = random.standard_normal((blocks, rows, terms)).astype(dtype)
    matrix = random.standard_normal((terms, columns)).astype(dtype)
    start = random.standard_normal(columns if begin == "start" else 0).astype(dtype)
    packed = np.full((1 + terms) * -(-columns // lanes) * lanes, np.nan, dtype)
    pack_matrix(matrix.reshape(-1), terms, columns, False, start, packed, 0, 1)
    if widest == NARROW:
        packed = in_two_parts(packed, 1 + terms, across)
    assert np.isfinite(packed).all()
    panels = -(-columns // across)
    before = random.standard_normal((blocks, rows, panels * across + 3)).astype(dtype)
    continued = begin == "continued"

    def result(values, before, cached=0):
        blocks, rows, _ = values.shape
        out, stride, panel = before.copy(), panels * across + 3, across
        if apart:
            # Panel by panel, each row with a gap behind it.
            stride, panel = across + 3, blocks * rows * (across + 3)
            out = before[..., :-3].reshape(blocks, rows, panels, across).transpose(2, 0, 1, 3)
            out = np.pad(out, ((0, 0), (0, 0), (0, 0), (0, 3)))
        parts = [in_runs(values[..., :first], runs), in_runs(values[..., first:], runs)]
        scratch = np.full((TILE_VECTORS + 1) * lanes, np.nan, dtype)
        sizes = ((first, second), runs, blocks, rows)
        out = np.ascontiguousarray(out)
        where = (out.reshape(-1), stride, panel)
        options = (packed, columns, widest, continued, cached, cached == 0, scratch)
        run_product(*parts, *sizes, *options, *where)
        assert np.isnan(scratch[-lanes:]).all()
        if apart:
            assert (out[..., across:] == 0).all()
            out = out[..., :across].transpose(1, 2, 0, 3).reshape(blocks, rows, -1)
            out = np.concatenate([out, before[..., -3:]], axis=-1)
        return out

    out = result(values, before)
    exact = values.astype(np.longdouble) @ matrix.astype(np.longdouble)
    if begin == "start":
        exact += start
    if continued:
        exact += before[..., :columns]
    bound = (1 + terms) * np.finfo(dtype).eps * (4 + np.abs(values) @ np.abs(matrix)).max()
    assert np.abs(out[..., :columns] - exact).max() < bound
    np.testing.assert_array_equal(out[..., columns:], before[..., columns:])
    # A row's bits do not depend on the tile it stands in.
    alone = result(values[-1:, -1:], before[-1:, -1:])
    np.testing.assert_array_equal(alone[0, 0], out[-1, -1])
    # Nor on whether the next panel is asked for.
    np.testing.assert_array_equal(result(values, before, cached=terms * columns), out)


@numba.njit
def heights_of(rows):
    tiles = tiling(4, rows)
    return [height_of(tiles, tile) for tile in range(tiles.count)]


@pytest.mark.parametrize("rows", range(1, 40))
def test_tiles_of_a_batch_are_nearly_equal(rows):
    heights = heights_of(rows)
    assert sum(heights) == rows
    assert max(heights) - min(heights) <= 1
    assert max(heights) <= ROWS
    assert len(heights) == -(-rows // ROWS)
