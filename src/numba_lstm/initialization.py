"""Initial weights, drawn as PyTorch draws them, and what a seed may be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .parameters import Parameters

# Draws are float64: all of a large matrix would take several times its room.
_DRAWN_AT_ONCE = 1 << 16

Seed = int | np.random.Generator | np.random.SeedSequence | None


def generator(seed: Any) -> np.random.Generator:
    """Return a random generator.

    Parameters
    ----------
    seed : int, Generator, SeedSequence or None
        None draws a fresh one from the system.

    Returns
    -------
    Generator

    Raises
    ------
    TypeError
        If `seed` is something else.
    ValueError
        If it is negative.
    """
    known = (int, np.integer, np.random.Generator, np.random.SeedSequence)
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, known)):
        expected = "an integer, a SeedSequence, a Generator or None"
        raise TypeError(f"seed must be {expected}; got {seed!r}")
    if isinstance(seed, (int, np.integer)) and seed < 0:
        raise ValueError(f"seed must be at least 0; got {seed}")
    return np.random.default_rng(seed)


def fill_uniform(
    parameters: Parameters, random: np.random.Generator, bound: float, *, draws_of_bias: int
) -> None:
    """Draw every parameter from a uniform distribution.

    Parameters
    ----------
    parameters : Parameters
        Assigned.
    random : Generator
    bound : float
        Draws lie between -bound and bound.
    draws_of_bias : int
        Draws that are added up for a bias: PyTorch's LSTM has two biases, whose sum is ours.
    """
    with parameters.edit() as flat:
        for name, shape in parameters.shapes.items():
            place = parameters.place(name)
            target = flat[place : place + math.prod(shape)]
            if name.startswith("bias"):
                target[:] = random.uniform(-bound, bound, (draws_of_bias, *shape)).sum(axis=0)
            else:
                for first in range(0, target.size, _DRAWN_AT_ONCE):
                    block = target[first : first + _DRAWN_AT_ONCE]
                    block[:] = random.uniform(-bound, bound, block.size)
