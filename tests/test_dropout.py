"""Dropout between layers."""

import numpy as np
import pytest

import numba_lstm as nl
import reference
from strategies import Case


def mask_of(lstm, T, B):
    """Factors that `forward` puts on the outputs of the first of two layers.

    The second layer passes them on: its input gradient is masked in the same way.
    """
    H = lstm.config.hidden_size
    state = lstm.dropout_state
    lstm.forward(np.zeros((T, B, lstm.config.input_size)))
    lstm.dropout_state = state
    layout = lstm._tape.read(lstm.parameters).layout
    whole, dropped = (
        lstm._training_workspace.buffer[place : place + T * B * H].reshape(T, B, H)
        for place in (layout.cells[0]["outputs"], layout.cells[1]["source"])
    )
    return dropped / whole


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_share_and_scale(share):
    lstm = nl.LSTM(3, 50, 2, dropout=share, dtype="float64", seed=0)
    mask = mask_of(lstm, 20, 10)
    kept = mask != 0
    assert np.allclose(mask[kept], 1 / (1 - share), rtol=1e-12)
    assert abs(kept.mean() - (1 - share)) < 4 * np.sqrt(share * (1 - share) / mask.size)
    # No step, row or unit is like another.
    for axis in range(3):
        slices = np.moveaxis(kept, axis, 0).reshape(kept.shape[axis], -1)
        assert len(np.unique(slices, axis=0)) == kept.shape[axis]


def test_backward_uses_the_mask_of_forward():
    case = Case(5, 3, 7, 6, layers=2)
    lstm = case.model(dropout=0.5)
    x, h0, c0, dy, dh, dc = case.arrays()
    state = lstm.dropout_state
    masks = [mask_of(lstm, 5, 3)]
    lstm.dropout_state = state
    y, _ = lstm.forward(x, (h0, c0))
    dx, _ = lstm.backward(dy, (dh, dc))
    y_true, _, tape = reference.lstm_forward(x, (h0, c0), lstm.parameters, 2, 1, masks)
    dx_true, _, _ = reference.lstm_backward(tape, dy, (dh, dc), lstm.parameters, 2, 1, masks)
    assert reference.relative_error(y, y_true) < 1e-13
    assert reference.relative_error(dx, dx_true) < 1e-13


def test_every_call_has_its_mask_and_a_state_brings_it_back():
    lstm = nl.LSTM(3, 8, 2, dropout=0.5, seed=0)
    x = np.random.default_rng(0).standard_normal((4, 2, 3))
    state = lstm.dropout_state
    first, second = lstm.forward(x)[0], lstm.forward(x)[0]
    assert not np.array_equal(first, second)
    lstm.dropout_state = state
    assert np.array_equal(lstm.forward(x)[0], first)
    assert np.array_equal(lstm.forward(x)[0], second)
    assert lstm.dropout_state == {"seed": state["seed"], "calls": 2}


def test_inference_and_a_single_layer_have_none():
    x = np.random.default_rng(0).standard_normal((4, 2, 3))
    lstm = nl.LSTM(3, 8, 2, dropout=0.5, seed=0)
    assert np.array_equal(lstm(x)[0], lstm.forward(x, training=False)[0])
    assert not np.array_equal(lstm(x)[0], lstm.forward(x)[0])
    single = nl.LSTM(3, 8, dropout=0.5, seed=0)
    assert np.array_equal(single(x)[0], single.forward(x)[0])


def test_everything_may_be_dropped():
    lstm = nl.LSTM(3, 8, 2, dropout=1.0, seed=0)
    x = np.random.default_rng(0).standard_normal((4, 2, 3))
    y, _ = lstm.forward(x)
    assert np.array_equal(y, lstm.forward(2 * x)[0])
    assert np.isfinite(y).all()


def test_dropout_state_is_checked():
    lstm = nl.LSTM(3, 8, 2, dropout=0.5, seed=0)
    with pytest.raises(ValueError, match="seed and calls"):
        lstm.dropout_state = {"seed": 1}
