"""The loops behind the limits do the work that is counted, and LLVM leaves none of it out."""

import numba
import numpy as np
import pytest

from numba_lstm.kernels import probes
from numba_lstm.memory import aligned_empty
from numba_lstm.simd import cpu


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_multiply_add_does_every_round_of_every_chain(dtype):
    lanes = cpu.lanes(np.dtype(dtype).itemsize)
    values = np.zeros((probes.CHAINS + 1, lanes), dtype)
    values[:-1] = np.arange(1, probes.CHAINS + 1)[:, None]
    values[-1] = 0.5
    before = values.copy()
    probes.multiply_add(values.reshape(-1), 8)
    expected = before[:-1].sum(axis=0) + probes.CHAINS * 8 * 0.25
    assert np.array_equal(values[0], expected)
    assert np.array_equal(values[1:], before[1:])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_read_reads_every_number_every_time(dtype):
    lanes = cpu.lanes(np.dtype(dtype).itemsize)
    values = aligned_empty(24 * lanes, dtype)
    values[:] = np.arange(values.size) % 7
    total = np.full(lanes, np.nan, dtype)
    probes.read(values, 3, total)
    assert np.array_equal(total, 3 * values.reshape(-1, lanes).sum(axis=0))


@pytest.mark.skipif(cpu.vector_bits() != 512, reason="looks for registers of AVX-512")
@pytest.mark.parametrize("name", ["multiply_add", "read"])
def test_the_loops_hold_vectors_only(name):
    function = numba.njit(getattr(probes, name).py_func)  # a cached kernel has no assembly to read
    values = np.zeros(64 * cpu.lanes(4), np.float32)
    function(values, 1, *([values] if name == "read" else []))
    (assembly,) = function.inspect_asm().values()
    instruction = "vfmadd" if name == "multiply_add" else "vaddps"
    lines = [line for line in assembly.splitlines() if instruction in line and "zmm" in line]
    assert len(lines) >= (probes.CHAINS if name == "multiply_add" else 8)
