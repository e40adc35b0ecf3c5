"""Compile every kernel ahead of its first use, for container builds and for a prompt first call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import jit, threadpool
from .embedding import Embedding
from .jit import WarmKernel
from .kernels import losses, updates
from .kernels.linear import linear_gradients, linear_product
from .kernels.panels import pack_matrix
from .kernels.region import all_shares
from .kernels.vocabulary import lstm_vocabulary
from .kernels.vocabulary_back import lstm_vocabulary_back
from .linear import Linear
from .losses import mse, softmax_cross_entropy
from .lstm import LSTM
from .optimizers import SGD, Adam, RMSprop, clip_by_global_norm
from .sequential import Sequential
from .validation import boolean, float_dtype

# What losses and optimisers share out.
_PASSES = (
    *(losses.softmax_cross_entropy, losses.squared_error),
    *(updates.sgd_update, updates.adam_update, updates.rmsprop_update),
    *(updates.square_sums, updates.scale),
)


def warmup(
    *,
    dtypes: Sequence[Any] = ("float32", "float64"),
    training: bool = True,
    threads: int | None = None,
) -> list[WarmKernel]:
    """Compile all kernels of the package, or load them from the cache.

    Afterwards nothing is compiled any more, whatever the sizes: in this process, and in those that
    find the same cache folder on a CPU of the same kind.

    Parameters
    ----------
    dtypes : sequence of dtype
        Of the models: float32, float64 or both.
    training : bool
        Whether the kernels of back-propagation, losses and optimisers are wanted as well.
    threads : int, optional
        Upper bound of threads of the calls to come. With 1, kernels for several threads are left
        out, and no threads are started.

    Returns
    -------
    list of WarmKernel
        What was not ready in this process, in order: its name, dtype and seconds, whether it was
        compiled, and whether the cache keeps it.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> _ = warmup(dtypes=["float64"], training=False, threads=1)
    >>> warmup(dtypes=["float64"], training=False, threads=1)
    []
    """
    if isinstance(dtypes, str):
        raise TypeError(f"dtypes must be a sequence of dtypes; got {dtypes!r}")
    wanted = [float_dtype(dtype) for dtype in dtypes]
    for_training = boolean("training", training)
    most = threadpool.check(threads)
    with jit.warming() as ready:
        for dtype in wanted:
            LSTM(1, 1, dtype=dtype, threads=most).compile(training=for_training)
            # Kernels know sizes at run time only, so the smallest model needs all the others. But a
            # row has to be long for its projection to be worth while, from the second token on.
            layers = Embedding(1, 100, dtype=dtype), LSTM(100, 1, dtype=dtype)
            model = Sequential(*layers, Linear(1, 1, dtype=dtype), threads=1)
            for steps in (1, 2):
                tokens = np.zeros((steps, 1), np.int64)
                model(tokens)
                if for_training:
                    _train(model, tokens)
        if most != 1:
            jit.compile_region(all_shares, linear_product, lstm_vocabulary, pack_matrix)
            if for_training:
                jit.compile_region(all_shares, linear_gradients, lstm_vocabulary_back)
                jit.compile_region(all_shares, *_PASSES)
    return ready


def _train(model: Sequential, tokens: Any) -> None:
    """Go through every kernel of training."""
    y, _ = model.forward(tokens)
    mse(y, y)
    _, dy = softmax_cross_entropy(y, tokens)
    dy.fill(1)  # one class has no gradient, and clipping wants a norm that is too large
    model.backward(dy)
    clip_by_global_norm(model.gradients, 1e-3)
    for optimizer in (SGD, Adam, RMSprop):
        optimizer(model.parameters).step(model.gradients)
