"""One step of a stream, called from Python with few arguments.

Numba takes some 60 ns to hand over an array, which for all that a step reads and writes would be a
fifth of a small one. What stays the same from step to step is found through a table of addresses.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from ..jit import inlined, kernel
from ..simd.mode import enter_default_mode, restore_mode
from ..simd.pointer import memory_at
from .forward import forward_rows
from .tables import CALL, CELL

_ARRAYS = ("calls", "cells", "packed", "h", "c", "workspace")
# Of each array that `lstm_forward` takes besides x and y: where it begins, and its size.
STEP = np.dtype([(f"{name}{part}", np.int64) for name in _ARRAYS for part in ("", "_size")])


@inlined
def _begins_within(array, other):
    """Whether an array begins within another one."""
    return other.ctypes.data <= array.ctypes.data < other.ctypes.data + other.nbytes


@kernel
def lstm_step(steps, x, y):
    """Take one step of all rows, unless y overlaps x; see `lstm_forward`.

    Parameters
    ----------
    steps : (1,) array of STEP
        h and c are the states before; read, and assigned.
    x : array
        (B, I), read.
    y : array
        (B, H), assigned.

    Returns
    -------
    bool
        Whether it was taken; nothing is changed otherwise.
    """
    if _begins_within(x, y) or _begins_within(y, x):
        return False
    step = steps[0]
    call = carray(memory_at(step.calls), (step.calls_size,), CALL)[0]
    cells = carray(memory_at(step.cells), (step.cells_size,), CELL)
    packed = carray(memory_at(step.packed), (step.packed_size,), x.dtype)
    h = carray(memory_at(step.h), (step.h_size,), x.dtype)
    c = carray(memory_at(step.c), (step.c_size,), x.dtype)
    workspace = carray(memory_at(step.workspace), (step.workspace_size,), x.dtype)
    mode = enter_default_mode()
    forward_rows(call, cells, packed, x.ravel(), h, c, y.ravel(), h, c, workspace, 0, 1)
    restore_mode(mode)
    return True
