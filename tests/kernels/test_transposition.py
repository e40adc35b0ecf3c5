import numba
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from numba_lstm.kernels.transposition import transpose
from numba_lstm.simd.pointer import address

DTYPES = st.sampled_from([np.float32, np.float64])


@numba.njit
def run_transpose(rows, columns, source, target, added):
    places = address(source.reshape(-1), 0), address(target.reshape(-1), 0)
    transpose(rows, columns, places[0], source.shape[1], places[1], target.shape[1], added)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 3), st.booleans(), DTYPES)
def test_rows_become_columns(rows, columns, apart, added, dtype):
    source = np.arange((rows + 1) * (columns + apart + 1), dtype=dtype).reshape(rows + 1, -1)
    target = np.full((columns + 1, rows + apart + 1), 0.5, dtype)
    expected = target.copy()
    expected[:columns, :rows] = source[:rows, :columns].T + (0.5 if added else 0.0)
    run_transpose(rows, columns, source, target, added)
    np.testing.assert_array_equal(target, expected)
