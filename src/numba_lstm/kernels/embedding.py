"""Embeddings: which rows tokens ask for, and the gradients of these rows."""

from __future__ import annotations

from ..jit import kernel
from ..simd.mode import enter_default_mode, restore_mode


@kernel
def distinct_tokens(tokens, numbers, distinct, places):
    """Number the tokens that occur, in the order in which they first do.

    Parameters
    ----------
    tokens : array of int64
        (n,), read.
    numbers : array of int64
        One for every token that there may be; assigned.
    distinct : array of int64
        (n,), assigned from the front: the tokens by their numbers.
    places : array of int64
        (n,), assigned: the number of every token.

    Returns
    -------
    int
        How many tokens occur.
    """
    numbers[:] = -1
    count = 0
    for k in range(tokens.size):
        token = tokens[k]
        if numbers[token] < 0:
            numbers[token] = count
            distinct[count] = token
            count += 1
        places[k] = numbers[token]
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
