"""Operations on a Vector, applied to whole NumPy arrays."""

import numba
import numpy as np

from numba_lstm.simd import cpu
from numba_lstm.simd.pointer import address
from numba_lstm.simd.vector import store, width


def lanewise(operation):
    """Function of one or more arrays from ``operation(p, n)``, which returns a Vector.

    `p` points to the first array's numbers; those of the next arrays stand `n` numbers behind.
    """
    operation = numba.njit(operation)

    @numba.njit
    def run(operands, n, out):
        target = address(out, 0)
        for k in range(0, n, width(target)):
            store(operation(address(operands, k), n), target + k)

    def apply(*arrays):
        dtype = arrays[0].dtype
        lanes = cpu.lanes(dtype.itemsize)
        size = arrays[0].size
        n = -(-size // lanes) * lanes
        operands = np.zeros((len(arrays), n), dtype)
        for row, array in zip(operands, arrays, strict=True):
            row[:size] = array
        out = np.empty(n, dtype)
        run(operands.reshape(-1), n, out)
        return out[:size]

    return apply
