"""Bad input: one clear error, before anything is computed or changed."""

import threading

import numpy as np
import pytest

import numba_lstm as nl
from numba_lstm import threadpool


@pytest.fixture
def lstm():
    return nl.LSTM(7, 4, 2, seed=0)


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((5, 3, 7))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"input_size": 0}, ValueError, "input_size must be at least 1; got 0"),
        ({"hidden_size": -3}, ValueError, "hidden_size must be at least 1; got -3"),
        ({"hidden_size": 2.5}, TypeError, "hidden_size must be an integer; got 2.5"),
        ({"num_layers": True}, TypeError, "num_layers must be an integer; got True"),
        ({"bias": 1}, TypeError, "bias must be True or False; got 1"),
        ({"dropout": 1.5}, ValueError, "dropout must be finite and >= 0 and <= 1; got 1.5"),
        ({"dropout": float("nan")}, ValueError, "dropout must be finite"),
        ({"dtype": "float16"}, ValueError, "dtype must be float32 or float64; got 'float16'"),
        ({"dtype": None}, ValueError, "dtype must be float32 or float64; got None"),
        ({"threads": 0}, ValueError, "threads must be at least 1; got 0"),
        ({"seed": -1}, ValueError, "seed must be at least 0; got -1"),
        (
            {"seed": "a"},
            TypeError,
            "seed must be an integer, a SeedSequence, a Generator or None; got 'a'",
        ),
    ],
)
def test_constructor(arguments, error, message):
    with pytest.raises(error, match=message):
        nl.LSTM(**{"input_size": 7, "hidden_size": 4, **arguments})


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (
            np.zeros((5, 3, 8)),
            ValueError,
            r"x must have shape \(T, B, 7\), 7 = input_size; got \(5, 3, 8\)",
        ),
        (np.zeros((5, 8)), ValueError, r"x must have shape \(T, 7\), 7 = input_size; got \(5, 8\)"),
        (np.zeros(7), ValueError, r"x must have shape \(T, B, 7\)"),
        (
            np.zeros((5, 3, 7), complex),
            TypeError,
            "x must be an array of real numbers; got dtype complex128",
        ),
        (
            np.zeros((5, 3, 7), bool),
            TypeError,
            "x must be an array of real numbers; got dtype bool",
        ),
        (
            np.full((5, 3, 7), None),
            TypeError,
            "x must be an array of real numbers; got dtype object",
        ),
        (np.full((5, 3, 7), "a"), TypeError, "x must be an array of real numbers; got dtype <U1"),
        (
            [[1.0], [1.0, 2.0]],
            TypeError,
            "x must be an array of real numbers; got a ragged sequence",
        ),
    ],
)
@pytest.mark.parametrize("method", ["__call__", "forward"])
def test_input(lstm, wrong, error, message, method):
    with pytest.raises(error, match=message):
        getattr(lstm, method)(wrong)


def test_batch_first_is_named(lstm):
    lstm = nl.LSTM(7, 4, batch_first=True)
    with pytest.raises(ValueError, match=r"x must have shape \(B, T, 7\)"):
        lstm(np.zeros((3, 5, 6)))


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        (np.zeros((2, 3, 4)), TypeError, r"hx must be a pair \(h, c\); got ndarray"),
        ((np.zeros((2, 3, 4)),), TypeError, r"hx must be a pair \(h, c\); got 1 items"),
        (
            (np.zeros((2, 3, 4)), np.zeros((2, 3, 5))),
            ValueError,
            r"c of hx must have shape \(2, 3, 4\)",
        ),
        (
            (np.zeros((1, 3, 4)), np.zeros((2, 3, 4))),
            ValueError,
            r"h of hx must have shape \(2, 3, 4\)",
        ),
        ((np.zeros((2, 4)), np.zeros((2, 4))), ValueError, r"got \(2, 4\)"),
        (
            (np.zeros((2, 3, 4), complex), np.zeros((2, 3, 4))),
            TypeError,
            "h of hx must be an array",
        ),
    ],
)
def test_state(lstm, x, state, error, message):
    with pytest.raises(error, match=message):
        lstm(x, state)


def test_out(lstm, x):
    x = x.astype(np.float32)
    y, (h, c) = lstm(x)
    structure = r"out must have the structure \(y, \(h, c\)\) or \(y, None\)"
    cases = [
        ((y, h), TypeError, rf"{structure}; got \(y, ndarray\)"),
        ((y, h, c), TypeError, f"{structure}; got 3 items"),
        ((y[:-1], (h, c)), ValueError, r"y of out must have shape \(5, 3, 4\); got \(4, 3, 4\)"),
        ((y.astype("f8"), (h, c)), ValueError, "y of out must have dtype float32; got float64"),
        ((y[::-1], (h, c)), ValueError, "y of out must be C-contiguous and writable"),
        ((y.tolist(), (h, c)), TypeError, "y of out must be an array; got list"),
        ((y, (h, h)), ValueError, "h of out must not overlap c of out"),
    ]
    for out, error, message in cases:
        with pytest.raises(error, match=message):
            lstm(x, out=out)


def test_out_must_not_overlap_the_input():
    lstm = nl.LSTM(4, 4, seed=0)
    memory = np.random.default_rng(0).standard_normal((6, 3, 4)).astype(np.float32)
    before = memory.copy()
    state = (np.zeros((1, 3, 4), np.float32), np.zeros((1, 3, 4), np.float32))
    with pytest.raises(ValueError, match="y of out must not overlap x"):
        lstm(memory[:5], out=(memory[1:], state))
    with pytest.raises(ValueError, match="h of out must not overlap c of hx"):
        lstm(memory[:5], state, out=(np.empty((5, 3, 4), np.float32), state[::-1]))
    assert np.array_equal(memory, before)


def test_threads_of_a_call(lstm, x):
    with pytest.raises(ValueError, match="threads must be at least 1; got 0"):
        lstm(x, threads=0)
    with pytest.raises(TypeError, match=r"threads must be an integer; got 1\.5"):
        lstm(x, threads=1.5)


def test_training_must_be_a_bool(lstm, x):
    with pytest.raises(TypeError, match="training must be True or False; got 'yes'"):
        lstm.forward(x, training="yes")


def test_backward_needs_one_forward_each(lstm, x):
    dy = np.ones((5, 3, 4))
    with pytest.raises(RuntimeError, match="needs a forward before it"):
        lstm.backward(dy)
    lstm.forward(x)
    lstm.backward(dy)
    before = lstm.gradients.flat.copy()
    with pytest.raises(RuntimeError, match="needs a forward before it"):
        lstm.backward(dy)
    lstm.forward(x)
    lstm.parameters["bias_l0"] = np.ones(16)
    with pytest.raises(RuntimeError, match="parameters of this LSTM have changed"):
        lstm.backward(dy)
    assert np.array_equal(lstm.gradients.flat, before)


@pytest.mark.parametrize(
    "build",
    [
        lambda: nl.LSTM(3, 4, seed=0),
        lambda: nl.Linear(3, 4, seed=0),
        lambda: nl.Sequential(nl.LSTM(3, 5, seed=0), nl.Linear(5, 2, seed=0)),
    ],
)
def test_parameters_that_change_during_forward(build, monkeypatch):
    model = build()
    share_out = threadpool.share_out
    name = list(model.parameters)[-1]

    def intruded(*arguments):
        share_out(*arguments)
        model.parameters[name] = np.ones_like(model.parameters[name])

    with monkeypatch.context() as patch:
        patch.setattr(threadpool, "share_out", intruded)
        outputs = model.forward(np.ones((2, 1, 3)))
    y = outputs[0] if isinstance(outputs, tuple) else outputs
    with pytest.raises(RuntimeError, match="have changed since forward"):
        model.backward(np.ones_like(y))
    assert not model.gradients.flat.any()


def test_a_wrong_cotangent_costs_nothing(lstm, x):
    dy = np.ones((5, 3, 4))
    lstm.forward(x)
    for arguments, message in (
        ((np.ones((5, 3, 5)),), r"dy must have shape \(5, 3, 4\), as y; got \(5, 3, 5\)"),
        ((dy, (np.ones((2, 3, 4)), np.ones((2, 3, 3)))), "c of dhx must have shape"),
    ):
        with pytest.raises(ValueError, match=message):
            lstm.backward(*arguments)
    assert not lstm.gradients.flat.any()
    dx, _ = lstm.backward(dy)
    twin = nl.LSTM(7, 4, 2, seed=0)
    twin.forward(x)
    assert np.array_equal(dx, twin.backward(dy)[0])


def test_a_failed_forward_keeps_the_tape(lstm, x):
    lstm.forward(x)
    with pytest.raises(ValueError, match="x must have shape"):
        lstm.forward(x[:, :, :5])
    dx, _ = lstm.backward(np.ones((5, 3, 4)))
    assert dx.shape == x.shape


def test_a_second_training_call_at_once_is_refused(lstm, x):
    caught = []

    def second():
        try:
            lstm.forward(x)
        except RuntimeError as error:
            caught.append(str(error))

    with lstm._tape.alone:
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert caught == [
        "another forward or backward of this LSTM is under way: "
        "training state belongs to one call at a time"
    ]


def test_state_dict(lstm):
    state = lstm.state_dict()
    before = lstm.parameters.flat.copy()
    lacking = {name: array for name, array in state.items() if name != "weight_hh_l1"}
    with pytest.raises(ValueError, match="lacks weight_hh_l1"):
        lstm.load_state_dict(lacking)
    with pytest.raises(ValueError, match="has unknown weight_hr_l0"):
        lstm.load_state_dict({**state, "weight_hr_l0": np.zeros((2, 4))})
    lstm.load_state_dict({**state, "weight_hr_l0": np.zeros((2, 4))}, strict=False)
    with pytest.raises(ValueError, match=r"bias_hh_l1 must have shape \(16,\); got \(4,\)"):
        lstm.load_state_dict({**state, "bias_hh_l1": np.zeros(4)})
    with pytest.raises(TypeError, match="weight_ih_l0 must be an array of real numbers"):
        lstm.load_state_dict({**state, "weight_ih_l0": np.zeros((16, 7), complex)})
    assert np.array_equal(lstm.parameters.flat, before)


def test_from_state_dict():
    with pytest.raises(ValueError, match=r"must have rnn\.weight_ih_l0; got weight"):
        nl.LSTM.from_state_dict({"weight": np.zeros(3)}, prefix="rnn.")
    with pytest.raises(ValueError, match=r"weight_ih_l0 must have shape \(4H, I\); got \(6, 2\)"):
        nl.LSTM.from_state_dict({"weight_ih_l0": np.zeros((6, 2))})


def test_without_room_for_a_call_the_one_before_can_go_back(monkeypatch):
    lstm, twin = (nl.LSTM(7, 4, 2, dropout=0.5, seed=0) for _ in range(2))
    x, dy = np.ones((5, 3, 7)), np.ones((5, 3, 4))
    for model in (lstm, twin):
        model.forward(x)

    def no_room(size):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(lstm._training_workspace, "reserve", no_room)
        with pytest.raises(MemoryError):
            lstm.forward(np.ones((9, 8, 7)))
    assert lstm.dropout_state == twin.dropout_state
    assert np.array_equal(lstm.backward(dy)[0], twin.backward(dy)[0])
    assert np.array_equal(lstm.gradients.flat, twin.gradients.flat)
