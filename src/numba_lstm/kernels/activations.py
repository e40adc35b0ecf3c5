"""Exponential, sigmoid and tanh on a Vector, at most 2 ULP from the true value.

All three rest on one reduction: for a <= 0, ``exp(a) = 2**n (1 + q)`` with n the integer nearest to
a / ln 2 and q = expm1(r) of the remainder r. Comparisons are written so that NaN passes through.
"""

from __future__ import annotations

import math

import numpy as np

from ..jit import inlined
from ..simd.vector import (
    absolute,
    broadcast,
    constant,
    copysign,
    fma,
    polynomial,
    power_of_two,
    where_less,
)

_LOG2_E = constant(1 / math.log(2), 1 / math.log(2))
_MINUS_LN2_HIGH = constant(-float(np.float32(math.log(2))), -math.log(2))
_MINUS_LN2_LOW = constant(float(np.float32(math.log(2))) - math.log(2), -2.3190468138462996e-17)
# Adding 1.5 * 2**(mantissa bits) rounds to the nearest integer and leaves it in the low bits.
_ROUNDING_SHIFT = constant(1.5 * 2**23, 1.5 * 2**52)
# Beyond these, exp(-a) is zero and tanh is -1 to the last bit.
_EXP_HIGHEST = constant(104.5, 746.0)
_TANH_LOWEST = constant(-44.0, -44.0)
# (expm1(r) - r) / r**2 on |r| <= ln(2) / 2, interpolated at Chebyshev nodes: an error of 0.009 and
# 0.005 ULP of expm1(r). One degree less costs 0.4 ULP.
_EXPM1_TAIL = polynomial(
    (
        0.5,
        0.1666666716337204,
        0.04166646674275398,
        0.00833331048488617,
        0.0013933649752289057,
        0.00019890991097781807,
    ),
    (
        0.5,
        0.1666666666666667,
        0.04166666666666667,
        0.008333333333326136,
        0.0013888888888883748,
        0.00019841269874820627,
        2.4801587325547743e-05,
        2.7557255400206422e-06,
        2.75572736431103e-07,
        2.5105217004720745e-08,
        2.0914686968086876e-09,
    ),
)


@inlined
def _reduce(a):
    """Return n (an integer, or NaN) and q with ``exp(a) = 2**n (1 + q)``."""
    shift = _ROUNDING_SHIFT(a)
    n = fma(a, _LOG2_E(a), shift) - shift
    r = fma(n, _MINUS_LN2_LOW(a), fma(n, _MINUS_LN2_HIGH(a), a))
    return n, fma(r * r, _EXPM1_TAIL(r), r)


@inlined
def _halves(n):
    """Powers of two with product ``2**n``, which itself may be denormal or overflow.

    Returned as 2**k and 2**(k - n), the inverse of the other factor.
    """
    shift = _ROUNDING_SHIFT(n)
    k = fma(n, broadcast(n, 0.5), shift)
    return power_of_two(k), power_of_two(((k - shift) - n) + shift)


@inlined
def exp_nonpositive(a):
    """``exp(a)`` for a <= 0, denormal results included."""
    lowest = broadcast(a, 0.0) - _EXP_HIGHEST(a)
    n, q = _reduce(where_less(a, lowest, lowest, a))
    factor, inverse = _halves(n)
    return fma(factor, q, factor) / inverse


@inlined
def sigmoid(x):
    """``1 / (1 + exp(-x))``.

    With ``exp(-x) = 2**n (1 + q)`` the denominator is ``(2**n + 1) + 2**n q``, rounded once unless
    the bracket is inexact, whose loss then joins the small term: 1.7 ULP, and 2.3 without. (Taking
    exp of ``-|x|`` and dividing it by one plus itself costs 2.3 as well.) Both sides of the
    fraction carry half of 2**n, so that nothing overflows and small results come out denormal.
    """
    highest = _EXP_HIGHEST(x)
    lowest = broadcast(x, 0.0) - highest
    a = broadcast(x, 0.0) - x
    a = where_less(a, lowest, lowest, a)
    n, q = _reduce(where_less(highest, a, highest, a))
    factor, inverse = _halves(n)
    start = factor + inverse
    lost = inverse - (start - factor)
    return inverse / (start + fma(factor, q, lost))


@inlined
def tanh(x):
    """Hyperbolic tangent, ``-expm1(-2|x|) / (2 + expm1(-2|x|))`` with the sign of x.

    ``(1 - e) / (1 + e)`` would cancel near 0. What numerator and denominator lost by rounding is
    put back after the division, with the reciprocal ``1 / (2 + expm1) = (1 + tanh) / 2``: without
    it the error is 2.5 ULP, and 2.1 with the denominator's share alone.
    """
    lowest = _TANH_LOWEST(x)
    zero = broadcast(x, 0.0)
    half = broadcast(x, 0.5)
    one = broadcast(x, 1.0)
    two = broadcast(x, 2.0)
    a = absolute(x) * broadcast(x, -2.0)
    n, q = _reduce(where_less(a, lowest, lowest, a))
    minus_scale = zero - power_of_two(n + _ROUNDING_SHIFT(x))
    start = one + minus_scale
    numerator = fma(minus_scale, q, start)
    numerator_lost = fma(minus_scale, q, start - numerator)
    denominator = two - numerator
    denominator_lost = (two - denominator) - numerator
    quotient = numerator / denominator
    minus_quotient = zero - quotient
    rest = fma(minus_quotient, denominator_lost, fma(minus_quotient, denominator, numerator))
    rest = fma(one + quotient, numerator_lost, rest)
    return copysign(fma(rest, fma(quotient, half, half), quotient), x)


@inlined
def sigmoid_slope(s):
    """Derivative of the sigmoid from its value s."""
    return s * (broadcast(s, 1.0) - s)


@inlined
def tanh_slope(t):
    """Derivative of tanh from its value t."""
    return fma(broadcast(t, 0.0) - t, t, broadcast(t, 1.0))
