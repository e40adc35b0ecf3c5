"""The fastest LSTM on a CPU, in Python with Numba: NumPy arrays in, NumPy arrays out."""

from .garbage import without_collections as _without_collections

with _without_collections():
    from .embedding import Embedding
    from .linear import Linear
    from .losses import mse, softmax_cross_entropy
    from .lstm import LSTM
    from .optimizers import SGD, Adam, AdamW, Optimizer, RMSprop, clip_by_global_norm
    from .parameters import Parameters
    from .plan import Plan
    from .sequential import Sequential
    from .storage import FormatError, load
    from .stream import SequentialStream, Stream
    from .trainer import Trainer
    from .warmup import warmup

__version__ = "0.1.0"

__all__ = [
    "LSTM",
    "SGD",
    "Adam",
    "AdamW",
    "Embedding",
    "FormatError",
    "Linear",
    "Optimizer",
    "Parameters",
    "Plan",
    "RMSprop",
    "Sequential",
    "SequentialStream",
    "Stream",
    "Trainer",
    "clip_by_global_norm",
    "load",
    "mse",
    "softmax_cross_entropy",
    "warmup",
]
