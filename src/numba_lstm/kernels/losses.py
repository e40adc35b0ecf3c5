"""Losses and their gradients, in one call for all predictions.

Each row is a run of numbers with one weight, and has a loss of its own, in float64; workers share
out the rows. Within a row the arithmetic is that of the arrays' dtype. A row of weight 0 is never
read. The gradients may be written over the predictions.
"""

from __future__ import annotations

import math

from ..jit import inlined, kernel
from ..simd.mode import enter_default_mode, restore_mode
from ..simd.pointer import address
from ..simd.vector import (
    broadcast,
    fma,
    lane_maximum,
    lane_sum,
    load,
    where_less,
    width,
)
from .activations import exp_nonpositive
from .lanes import load_up_to, store_up_to
from .workers import first_of_share

# Squares are added in the dtype over so many numbers, then in float64.
RUN = 1024


@inlined
def _maximum(row, count):
    """Largest of `count` numbers; any number, or NaN, where one of them is NaN."""
    lanes = width(row)
    whole = count // lanes * lanes
    largest = broadcast(row, row[0])
    for j in range(0, whole, lanes):
        vector = load(row + j)
        largest = where_less(largest, vector, vector, largest)
    highest = lane_maximum(largest)
    for j in range(whole, count):
        highest = max(highest, row[j])
    return highest


@inlined
def _fill(row, count, number):
    """Assign one number to a row."""
    vector = broadcast(row, number)
    for j in range(0, count, width(row)):
        store_up_to(vector, row + j, count - j)


@kernel
def softmax_cross_entropy(y, targets, weights, classes, losses, dy, worker, workers):
    """``-log softmax(y)[target]`` of every row, times its weight, and the gradient of their sum.

    The gradient of one row's loss is ``softmax(y) - onehot(target)`` (Bridle 1990). Numbers are
    shifted by the largest of their row, so that no exponential overflows.

    Parameters
    ----------
    y : array
        (rows, classes) flat, read.
    targets : array of int64
        (rows,), each in [0, classes), read.
    weights : array of float64
        (rows,), read.
    classes : int
    losses : array of float64
        (rows,), assigned.
    dy : array
        (rows, classes) flat, assigned; may be y.
    worker, workers : int
        Which share of the rows, of how many.
    """
    mode = enter_default_mode()
    first_row = first_of_share(targets.size, worker, workers)
    for index in range(first_row, first_of_share(targets.size, worker + 1, workers)):
        row = address(y, index * classes)
        slope = address(dy, index * classes)
        lanes = width(row)
        weight = weights[index]
        losses[index] = 0.0
        if weight == 0.0:
            _fill(slope, classes, 0.0)
            continue
        target = targets[index]
        highest, logit = _maximum(row, classes), row[target]
        shift = broadcast(row, highest)
        added = 0.0
        for j in range(0, classes, lanes):
            left = classes - j
            store_up_to(exp_nonpositive(load_up_to(row + j, left) - shift), slope + j, left)
            added += lane_sum(load_up_to(slope + j, left))
        losses[index] = weight * (math.log(added) + (float(highest) - float(logit)))
        # Before it is rounded: a target that takes all of the probability has a gradient of 0.
        slope_of_target = (float(slope[target]) - added) * (weight / added)
        scale = broadcast(row, weight / added)
        for j in range(0, classes, lanes):
            left = classes - j
            store_up_to(load_up_to(slope + j, left) * scale, slope + j, left)
        slope[target] = slope_of_target
    restore_mode(mode)


@kernel
def squared_error(y, target, weights, count, losses, dy, worker, workers):
    """Sum of ``(y - target)**2`` over every row, times its weight, and the gradient of all of them.

    Parameters
    ----------
    y, target : array
        (rows, count) flat, the last row perhaps shorter; read.
    weights : array of float64
        (rows,), read.
    count : int
        At least 1.
    losses : array of float64
        (rows,), assigned.
    dy : array
        (rows, count) flat, assigned; may be y.
    worker, workers : int
        Which share of the rows, of how many.
    """
    mode = enter_default_mode()
    first_row = first_of_share(weights.size, worker, workers)
    for index in range(first_row, first_of_share(weights.size, worker + 1, workers)):
        row = address(y, index * count)
        wanted = address(target, index * count)
        slope = address(dy, index * count)
        held = min(count, y.size - index * count)
        lanes = width(row)
        weight = weights[index]
        losses[index] = 0.0
        if weight == 0.0:
            _fill(slope, held, 0.0)
            continue
        scale = broadcast(row, 2.0 * weight)
        added = 0.0
        for first in range(0, held, RUN):
            squares = broadcast(row, 0.0)
            for j in range(first, min(held, first + RUN), lanes):
                left = held - j
                difference = load_up_to(row + j, left) - load_up_to(wanted + j, left)
                squares = fma(difference, difference, squares)
                store_up_to(difference * scale, slope + j, left)
            added += lane_sum(squares)
        losses[index] = weight * added
    restore_mode(mode)
