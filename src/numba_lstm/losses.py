"""Losses: a number to be made smaller, and its gradient with respect to the predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .kernels import losses as kernels
from .memory import flat
from .validation import FloatArray, integer_array, real_array, require_shape


def _predictions(y: Any) -> FloatArray:
    """Return y as an array that the kernels take: float64 stays, all else becomes float32."""
    dtype = np.dtype(np.float64 if np.asarray(y).dtype == np.float64 else np.float32)
    return real_array("y", y, dtype)


def _shares(weights: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return non-negative weights divided by their sum; equal ones for None.

    Raises
    ------
    TypeError, ValueError
        If they are of another kind or shape, negative, not finite, or all zero.
    """
    if 0 in shape:
        raise ValueError(f"y must hold at least one prediction; got leading shape {shape}")
    if weights is None:
        count = int(np.prod(shape, dtype=np.int64))
        return np.full(shape, 1.0 / count)
    array = real_array("weights", weights, np.dtype(np.float64))
    require_shape("weights", array, shape)
    total = float(array.sum())
    if not np.isfinite(total) or array.min() < 0 or total == 0:
        raise ValueError(
            "weights must be finite, at least 0, and not all 0; "
            f"got values from {array.min():g} to {array.max():g}"
        )
    return array / total


def softmax_cross_entropy(y: Any, target: Any, *, weights: Any = None) -> tuple[float, FloatArray]:
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

    Returns
    -------
    loss : float
    dy : ndarray
        Gradient with respect to y, of its shape and dtype.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind or shape, a class is out of range, or there is nothing to
        take a mean of.
    """
    predictions = _predictions(y)
    if predictions.ndim == 0 or predictions.shape[-1] == 0:
        raise ValueError(f"y must have shape (..., C) with C >= 1; got {predictions.shape}")
    classes = predictions.shape[-1]
    labels = integer_array("target", target)
    require_shape("target", labels, predictions.shape[:-1], "as y without its last axis")
    shares = _shares(weights, labels.shape)
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"target must lie in [0, {classes}), {classes} = last axis of y; "
            f"got values from {labels.min()} to {labels.max()}"
        )
    dy = np.empty_like(predictions)
    loss = kernels.softmax_cross_entropy(
        flat(predictions), flat(labels), flat(shares), classes, flat(dy)
    )
    return float(loss), dy


def mse(y: Any, target: Any, *, weights: Any = None) -> tuple[float, FloatArray]:
    """Mean squared error over all numbers.

    Parameters
    ----------
    y, target : array
        Of one shape.
    weights : array, optional
        Of the same shape, non-negative: the loss is
        ``sum(weights * (y - target)**2) / sum(weights)``.

    Returns
    -------
    loss : float
    dy : ndarray
        Gradient with respect to y, of its shape and dtype.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind or shape, or there is nothing to take a mean of.
    """
    predictions = _predictions(y)
    wanted = real_array("target", target, predictions.dtype)
    require_shape("target", wanted, predictions.shape, "as y")
    shares = _shares(weights, predictions.shape)
    dy = np.empty_like(predictions)
    loss = kernels.mean_squared_error(flat(predictions), flat(wanted), flat(shares), flat(dy))
    return float(loss), dy
