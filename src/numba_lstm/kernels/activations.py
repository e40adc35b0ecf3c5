"""Exponential, sigmoid and tanh on a Vector, at most 2 ULP from the true value.

All three rest on one reduction: ``exp(-y) = 2**n (1 + q)`` with n the integer nearest to -y / ln 2
and q = expm1(-r) of the remainder r = y + n ln 2. Comparisons are written so that NaN passes
through. The units for multiply-adds are what these functions wait for: sigmoid takes 18
cycles of a Zen 4 for 16 numbers, of which 11 are multiply-adds and 6 the division, tanh 22.
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

_MINUS_LOG2_E = constant(-1 / math.log(2), -1 / math.log(2))
_LN2_HIGH = constant(float(np.float32(math.log(2))), math.log(2))
_LN2_LOW = constant(math.log(2) - float(np.float32(math.log(2))), 2.3190468138462996e-17)
# Adding 1.5 * 2**(mantissa bits) rounds to the nearest integer and leaves it in the low bits.
_ROUNDING_SHIFT = constant(1.5 * 2**23, 1.5 * 2**52)
# Beyond these, exp(-y) is zero or infinite, and exp(-y) - 1 is -1 to the last bit.
_EXP_HIGHEST = constant(104.5, 746.0)
_EXPM1_HIGHEST = constant(44.0, 44.0)
# (expm1(-r) + r) / r**2 on |r| <= ln(2) / 2: of float32 the polynomial of least error relative to
# expm1, 0.23 ULP (at Chebyshev nodes 0.4); of float64 at Chebyshev nodes, 0.005 ULP.
_EXPM1_TAIL = polynomial(
    (
        0.5,
        -0.1666654497385025,
        0.04166640341281891,
        -0.008366457186639309,
        0.0013940561329945922,
    ),
    (
        0.5,
        -0.1666666666666667,
        0.04166666666666667,
        -0.008333333333326136,
        0.0013888888888883748,
        -0.00019841269874820627,
        2.4801587325547743e-05,
        -2.7557255400206422e-06,
        2.75572736431103e-07,
        -2.5105217004720745e-08,
        2.0914686968086876e-09,
    ),
)


@inlined
def _reduce(y):
    """Return n (an integer, or NaN) and the remainder y + n ln 2, up to n units in its 2**-28."""
    shift = _ROUNDING_SHIFT(y)
    n = fma(y, _MINUS_LOG2_E(y), shift) - shift
    return n, fma(n, _LN2_HIGH(y), y)


@inlined
def _reduce_exactly(y):
    """The same with a remainder that is right to its last bit, for results that are all exp."""
    n, r = _reduce(y)
    return n, fma(n, _LN2_LOW(y), r)


@inlined
def _expm1_of_minus(r):
    """``exp(-r) - 1`` for a remainder."""
    return fma(r * r, _EXPM1_TAIL(r), -r)


@inlined
def _halves(n):
    """Powers of two with product ``2**n``, which itself may be denormal or overflow.

    Returned as 2**k and 2**(k - n), the inverse of the other factor.
    """
    shift = _ROUNDING_SHIFT(n)
    k = fma(n, broadcast(n, 0.5), shift)
    return power_of_two(k), power_of_two(((k - shift) - n) + shift)


@inlined
def _at_most(x, highest):
    """The smaller of two, or NaN where x is."""
    return where_less(highest, x, highest, x)


@inlined
def exp_nonpositive(a):
    """``exp(a)`` for a <= 0, denormal results included."""
    n, r = _reduce_exactly(_at_most(-a, _EXP_HIGHEST(a)))
    factor, inverse = _halves(n)
    return fma(factor, _expm1_of_minus(r), factor) / inverse


@inlined
def sigmoid(x):
    """``1 / (1 + exp(-x))``.

    With ``exp(-x) = 2**n (1 + q)`` the denominator is ``(2**n + 1) + 2**n q``, rounded once unless
    the bracket is inexact, whose loss then joins the small term: 1.7 ULP, and 2.3 without. (Taking
    exp of ``-|x|`` and dividing it by one plus itself costs 2.3 as well.) Both sides of the
    fraction carry half of 2**n, so that nothing overflows and small results come out denormal.
    """
    highest = _EXP_HIGHEST(x)
    lowest = -highest
    n, r = _reduce_exactly(_at_most(where_less(x, lowest, lowest, x), highest))
    factor, inverse = _halves(n)
    start = factor + inverse
    lost = inverse - (start - factor)
    return inverse / (start + fma(factor, _expm1_of_minus(r), lost))


@inlined
def tanh(x):
    """Hyperbolic tangent, ``-expm1(-2|x|) / (2 + expm1(-2|x|))`` with the sign of x.

    ``(1 - e) / (1 + e)`` would cancel near 0. What the numerator and the quotient lost by rounding
    is put back after the division, with the reciprocal ``1 / (2 + expm1) = (1 + tanh) / 2``: 1.85
    ULP, without it 2.5. (With what the denominator lost 1.4, in 3 cycles more.)
    """
    half = broadcast(x, 0.5)
    two = broadcast(x, 2.0)
    size = absolute(x)
    n, r = _reduce(_at_most(size + size, _EXPM1_HIGHEST(x)))
    scale = power_of_two(n + _ROUNDING_SHIFT(x))
    start = scale - broadcast(x, 1.0)
    added = scale * _expm1_of_minus(r)
    numerator = start + added
    lost = added - (numerator - start)
    denominator = two + numerator
    quotient = numerator / denominator
    rest = fma(-quotient, denominator, numerator) + lost
    rest = fma(-quotient, lost, rest)
    return copysign(fma(rest, fma(-quotient, half, half), quotient), x)


@inlined
def sigmoid_slope(s):
    """Derivative of the sigmoid from its value s."""
    return s * (broadcast(s, 1.0) - s)


@inlined
def tanh_slope(t):
    """Derivative of tanh from its value t."""
    return fma(-t, t, broadcast(t, 1.0))
