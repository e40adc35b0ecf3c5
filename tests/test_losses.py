"""Losses against float64 formulas, central differences and PyTorch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numba_lstm import mse, softmax_cross_entropy

TOLERANCE = {"float32": 3e-6, "float64": 1e-14}

dtypes = st.sampled_from(["float32", "float64"])
leading_shapes = st.lists(st.integers(1, 5), max_size=3).map(tuple)
seeds = st.integers(0, 2**32 - 1)


def softmax_cross_entropy_reference(y, target, weights=None):
    """Loss and gradient in float64, from the definition."""
    y = np.asarray(y, np.float64)
    weights = np.ones(y.shape[:-1]) if weights is None else np.asarray(weights, np.float64)
    shares = (weights / weights.sum())[..., None]
    powers = np.exp(y - y.max(axis=-1, keepdims=True))
    probabilities = powers / powers.sum(axis=-1, keepdims=True)
    chosen = np.arange(y.shape[-1]) == np.asarray(target)[..., None]
    return -(shares * np.log(probabilities))[chosen].sum(), shares * (probabilities - chosen)


def mse_reference(y, target, weights=None):
    """Loss and gradient in float64, from the definition."""
    difference = np.asarray(y, np.float64) - np.asarray(target, np.float64)
    weights = np.ones(difference.shape) if weights is None else np.asarray(weights, np.float64)
    if weights.ndim < difference.ndim:
        weights = np.repeat(weights[..., None], difference.shape[-1], axis=-1)
    shares = weights / weights.sum()
    return (shares * difference**2).sum(), 2 * shares * difference


def assert_close(actual, expected, tolerance):
    """Compare relative to the largest magnitude."""
    np.testing.assert_allclose(
        actual, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max()
    )


def central_differences(function, y, step=1e-5):
    """Gradient of a function of one array."""
    gradient = np.empty_like(y)
    for index in np.ndindex(y.shape):
        up, down = y.copy(), y.copy()
        up[index] += step
        down[index] -= step
        gradient[index] = (function(up) - function(down)) / (2 * step)
    return gradient


@given(leading_shapes, st.integers(1, 70), dtypes, st.booleans(), seeds)
def test_softmax_cross_entropy_follows_its_formula(leading, classes, dtype, weighted, seed):
    random = np.random.default_rng(seed)
    y = (5 * random.standard_normal((*leading, classes))).astype(dtype)
    target = random.integers(0, classes, leading)
    weights = random.uniform(0.1, 2, leading) if weighted else None
    loss, dy = softmax_cross_entropy(y, target, weights=weights)
    expected, gradient = softmax_cross_entropy_reference(y, target, weights)
    assert type(loss) is float
    assert dy.dtype == dtype
    assert dy.shape == y.shape
    assert loss == pytest.approx(expected, rel=TOLERANCE[dtype], abs=TOLERANCE[dtype])
    # A probability near 1 has lost the digits that its gradient needs, hence relative to 1.
    np.testing.assert_allclose(
        dy, gradient, rtol=0, atol=TOLERANCE[dtype] * (1 if weights is None else weights.max())
    )


@given(leading_shapes, st.integers(1, 70), dtypes, st.sampled_from(["no", "row", "all"]), seeds)
def test_mse_follows_its_formula(leading, features, dtype, weighted, seed):
    random = np.random.default_rng(seed)
    shape = (*leading, features)
    y, target = random.standard_normal((2, *shape)).astype(dtype)
    weights = {
        "no": None,
        "row": random.uniform(0.1, 2, leading),
        "all": random.uniform(0.1, 2, shape),
    }[weighted]
    loss, dy = mse(y, target, weights=weights)
    expected, gradient = mse_reference(y, target, weights)
    assert type(loss) is float
    assert dy.dtype == dtype
    assert loss == pytest.approx(expected, rel=TOLERANCE[dtype])
    assert_close(dy, gradient, TOLERANCE[dtype])


@pytest.mark.parametrize("loss", [mse, softmax_cross_entropy])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_are_central_differences(loss, weighted):
    random = np.random.default_rng(1)
    y = random.standard_normal((3, 4, 19))
    target = random.standard_normal(y.shape) if loss is mse else random.integers(0, 19, (3, 4))
    weights = random.uniform(0.1, 2, (3, 4)) if weighted else None
    _, dy = loss(y, target, weights=weights)
    assert_close(dy, central_differences(lambda y: loss(y, target, weights=weights)[0], y), 1e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_softmax_cross_entropy_has_the_values_of_pytorch(dtype):
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(2)
    y = (10 * random.standard_normal((7, 5, 65))).astype(dtype)
    target = random.integers(0, 65, (7, 5))
    loss, dy = softmax_cross_entropy(y, target)
    theirs = torch.tensor(y, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(
        theirs.reshape(-1, 65), torch.tensor(target.reshape(-1))
    )
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=TOLERANCE[dtype])
    assert_close(dy, theirs.grad.numpy(), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_mse_has_the_values_of_pytorch(dtype):
    torch = pytest.importorskip("torch")
    y, target = np.random.default_rng(3).standard_normal((2, 7, 5, 33)).astype(dtype)
    loss, dy = mse(y, target)
    theirs = torch.tensor(y, requires_grad=True)
    expected = torch.nn.functional.mse_loss(theirs, torch.tensor(target))
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=TOLERANCE[dtype])
    assert_close(dy, theirs.grad.numpy(), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [1e2, 1e4, 1e30])
def test_large_logits_do_not_overflow(dtype, scale):
    y = scale * np.array([[1, -1, 0.5, 0], [-1, -2, -3, -4]])
    loss, dy = softmax_cross_entropy(y.astype(dtype), [1, 0])
    assert loss == pytest.approx(scale, rel=1e-6)
    np.testing.assert_allclose(dy, [[0.5, -0.5, 0, 0], [0, 0, 0, 0]], atol=1e-20)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("classes", [1, 3, 16, 40])
def test_the_largest_logit_is_found_wherever_it_stands(dtype, classes):
    y = 1000 * np.eye(classes, dtype=dtype)
    loss, dy = softmax_cross_entropy(y, np.arange(classes))
    assert loss == 0
    np.testing.assert_array_equal(dy, np.zeros_like(y))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_class_at_minus_infinity_has_no_probability(dtype):
    y = np.array([[0.0, -np.inf, 0.0]], dtype)
    loss, dy = softmax_cross_entropy(y, [0])
    assert loss == pytest.approx(np.log(2))
    np.testing.assert_allclose(dy, [[-0.5, 0, 0.5]])
    loss, dy = softmax_cross_entropy(y, [1])
    assert loss == np.inf
    np.testing.assert_allclose(dy, [[0.5, -1, 0.5]])


@pytest.mark.parametrize("classes", [1, 3, 16, 40])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nan_anywhere_in_a_row_gives_nan(dtype, classes):
    for place in range(classes):
        y = np.linspace(-50, 50, 2 * classes).reshape(2, classes).astype(dtype)
        y[0, place] = np.nan
        loss, dy = softmax_cross_entropy(y, [0, 0])
        assert np.isnan(loss)
        assert np.isnan(dy[0]).all()
        assert np.isfinite(dy[1]).all()


def test_infinity_in_a_row_gives_nan():
    y = np.array([[0, np.inf, 1]], np.float32)
    assert np.isnan(softmax_cross_entropy(y, [1])[0])
    assert np.isnan(softmax_cross_entropy(np.full((1, 3), -np.inf, np.float32), [1])[0])


def test_not_finite_numbers_reach_the_squared_error():
    y = np.zeros((3, 20), np.float32)
    y[1, 19] = np.nan
    loss, dy = mse(y, np.zeros((3, 20)))
    assert np.isnan(loss)
    assert np.isnan(dy).sum() == 1
    y[1, 19] = np.inf
    assert mse(y, np.zeros((3, 20)))[0] == np.inf


@pytest.mark.parametrize("loss", [mse, softmax_cross_entropy])
@pytest.mark.parametrize("junk", [np.nan, np.inf, -np.inf])
def test_a_weight_of_zero_leaves_a_row_out_whatever_it_holds(loss, junk):
    random = np.random.default_rng(4)
    y = random.standard_normal((3, 21)).astype("float32")
    target = random.standard_normal((3, 21)) if loss is mse else np.array([4, 0, 20])
    expected, gradient = loss(y[[0, 2]], target[[0, 2]], weights=[1, 3])
    y[1] = junk
    actual, dy = loss(y, target, weights=[1, 0, 3])
    assert actual == expected
    np.testing.assert_array_equal(dy[[0, 2]], gradient)
    np.testing.assert_array_equal(dy[1], np.zeros(21))


def test_a_weight_of_zero_leaves_a_number_out_of_the_squared_error():
    loss, dy = mse([[1.0, np.nan]], [[3.0, 0.0]], weights=[[0.5, 0]])
    assert loss == 4
    np.testing.assert_array_equal(dy, [[-4, 0]])


@pytest.mark.parametrize("loss", [mse, softmax_cross_entropy])
def test_weights_count_relative_to_their_sum(loss):
    random = np.random.default_rng(5)
    y = random.standard_normal((4, 6))
    target = random.standard_normal((4, 6)) if loss is mse else np.array([4, 0, 5, 1])
    equal, gradient = loss(y, target)
    for weight in (1, 0.25, 1e-300, 1e300):
        actual, dy = loss(y, target, weights=np.full(4, weight))
        assert actual == pytest.approx(equal, rel=1e-14)
        assert_close(dy, gradient, 1e-14)
    # Twice the weight is the same as a second copy.
    doubled, _ = loss(y, target, weights=[1, 2, 1, 1])
    copied, _ = loss(y[[0, 1, 1, 2, 3]], target[[0, 1, 1, 2, 3]])
    assert doubled == pytest.approx(copied, rel=1e-14)


def test_the_mean_over_many_rows_keeps_its_digits():
    rows = 300_000
    y = np.zeros((rows, 3), np.float32)
    assert softmax_cross_entropy(y, np.zeros(rows, int))[0] == pytest.approx(np.log(3), rel=1e-7)
    y += np.float32(0.1)
    assert mse(y, np.zeros((rows, 3)))[0] == pytest.approx(float(np.float32(0.1)) ** 2, rel=1e-6)


@pytest.mark.parametrize("loss", [mse, softmax_cross_entropy])
def test_any_real_array_is_taken_and_left_as_it_is(loss):
    random = np.random.default_rng(6)
    y = random.integers(-9, 9, (4, 6)).astype("float32")
    target = random.integers(0, 6, (4, 6) if loss is mse else 4)
    expected, gradient = loss(y, target, weights=[1, 2, 3, 4])
    wide = np.full((4, 12), np.nan, "float32")
    wide[:, ::2] = y
    frozen = y.copy()
    frozen.flags.writeable = False
    for given_y in (wide[:, ::2], frozen, y.astype(">f4"), y.astype("int8"), np.asfortranarray(y)):
        before = given_y.copy()
        for given_target in (target.astype("uint8"), target.astype(">i2")):
            actual, dy = loss(given_y, given_target, weights=np.arange(1, 5, dtype="uint8"))
            assert actual == expected
            assert dy.dtype == "float32"
            assert dy.flags.writeable
            np.testing.assert_array_equal(dy, gradient)
        np.testing.assert_array_equal(given_y, before)


@pytest.mark.parametrize("loss", [mse, softmax_cross_entropy])
def test_float64_of_the_other_byte_order_stays_float64(loss):
    y = np.array([[0.1, 0.2]])
    target = y + 1 if loss is mse else np.array([1])
    actual, dy = loss(y.astype(">f8"), target)
    assert actual == loss(y, target)[0]
    assert dy.dtype == "float64"


def test_a_single_number_has_no_weights_of_rows():
    with pytest.raises(ValueError, match=r"weights must have shape \(\), as y; got \(1,\)"):
        mse(1.0, 2.0, weights=[1.0])


def test_one_prediction_without_leading_axes():
    loss, dy = softmax_cross_entropy([0.0, 0.0], 1)
    assert loss == pytest.approx(np.log(2))
    np.testing.assert_allclose(dy, [0.5, -0.5])
    loss, dy = mse(3.0, 1.0)
    assert loss == 4
    np.testing.assert_array_equal(dy, 4.0)


Y = np.zeros((2, 3, 5), np.float32)
ROWS = np.zeros((2, 3), int)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((Y, np.zeros((2, 4), int)), ValueError, r"target must have shape \(2, 3\), as y without"),
        ((Y, ROWS + 5), ValueError, r"target must lie in \[0, 5\), 5 = .*; got values from 5 to 5"),
        ((Y, ROWS - 1), ValueError, r"target must lie in \[0, 5\), .*; got values from -1 to -1"),
        ((Y, Y[..., 0]), TypeError, "target must be an array of integers; got dtype float32"),
        ((Y, ROWS > 0), TypeError, "target must be an array of integers; got dtype bool"),
        ((Y + 0j, ROWS), TypeError, "y must be an array of real numbers; got dtype complex64"),
        ((Y > 0, ROWS), TypeError, "y must be an array of real numbers; got dtype bool"),
        ((Y[:0], ROWS[:0]), ValueError, r"y must hold at least one prediction; got shape \(0, 3"),
        ((Y[..., :0], ROWS), ValueError, r"y must hold at least one prediction; got shape \(2, 3"),
        ((1.0, 0), ValueError, r"y must have shape \(..., C\); got \(\)"),
        ((Y, ROWS, Y), ValueError, r"weights must have shape \(2, 3\), as y .*; got \(2, 3, 5\)"),
        ((Y, ROWS, ROWS), ValueError, "weights must be finite, at least 0, and not all 0"),
        ((Y, ROWS, ROWS - 1), ValueError, "weights must be finite, at least 0, .* from -1 to -1"),
        ((Y, ROWS, ROWS + np.nan), ValueError, "weights must be finite, .* got values from nan"),
        ((Y, ROWS, ROWS + np.inf), ValueError, "weights must be finite, .* got values from inf"),
        ((Y, ROWS, ROWS > -1), TypeError, "weights must be an array of real numbers; got dtype bo"),
    ],
)
def test_softmax_cross_entropy_refuses(arguments, error, message):
    y, target, *weights = arguments
    with pytest.raises(error, match=message):
        softmax_cross_entropy(y, target, weights=weights[0] if weights else None)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((Y, Y[0]), ValueError, r"target must have shape \(2, 3, 5\), as y; got \(3, 5\)"),
        ((Y, Y.astype(object)), TypeError, "target must be an array of real numbers; got dtype ob"),
        ((Y + 0j, Y), TypeError, "y must be an array of real numbers; got dtype complex64"),
        ((Y[:, :0], Y[:, :0]), ValueError, r"y must hold at least one .* got shape \(2, 0, 5\)"),
        ((Y, Y, ROWS[0]), ValueError, r"weights must have shape \(2, 3\), as y without .* \(3,\)"),
        ((Y, Y, Y[:1]), ValueError, r"weights must have shape \(2, 3, 5\), as y; got \(1, 3, 5\)"),
        ((Y, Y, Y), ValueError, "weights must be finite, at least 0, and not all 0; got .* 0 to 0"),
        ((Y, Y, ROWS - 2), ValueError, "weights must be finite, at least 0, .* from -2 to -2"),
    ],
)
def test_mse_refuses(arguments, error, message):
    y, target, *weights = arguments
    with pytest.raises(error, match=message):
        mse(y, target, weights=weights[0] if weights else None)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", [mse, softmax_cross_entropy])
def test_the_gradient_may_be_written_over_the_predictions(loss, weighted):
    random = np.random.default_rng(7)
    y = random.standard_normal((40, 3, 37)).astype("float32")
    target = random.integers(0, 37, y.shape if loss is mse else y.shape[:-1])
    options = {"weights": random.integers(0, 2, y.shape[:-1])} if weighted else {}
    expected, gradient = loss(y, target, **options)
    elsewhere = np.full_like(y, np.nan)
    for out in (elsewhere, y[:]):
        found, dy = loss(y, target, out=out, **options)
        assert found == expected
        assert dy is out
        np.testing.assert_array_equal(dy, gradient)


@pytest.mark.parametrize("loss", [mse, softmax_cross_entropy])
def test_refuses_to_write_the_gradient_elsewhere(loss):
    memory = np.ones((3, 4, 5), "float32")
    y = memory[:2]
    target = np.ones(y.shape if loss is mse else y.shape[:-1], "float32" if loss is mse else int)
    for out, error, message in (
        ([1.0], TypeError, "out must be an array; got list"),
        (np.ones((2, 4, 6), "float32"), ValueError, r"out must have shape \(2, 4, 5\)"),
        (np.ones((2, 4, 5)), ValueError, "out must have dtype float32; got float64"),
        (np.ones((2, 5, 4), "float32").swapaxes(1, 2), ValueError, "out must be C-contiguous"),
        (memory[1:], ValueError, "out must not overlap y"),
    ):
        with pytest.raises(error, match=message):
            loss(y, target, out=out)
    assert (memory == 1).all()
    if loss is mse:
        with pytest.raises(ValueError, match="out must not overlap target"):
            mse(y, target, out=target)
    with pytest.raises(ValueError, match="threads must be at least 1; got 0"):
        loss(y, target, threads=0)
