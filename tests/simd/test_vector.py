"""Every operation of Vector against NumPy, lane by lane and bit by bit."""

import mmap
from fractions import Fraction

import numba
import numpy as np
import pytest

from numba_lstm.simd import cpu
from numba_lstm.simd.pointer import address
from numba_lstm.simd.vector import (
    absolute,
    broadcast,
    constant,
    copysign,
    fma,
    lane_maximum,
    lane_sum,
    load,
    load_first,
    polynomial,
    reciprocal_estimate,
    store,
    store_first,
    where_less,
    width,
    with_exponent,
)

pytestmark = pytest.mark.parametrize("dtype", [np.float32, np.float64])

_third = constant(1 / 3, 2 / 3)
_cubic = polynomial((1.0, -2.0, 0.5, 3.0), (2.0, 0.25, -1.5, 5.0))


def lanes_of(dtype):
    return cpu.lanes(np.dtype(dtype).itemsize)


def assert_same_bits(actual, expected):
    """Equal lanes, the signs of zeros included; any NaN equals any other."""
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual, expected)
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(actual[number]), np.signbit(expected[number]))


def special_numbers(dtype):
    """Numbers at the edges of the format, both signs."""
    limits = np.finfo(dtype)
    positive = [0, 1, 1.5, 1 / 3, limits.max, limits.tiny, limits.smallest_subnormal, np.inf]
    positive = np.array(positive, dtype)
    return np.concatenate([positive, -positive, np.array([np.nan], dtype)])


def triples_of_special_numbers(dtype):
    """Three arrays that hold every triple, as whole vectors."""
    numbers = special_numbers(dtype)
    triples = np.stack(np.meshgrid(numbers, numbers, numbers), axis=0).reshape(3, -1)
    return np.pad(triples, ((0, 0), (0, -triples.shape[1] % lanes_of(dtype))))


@numba.njit
def _combine(x, y, z, out):
    lanes = width(address(x, 0))
    for i in range(0, x.size, lanes):
        a, b, c = load(address(x, i)), load(address(y, i)), load(address(z, i))
        results = (
            a + b,
            a - b,
            a * b,
            absolute(a),
            copysign(a, b),
            where_less(a, b, c, a),
            broadcast(a, 2.5),
            _third(a),
        )
        for k in range(len(results)):
            store(results[k], address(out, k * x.size + i))


def test_lane_by_lane_operations(dtype):
    x, y, z = triples_of_special_numbers(dtype)
    with np.errstate(all="ignore"):
        expected = {
            "+": x + y,
            "-": x - y,
            "*": x * y,
            "absolute": np.abs(x),
            "copysign": np.copysign(x, y),
            "where_less": np.where(x < y, z, x),
            "broadcast": np.full_like(x, 2.5),
            "constant": np.full_like(x, 1 / 3 if dtype == np.float32 else 2 / 3),
        }
    out = np.empty(len(expected) * x.size, dtype)
    _combine(x, y, z, out)
    for actual, twin in zip(out.reshape(-1, x.size), expected.values(), strict=True):
        assert_same_bits(actual, twin)


@numba.njit
def _fma(x, y, z, out):
    for i in range(0, x.size, width(address(x, 0))):
        a, b, c = load(address(x, i)), load(address(y, i)), load(address(z, i))
        store(fma(a, b, c), address(out, i))


@numba.njit
def _negatives(x, out):
    for i in range(0, x.size, width(address(x, 0))):
        store(-load(address(x, i)), address(out, i))


def test_negative_changes_the_sign_of_zero_too(dtype):
    x, _, _ = triples_of_special_numbers(dtype)
    out = np.empty_like(x)
    _negatives(x, out)
    assert_same_bits(out, -x)


def fused(a, b, c):
    """``a * b + c``, rounded once; exact in float64 before that where all are in ±[1, 2)."""
    return type(a)(float(Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))))


def test_fma_rounds_once(dtype):
    random = np.random.default_rng(0)
    count = 64 * lanes_of(dtype)
    numbers = random.uniform(1, 2, (3, count)) * random.choice([-1, 1], (3, count))
    x, y, z = numbers.astype(dtype)
    # Products that a separate rounding would make cancel to zero.
    x[:8], y[:8], z[:8] = 1 + np.finfo(dtype).eps, 1 - np.finfo(dtype).eps, -1
    out = np.empty_like(x)
    _fma(x, y, z, out)
    expected = np.array([fused(*triple) for triple in zip(x, y, z, strict=True)])
    assert_same_bits(out, expected)
    assert (out[:8] != 0).all()


@numba.njit
def _cubics(x, out):
    for i in range(0, x.size, width(address(x, 0))):
        store(_cubic(load(address(x, i))), address(out, i))


def test_polynomial(dtype):
    x = np.linspace(-2, 2, 16 * lanes_of(dtype)).astype(dtype)
    out = np.empty_like(x)
    _cubics(x, out)
    ascending = (1.0, -2.0, 0.5, 3.0) if dtype == np.float32 else (2.0, 0.25, -1.5, 5.0)
    expected = np.polynomial.Polynomial(ascending)(x.astype(np.longdouble))
    np.testing.assert_allclose(out, expected.astype(dtype), rtol=0, atol=64 * np.finfo(dtype).eps)


@numba.njit
def _powers(x, shift, out):
    for i in range(0, x.size, width(address(x, 0))):
        vector = load(address(x, i))
        store(with_exponent(vector + broadcast(vector, shift)), address(out, i))


def test_with_every_normal_exponent(dtype):
    limits = np.finfo(dtype)
    exponents = np.arange(limits.minexp, limits.maxexp)
    # Off by less than a half: adding the shift also rounds to the nearest integer.
    count = exponents.size + -exponents.size % lanes_of(dtype)
    x = np.resize(exponents, count) + np.random.default_rng(0).uniform(-0.49, 0.49, count)
    out = np.empty(count, dtype)
    _powers(x.astype(dtype), dtype(1.5 * 2**limits.nmant + limits.maxexp - 1), out)
    assert_same_bits(out, np.ldexp(dtype(1), np.resize(exponents, count)))


@numba.njit
def _reciprocals(x, out):
    for i in range(0, x.size, width(address(x, 0))):
        store(reciprocal_estimate(load(address(x, i))), address(out, i))


def test_reciprocal_estimate_has_half_of_the_digits(dtype):
    limits = np.finfo(dtype)
    random = np.random.default_rng(0)
    exponents = np.repeat(np.arange(limits.minexp + 2, limits.maxexp - 2), 64)
    x = np.ldexp(random.uniform(1, 2, exponents.size), exponents).astype(dtype)
    x *= random.choice([-1, 1], x.size).astype(dtype)
    out = np.empty_like(x)
    _reciprocals(x, out)
    error = np.abs(out.astype(np.longdouble) * x.astype(np.longdouble) - 1)
    assert error.max() <= 2.0 ** -((limits.nmant + 1) // 2)
    nothing = np.full(lanes_of(dtype), np.nan, dtype)
    _reciprocals(nothing, nothing)
    assert np.isnan(nothing).all()


@numba.njit
def _copy(source, start, target, end):
    store(load(address(source, start)), address(target, end))


def test_load_and_store_at_any_address(dtype):
    lanes = lanes_of(dtype)
    source = np.arange(3 * lanes).astype(dtype)
    for start in range(2 * lanes):
        target = np.full(3 * lanes, -1, dtype)
        expected = target.copy()
        expected[start : start + lanes] = source[start : start + lanes]
        _copy(source, start, target, start)
        np.testing.assert_array_equal(target, expected)


@numba.njit
def _load_first(source, start, count, target):
    store(load_first(address(source, start), count), address(target, 0))


@numba.njit
def _store_first(source, target, start, count):
    store_first(load(address(source, 0)), address(target, start), count)


def test_load_first_puts_zeros_behind(dtype):
    lanes = lanes_of(dtype)
    source = np.full(lanes + 1, np.nan, dtype)
    for count in range(lanes + 3):
        source[1:] = np.arange(1, lanes + 1)
        source[1 + count :] = np.nan
        target = np.full(lanes, -1, dtype)
        _load_first(source, 1, count, target)
        expected = np.arange(1, lanes + 1) * (np.arange(lanes) < count)
        assert_same_bits(target, expected.astype(dtype))


def test_store_first_leaves_what_is_behind(dtype):
    lanes = lanes_of(dtype)
    source = np.arange(1, lanes + 1).astype(dtype)
    for count in range(lanes + 3):
        target = np.full(2 * lanes, -1, dtype)
        expected = target.copy()
        expected[1 : 1 + min(count, lanes)] = source[:count]
        _store_first(source, target, 1, count)
        np.testing.assert_array_equal(target, expected)


def test_masked_access_ends_with_the_memory(dtype):
    """Whoever reads or writes one number too many here dies."""
    lanes = lanes_of(dtype)
    with mmap.mmap(-1, mmap.PAGESIZE) as page:
        memory = np.frombuffer(page, dtype)
        memory[-lanes:] = np.arange(lanes)
        target = np.empty(lanes, dtype)
        for count in range(lanes):
            _load_first(memory, memory.size - count, count, target)
            np.testing.assert_array_equal(target[:count], memory[memory.size - count :])
            _store_first(target, memory, memory.size - count, count)
        np.testing.assert_array_equal(memory[-lanes:], np.arange(lanes))
        del memory


@numba.njit
def _fold(x):
    vector = load(address(x, 0))
    return lane_sum(vector), lane_maximum(vector)


def sum_by_halves(lanes):
    while lanes.size > 1:
        lower, upper = np.split(lanes, 2)
        lanes = lower + upper
    return lanes[0]


def test_lane_sum_and_maximum(dtype):
    random = np.random.default_rng(0)
    for _ in range(200):
        x = random.standard_normal(lanes_of(dtype)).astype(dtype)
        total, largest = _fold(x)
        assert total == sum_by_halves(x)
        assert largest == x.max()


def test_every_lane_takes_part_in_folds(dtype):
    for lane in range(lanes_of(dtype)):
        x = np.full(lanes_of(dtype), -np.inf, dtype)
        x[lane] = -3
        assert _fold(x) == (-np.inf, -3)
        x[lane] = np.nan
        assert np.isnan(_fold(x)[0])


@numba.njit
def _width(x):
    return width(address(x, 0))


def test_width_is_that_of_the_register(dtype):
    assert _width(np.zeros(1, dtype)) * np.dtype(dtype).itemsize * 8 == cpu.vector_bits()


@numba.njit
def _add_mixed(x, y, out):
    store(load(address(x, 0)) + load(address(y, 0)), address(out, 0))


def test_kinds_do_not_mix(dtype):
    other = np.float64 if dtype == np.float32 else np.float32
    x, y = np.zeros(64, dtype), np.zeros(64, other)
    with pytest.raises(numba.TypingError):
        _add_mixed(x, y, x)
