"""How fast a shape could run at most on a machine with given limits.

After the roofline model (Williams, Waterman & Patterson 2009): products take as long as their
multiply-adds, or as long as their weights take to be read, whichever is longer.
"""

from __future__ import annotations

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
    config, itemsize = shape.config, 4 if limits.dtype == "float32" else 8
    H, weight_bytes = config.hidden_size, 0
    for sizes in config.shapes().values():
        weight_bytes += itemsize * (sizes[0] * sizes[1] if len(sizes) == 2 else sizes[0])
    training = mode == "training"
    cost = shape.operations(training=training) / shape.operations(training=False)
    # Forward and back each read every weight: the recurrent ones in every step, the others as often
    # only where the steps arrive one by one.
    passes = 2 if training else 1
    input_reads = shape.T if mode == "stream" else passes
    seconds = 0.0
    for layer in range(config.num_layers):
        per_input = 8 * shape.T * shape.B * H * config.directions * cost / limits.operations
        input_bytes = 4 * H * config.inputs(layer) * itemsize * config.directions
        hidden_bytes = 4 * H * H * itemsize
        # A cell's recurrence goes over its own weights; a stream over those of all layers in turn.
        resident = weight_bytes if mode == "stream" else hidden_bytes
        seconds += max(
            per_input * config.inputs(layer),
            input_reads * input_bytes / limits.bandwidth(weight_bytes),
        )
        seconds += max(
            per_input * H,
            passes * shape.T * config.directions * hidden_bytes / limits.bandwidth(resident),
        )
        seconds += per_input * _ACTIVATION_INPUTS
    return shape.operations(training=training) / seconds
