"""Loops that do nothing but one thing, as fast as the CPU can: what the machine's limits are."""

from __future__ import annotations

from ..jit import kernel
from ..simd.pointer import address
from ..simd.vector import broadcast, fma, load, store, width

# Chains of fused multiply-adds in flight: two units with a latency of 5 cycles need 10. With the
# multiplicand they fit into 16 registers.
CHAINS = 12
# Sums of what is read, so that no addition waits for the one before it.
_SUMS = 8


@kernel
def multiply_add(values, repetitions):
    """Add the square of a vector to `CHAINS` vectors over and over, all of it in registers.

    Parameters
    ----------
    values : array
        At least CHAINS + 1 vectors of small numbers, read; then the first is assigned.
    repetitions : int
    """
    start = address(values, 0)
    lanes = width(start)
    x = load(start + CHAINS * lanes)
    a = load(start)
    b = load(start + lanes)
    c = load(start + 2 * lanes)
    d = load(start + 3 * lanes)
    e = load(start + 4 * lanes)
    f = load(start + 5 * lanes)
    g = load(start + 6 * lanes)
    h = load(start + 7 * lanes)
    i = load(start + 8 * lanes)
    j = load(start + 9 * lanes)
    k = load(start + 10 * lanes)
    m = load(start + 11 * lanes)
    for _ in range(repetitions):
        a = fma(x, x, a)
        b = fma(x, x, b)
        c = fma(x, x, c)
        d = fma(x, x, d)
        e = fma(x, x, e)
        f = fma(x, x, f)
        g = fma(x, x, g)
        h = fma(x, x, h)
        i = fma(x, x, i)
        j = fma(x, x, j)
        k = fma(x, x, k)
        m = fma(x, x, m)
    store(a + b + c + d + e + f + g + h + i + j + k + m, start)


@kernel
def read(values, repetitions, total):
    """Add up all vectors of an array, over and over.

    Parameters
    ----------
    values : array
        Aligned to a cache line, a multiple of 8 vectors, read.
    repetitions : int
    total : array
        One vector, assigned: the sums by lanes.
    """
    start = address(values, 0)
    lanes = width(start)
    a = b = c = d = e = f = g = h = broadcast(start, 0.0)
    for _ in range(repetitions):
        for k in range(0, values.size, _SUMS * lanes):
            place = start + k
            a = a + load(place)
            b = b + load(place + lanes)
            c = c + load(place + 2 * lanes)
            d = d + load(place + 3 * lanes)
            e = e + load(place + 4 * lanes)
            f = f + load(place + 5 * lanes)
            g = g + load(place + 6 * lanes)
            h = h + load(place + 7 * lanes)
    store(((a + b) + (c + d)) + ((e + f) + (g + h)), address(total, 0))
