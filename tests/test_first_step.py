"""The first step from zeros: its recurrent product is left out, and nobody can tell."""

import numpy as np
import pytest

import numba_lstm as nl
import reference

# Units of one vector and less, of two panels and more; rows of low, tall and many tiles.
SIZES = [(1, 7, 4), (3, 5, 20), (20, 40, 33), (7, 9, 100), (2, 30, 700)]
TINY = 1e-40  # of float32 below what is normal


def first_row_only(h):
    """States of which one number of the first row is hardly more than zero."""
    h = h.copy()
    h[:, 0, -1] = TINY
    return h


def results(lstm, x, h0, threads, training):
    """Outputs and states; and, of training, all gradients of their sum."""
    run = lstm.forward if training else lstm
    y, (h, c) = run(x, (h0, np.zeros_like(h0)), threads=threads)
    if not training:
        return [y, h, c]
    lstm.gradients.zero()
    dx, (dh0, dc0) = lstm.backward(np.ones_like(y), threads=threads)
    return [y, h, c, dx, dh0, dc0, lstm.gradients.flat.copy()]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("B", "I", "H"), SIZES)
def test_has_the_bits_of_the_whole_product(B, I, H, dtype, threads, training):
    lstm = nl.LSTM(I, H, 2, bidirectional=True, dtype=dtype, seed=0)
    x = np.random.default_rng(1).standard_normal((3, B + 1, I)).astype(dtype)
    zeros = np.zeros((4, B + 1, H), dtype)
    # The first row has to have its product, and others have theirs beside it.
    beside = results(lstm, x, first_row_only(zeros), threads, training)
    apart = results(lstm, x, zeros, threads, training)
    negative = results(lstm, x, -zeros, threads, training)
    # Rows of y, h, c, dx, dh0 and dc0; the gradients of the weights are sums over all of them.
    for a, b in zip(beside[:6], apart[:6], strict=True):
        assert a[:, 1:].tobytes() == b[:, 1:].tobytes()
    for a, b in zip(negative, apart, strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("zero", [0.0, -0.0])
@pytest.mark.parametrize("signs", ["positive", "negative", "either"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("B", "H"), [(1, 3), (1, 40), (9, 33), (8, 20), (200, 100)])
def test_has_the_sign_of_zero_of_the_whole_product(B, H, dtype, signs, zero):
    """Sums of -0, of inputs too small for the dtype, which a product of 0 makes 0."""
    lstm = nl.LSTM(1, H, bias=False, dtype=dtype, seed=0)
    weights = lstm.parameters["weight_hh_l0"].copy()
    if signs != "either":
        weights = np.abs(weights) if signs == "positive" else -np.abs(weights)
    lstm.parameters["weight_hh_l0"] = weights
    lstm.parameters["weight_ih_l0"] = np.full((4 * H, 1), -0.25)
    x = np.full((1, B + 1, 1), np.finfo(dtype).smallest_subnormal)
    h0, c0 = (np.full((1, B + 1, H), value, dtype) for value in (zero, -0.0))
    beside = lstm(x, (first_row_only(h0), c0))[0][:, 1:]
    for threads in (1, 2):
        apart = lstm(x[:, 1:], (h0[:, 1:], c0[:, 1:]), threads=threads)[0]
        assert apart.tobytes() == beside.tobytes()
        trained, _ = lstm.forward(x[:, 1:], (h0[:, 1:], c0[:, 1:]), threads=threads)
        assert trained.tobytes() == beside.tobytes()
    assert not beside.any()
    remains = "positive" if np.signbit(zero) else "negative"
    assert np.signbit(beside).all() == (signs == remains)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_state_next_to_zero_counts(dtype):
    lstm = nl.LSTM(3, 40, bias=False, dtype=dtype, seed=0)
    least = np.finfo(dtype).smallest_subnormal
    lstm.parameters["weight_hh_l0"] = np.full((160, 40), np.finfo(dtype).max)
    x, zeros = np.zeros((1, 2, 3), dtype), np.zeros((1, 2, 40), dtype)
    for unit in (0, 17, 39):
        h0 = zeros.copy()
        h0[0, 1, unit] = least
        y, _ = lstm(x, (h0, zeros))
        y_true, _, _ = reference.lstm_forward(x, (h0, zeros), lstm.parameters)
        assert reference.relative_error(y, y_true) < 2e-5
        assert not y[0, 0].any()
        assert y[0, 1].all()


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize(("B", "H"), [(1, 20), (1, 70), (9, 33), (40, 100)])
def test_weights_that_are_not_finite_give_nan_all_the_same(B, H, value, steps):
    x = np.random.default_rng(1).standard_normal((steps, B, 5))
    for row, column in ((0, 0), (H - 1, H - 1), (2 * H + H // 2, H // 3), (4 * H - 1, 0)):
        lstm = nl.LSTM(5, H, dtype="float64", seed=0)
        weights = lstm.parameters["weight_hh_l0"].copy()
        weights[row, column] = value
        lstm.parameters["weight_hh_l0"] = weights
        zeros = np.zeros((1, B, H))
        with np.errstate(invalid="ignore"):
            y_true, (h_true, c_true), _ = reference.lstm_forward(x, (zeros, zeros), lstm.parameters)
        for y, (h, c) in (lstm(x), lstm(x, threads=1), lstm.forward(x)):
            for actual, expected in ((y, y_true), (h, h_true), (c, c_true)):
                np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-15)
            assert np.isnan(y[0]).any()
            assert np.isfinite(y[0]).any()
