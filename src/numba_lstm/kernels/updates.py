"""What optimisers do to the flat parameters, each in one pass that workers share out.

Coefficients come in the dtype of the arrays: a float64 would turn every product into float64.
"""

from __future__ import annotations

import math

from ..jit import inlined, kernel
from ..simd.mode import enter_default_mode, restore_mode
from ..simd.pointer import address
from ..simd.vector import broadcast, fma, lane_sum, load, width
from .workers import first_of_share

# A norm's squares are added in the dtype over so many numbers, then in float64 over so many runs.
_RUN = 1024
_RUNS = 16
# Numbers that one worker goes through, whole cache lines of them.
_STRIPE = _RUN * _RUNS


def stripes_of(size):
    """Stripes that an array of so many numbers is cut into, the last one shorter."""
    return (size + _STRIPE - 1) // _STRIPE


_stripes_of_compiled = inlined(stripes_of)


@inlined
def _own(array, worker, workers):
    """A worker's share of an array: whole stripes of it."""
    stripes = _stripes_of_compiled(array.size)
    first = first_of_share(stripes, worker, workers)
    return array[first * _STRIPE : first_of_share(stripes, worker + 1, workers) * _STRIPE]


@kernel
def sgd_update(
    parameters,
    gradients,
    velocity,
    scale,
    lr,
    momentum,
    weight_decay,
    nesterov,
    worker,
    workers,
):
    """Stochastic gradient descent with momentum (Sutskever et al. 2013, as PyTorch writes it).

    Parameters
    ----------
    parameters : array
        Flat, updated.
    gradients : array
        Flat, read.
    velocity : array
        Flat, updated.
    scale : float
        Factor on the gradients. This and the following in the dtype of the arrays.
    lr, momentum, weight_decay : float
    nesterov : float
        1 for Nesterov's momentum, else 0.
    worker, workers : int
        Which share of the parameters, of how many.
    """
    mode = enter_default_mode()
    parameters = _own(parameters, worker, workers)
    gradients = _own(gradients, worker, workers)
    velocity = _own(velocity, worker, workers)
    for k in range(parameters.size):
        slope = gradients[k] * scale + weight_decay * parameters[k]
        velocity[k] = momentum * velocity[k] + slope
        slope = slope + momentum * velocity[k] if nesterov == 1 else velocity[k]
        parameters[k] = parameters[k] - lr * slope
    restore_mode(mode)


@kernel
def adam_update(
    parameters,
    gradients,
    mean,
    square,
    scale,
    decay,
    weight_decay,
    beta1,
    rest1,
    beta2,
    rest2,
    step,
    root,
    eps,
    worker,
    workers,
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
    scale : float
        Factor on the gradients. This and the following in the dtype of the arrays.
    decay : float
        Factor on the parameters before the step, ``1 - lr * weight_decay`` for AdamW (Loshchilov &
        Hutter 2019), else 1.
    weight_decay : float
        Multiple of the parameters that joins the gradient; 0 for AdamW.
    beta1, rest1, beta2, rest2 : float
        Decay of the running means, and 1 minus it.
    step : float
        ``lr / (1 - beta1**t)``.
    root : float
        ``sqrt(1 - beta2**t)``.
    eps : float
    worker, workers : int
        Which share of the parameters, of how many.
    """
    mode = enter_default_mode()
    parameters = _own(parameters, worker, workers)
    gradients = _own(gradients, worker, workers)
    mean, square = _own(mean, worker, workers), _own(square, worker, workers)
    for k in range(parameters.size):
        parameter = parameters[k] * decay
        slope = gradients[k] * scale + weight_decay * parameter
        mean[k] = beta1 * mean[k] + rest1 * slope
        square[k] = beta2 * square[k] + rest2 * (slope * slope)
        parameters[k] = parameter - step * (mean[k] / (math.sqrt(square[k]) / root + eps))
    restore_mode(mode)


@kernel
def rmsprop_update(
    parameters,
    gradients,
    square,
    velocity,
    scale,
    lr,
    alpha,
    rest,
    eps,
    momentum,
    weight_decay,
    worker,
    workers,
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
    scale : float
        Factor on the gradients. This and the following in the dtype of the arrays.
    lr, alpha, rest, eps, momentum, weight_decay : float
        rest is 1 - alpha.
    worker, workers : int
        Which share of the parameters, of how many.
    """
    mode = enter_default_mode()
    parameters = _own(parameters, worker, workers)
    gradients = _own(gradients, worker, workers)
    square, velocity = _own(square, worker, workers), _own(velocity, worker, workers)
    for k in range(parameters.size):
        slope = gradients[k] * scale + weight_decay * parameters[k]
        square[k] = alpha * square[k] + rest * (slope * slope)
        velocity[k] = momentum * velocity[k] + slope / (math.sqrt(square[k]) + eps)
        parameters[k] = parameters[k] - lr * velocity[k]
    restore_mode(mode)


@kernel
def square_sums(values, sums, worker, workers):
    """Sums of the squares of an array, stripe by stripe.

    Parameters
    ----------
    values : array
        Flat, read.
    sums : array of float64
        (`stripes_of` the size,), assigned: infinite or NaN where a number is not finite or its
        square overflows.
    worker, workers : int
        Which share of the stripes, of how many.
    """
    mode = enter_default_mode()
    stripes = _stripes_of_compiled(values.size)
    lanes = width(address(values, 0))
    last_stripe = first_of_share(stripes, worker + 1, workers)
    for stripe in range(first_of_share(stripes, worker, workers), last_stripe):
        own = values[stripe * _STRIPE : (stripe + 1) * _STRIPE]
        start = address(own, 0)
        whole = own.size // lanes * lanes
        total = 0.0
        for first in range(0, whole, _RUN):
            run = broadcast(start, 0.0)
            for k in range(first, min(whole, first + _RUN), lanes):
                vector = load(start + k)
                run = fma(vector, vector, run)
            total += lane_sum(run)
        for k in range(whole, own.size):
            total += float(own[k]) * float(own[k])
        sums[stripe] = total
    restore_mode(mode)


@kernel
def scale(values, factor, worker, workers):
    """Multiply an array by a number.

    Parameters
    ----------
    values : array
        Flat, updated.
    factor : float
        In the dtype of the array.
    worker, workers : int
        Which share of the array, of how many.
    """
    mode = enter_default_mode()
    values = _own(values, worker, workers)
    for k in range(values.size):
        values[k] = values[k] * factor
    restore_mode(mode)
