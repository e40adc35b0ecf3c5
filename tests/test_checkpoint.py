"""Checkpoints: the same bits in less memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import numba_lstm as nl


def results(checkpoint, T, B, sizes, **options):
    """Everything that one training call gives."""
    random = np.random.default_rng(T + B)
    lstm = nl.LSTM(*sizes, seed=1, **options)
    config = lstm.config
    x = random.standard_normal((T, B, config.input_size))
    h, c, dh, dc = random.standard_normal((4, config.cells, B, config.hidden_size))
    y, (h_n, c_n) = lstm.forward(x, (h, c), checkpoint=checkpoint)
    dx, (dh0, dc0) = lstm.backward(random.standard_normal(y.shape), (dh, dc))
    return [y, h_n, c_n, dx, dh0, dc0, lstm.gradients.flat]


@settings(max_examples=25)
@given(
    st.integers(0, 450),
    st.sampled_from([1, 2, 7, 100, 193, 200]),
    st.tuples(st.integers(1, 9), st.integers(1, 20), st.integers(1, 3)),
    st.booleans(),
    st.sampled_from([0.0, 0.4]),
    st.sampled_from([1, 2]),
    st.sampled_from([1, 2, 193, "auto"]),
)
def test_same_bits(T, B, sizes, bidirectional, dropout, threads, checkpoint):
    steps = T if B < 100 else min(T, 9)
    options = {"bidirectional": bidirectional, "dropout": dropout}
    whole = results(None, steps, B, sizes, **options, threads=1)
    pieces = results(checkpoint, steps, B, sizes, **options, threads=threads)
    for expected, found in zip(whole, pieces, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_changed_output_does_not_matter():
    lstm = nl.LSTM(3, 5, 2, seed=0)
    x = np.ones((400, 1, 3))
    gradients = []
    for spoilt in (False, True):
        y, _ = lstm.forward(x, checkpoint=1)
        dy = np.ones_like(y)
        if spoilt:
            y.fill(np.nan)
        lstm.gradients.zero()
        lstm.backward(dy)
        gradients.append(lstm.gradients.flat.copy())
    np.testing.assert_array_equal(*gradients)


def test_a_long_sequence_in_little_memory():
    lstm = nl.LSTM(1, 32)
    whole = lstm.workspace_nbytes(1_000_000, 1, training=True)
    assert lstm.workspace_nbytes(1_000_000, 1, training=True, checkpoint="auto") < 4_000_000 < whole


def test_memory_of_training_is_what_backward_needs():
    T, B, I, H = 100, 20, 64, 128
    lstm = nl.LSTM(I, H, threads=1)
    numbers = lstm.workspace_nbytes(T, B, training=True) / 4
    assert numbers <= (6 * H + I) * T * B + 3 * lstm.parameters.size


@pytest.mark.parametrize("checkpoint", [0, -3])
def test_too_small(checkpoint):
    lstm = nl.LSTM(2, 3)
    with pytest.raises(ValueError, match=f"checkpoint must be at least 1; got {checkpoint}"):
        lstm.forward(np.ones((4, 1, 2)), checkpoint=checkpoint)


def test_no_other_word():
    lstm = nl.LSTM(2, 3)
    with pytest.raises(ValueError, match='checkpoint must be an integer, "auto" or None; got'):
        lstm.forward(np.ones((4, 1, 2)), checkpoint="some")
