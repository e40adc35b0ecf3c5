"""Losses: a number to be made smaller, and its gradient with respect to the predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import threadpool
from .kernels import losses as kernels
from .memory import flat
from .validation import (
    FloatArray,
    integer_array,
    nearest_dtype,
    real_array,
    real_numbers,
    refuse_overlap,
    require_output,
    require_shape,
)

# How the message about a wrong shape explains what was expected.
_ROW_BY_ROW = "as y without its last axis"
# Numbers of one weight that are a row to the kernel.
_NUMBERS_OF_A_ROW = 16 * kernels.RUN


def _predictions(y: Any) -> FloatArray:
    """Return y for the kernels: float64 as it is, shorter floats and integers as float32."""
    array = real_numbers("y", y)
    return real_array("y", array, nearest_dtype(array))


def _require_predictions(y: FloatArray) -> None:
    """Refuse the mean of nothing."""
    if y.size == 0:
        raise ValueError(f"y must hold at least one prediction; got shape {y.shape}")


def _shares(weights: Any, shape: tuple[int, ...], meaning: str) -> NDArray[np.float64]:
    """Return weights divided by their sum.

    Raises
    ------
    TypeError, ValueError
        If they are of another kind or shape, negative, not finite, or all zero.
    """
    array = real_array("weights", weights, np.dtype(np.float64))
    require_shape("weights", array, shape, meaning)
    with np.errstate(over="ignore", invalid="ignore"):  # refused below
        total = float(array.sum())
    if not np.isfinite(total) or array.min() < 0 or total == 0:
        raise ValueError(
            "weights must be finite, at least 0, and not all 0; "
            f"got values from {array.min():g} to {array.max():g}"
        )
    with np.errstate(under="ignore"):
        return array / total


def _gradient(out: Any, predictions: FloatArray, target: NDArray[Any]) -> FloatArray:
    """Allocate dy, or validate the array that the user lends."""
    if out is None:
        return np.empty_like(predictions)
    gradient = require_output("out", out, predictions.shape, predictions.dtype)
    refuse_overlap("out", gradient, {"target": target}, same=("y", predictions))
    return gradient


def _run(kernel: Any, arguments: tuple[Any, ...], rows: int, dy: FloatArray, workers: int) -> float:
    """Share out the rows of a loss; add up what each gives."""
    losses = np.empty(rows)
    threadpool.share_out(kernel, (*arguments, losses, flat(dy)), min(rows, workers))
    return float(np.add.reduce(losses))


def softmax_cross_entropy(
    y: Any, target: Any, *, weights: Any = None, out: Any = None, threads: int | None = None
) -> tuple[float, FloatArray]:
    """Mean negative log-likelihood of classes under the softmax of y, in nats.

    Per prediction ``-log(exp(y[target]) / sum(exp(y)))``, whose gradient is
    ``softmax(y) - onehot(target)`` (Bridle 1990).

    Parameters
    ----------
    y : array
        (..., C) logits.
    target : array of int
        (...) classes in [0, C).
    weights : array, optional
        (...) non-negative weights: the loss is ``sum(weights * losses) / sum(weights)``. A weight
        of 0 leaves a prediction out.
    out : array, optional
        Where to write dy; may be y itself, of which nothing is left then.
    threads : int, optional
        Upper bound of threads for this call; all by default. The bits do not depend on it.

    Returns
    -------
    loss : float
    dy : ndarray
        Gradient with respect to y, of its shape and dtype.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind or shape, a class is out of range, or there is nothing to
        take a mean of; nothing is written then.
    """
    predictions = _predictions(y)
    workers = threadpool.workers_of_pass(threads, predictions.size)
    if predictions.ndim == 0:
        raise ValueError("y must have shape (..., C); got ()")
    _require_predictions(predictions)
    *leading, classes = predictions.shape
    labels = integer_array("target", target)
    require_shape("target", labels, leading, _ROW_BY_ROW)
    shares = (
        np.full(labels.size, 1 / labels.size)
        if weights is None
        else _shares(weights, labels.shape, _ROW_BY_ROW)
    )
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"target must lie in [0, {classes}), {classes} = last axis of y; "
            f"got values from {labels.min()} to {labels.max()}"
        )
    dy = _gradient(out, predictions, labels)
    arguments = (flat(predictions), flat(labels), flat(shares), classes)
    return _run(kernels.softmax_cross_entropy, arguments, labels.size, dy, workers), dy


def mse(
    y: Any, target: Any, *, weights: Any = None, out: Any = None, threads: int | None = None
) -> tuple[float, FloatArray]:
    """Mean of ``(y - target)**2`` over all numbers.

    Parameters
    ----------
    y, target : array
        (..., C), of one shape.
    weights : array, optional
        (..., C), one for each number, or (...), one for each row; non-negative. The loss is
        ``sum(weights * (y - target)**2) / sum(weights)``, a row's weight counting for each of its
        numbers. A weight of 0 leaves a number or a row out.
    out : array, optional
        Where to write dy; may be y itself, of which nothing is left then.
    threads : int, optional
        Upper bound of threads for this call; all by default. The bits do not depend on it.

    Returns
    -------
    loss : float
    dy : ndarray
        Gradient with respect to y, of its shape and dtype.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind or shape, or there is nothing to take a mean of; nothing
        is written then.
    """
    predictions = _predictions(y)
    workers = threadpool.workers_of_pass(threads, predictions.size)
    _require_predictions(predictions)
    wanted = real_array("target", target, predictions.dtype)
    require_shape("target", wanted, predictions.shape, "as y")
    if weights is None:
        count = _NUMBERS_OF_A_ROW
        shares = np.full(-(-predictions.size // count), 1 / predictions.size)
    elif real_numbers("weights", weights).ndim == predictions.ndim or predictions.ndim == 0:
        count, shares = 1, _shares(weights, predictions.shape, "as y")
    else:
        count = predictions.shape[-1]
        shares = _shares(weights, predictions.shape[:-1], _ROW_BY_ROW) / count
    dy = _gradient(out, predictions, wanted)
    arguments = (flat(predictions), flat(wanted), flat(shares), count)
    return _run(kernels.squared_error, arguments, shares.size, dy, workers), dy
