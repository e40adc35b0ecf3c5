"""The gradient of an embedding: rows added where tokens say."""

from __future__ import annotations

from ..jit import kernel
from ..simd.mode import enter_default_mode, restore_mode


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
