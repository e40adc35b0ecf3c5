"""The LSTM against the oracle, and what must hold between its own results."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given

import numba_lstm as nl
import reference
from numba_lstm.layout import layout
from strategies import Case, cases

TOLERANCE = {"float32": 2e-5, "float64": 1e-13}


def assert_same(actual, expected):
    """Bit for bit."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    assert actual.tobytes() == expected.tobytes()


def flattened(result):
    y, (h, c) = result
    return [y, h, c]


@given(cases())
def test_forward_and_backward_equal_the_oracle(case):
    lstm = case.model()
    x, h0, c0, dy, dh, dc = case.arrays()
    # Nothing may be read before it is written.
    lstm._training_workspace.reserve(200_000).fill(np.nan)
    y, (h, c) = lstm.forward(x, (h0, c0))
    dx, (dh0, dc0) = lstm.backward(dy, (dh, dc))

    options = {"layers": case.layers, "directions": case.directions}
    time_major = case.time_major
    y_true, (h_true, c_true), tape = reference.lstm_forward(
        time_major(x), (h0, c0), lstm.parameters, **options
    )
    dx_true, (dh0_true, dc0_true), gradients = reference.lstm_backward(
        tape, time_major(dy), (dh, dc), lstm.parameters, **options
    )
    pairs = {
        "y": (time_major(y), y_true),
        "h": (h, h_true),
        "c": (c, c_true),
        "dx": (time_major(dx), dx_true),
        "dh0": (dh0, dh0_true),
        "dc0": (dc0, dc0_true),
        **{name: (lstm.gradients[name], gradients[name]) for name in lstm.parameters},
    }
    for name, (actual, expected) in pairs.items():
        assert actual.dtype == np.dtype(case.dtype), name
        assert reference.relative_error(actual, expected) < TOLERANCE[case.dtype], name


@given(cases())
def test_inference_has_the_bits_of_forward(case):
    lstm = case.model()
    x, h0, c0, *_ = case.arrays()
    workspace = lstm._pool.borrow(200_000)
    workspace.fill(np.nan)
    lstm._pool.give_back(workspace)
    inferred = flattened(lstm(x, (h0, c0)))
    trained = flattened(lstm.forward(x, (h0, c0)))
    for a, b in zip(inferred, trained, strict=True):
        assert_same(a, b)


def test_calls_go_through_the_panels_to_and_fro():
    """What a cache could not hold of the weights, a step finds where the one before has ended."""
    lstm = nl.LSTM(3, 100, threads=1, seed=0)
    x = np.random.default_rng(0).standard_normal((3, 1, 3))
    call = layout(lstm.config, 3, 1, False, 1).call[0]
    workspace = lstm._pool.borrow(200_000)
    workspace.fill(np.nan)
    lstm._pool.give_back(workspace)
    first, _ = lstm(x)
    for expected in (1, 0, 1):
        assert workspace[call["scratch"] + call["way_place"]] == expected
        assert_same(lstm(x)[0], first)


def test_unbatched_equals_a_batch_of_one():
    for batch_first in (False, True):
        case = Case(5, 1, 7, 4, layers=2, bidirectional=True, batch_first=batch_first)
        lstm = case.model()
        x, h0, c0, dy, dh, dc = case.arrays()
        axis = 0 if batch_first else 1
        y, (h, c) = lstm.forward(x, (h0, c0))
        dx, (dh0, dc0) = lstm.backward(dy, (dh, dc))
        y_1, (h_1, c_1) = lstm.forward(x.squeeze(axis), (h0[:, 0], c0[:, 0]))
        dx_1, (dh0_1, dc0_1) = lstm.backward(dy.squeeze(axis), (dh[:, 0], dc[:, 0]))
        assert_same(y_1, y.squeeze(axis))
        assert_same(dx_1, dx.squeeze(axis))
        for one, many in ((h_1, h), (c_1, c), (dh0_1, dh0), (dc0_1, dc0)):
            assert_same(one, many[:, 0])


@pytest.mark.parametrize(("T", "B"), [(0, 3), (4, 0), (0, 0)])
@pytest.mark.parametrize("batch_first", [False, True])
def test_nothing_in_nothing_out(T, B, batch_first):
    case = Case(T, B, 7, 4, layers=2, bidirectional=True, batch_first=batch_first)
    lstm = case.model()
    x, h0, c0, dy, dh, dc = case.arrays()
    for y, (h, c) in (lstm(x, (h0, c0)), lstm.forward(x, (h0, c0))):
        assert y.shape == dy.shape
        assert_same(h, h0)
        assert_same(c, c0)
    dx, (dh0, dc0) = lstm.backward(dy, (dh, dc))
    assert dx.shape == x.shape
    assert_same(dh0, dh)
    assert_same(dc0, dc)
    assert not lstm.gradients.flat.any()


def test_a_state_left_out_is_zero():
    case = Case(5, 3, 7, 4, layers=2)
    lstm = case.model()
    x, h0, _, dy, dh, dc = case.arrays()
    nothing = np.zeros_like(h0)
    for a, b in zip(flattened(lstm(x)), flattened(lstm(x, (nothing, nothing))), strict=True):
        assert_same(a, b)
    lstm.forward(x)
    implicit = flattened(lstm.backward(None, (dh, dc)))
    lstm.forward(x)
    explicit = flattened(lstm.backward(np.zeros_like(dy), (dh, dc)))
    for a, b in zip(implicit, explicit, strict=True):
        assert_same(a, b)
    lstm.forward(x)
    implicit = flattened(lstm.backward(dy))
    lstm.forward(x)
    explicit = flattened(lstm.backward(dy, (nothing, nothing)))
    for a, b in zip(implicit, explicit, strict=True):
        assert_same(a, b)


def test_input_gradient_may_be_left_out():
    case = Case(5, 3, 7, 4, layers=2)
    lstm, twin = case.model(), case.model()
    x, h0, c0, dy, dh, dc = case.arrays()
    lstm.forward(x, (h0, c0))
    twin.forward(x, (h0, c0))
    dx, (dh0, _) = lstm.backward(dy, (dh, dc), input_gradient=False)
    _, (dh0_twin, _) = twin.backward(dy, (dh, dc))
    assert dx is None
    assert_same(dh0, dh0_twin)
    assert_same(lstm.gradients.flat, twin.gradients.flat)


DISGUISES = {
    "float64": lambda a: a.astype(np.float64),
    "float16": lambda a: a.astype(np.float16),
    "int8": lambda a: (a * 4).astype(np.int8),
    "uint16": lambda a: (np.abs(a) * 9).astype(np.uint16),
    "big-endian": lambda a: a.astype(">f4"),
    "Fortran order": np.asfortranarray,
    "strided": lambda a: np.repeat(a, 2, axis=2)[:, :, ::2],
    "reversed": lambda a: a[::-1],
    "sliding windows": lambda a: np.lib.stride_tricks.sliding_window_view(a[0, 0], 7, 0)[:, None],
    "broadcast": lambda a: np.broadcast_to(a[:1, :, :7], (4, 3, 7)),
}


@pytest.mark.parametrize("name", DISGUISES)
def test_inputs_of_any_kind_equal_their_copy(name):
    lstm = nl.LSTM(7, 4, seed=0)
    original = np.random.default_rng(0).standard_normal((5, 3, 12 if name[0] in "sb" else 7))
    if name in ("strided", "big-endian"):
        original = original[:, :, :7]
    x = DISGUISES[name](original.astype(np.float32))
    x.flags.writeable = False
    frozen = x.copy()
    plain = np.array(x, np.float32, order="C")
    for a, b in zip(flattened(lstm(x)), flattened(lstm(plain)), strict=True):
        assert_same(a, b)
    y, _ = lstm.forward(x)
    dx, _ = lstm.backward(y)
    lstm.forward(plain)
    assert_same(dx, lstm.backward(y)[0])
    assert np.array_equal(x, frozen)


def test_lists_are_taken():
    lstm = nl.LSTM(1, 2, seed=0)
    assert_same(lstm([[1], [2]])[0], lstm(np.array([[1.0], [2.0]]))[0])


def test_out_is_written_and_may_be_the_state():
    case = Case(5, 3, 7, 4, layers=2, dtype="float32")
    lstm = case.model()
    x, h0, c0, *_ = case.arrays()
    expected = flattened(lstm(x, (h0, c0)))
    h, c, y = h0.copy(), c0.copy(), np.full((5, 3, 4), np.nan, np.float32)
    result = lstm(x, (h, c), out=(y, (h, c)))
    assert result[0] is y
    assert result[1][0] is h
    assert result[1][1] is c
    for a, b in zip(flattened(result), expected, strict=True):
        assert_same(a, b)


@pytest.mark.parametrize("training", [False, True])
def test_out_may_take_the_outputs_alone(training):
    case = Case(5, 3, 7, 4, layers=2, dtype="float32")
    lstm = case.model()
    run = lstm.forward if training else lstm
    x, h0, c0, *_ = case.arrays()
    expected = flattened(run(x, (h0, c0)))
    y = np.full((5, 3, 4), np.nan, np.float32)
    result = run(x, (h0, c0), out=(y, None))
    assert result[0] is y
    for a, b in zip(flattened(result), expected, strict=True):
        assert_same(a, b)


def test_results_are_no_views_of_a_workspace():
    case = Case(5, 3, 7, 4)
    lstm = case.model()
    x, *_ = case.arrays()
    first = flattened(lstm.forward(x))
    kept = [a.copy() for a in first]
    lstm.forward(x + 1)
    for a, b in zip(first, kept, strict=True):
        assert_same(a, b)


def test_gradients_add_up():
    case = Case(5, 4, 7, 4, layers=2, bidirectional=True)
    whole, halves = case.model(), case.model()
    x, h0, c0, dy, dh, dc = case.arrays()
    whole.forward(x, (h0, c0))
    whole.backward(dy, (dh, dc))
    for rows in (slice(0, 2), slice(2, 4)):
        halves.forward(x[:, rows], (h0[:, rows], c0[:, rows]))
        halves.backward(dy[:, rows], (dh[:, rows], dc[:, rows]))
    assert reference.relative_error(halves.gradients.flat, whole.gradients.flat) < 1e-14
    halves.gradients.zero()
    assert not halves.gradients.flat.any()


def test_gradients_are_linear_in_the_cotangent():
    case = Case(5, 3, 7, 4, layers=2)
    lstm = case.model()
    x, h0, c0, dy, dh, dc = case.arrays()
    results = []
    for factor in (1.0, -2.0):
        lstm.gradients.zero()
        lstm.forward(x, (h0, c0))
        dx, _ = lstm.backward(factor * dy, (factor * dh, factor * dc))
        results.append((dx, lstm.gradients.flat.copy()))
    (dx, gradients), (dx_2, gradients_2) = results
    assert_same(dx_2, -2.0 * dx)
    assert_same(gradients_2, -2.0 * gradients)


def test_a_large_batch_is_summed_in_blocks_of_rows():
    case = Case(3, 401, 5, 6)
    lstm = case.model()
    x, h0, c0, dy, dh, dc = case.arrays()
    lstm.forward(x, (h0, c0))
    lstm.backward(dy, (dh, dc))
    _, _, tape = reference.lstm_forward(x, (h0, c0), lstm.parameters)
    _, _, gradients = reference.lstm_backward(tape, dy, (dh, dc), lstm.parameters)
    for name, expected in gradients.items():
        assert reference.relative_error(lstm.gradients[name], expected) < 1e-13


def test_nan_stays_in_its_row():
    case = Case(4, 5, 7, 20, layers=2)
    lstm = case.model()
    x, *_ = case.arrays()
    y, _ = lstm(x)
    x[1, 2, 3] = np.nan
    y_nan, _ = lstm(x)
    others = [0, 1, 3, 4]
    assert_same(y_nan[:, others], y[:, others])
    assert_same(y_nan[:1], y[:1])
    assert np.isnan(y_nan[1:, 2]).all()


@pytest.mark.parametrize("H", [4, 16, 20])
def test_an_infinite_input_saturates_the_gates_and_nothing_else(H):
    case = Case(4, 3, 7, H)
    lstm = case.model()
    x, h0, c0, dy, dh, dc = case.arrays()
    x[1, 2, 3] = np.inf
    y, _ = lstm.forward(x, (h0, c0))
    dx, (dh0, dc0) = lstm.backward(dy, (dh, dc))
    with np.errstate(invalid="ignore"):  # 0 times infinity, in the gradient of the weights
        y_true, _, tape = reference.lstm_forward(x, (h0, c0), lstm.parameters)
        dx_true, (dh0_true, dc0_true), _ = reference.lstm_backward(
            tape, dy, (dh, dc), lstm.parameters
        )
    pairs = ((y, y_true), (dx, dx_true), (dh0, dh0_true), (dc0, dc0_true))
    for actual, expected in pairs:
        assert np.isfinite(expected).all()
        assert reference.relative_error(actual, expected) < 1e-13


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_have_configuration_and_parameters(clone):
    case = Case(5, 3, 7, 4, layers=2, bidirectional=True, bias=False, batch_first=True)
    lstm = case.model()
    x, *_ = case.arrays()
    twin = clone(lstm)
    assert twin.config == lstm.config
    assert_same(twin(x)[0], lstm(x)[0])
    twin.parameters["weight_hh_l0"] = np.zeros((16, 4))
    assert lstm.parameters["weight_hh_l0"].any()


def test_changed_weights_are_packed_anew():
    case = Case(5, 3, 7, 4)
    lstm = case.model()
    x, *_ = case.arrays()
    lstm(x)
    lstm.parameters["weight_ih_l0"] = 2 * lstm.parameters["weight_ih_l0"]
    fresh = nl.LSTM.from_state_dict(lstm.state_dict())
    assert_same(lstm(x)[0], fresh(x)[0])


def test_state_dict_round_trip_and_prefix():
    case = Case(5, 3, 7, 4, layers=2, bidirectional=True)
    lstm = case.model()
    prefixed = {f"encoder.{name}": array for name, array in lstm.state_dict().items()}
    twin = nl.LSTM.from_state_dict({**prefixed, "head.weight": np.zeros(3)}, prefix="encoder.")
    assert twin.config == lstm.config
    assert_same(twin.parameters.flat, lstm.parameters.flat)


def test_both_biases_are_added_up():
    lstm = nl.LSTM(3, 2, seed=0)
    state = lstm.state_dict()
    state["bias_hh_l0"] = np.arange(8.0)
    total = state["bias_ih_l0"] + np.arange(8, dtype=np.float32)
    lstm.load_state_dict(state)
    assert_same(lstm.parameters["bias_l0"], total)


def test_workspace_bytes_grow_with_what_is_kept():
    lstm = nl.LSTM(7, 20, 2)
    inference = lstm.workspace_nbytes(10, 3)
    assert inference < lstm.workspace_nbytes(20, 3) < lstm.workspace_nbytes(20, 3, training=True)
    lstm.forward(np.zeros((20, 3, 7)))
    assert lstm._training_workspace.buffer.nbytes == lstm.workspace_nbytes(20, 3, training=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_initial_weights_fill_their_range(dtype):
    lstm = nl.LSTM(30, 25, dtype=dtype, seed=3)
    bound = 1 / 5
    weights = lstm.parameters["weight_hh_l0"]
    assert np.abs(weights).max() <= bound
    assert np.abs(weights).max() > 0.99 * bound
    # The sum of two uniform draws reaches farther than one.
    assert bound < np.abs(lstm.parameters["bias_l0"]).max() <= 2 * bound
    assert_same(nl.LSTM(30, 25, dtype=dtype, seed=3).parameters.flat, lstm.parameters.flat)
    assert nl.LSTM(30, 25, dtype=dtype, seed=4).parameters.flat[0] != lstm.parameters.flat[0]


def test_parameters_are_exchanged_with_one_another():
    """State dicts may hold views of the very parameters that they go to."""
    lstm = nl.LSTM(4, 4, seed=0)
    inputs, hidden = (lstm.parameters[f"weight_{kind}_l0"].copy() for kind in ("ih", "hh"))
    lstm.load_state_dict(
        {
            "weight_ih_l0": lstm.parameters["weight_hh_l0"],
            "weight_hh_l0": lstm.parameters["weight_ih_l0"],
            "bias_ih_l0": lstm.parameters["bias_l0"],
            "bias_hh_l0": np.zeros(16),
        }
    )
    np.testing.assert_array_equal(lstm.parameters["weight_ih_l0"], hidden)
    np.testing.assert_array_equal(lstm.parameters["weight_hh_l0"], inputs)


def test_numbers_too_small_for_the_dtype_are_no_error():
    lstm, tiny = nl.LSTM(3, 4, seed=0), np.full((2, 2, 3), 1e-50)
    with np.errstate(all="raise"):
        y, _ = lstm(tiny)
        np.testing.assert_array_equal(y, lstm(0 * tiny)[0])
