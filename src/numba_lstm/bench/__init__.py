"""Measured limits of this machine, and other engines side by side with numba-lstm."""

from .comparison import Comparison, Measurement, MismatchError, compare
from .language_model import TrainingComparison, compare_training
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
    "TrainingComparison",
    "compare",
    "compare_training",
    "highest_rate",
    "measure_limits",
    "parse",
]
