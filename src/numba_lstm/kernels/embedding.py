"""Embeddings: which rows tokens ask for, and the gradients of these rows."""

from __future__ import annotations

from ..jit import kernel
from ..simd.mode import enter_default_mode, restore_mode

# Of 2**64, odd: multiples of it are spread evenly (Knuth 1998, section 6.4).
_GOLDEN_RATIO = 0x9E3779B97F4A7C15 - 2**64


@kernel
def distinct_tokens(tokens, slots, distinct, places):
    """Number the tokens that occur, in the order in which they first do.

    Parameters
    ----------
    tokens : array of int64
        (n,), read.
    slots : array of int64
        Room for a hash table: a power of 2 above n; assigned.
    distinct : array of int64
        (n,), assigned from the front: the tokens by their numbers.
    places : array of int64
        (n,), assigned: the number of every token.

    Returns
    -------
    int
        How many tokens occur.
    """
    slots[:] = -1
    last = slots.size - 1
    count = 0
    for k in range(tokens.size):
        token = tokens[k]
        slot = (token * _GOLDEN_RATIO >> 32) & last
        while slots[slot] >= 0 and distinct[slots[slot]] != token:
            slot = (slot + 1) & last
        if slots[slot] < 0:
            slots[slot] = count
            distinct[count] = token
            count += 1
        places[k] = slots[slot]
    return count


@kernel
def embedding_backward(tokens, dy, features, gradient):
    """Add the gradient of every output to the row of its token.

    Parameters
    ----------
    tokens : array of int64
        (n,), read.
    dy : array
        (n, features) flat, read.
    features : int
    gradient : array
        (tokens of the table, features) flat, accumulated into in the order of the tokens.
    """
    mode = enter_default_mode()
    for k in range(tokens.size):
        row = tokens[k] * features
        for j in range(features):
            gradient[row + j] += dy[k * features + j]
    restore_mode(mode)
