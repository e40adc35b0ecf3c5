"""How fast a shape could run at most on a machine with given limits.

After the roofline model (Williams, Waterman & Patterson 2009): products take as long as their
multiply-adds, or as long as their weights take to be read, whichever is longer.
"""

from __future__ import annotations

import math

import numpy as np

from .limits import Limits
from .shapes import Shape

# The activations of a unit cost about as much as so many more inputs.
_ACTIVATION_INPUTS = 32


def highest_rate(shape: Shape, mode: str, limits: Limits) -> float:
    """Floating-point operations per second, as `Shape.operations` counts them, that are in reach.

    Parameters
    ----------
    shape : Shape
    mode : str
        "inference", "stream" or "training".
    limits : Limits
        Of the threads and the dtype in question.

    Returns
    -------
    float
    """
    config, itemsize = shape.config, np.dtype(limits.dtype).itemsize
    H, weight_bytes = config.hidden_size, _bytes_of_weights(shape, itemsize)
    recurrent_rate = limits.bandwidths[level_of_recurrence(shape, mode, limits)]
    training = mode == "training"
    cost = shape.operations(training=training) / shape.operations(training=False)
    # Forward and back each read every weight: the recurrent ones in every step, the others as often
    # only where the steps arrive one by one.
    passes = 2 if training else 1
    input_reads = shape.T if mode == "stream" else passes
    # A sequence begins with zeros, and its first step has no recurrent product; a stream goes on.
    left_out = 0 if mode == "stream" else 1
    per_product = 8 * shape.B * H * config.directions / limits.operations
    per_input = per_product * shape.T * cost
    seconds = 0.0
    for layer in range(config.num_layers):
        input_bytes = 4 * H * config.inputs(layer) * itemsize * config.directions
        hidden_bytes = 4 * H * H * itemsize
        seconds += max(
            per_input * config.inputs(layer),
            input_reads * input_bytes / limits.bandwidth(weight_bytes),
        )
        seconds += max(
            per_product * (shape.T * cost - left_out) * H,
            (passes * shape.T - left_out) * config.directions * hidden_bytes / recurrent_rate,
        )
        seconds += per_input * _ACTIVATION_INPUTS
    return shape.operations(training=training) / seconds


def level_of_recurrence(shape: Shape, mode: str, limits: Limits) -> str:
    """Level from which the recurrent weights come, which every step reads.

    A cell's recurrence goes over its own weights; a stream over those of all layers in turn.

    Parameters
    ----------
    shape : Shape
    mode : str
        "inference", "stream" or "training".
    limits : Limits

    Returns
    -------
    str
    """
    itemsize = np.dtype(limits.dtype).itemsize
    if mode == "stream":
        return limits.level(_bytes_of_weights(shape, itemsize))
    return limits.level(4 * shape.config.hidden_size**2 * itemsize)


def _bytes_of_weights(shape: Shape, itemsize: int) -> int:
    return itemsize * sum(map(math.prod, shape.config.shapes().values()))
