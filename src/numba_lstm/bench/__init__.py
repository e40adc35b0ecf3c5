"""Measured limits of this machine, and what they leave in reach for a shape."""

from .limits import Limits, measure_limits
from .roofline import highest_rate
from .shapes import INFERENCE, NAMED, TRAINING, Shape, parse

__all__ = [
    "INFERENCE",
    "NAMED",
    "TRAINING",
    "Limits",
    "Shape",
    "highest_rate",
    "measure_limits",
    "parse",
]
