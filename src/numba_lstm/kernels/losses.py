"""Losses and their gradients, in one pass over the predictions."""

from __future__ import annotations

import math

from ..jit import inlined, kernel
from ..simd.pointer import address
from ..simd.vector import (
    broadcast,
    lane_maximum,
    lane_sum,
    load,
    load_first,
    store,
    store_first,
    width,
)
from .activations import exp_nonpositive


@inlined
def _row_maximum(y, classes):
    """Largest number of a row."""
    lanes = width(y)
    whole = classes // lanes * lanes
    highest = y[0]
    for j in range(0, whole, lanes):
        highest = max(highest, lane_maximum(load(y + j)))
    for j in range(whole, classes):
        highest = max(highest, y[j])
    return highest


@kernel
def softmax_cross_entropy(y, targets, weights, classes, dy):
    """Weighted mean of ``-log softmax(y)[target]`` over the rows, and its gradient.

    The gradient of one row's loss is ``softmax(y) - onehot(target)`` (Bridle 1990).

    Parameters
    ----------
    y : array
        (rows, classes) flat, read.
    targets : array of int64
        (rows,), each in [0, classes), read.
    weights : array of float64
        (rows,), adding up to 1, read.
    classes : int
    dy : array
        (rows, classes) flat, assigned.

    Returns
    -------
    float
    """
    total = 0.0
    for row in range(targets.size):
        source = address(y, row * classes)
        target = address(dy, row * classes)
        lanes = width(source)
        highest = _row_maximum(source, classes)
        shift = broadcast(source, highest)
        added = 0.0
        for j in range(0, classes, lanes):
            left = classes - j
            if left >= lanes:
                power = exp_nonpositive(load(source + j) - shift)
                store(power, target + j)
                added += lane_sum(power)
            else:
                store_first(exp_nonpositive(load_first(source + j, left) - shift), target + j, left)
                added += lane_sum(load_first(target + j, left))
        weight = weights[row]
        label = targets[row]
        if weight != 0.0:
            total += weight * (math.log(added) + (highest - source[label]))
        scale = broadcast(source, weight / added)
        for j in range(0, classes, lanes):
            left = classes - j
            if left >= lanes:
                store(load(target + j) * scale, target + j)
            else:
                store_first(load_first(target + j, left) * scale, target + j, left)
        target[label] = target[label] - weight
    return total


@kernel
def mean_squared_error(y, target, weights, dy):
    """Weighted mean of ``(y - target)**2``, and its gradient.

    Parameters
    ----------
    y, target : array
        Flat, read.
    weights : array of float64
        Adding up to 1, read.
    dy : array
        ``2 * weights * (y - target)``, assigned.

    Returns
    -------
    float
    """
    total = 0.0
    for k in range(y.size):
        difference = float(y[k]) - float(target[k])
        total += weights[k] * difference * difference
        dy[k] = 2.0 * weights[k] * difference
    return total
