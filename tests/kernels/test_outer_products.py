"""Sums of outer products."""

import numba
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from numba_lstm.kernels.outer_products import (
    Ahead,
    Results,
    Rows,
    RowsOfSteps,
    TermRows,
    outer_products,
    share_ahead,
)
from numba_lstm.simd import cpu
from numba_lstm.simd.pointer import address


@numba.njit
def run_outer(x, features, vectors, numbers, weights, asked, added, out):
    terms, row = x.shape
    values, sums = address(x.reshape(-1), 0), address(out.reshape(-1), 0)
    start = address(weights.reshape(-1), 0)
    of_terms = address(numbers, 0), TermRows(start, weights.shape[1]), TermRows(start, 10**12)
    # What is asked for may lie anywhere: nothing is read.
    results = Results(Rows(sums, row, 10**12, features), Rows(start, 0, 0, 0), asked)
    nowhere = RowsOfSteps(start + 10**15, -(10**12), 10**12, 70)
    ahead = Ahead(3, 3 + terms, 4, nowhere, nowhere)
    outer_products(features, terms, vectors, values, row, *of_terms, results, ahead, added, sums)


@given(
    st.integers(1, 40),
    st.integers(1, 50),
    st.integers(0, 3),
    st.integers(1, 64),
    st.sampled_from([-1, 0, 7]),
    st.booleans(),
    st.sampled_from([np.float32, np.float64]),
)
def test_outer_products(terms, features, apart, across, asked, added, dtype):
    random = np.random.default_rng(terms + 100 * features)
    lanes = cpu.lanes(np.dtype(dtype).itemsize)
    across = min(across, 4 * lanes)
    x = random.standard_normal((terms, features + apart)).astype(dtype)
    # Behind the last of rows that are narrower than four vectors there is something to be read.
    kept = terms + 5
    numbers = random.permutation(kept)[:terms]
    room = np.full(kept * across + 4 * lanes, np.nan, dtype)
    weights = room[: kept * across].reshape(kept, across)
    weights[numbers] = random.standard_normal((terms, across))
    out = np.ones((features, 4 * lanes), dtype)
    run_outer(x, features, -(-across // lanes), numbers, weights, asked, added, out)
    weights = weights[numbers]
    x = x[:, :features].astype(np.longdouble)
    exact = added + x.T @ weights
    bound = terms * np.finfo(dtype).eps * (1 + np.abs(x).T @ np.abs(weights).max(1))
    assert np.abs(out[:, :across] - exact).max() < bound.max()


@numba.njit
def shares_of(start, begin, end, shares):
    """Begin and end of what is asked for, share by share."""
    rows = RowsOfSteps(address(start, 0), 0, 0, 0)
    ahead = Ahead(begin, end, 1, rows, rows)
    parts = [share_ahead(ahead, share, shares) for share in range(shares)]
    return [(part.begin, part.end) for part in parts]


@given(st.integers(0, 100), st.integers(0, 300), st.integers(1, 50))
def test_shares_of_what_is_asked_for_follow_one_another(first, count, shares):
    parts = shares_of(np.zeros(1), first, first + count, shares)
    assert [part[0] for part in parts] == [first] + [part[1] for part in parts[:-1]]
    assert parts[-1][1] == first + count
    sizes = [last - first for first, last in parts]
    assert max(sizes) - min(sizes) <= 1
