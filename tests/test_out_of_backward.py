"""Gradients of inputs and states are written where the caller says, or nothing is."""

import numpy as np
import pytest

import numba_lstm as nl

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((5, 3, 4), np.float32)
DY = RANDOM.standard_normal((5, 3, 6), np.float32)
STATES = RANDOM.standard_normal(100, np.float32)
DHX = STATES[:36].reshape(2, 3, 6), STATES[40:76].reshape(2, 3, 6)


def lstm():
    return nl.LSTM(4, 6, 2, seed=0)


def model():
    return nl.Sequential(nl.LSTM(4, 8, seed=0), nl.LSTM(8, 5, seed=1), nl.Linear(5, 6, seed=2))


def room(like):
    return np.full_like(like, np.nan)


@pytest.mark.parametrize("checkpoint", [None, 1])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_of_an_lstm_is_written_and_may_be_the_state(bidirectional, checkpoint):
    one = nl.LSTM(4, 6, 2, bidirectional=bidirectional, seed=0)
    x = RANDOM.standard_normal((60, 3, 4), np.float32)
    y, dhx = one.forward(x)
    expected_dx, expected_state = one.backward(y, dhx)
    expected = one.gradients.flat.copy()
    dx, (dh, dc) = room(x), (state.copy() for state in dhx)
    one.forward(x, checkpoint=checkpoint)
    result, state = one.backward(y, (dh, dc), out=(dx, (dh, dc)), accumulate=False)
    assert result is dx
    assert state[0] is dh
    assert state[1] is dc
    np.testing.assert_array_equal(dx, expected_dx)
    np.testing.assert_array_equal(state, expected_state)
    np.testing.assert_array_equal(one.gradients.flat, expected)


@pytest.mark.parametrize("wanted", [True, False])
def test_parts_of_an_lstm_may_be_left_out(wanted):
    one = lstm()
    one.forward(X)
    dx, expected = one.backward(DY, DHX)
    given = room(X) if wanted else None
    lent = tuple(map(room, DHX))
    for out in ((given, None), (None, lent), (given, lent), None):
        one.forward(X)
        result, state = one.backward(DY, DHX, out=out, input_gradient=wanted)
        np.testing.assert_array_equal(state, expected)
        if wanted:
            np.testing.assert_array_equal(result, dx)
        else:
            assert result is None


@pytest.mark.parametrize(
    "build", [lambda: nl.Linear(4, 6, seed=0), model, lambda: nl.Sequential(lstm())]
)
def test_of_other_layers_is_written(build):
    layer = build()
    layer.forward(X)
    result = layer.backward(DY)
    expected = layer.gradients.flat.copy()
    layer.forward(X)
    out = room(X)
    again = layer.backward(DY, out=out, accumulate=False)
    if isinstance(layer, nl.Sequential):
        result, again = result[0], again[0]
    assert again is out
    np.testing.assert_array_equal(out, result)
    np.testing.assert_array_equal(layer.gradients.flat, expected)


STRUCTURE = r"out must have the structure \(dx, \(dh0, dc0\)\) or \(dx, None\)"
LENT = tuple(map(room, DHX))
OVER_C = STATES[42:78].reshape(2, 3, 6)
OVER_DY = DY.reshape(-1)[:60].reshape(5, 3, 4), DY.reshape(-1)[:36].reshape(2, 3, 6)
OVER_ONE_ANOTHER = np.zeros(60, np.float32)
DX, DH = OVER_ONE_ANOTHER.reshape(5, 3, 4), OVER_ONE_ANOTHER[:36].reshape(2, 3, 6)


@pytest.mark.parametrize(
    ("out", "options", "error", "message"),
    [
        (X.copy(), {}, TypeError, f"{STRUCTURE}; got ndarray"),
        ((X.copy(), *LENT), {}, TypeError, f"{STRUCTURE}; got 3 items"),
        ((X.copy(), LENT[0]), {}, TypeError, rf"{STRUCTURE}; got \(dx, ndarray\)"),
        ((X[:4].copy(), None), {}, ValueError, r"dx of out must have shape \(5, 3, 4\)"),
        ((X.astype("f8"), None), {}, ValueError, "dx of out must have dtype float32"),
        ((X, None), {}, ValueError, "dx of out must not overlap x"),
        ((OVER_DY[0], None), {}, ValueError, "dx of out must not overlap dy"),
        ((DX, (DH, LENT[1])), {}, ValueError, "dx of out must not overlap dh0 of out"),
        ((DX, (LENT[0], DH)), {}, ValueError, "dx of out must not overlap dc0 of out"),
        ((None, (OVER_DY[1], LENT[1])), {}, ValueError, "dh0 of out must not overlap dy"),
        ((None, (LENT[0], OVER_DY[1])), {}, ValueError, "dc0 of out must not overlap dy"),
        ((None, (LENT[0], OVER_C)), {}, ValueError, "dc0 of out must not overlap dhx"),
        ((X[::-1].copy()[::-1], None), {}, ValueError, "dx of out must be C-contiguous"),
        ((None, (LENT[0], LENT[0])), {}, ValueError, "dh0 of out must not overlap dc0 of out"),
        ((None, (LENT[0], None)), {}, TypeError, "dc0 of out must be an array; got NoneType"),
        ((None, (LENT[0], DHX[0])), {}, ValueError, "dc0 of out must not overlap h of dhx"),
        ((None, DHX[::-1]), {}, ValueError, "dh0 of out must not overlap c of dhx"),
        (
            (X.copy(), None),
            {"input_gradient": False},
            ValueError,
            "dx of out must be None where input_gradient is False; got ndarray",
        ),
    ],
)
def test_what_an_lstm_refuses_costs_nothing(out, options, error, message):
    one, twin = lstm(), lstm()
    one.forward(X)
    twin.forward(X)
    before = [array.copy() for array in (X, DY, STATES)]
    with pytest.raises(error, match=f"^{message}"):
        one.backward(DY, DHX, out=out, **options)
    assert not one.gradients.flat.any()
    for array, copy in zip((X, DY, STATES), before, strict=True):
        np.testing.assert_array_equal(array, copy)
    np.testing.assert_array_equal(one.backward(DY, DHX)[0], twin.backward(DY, DHX)[0])


@pytest.mark.parametrize("build", [lambda: nl.Linear(4, 6, seed=0), model])
def test_what_other_layers_refuse_costs_nothing(build):
    layer, twin = build(), build()
    x, dy = X.copy(), np.ones((5, 3, 6), np.float32)
    shared = np.zeros(x.size + 30, np.float32)
    cases = [
        (x, dy, {}, "out must not overlap x"),
        (shared[: x.size].reshape(x.shape), shared[-dy.size :], {}, "out must not overlap dy"),
        (x[:4].copy(), dy, {}, r"out must have shape \(5, 3, 4\); got \(4, 3, 4\)"),
        (x.tolist(), dy, {}, "out must be an array; got list"),
        (x.astype("f8"), dy, {}, "out must have dtype float32; got float64"),
        (x.copy(), dy, {"input_gradient": False}, "out must be None where input_gradient is False"),
    ]
    layer.forward(x)
    twin.forward(x)
    for out, slopes, options, message in cases:
        with pytest.raises((TypeError, ValueError), match=f"^{message}"):
            layer.backward(slopes.reshape(dy.shape), out=out, **options)
    assert not layer.gradients.flat.any()
    np.testing.assert_array_equal(x, X)
    out = room(x)
    layer.backward(dy, out=out)
    twin.backward(dy)
    np.testing.assert_array_equal(layer.gradients.flat, twin.gradients.flat)
    assert np.isfinite(out).all()


def test_a_model_refuses_its_states_and_gradients_of_tokens():
    one, twin = (nl.Sequential(nl.LSTM(6, 6, 2, seed=0), nl.Linear(6, 6, seed=1)) for _ in range(2))
    states = np.ones((2, 2, 3, 6), np.float32)
    for each in (one, twin):
        each.forward(DY[:2])
    with pytest.raises(ValueError, match=r"^out must not overlap dhx"):
        one.backward(DY[:2], (tuple(states),), out=states[0])
    for each in (one, twin):
        each.backward(DY[:2], (tuple(states),))
    assert (states == 1).all()
    np.testing.assert_array_equal(one.gradients.flat, twin.gradients.flat)
    tokens = nl.Sequential(nl.Embedding(5, 4, seed=0), nl.LSTM(4, 6, seed=0))
    tokens.forward(np.zeros((5, 3), np.int64))
    with pytest.raises(ValueError, match=r"^out must be None where tokens are the input"):
        tokens.backward(DY, out=room(X))
    tokens.backward(DY)


def test_a_model_goes_back_through_the_backward_of_its_layers():
    class Counted(nl.LSTM):
        calls = 0

        def backward(self, *arguments, **options):
            self.calls += 1
            return super().backward(*arguments, **options)

    class Halved(nl.Linear):
        def backward(self, dy, **options):
            return super().backward(dy / 2, **options)

    usual = nl.Sequential(nl.LSTM(4, 5, seed=0), nl.Linear(5, 6, seed=1))
    own = nl.Sequential(Counted(4, 5, seed=0), Halved(5, 6, seed=1))
    for layers in (usual, own):
        layers.forward(X)
    dx, _ = own.backward(2 * DY)
    np.testing.assert_array_equal(dx, usual.backward(DY)[0])
    assert own.layers[0].calls == 1
