"""Models and inputs that several benchmarks share."""

import numpy as np

import numba_lstm as nl

# T, B, I, H, layers, bidirectional
INFERENCE = {
    "vad-minute": (1875, 1, 128, 128, 1, False),
    "music-separation": (255, 1, 512, 256, 3, True),
    "diarisation": (293, 32, 60, 128, 2, True),
    "basecall-fast": (500, 32, 96, 96, 1, False),
    "basecall-hac": (400, 32, 384, 384, 1, False),
}
TRAINING = {
    "hydrology": (365, 256, 32, 64, 1, False),
    "char-rnn": (50, 50, 65, 128, 2, False),
    "ptb-small": (20, 20, 200, 200, 2, False),
}


def model_and_input(shape, threads):
    """LSTM and random input of a shape (T, B, I, H, layers, bidirectional)."""
    T, B, I, H, layers, bidirectional = shape
    lstm = nl.LSTM(I, H, layers, bidirectional=bidirectional, threads=threads, seed=0)
    return lstm, np.random.default_rng(0).standard_normal((T, B, I), np.float32)
