"""Exponential, sigmoid and tanh against a longer format, and their slopes."""

import os
import secrets

import numba
import numpy as np
import pytest

from numba_lstm.kernels import activations
from numba_lstm.simd.pointer import address
from numba_lstm.simd.vector import load, store, width

DTYPES = [np.float32, np.float64]
LONGER = {np.float32: np.float64, np.float64: np.longdouble}
HIGHEST_ULP = 2.0


def vectorized(function):
    """NumPy function of one array, its size a multiple of 64, that applies a Vector function."""

    @numba.njit
    def run(x, out):
        for i in range(0, x.size, width(address(x, 0))):
            store(function(load(address(x, i))), address(out, i))

    def apply(x):
        padded = np.pad(x, (0, -x.size % 64))
        out = np.empty_like(padded)
        run(padded, out)
        return out[: x.size]

    return apply


exp_nonpositive = vectorized(activations.exp_nonpositive)
sigmoid = vectorized(activations.sigmoid)
tanh = vectorized(activations.tanh)
sigmoid_slope = vectorized(activations.sigmoid_slope)
tanh_slope = vectorized(activations.tanh_slope)


def true_sigmoid(x):
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


# Vector function, true function, whether only numbers <= 0 are allowed.
FUNCTIONS = {
    "exp_nonpositive": (exp_nonpositive, np.exp, True),
    "sigmoid": (sigmoid, true_sigmoid, False),
    "tanh": (tanh, np.tanh, False),
}

by_function = pytest.mark.parametrize("name", FUNCTIONS)
by_dtype = pytest.mark.parametrize("dtype", DTYPES)


def longer(x):
    """The same numbers in the format of the reference."""
    kind = LONGER[x.dtype.type]
    if np.finfo(kind).nmant < np.finfo(x.dtype).nmant + 10:
        pytest.skip(f"no longer format than {x.dtype} on this machine")
    return x.astype(kind)


def ulp_error(actual, true):
    """Distance to the true values, in units of the last place that those have in the format."""
    limits = np.finfo(actual.dtype)
    _, exponent = np.frexp(true)
    last_place = np.maximum(exponent - 1, limits.minexp) - limits.nmant
    return np.abs(np.ldexp(actual.astype(true.dtype) - true, -last_place))


def assert_accurate(name, x, highest=HIGHEST_ULP):
    function, true_function, nonpositive = FUNCTIONS[name]
    if nonpositive:
        x = -np.abs(x)
    with np.errstate(under="ignore"):
        error = ulp_error(function(x), true_function(longer(x)))
    worst = np.argmax(error)
    assert error[worst] <= highest, f"{error[worst]:.2f} ULP at {x[worst]!r}"


def every_exponent(dtype, count, random):
    """`count` finite numbers of every sign and exponent, the first and last of each among them."""
    limits = np.finfo(dtype)
    unsigned = np.uint32 if dtype == np.float32 else np.uint64
    mantissas = random.integers(0, 2**limits.nmant, (2 * limits.maxexp - 1, count), unsigned)
    mantissas[:, 0], mantissas[:, 1] = 0, 2**limits.nmant - 1
    exponents = np.arange(len(mantissas), dtype=unsigned)[:, None]
    positive = (exponents << unsigned(limits.nmant) | mantissas).view(dtype).ravel()
    return np.concatenate([positive, -positive])


def neighbours(centres, dtype, count=200):
    """Every number of the format within `count` steps of each centre, ascending."""
    bits = centres.astype(dtype).view(np.int32 if dtype == np.float32 else np.int64)[:, None]
    steps = np.arange(-count, count + 1, dtype=bits.dtype)
    # Bits ascend with the magnitude.
    return (bits + np.where(bits < 0, -steps, steps)).view(dtype)


def switching_points(dtype):
    """Where the reduction goes on to the next power of two, and where arguments are clamped."""
    limits = np.finfo(dtype)
    reach = limits.nmant - limits.minexp
    halves = np.arange(1, 2 * reach, 2) * (np.log(2) / 2)
    clamps = np.array([104.5 if dtype == np.float32 else 746.0, 44.0])
    vanishing = np.log(2) * np.array([reach, -limits.minexp, limits.nmant])
    positive = np.concatenate([halves, clamps, vanishing])
    # tanh reduces twice its argument.
    positive = np.concatenate([positive, positive / 2])
    return np.concatenate([positive, -positive])


@by_function
@by_dtype
def test_every_exponent(name, dtype):
    assert_accurate(name, every_exponent(dtype, 200, np.random.default_rng(0)))


@by_function
@by_dtype
@pytest.mark.parametrize("span", [0.1, 1.0, 10.0, 120.0, 800.0])
def test_where_the_values_vary(name, dtype, span):
    assert_accurate(name, np.linspace(-span, span, 200_001).astype(dtype))


@by_function
@by_dtype
def test_around_switching_points(name, dtype):
    x = neighbours(switching_points(dtype), dtype)
    assert_accurate(name, x.ravel())


@by_function
@by_dtype
def test_results_stay_in_range(name, dtype):
    function, _, nonpositive = FUNCTIONS[name]
    x = np.concatenate([every_exponent(dtype, 50, np.random.default_rng(1)), [np.inf, -np.inf]])
    x = -np.abs(x) if nonpositive else x
    y = function(x.astype(dtype))
    lowest = -1 if name == "tanh" else 0
    assert lowest <= y.min()
    assert y.max() <= 1


@by_dtype
def test_limits(dtype):
    infinite = np.array([-np.inf, np.inf], dtype)
    np.testing.assert_array_equal(exp_nonpositive(infinite[:1]), [0])
    np.testing.assert_array_equal(sigmoid(infinite), [0, 1])
    np.testing.assert_array_equal(tanh(infinite), [-1, 1])


@by_dtype
def test_zeros(dtype):
    zeros = np.array([0.0, -0.0], dtype)
    np.testing.assert_array_equal(exp_nonpositive(zeros), [1, 1])
    np.testing.assert_array_equal(sigmoid(zeros), [0.5, 0.5])
    np.testing.assert_array_equal(tanh(zeros), [0, 0])
    np.testing.assert_array_equal(np.signbit(tanh(zeros)), [False, True])


@by_dtype
def test_denormal_arguments(dtype):
    limits = np.finfo(dtype)
    x = np.ldexp(limits.smallest_subnormal, np.arange(limits.nmant)).astype(dtype)
    x = np.concatenate([x, -x])
    np.testing.assert_array_equal(exp_nonpositive(-np.abs(x)), 1)
    np.testing.assert_array_equal(sigmoid(x), 0.5)
    np.testing.assert_array_equal(tanh(x), x)


@by_dtype
def test_denormal_results_come_out_gradually(dtype):
    limits = np.finfo(dtype)
    x = np.linspace(
        np.log(float(limits.tiny)), np.log(2.0) * (limits.minexp - limits.nmant), 10_001
    ).astype(dtype)
    for function in (exp_nonpositive, sigmoid):
        y = function(x)
        assert (np.diff(y) <= 0).all()
        assert np.count_nonzero((y > 0) & (y < limits.tiny)) > 9_000


@by_function
@by_dtype
def test_nan_is_kept_in_its_lane(name, dtype):
    function = FUNCTIONS[name][0]
    x = np.full(64, -0.5, dtype)
    expected = function(x)[0]
    for lane in range(16):
        x[lane] = np.nan
        y = function(x)
        assert np.isnan(y[lane])
        np.testing.assert_array_equal(np.delete(y, lane), expected)
        x[lane] = -0.5


@by_function
@by_dtype
def test_never_falls_by_more_than_the_last_place(name, dtype):
    x = neighbours(switching_points(dtype), dtype)
    x = x[(x <= 0).all(axis=1)] if FUNCTIONS[name][2] else x
    y = FUNCTIONS[name][0](x.ravel()).reshape(x.shape)
    assert (np.diff(y, axis=1) >= -np.spacing(np.abs(y[:, 1:]))).all()


@by_dtype
def test_sigmoid_slope(dtype):
    s = np.linspace(0, 1, 100_001).astype(dtype)
    true = longer(s) * (1 - longer(s))
    assert ulp_error(sigmoid_slope(s), true).max() <= 1.5


@by_dtype
def test_tanh_slope_is_rounded_once(dtype):
    t = np.linspace(-1, 1, 100_001).astype(dtype)
    true = (1 - longer(t)) * (1 + longer(t))
    assert ulp_error(tanh_slope(t), true).max() <= 0.501


@pytest.mark.parametrize("slope", [sigmoid_slope, tanh_slope], ids=["sigmoid", "tanh"])
@by_dtype
def test_slopes_keep_nan(slope, dtype):
    assert np.isnan(slope(np.array([np.nan], dtype))).all()


@pytest.mark.exhaustive
@by_function
@by_dtype
def test_random_bits(name, dtype):
    seed = int(os.environ.get("NUMBA_LSTM_SEED", secrets.randbelow(2**32)))
    print(f"NUMBA_LSTM_SEED={seed}")
    random = np.random.default_rng(seed)
    for _ in range(5):
        assert_accurate(name, every_exponent(dtype, 800, random))
        assert_accurate(name, random.uniform(-120, 120, 500_000).astype(dtype))
