"""Measured limits of this machine, and other engines side by side with numba-lstm."""

from .comparison import Comparison, Measurement, MismatchError, compare
from .limits import Limits, measure_limits
from .process import EngineError
from .roofline import highest_rate
from .shapes import INFERENCE, NAMED, TRAINING, Shape, parse

__all__ = [
    "INFERENCE",
    "NAMED",
    "TRAINING",
    "Comparison",
    "EngineError",
    "Limits",
    "Measurement",
    "MismatchError",
    "Shape",
    "compare",
    "highest_rate",
    "measure_limits",
    "parse",
]
