"""Every gradient by central differences in float64, with cotangents on y, h and c at once."""

import numpy as np
import pytest

import numba_lstm as nl
import reference
from strategies import Case

CASES = [
    Case(3, 2, 3, 4),
    Case(3, 2, 5, 3, layers=2, bidirectional=True),
    Case(4, 3, 2, 5, layers=3, bias=False),
    Case(2, 7, 1, 9, batch_first=True),
]


def assert_gradients(model, loss, dropout, arrays, gradients):
    """Compare analytic gradients of arrays with differences of the loss."""

    def again():
        model.dropout_state = dropout
        return loss()

    for name, array in arrays.items():
        numeric = reference.central_difference(again, array, step=3e-3)
        assert reference.relative_error(gradients[name], numeric) < 1e-7, name
    for name in model.parameters:
        array = model.parameters[name].copy()

        def varied(name=name, array=array):
            model.parameters[name] = array
            return again()

        numeric = reference.central_difference(varied, array, step=3e-3)
        model.parameters[name] = array
        assert reference.relative_error(model.gradients[name], numeric) < 1e-7, name


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_lstm(case, dropout):
    lstm = case.model(dropout=dropout)
    x, h0, c0, dy, dh, dc = case.arrays()
    state = lstm.dropout_state

    def loss():
        y, (h, c) = lstm.forward(x, (h0, c0))
        return (y * dy).sum() + (h * dh).sum() + (c * dc).sum()

    lstm.forward(x, (h0, c0))
    dx, (dh0, dc0) = lstm.backward(dy, (dh, dc))
    arrays = {"x": x, "h0": h0, "c0": c0}
    assert_gradients(lstm, loss, state, arrays, {"x": dx, "h0": dh0, "c0": dc0})


@pytest.mark.parametrize("projected", [False, True])
def test_sequential(projected, monkeypatch):
    monkeypatch.setattr(
        "numba_lstm.sequential.projects_vocabulary", lambda *sizes, **options: projected
    )
    model = nl.Sequential(
        nl.Embedding(6, 3, dtype="float64", seed=1),
        nl.LSTM(3, 4, 2, dropout=0.3, dtype="float64", seed=2),
        nl.LSTM(4, 3, bidirectional=True, dtype="float64", seed=3),
        nl.Linear(6, 5, dtype="float64", seed=4),
    )
    random = np.random.default_rng(0)
    tokens, target = random.integers(0, 6, (4, 3)), random.integers(0, 5, (4, 3))
    weights = random.uniform(0.5, 2.0, (4, 3))
    hx = tuple(
        (random.standard_normal(shape), random.standard_normal(shape))
        for shape in ((2, 3, 4), (2, 3, 3))
    )
    dhx = tuple(tuple(random.standard_normal(state.shape) for state in pair) for pair in hx)
    dropout = model.dropout_state

    def loss():
        y, after = model.forward(tokens, hx)
        value, _ = nl.softmax_cross_entropy(y, target, weights=weights)
        for pair, cotangents in zip(after, dhx, strict=True):
            value += sum((a * b).sum() for a, b in zip(pair, cotangents, strict=True))
        return value

    y, _ = model.forward(tokens, hx)
    _, dy = nl.softmax_cross_entropy(y, target, weights=weights)
    _, before = model.backward(dy, dhx)
    arrays = {f"{part}{k}": hx[k][p] for k in range(2) for p, part in enumerate("hc")}
    gradients = {f"{part}{k}": before[k][p] for k in range(2) for p, part in enumerate("hc")}
    assert_gradients(model, loss, dropout, arrays, gradients)
