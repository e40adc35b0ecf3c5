"""What optimisers do to the flat parameters, each in one pass.

Coefficients come in the dtype of the arrays: a float64 would turn every product into float64.
"""

from __future__ import annotations

import math

from ..jit import kernel
from ..simd.mode import enter_default_mode, restore_mode
from ..simd.pointer import address
from ..simd.vector import broadcast, fma, lane_sum, load, width

# A norm's squares are added in the dtype over so many numbers, then in float64.
_RUN = 1024


@kernel
def sgd_update(parameters, gradients, velocity, lr, momentum, weight_decay, nesterov):
    """Stochastic gradient descent with momentum (Sutskever et al. 2013, as PyTorch writes it).

    Parameters
    ----------
    parameters : array
        Flat, updated.
    gradients : array
        Flat, read.
    velocity : array
        Flat, updated.
    lr, momentum, weight_decay : float
        In the dtype of the arrays.
    nesterov : bool
    """
    mode = enter_default_mode()
    for k in range(parameters.size):
        slope = gradients[k] + weight_decay * parameters[k]
        velocity[k] = momentum * velocity[k] + slope
        slope = slope + momentum * velocity[k] if nesterov else velocity[k]
        parameters[k] = parameters[k] - lr * slope
    restore_mode(mode)


@kernel
def adam_update(
    parameters,
    gradients,
    mean,
    square,
    decay,
    weight_decay,
    beta1,
    rest1,
    beta2,
    rest2,
    step,
    root,
    eps,
):
    """Adam (Kingma & Ba 2015, algorithm 1), with the weight decay of AdamW or the older one.

    Parameters
    ----------
    parameters : array
        Flat, updated.
    gradients : array
        Flat, read.
    mean, square : array
        Flat; running means of the gradient and its square, updated.
    decay : float
        Factor on the parameters before the step, ``1 - lr * weight_decay`` for AdamW (Loshchilov &
        Hutter 2019), else 1. This and the following in the dtype of the arrays.
    weight_decay : float
        Multiple of the parameters that joins the gradient; 0 for AdamW.
    beta1, rest1, beta2, rest2 : float
        Decay of the running means, and 1 minus it.
    step : float
        ``lr / (1 - beta1**t)``.
    root : float
        ``sqrt(1 - beta2**t)``.
    eps : float
    """
    mode = enter_default_mode()
    for k in range(parameters.size):
        parameter = parameters[k] * decay
        slope = gradients[k] + weight_decay * parameter
        mean[k] = beta1 * mean[k] + rest1 * slope
        square[k] = beta2 * square[k] + rest2 * (slope * slope)
        parameters[k] = parameter - step * (mean[k] / (math.sqrt(square[k]) / root + eps))
    restore_mode(mode)


@kernel
def rmsprop_update(
    parameters, gradients, square, velocity, lr, alpha, rest, eps, momentum, weight_decay
):
    """RMSprop (Hinton 2012, lecture 6e, as PyTorch writes it).

    Parameters
    ----------
    parameters : array
        Flat, updated.
    gradients : array
        Flat, read.
    square, velocity : array
        Flat; running mean of the squared gradient, and the velocity; updated.
    lr, alpha, rest, eps, momentum, weight_decay : float
        In the dtype of the arrays; rest is 1 - alpha.
    """
    mode = enter_default_mode()
    for k in range(parameters.size):
        slope = gradients[k] + weight_decay * parameters[k]
        square[k] = alpha * square[k] + rest * (slope * slope)
        velocity[k] = momentum * velocity[k] + slope / (math.sqrt(square[k]) + eps)
        parameters[k] = parameters[k] - lr * velocity[k]
    restore_mode(mode)


@kernel
def square_sum(values):
    """Sum of the squares of an array.

    Parameters
    ----------
    values : array
        Flat, read.

    Returns
    -------
    float
        In float64. It overflows or is NaN where a number is not finite or its square overflows.
    """
    mode = enter_default_mode()
    start = address(values, 0)
    lanes = width(start)
    whole = values.size // lanes * lanes
    total = 0.0
    for first in range(0, whole, _RUN):
        run = broadcast(start, 0.0)
        for k in range(first, min(whole, first + _RUN), lanes):
            vector = load(start + k)
            run = fma(vector, vector, run)
        total += lane_sum(run)
    for k in range(whole, values.size):
        total += float(values[k]) * float(values[k])
    restore_mode(mode)
    return total


@kernel
def scale(values, factor):
    """Multiply an array by a number.

    Parameters
    ----------
    values : array
        Flat, updated.
    factor : float
        In the dtype of the array.
    """
    mode = enter_default_mode()
    for k in range(values.size):
        values[k] = values[k] * factor
    restore_mode(mode)
