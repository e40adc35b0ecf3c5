"""Embedding, Linear and Sequential."""

import copy
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import numba_lstm as nl
import reference
from schedules import SCHEDULES


@given(
    st.integers(0, 30),
    st.sampled_from([1, 2, 5, 16, 17, 33, 65, 70]),
    st.sampled_from([1, 3, 16, 31, 49, 64, 100]),
    st.booleans(),
    st.sampled_from(["float32", "float64"]),
)
def test_linear_equals_numpy(rows, inputs, outputs, bias, dtype):
    random = np.random.default_rng(rows + 31 * inputs + outputs)
    linear = nl.Linear(inputs, outputs, bias=bias, dtype=dtype, seed=random)
    x = random.standard_normal((rows, 2, inputs)).astype(dtype)
    dy = random.standard_normal((rows, 2, outputs)).astype(dtype)
    y = linear(x)
    assert np.array_equal(y, linear.forward(x))
    dx = linear.backward(dy)
    weight = linear.parameters["weight"].astype(np.float64)
    expected = x @ weight.T
    if bias:
        expected = expected + linear.parameters["bias"]
    tolerance = 2e-5 if dtype == "float32" else 1e-13
    assert y.shape == expected.shape
    assert np.abs(y - expected).max(initial=0) < tolerance * 10
    assert np.abs(dx - dy @ weight).max(initial=0) < tolerance * 10
    flat_x, flat_dy = x.reshape(-1, inputs), dy.reshape(-1, outputs)
    if rows:
        gradient = linear.gradients["weight"]
        assert reference.relative_error(gradient, flat_dy.astype("f8").T @ flat_x) < tolerance
        if bias:
            total = linear.gradients["bias"]
            assert np.abs(total - flat_dy.astype("f8").sum(axis=0)).max() < tolerance * 10


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_linear_has_the_same_bits_on_two_threads(dtype, monkeypatch):
    monkeypatch.setattr("numba_lstm.schedule._NUMBERS_PER_WORKER", 1)
    random = np.random.default_rng(0)
    x = random.standard_normal((700, 90)).astype(dtype)
    dy = random.standard_normal((700, 130)).astype(dtype)
    results = []
    for threads in (1, 2):
        linear = nl.Linear(90, 130, dtype=dtype, threads=threads, seed=0)
        y = linear.forward(x)
        results.append((y, linear.backward(dy), linear.gradients.flat, linear(x[17])))
    for one, two in zip(*results, strict=True):
        assert np.array_equal(one, two)
    y, _, _, alone = results[0]
    assert np.array_equal(y[17], alone)


@pytest.mark.parametrize("schedule_of_workers", list(SCHEDULES))
@pytest.mark.parametrize("sizes", [(300, 90, 130), (129, 65, 1), (40, 2, 700), (1, 1100, 3)])
def test_linear_has_the_same_bits_whatever_the_workers(sizes, schedule_of_workers, monkeypatch):
    rows, inputs, outputs = sizes
    random = np.random.default_rng(0)
    x = random.standard_normal((rows, inputs)).astype("f4")
    dy = random.standard_normal((rows, outputs)).astype("f4")

    def results(threads):
        linear = nl.Linear(inputs, outputs, threads=threads, seed=0)
        y, dx = linear.forward(x), linear.backward(dy)
        once = linear.gradients.flat.copy()
        linear.forward(x)
        linear.backward(dy)
        np.testing.assert_array_equal(linear.gradients.flat, 2 * once)
        linear.forward(x)
        linear.backward(dy, accumulate=False)
        np.testing.assert_array_equal(linear.gradients.flat, once)
        return y, dx, once

    alone = results(1)
    monkeypatch.setattr("numba_lstm.schedule._NUMBERS_PER_WORKER", 1)
    monkeypatch.setattr("numba_lstm.schedule._OPERATIONS_PER_WORKER", 1)
    monkeypatch.setattr("numba_lstm.threadpool.available", lambda: 5)
    monkeypatch.setattr("numba_lstm.threadpool.share_out", SCHEDULES[schedule_of_workers])
    for one, many in zip(alone, results(5), strict=True):
        np.testing.assert_array_equal(many, one)


def test_embedding():
    embedding = nl.Embedding(5, 3, dtype="float64", seed=0)
    tokens = np.array([[1, 4], [1, 0]])
    y = embedding.forward(tokens)
    assert np.array_equal(y, embedding.parameters["weight"][tokens])
    assert np.array_equal(y, embedding(tokens.astype(np.uint8)))
    dy = np.random.default_rng(0).standard_normal(y.shape)
    embedding.backward(dy)
    expected = np.zeros((5, 3))
    np.add.at(expected, tokens, dy)
    assert np.array_equal(embedding.gradients["weight"], expected)


def test_sequential_shares_one_buffer():
    lstm, linear = nl.LSTM(3, 4, seed=0), nl.Linear(4, 2, seed=1)
    weights = lstm.state_dict()
    model = nl.Sequential(nl.Embedding(6, 3, seed=2), lstm, linear)
    assert list(model.parameters) == [
        "0.weight",
        "1.weight_ih_l0",
        "1.weight_hh_l0",
        "1.bias_l0",
        "2.weight",
        "2.bias",
    ]
    assert np.array_equal(lstm.parameters["weight_ih_l0"], weights["weight_ih_l0"])
    for name, layer in zip("012", model.layers, strict=True):
        for key in layer.parameters:
            assert np.shares_memory(layer.parameters[key], model.parameters[f"{name}.{key}"])
            assert np.shares_memory(layer.gradients[key], model.gradients[f"{name}.{key}"])
    tokens = np.array([[1, 2], [3, 4]])
    before = model(tokens)[0]
    with model.parameters.edit() as flat:
        flat *= 2
    assert not np.array_equal(model(tokens)[0], before)
    assert np.array_equal(model(tokens)[0], linear(lstm(model.layers[0](tokens))[0]))


@pytest.mark.parametrize(
    "layers",
    [
        [nl.Embedding(5, 3, seed=0)],
        [nl.Embedding(5, 3, seed=0), nl.LSTM(3, 4, 2, seed=0)],
        [nl.Embedding(5, 3, seed=0), nl.LSTM(3, 4, seed=0), nl.Linear(4, 6, seed=0)],
    ],
)
def test_the_last_layer_of_a_sequential_writes_where_it_is_told(layers):
    model = nl.Sequential(*layers)
    tokens = np.random.default_rng(0).integers(0, 5, (7, 2))
    expected, states = model.forward(tokens)
    y = np.full_like(expected, np.nan)
    result, again = model.forward(tokens, out=y)
    assert result is y
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(again, states)
    model.backward(np.ones_like(y))
    with pytest.raises(ValueError, match=r"out must have shape \(7, 2, \d\); got \(6, 2, \d\)"):
        model.forward(tokens, out=y[:-1])
    with pytest.raises(RuntimeError, match="needs a forward before it"):
        model.backward(np.ones_like(y))  # the refused call has left nothing


def test_the_output_of_a_sequential_must_not_overlap_its_input():
    model = nl.Sequential(nl.Linear(3, 3, seed=0), nl.Linear(3, 3, seed=0))
    memory = np.ones((5, 3), "f4")
    with pytest.raises(ValueError, match="out must not overlap x"):
        model.forward(memory[:4], out=memory[1:])
    assert (memory == 1).all()


def test_the_output_of_a_sequential_must_not_overlap_its_states():
    """And a refused call leaves the one before as it was, and dropout where it was."""
    model, twin = (
        nl.Sequential(nl.LSTM(3, 4, 2, dropout=0.5, seed=0), nl.LSTM(4, 4, 2, dropout=0.5, seed=1))
        for _ in range(2)
    )
    x = np.random.default_rng(0).standard_normal((2, 2, 3)).astype("f4")
    y, _ = model.forward(x)
    twin.forward(x)
    states = tuple((h, c) for h, c in np.zeros((2, 2, 2, 2, 4), "f4"))
    for out in (array for state in states for array in state):
        with pytest.raises(ValueError, match="out must not overlap hx"):
            model.forward(2 * x, states, out=out)
    assert model.dropout_state == twin.dropout_state
    assert not np.any(states)
    model.backward(np.ones_like(y))
    twin.backward(np.ones_like(y))
    np.testing.assert_array_equal(model.gradients.flat, twin.gradients.flat)


def test_sequential_carries_a_state_for_every_lstm():
    model = nl.Sequential(
        nl.LSTM(2, 4, dtype="float64", seed=0), nl.LSTM(4, 3, 2, dtype="float64", seed=1)
    )
    x = np.random.default_rng(0).standard_normal((6, 5, 2))
    y, state = model(x)
    assert [h.shape for h, _ in state] == [(1, 5, 4), (2, 5, 3)]
    first, middle = model(x[:2])
    second, last = model(x[2:], middle)
    assert np.array_equal(np.concatenate([first, second]), y)
    assert all(
        np.array_equal(a, b)
        for p, q in zip(last, state, strict=True)
        for a, b in zip(p, q, strict=True)
    )


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies(clone):
    model = nl.Sequential(
        nl.Embedding(6, 3, seed=2), nl.LSTM(3, 4, seed=0), nl.Linear(4, 2, seed=1)
    )
    twin = clone(model)
    tokens = np.array([[1, 2], [3, 4]])
    assert np.array_equal(twin(tokens)[0], model(tokens)[0])
    twin.parameters.zero()
    assert model.parameters.flat.all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nl.Embedding(0, 3), ValueError, "num_embeddings must be at least 1; got 0"),
        (
            lambda: nl.Embedding(3, 2)([3]),
            ValueError,
            r"tokens must lie in \[0, 3\), 3 = num_embeddings; got values from 3 to 3",
        ),
        (lambda: nl.Embedding(3, 2)([-1]), ValueError, "got values from -1 to -1"),
        (
            lambda: nl.Embedding(3, 2)([0.5]),
            TypeError,
            "tokens must be an array of integers; got dtype float64",
        ),
        (
            lambda: nl.Embedding(3, 2).backward(np.zeros(2)),
            RuntimeError,
            "Embedding needs a forward",
        ),
        (lambda: nl.Linear(3, -1), ValueError, "out_features must be at least 1; got -1"),
        (
            lambda: nl.Linear(3, 2)(np.zeros((4, 5))),
            ValueError,
            r"x must have shape \(..., 3\), 3 = in_features; got \(4, 5\)",
        ),
        (lambda: nl.Linear(3, 2).backward(np.zeros(2)), RuntimeError, "Linear needs a forward"),
        (nl.Sequential, ValueError, "layers must be at least one"),
        (
            lambda: nl.Sequential(nl.Linear(3, 4), nl.Linear(3, 4)),
            ValueError,
            "layer 1 must take the 4 features of the layer before",
        ),
        (
            lambda: nl.Sequential(nl.Linear(3, 4), nl.Embedding(3, 4)),
            ValueError,
            "layer 1 must take the 4 features",
        ),
        (
            lambda: nl.Sequential("LSTM"),
            TypeError,
            "layer 0 must be an Embedding, an LSTM or a Linear; got 'LSTM'",
        ),
        (lambda: nl.Sequential(*[nl.Linear(3, 3)] * 2), ValueError, "twice"),
        (
            lambda: nl.Sequential(nl.Linear(3, 3), nl.Linear(3, 3, dtype="float64")),
            ValueError,
            "layers must have one dtype; got float32, float64",
        ),
        (
            lambda: [nl.Sequential(layer) for layer in [nl.Linear(3, 3)] * 2],
            ValueError,
            r"layer 0 must not stand in another model already; got Linear\(3, 3\)",
        ),
        (
            lambda: nl.Sequential(nl.LSTM(3, 3, batch_first=True), nl.LSTM(3, 3)).stream(2),
            ValueError,
            "LSTMs of a stream must all be batch first, or none of them; got Sequential",
        ),
        (
            lambda: nl.Sequential(nl.LSTM(3, 3))(np.zeros((2, 2, 3)), ()),
            TypeError,
            "hx must be a tuple of 1 states, one per LSTM; got 0",
        ),
        (
            lambda: nl.Sequential(nl.LSTM(3, 3), nl.LSTM(3, 4))(
                np.zeros((2, 3)), (None, np.zeros((1, 4)))
            ),
            TypeError,
            r"hx\[1\] must be a pair \(h, c\); got ndarray",
        ),
        (
            lambda: nl.Sequential(nl.LSTM(3, 3), nl.LSTM(3, 4))(
                np.zeros((2, 3)), (None, [np.zeros((1, 3))] * 2)
            ),
            ValueError,
            r"h of hx\[1\] must have shape \(1, 4\), \(layers x directions, hidden_size\); got",
        ),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_wrong_cotangent_costs_nothing():
    linear = nl.Linear(3, 2, seed=0)
    linear.forward(np.ones((4, 3)))
    with pytest.raises(
        ValueError, match=r"dy must have shape \(4, 2\), as the output; got \(4, 3\)"
    ):
        linear.backward(np.ones((4, 3)))
    assert not linear.gradients.flat.any()
    assert linear.backward(np.ones((4, 2))).shape == (4, 3)


@pytest.mark.parametrize("shape", [(5, 3), (0, 3), (5, 0)])
def test_gradients_are_added_or_take_the_place_of_those_before(shape):
    """In every layer, and also if there is nothing to sum."""
    layers = (nl.Embedding(7, 4, seed=0), nl.LSTM(4, 18, 2, seed=1), nl.Linear(18, 3, seed=2))
    model = nl.Sequential(*layers)
    tokens = np.random.default_rng(0).integers(7, size=shape)
    dy = np.random.default_rng(1).standard_normal((*shape, 3))

    def gradients(tokens=tokens, dy=dy, **options):
        model.forward(tokens)
        model.backward(dy, **options)
        return model.gradients.flat.copy()

    # What an earlier call has left in memory is no part of them.
    before = gradients(np.arange(6).reshape(3, 2), np.ones((3, 2, 3)))
    assert before.any()
    once = gradients(accumulate=False)
    assert once.any() == (0 not in shape)
    model.gradients.zero()
    gradients(np.arange(6).reshape(3, 2), np.ones((3, 2, 3)))
    np.testing.assert_allclose(gradients(), before + once, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(gradients(accumulate=False), once)
    np.testing.assert_array_equal(gradients(accumulate=False), once)
    for layer in model.layers:
        with pytest.raises(TypeError, match="accumulate must be True or False"):
            layer.backward(dy, accumulate=1)
    with pytest.raises(TypeError, match="accumulate must be True or False"):
        model.backward(dy, accumulate=None)


def sequential_and_input():
    model = nl.Sequential(nl.LSTM(4, 8, seed=0), nl.LSTM(8, 6, seed=1), nl.Linear(6, 5, seed=2))
    return model, np.random.default_rng(0).standard_normal((7, 3, 4)).astype(np.float32)


def test_inference_of_a_sequential_writes_where_it_is_told():
    model, x = sequential_and_input()
    expected, states = model(x)
    y = np.full_like(expected, np.nan)
    result, again = model(x, out=y)
    assert result is y
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_equal(again, states)
    with pytest.raises(ValueError, match=r"^out must have shape \(7, 3, 5\); got \(6, 3, 5\)"):
        model(x, out=y[:-1])


def test_what_backward_needs_outlives_every_other_call():
    random = np.random.default_rng(0)
    model = nl.Sequential(nl.Linear(3, 6, seed=0), nl.LSTM(6, 5, seed=1), nl.Linear(5, 2, seed=2))
    x, other = random.standard_normal((2, 7, 4, 3), np.float32)
    dy = random.standard_normal((7, 4, 2), np.float32)

    def gradients():
        return [*model.backward(dy, accumulate=False), model.gradients.flat.copy()]

    y, _ = model.forward(x)
    dx, _, expected = gradients()
    model.forward(other)  # which nothing goes back through
    model.forward(x, out=y)
    for between in (x, other, other[:2]):
        model(between)
    found, _, summed = gradients()
    np.testing.assert_array_equal(found, dx)
    np.testing.assert_array_equal(summed, expected)


@pytest.mark.parametrize("method", ["forward", "backward"])
def test_a_second_training_call_of_a_sequential_is_refused_before_any_layer(method):
    """The first layer may be free by then, and must keep what the other call needs."""
    model, x = sequential_and_input()
    y, _ = model.forward(x)
    expected, _ = model.backward(np.ones_like(y))
    gradients = model.gradients.flat.copy()
    model.forward(x)
    errors = []

    def intrude():
        try:
            getattr(model, method)(x[:2] if method == "forward" else np.ones_like(y))
        except RuntimeError as error:
            errors.append(str(error))

    with model._tape.alone:
        thread = threading.Thread(target=intrude)
        thread.start()
        thread.join()
    (error,) = errors
    assert error.startswith("another forward or backward of this Sequential is under way")
    dx, _ = model.backward(np.ones_like(y), accumulate=False)
    np.testing.assert_array_equal(dx, expected)
    np.testing.assert_array_equal(model.gradients.flat, gradients)


def test_a_forward_that_ends_halfway_leaves_nothing_to_go_back_through(monkeypatch):
    """The lower layers have kept another input than the upper ones."""
    model, x = sequential_and_input()
    y, _ = model.forward(x)

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(model.layers[1], "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.forward(2 * x)
    with pytest.raises(RuntimeError, match="Sequential needs a forward before it"):
        model.backward(np.ones_like(y))
    assert not model.gradients.flat.any()


@pytest.mark.parametrize("T", [5, 9])
@pytest.mark.parametrize("place", [0, 1])
def test_a_layer_that_ran_by_itself_keeps_a_sequential_from_going_back(T, place):
    """Whether or not its input has the shape of the other one."""
    model = nl.Sequential(nl.LSTM(3, 4, seed=0), nl.Linear(4, 2, seed=1))
    y, _ = model.forward(np.ones((5, 2, 3)))
    layer = model.layers[place]
    layer.forward(np.ones((T, 2, 3 + place)))
    with pytest.raises(RuntimeError, match="has run by itself since forward of its Sequential"):
        model.backward(np.ones_like(y))
    assert not model.gradients.flat.any()
    model.forward(np.ones((5, 2, 3)))
    model.backward(np.ones_like(y))
    assert model.gradients.flat.any()


@pytest.mark.parametrize(
    "text",
    [
        "Linear(3, 4)",
        "Linear(3, 4, bias=False, dtype='float64')",
        "Embedding(5, 2)",
        "Embedding(5, 2, dtype='float64')",
    ],
)
def test_a_layer_is_written_as_the_call_that_builds_it(text):
    assert repr(eval(f"nl.{text}")) == text
