"""Exponential, sigmoid and tanh on a Vector, at most 2 ULP from the true value.

All three rest on one reduction: ``exp(-y) = 2**n (1 + q)`` with n the integer nearest to -y / ln 2
and q = expm1(-r) of the remainder r = y + n ln 2. Comparisons are written so that NaN passes
through. The units for multiply-adds are what these functions wait for, so what counts is the number
of instructions, some two dozen each. A quotient begins with an estimate of the reciprocal, and its
residual makes up for what the estimate and the rounded denominator lack. The five activations of 16
units take 73 cycles of an Intel CPU with two units for 16 multiply-adds each; with divisions, and
with powers of two taken in two halves, they took 93.
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
    reciprocal_estimate,
    where_less,
    with_exponent,
)

_MINUS_LOG2_E = constant(-1 / math.log(2), -1 / math.log(2))
_LN2_HIGH = constant(float(np.float32(math.log(2))), math.log(2))
_LN2_LOW = constant(math.log(2) - float(np.float32(math.log(2))), 2.3190468138462996e-17)
# Adding 1.5 * 2**(mantissa bits) rounds to the nearest integer and leaves it in the low bits. With
# the bias of the exponent these are those of 2**n; and of a scale's as well, where 2**n itself may
# be denormal or overflow.
_SHIFT = constant(1.5 * 2**23 + 127, 1.5 * 2**52 + 1023)
_SHIFT_UP = constant(1.5 * 2**23 + 127 + 64, 1.5 * 2**52 + 1023 + 512)
_SHIFT_DOWN = constant(1.5 * 2**23 + 127 - 64, 1.5 * 2**52 + 1023 - 512)
_SCALE_DOWN = constant(2.0**-64, 2.0**-512)
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
def _reduce(y, shift):
    """Return 2**n (scaled as `shift` says), n (or NaN), and y + n ln 2 up to n times 2**-29."""
    shifted = fma(y, _MINUS_LOG2_E(y), shift)
    n = shifted - shift
    return with_exponent(shifted), n, fma(n, _LN2_HIGH(y), y)


@inlined
def _reduce_exactly(y, shift):
    """The power and a remainder that is right to its last bit, for results that are all exp."""
    power, n, r = _reduce(y, shift)
    return power, fma(n, _LN2_LOW(y), r)


@inlined
def _expm1_of_minus(r):
    """``exp(-r) - 1`` for a remainder."""
    return fma(r * r, _EXPM1_TAIL(r), -r)


@inlined
def _at_most(x, highest):
    """The smaller of two, or NaN where x is."""
    return where_less(highest, x, highest, x)


@inlined
def _at_least(x, lowest):
    """The larger of two, or NaN where x is."""
    return where_less(x, lowest, lowest, x)


@inlined
def exp_nonpositive(a):
    """``exp(a)`` for a <= 0, denormal results included."""
    power, r = _reduce_exactly(_at_most(-a, _EXP_HIGHEST(a)), _SHIFT_UP(a))
    return fma(power, _expm1_of_minus(r), power) * _SCALE_DOWN(a)


@inlined
def sigmoid(x):
    """``1 / (1 + exp(-x))``.

    Both sides are scaled so that nothing overflows and small results come out denormal. The
    residual of the reciprocal is taken from the two terms of the denominator, so that rounding
    their sum costs nothing: 1.98 ULP. (With exp(-x) in its two terms as well 1.32, in a tenth more
    time.)
    """
    scale = _SCALE_DOWN(x)
    y = _at_most(_at_least(x, -_EXP_HIGHEST(x)), _EXPM1_HIGHEST(x))
    power, r = _reduce_exactly(y, _SHIFT_DOWN(x))
    exponential = fma(power, _expm1_of_minus(r), power)
    inverse = reciprocal_estimate(scale + exponential)
    rest = fma(-inverse, exponential, fma(-inverse, scale, broadcast(x, 1.0)))
    return fma(inverse, rest, inverse) * scale


@inlined
def tanh(x):
    """Hyperbolic tangent, ``(1 - exp(-2|x|)) / (1 + exp(-2|x|))`` with the sign of x.

    With ``exp(-2|x|) = 2**n (1 + q)`` the numerator is ``(1 - 2**n) - 2**n q``, which does not
    cancel near 0: there n is 0. The residual of the quotient is taken from the terms of the
    denominator: 1.83 ULP, of float64 1.92. (From the rounded denominator 1.97 and 2.06.)
    """
    one = broadcast(x, 1.0)
    size = absolute(x)
    power, _, r = _reduce(_at_most(size + size, _EXPM1_HIGHEST(x)), _SHIFT(x))
    q = _expm1_of_minus(r)
    numerator = fma(-power, q, one - power)
    denominator = fma(power, q, one + power)
    inverse = reciprocal_estimate(denominator)
    quotient = numerator * inverse
    rest = fma(-(quotient * power), q, fma(-quotient, one + power, numerator))
    return copysign(fma(rest, inverse, quotient), x)


@inlined
def sigmoid_slope(s):
    """Derivative of the sigmoid from its value s."""
    return s * (broadcast(s, 1.0) - s)


@inlined
def tanh_slope(t):
    """Derivative of tanh from its value t."""
    return fma(-t, t, broadcast(t, 1.0))
