"""The cell's equations on vectors, against the oracle's."""

import numba
import numpy as np
import pytest

import reference
from numba_lstm.kernels.cell import cell_backward, cell_gates, cell_output
from numba_lstm.simd import cpu
from numba_lstm.simd.pointer import address
from numba_lstm.simd.vector import load, store, width


@numba.njit
def run_forward(x, out):
    lanes = width(address(x, 0))
    i, f, g, o, c = cell_gates(
        load(address(x, 0)),
        load(address(x, lanes)),
        load(address(x, 2 * lanes)),
        load(address(x, 3 * lanes)),
        load(address(x, 4 * lanes)),
    )
    for k, result in enumerate((i, f, g, o, c, cell_output(o, c))):
        store(result, address(out, k * lanes))


@numba.njit
def run_backward(x, out):
    lanes = width(address(x, 0))
    results = cell_backward(
        load(address(x, 0)),
        load(address(x, lanes)),
        load(address(x, 2 * lanes)),
        load(address(x, 3 * lanes)),
        load(address(x, 4 * lanes)),
        load(address(x, 5 * lanes)),
        load(address(x, 6 * lanes)),
        load(address(x, 7 * lanes)),
    )
    for k, result in enumerate(results):
        store(result, address(out, k * lanes))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_forward_and_backward(dtype):
    lanes = cpu.lanes(np.dtype(dtype).itemsize)
    random = np.random.default_rng(0)
    x = random.standard_normal((5, lanes)).astype(dtype)
    out = np.empty((6, lanes), dtype)
    run_forward(x.reshape(-1), out.reshape(-1))
    # With unit weights on a state of zeros the oracle's pre-activations are its input.
    a = x[:4].reshape(1, -1).astype(np.float64)
    nothing = np.zeros((4 * lanes, lanes))
    h, c, gates = reference.cell_forward(
        a, np.zeros((1, lanes)), x[4:5].astype(np.float64), np.eye(4 * lanes), nothing, 0.0
    )
    expected = np.concatenate([*gates, c, h])
    assert np.abs(out - expected).max() < 8 * np.finfo(dtype).eps

    cotangents = random.standard_normal((2, lanes)).astype(dtype)
    inputs = np.concatenate([out[:4], x[4:], out[4:5], cotangents])
    derived = np.empty((5, lanes), dtype)
    run_backward(np.ascontiguousarray(inputs).reshape(-1), derived.reshape(-1))
    saved = [(a, np.zeros((1, lanes)), x[4:5].astype(np.float64), c, gates)]
    dx, _, dc, *_ = reference.direction_backward(
        saved,
        cotangents[None, :1].astype(np.float64),
        np.zeros((1, lanes)),
        cotangents[1:].astype(np.float64),
        np.eye(4 * lanes),
        nothing,
    )
    assert np.abs(derived[:4].reshape(-1) - dx.reshape(-1)).max() < 16 * np.finfo(dtype).eps
    assert np.abs(derived[4] - dc[0]).max() < 16 * np.finfo(dtype).eps
