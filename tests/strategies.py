"""What tests draw: sizes, models, inputs."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

import numba_lstm as nl

# Sizes around the vectors of all widths, beside small and odd ones.
FEATURES = (1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 70)
ROWS = (1, 2, 3, 5, 6, 7, 11, 13, 20)
STEPS = (1, 2, 3, 5, 9)


@dataclass(frozen=True)
class Case:
    """Sizes and options of a model and its input."""

    T: int
    B: int
    I: int
    H: int
    layers: int = 1
    bidirectional: bool = False
    bias: bool = True
    batch_first: bool = False
    dtype: str = "float64"
    seed: int = 0

    @property
    def directions(self):
        return 2 if self.bidirectional else 1

    @property
    def state_shape(self):
        return (self.layers * self.directions, self.B, self.H)

    def model(self, **options):
        """LSTM with random weights, none of them zero."""
        lstm = nl.LSTM(
            self.I,
            self.H,
            self.layers,
            bidirectional=self.bidirectional,
            bias=self.bias,
            batch_first=self.batch_first,
            dtype=self.dtype,
            seed=self.seed,
            **options,
        )
        return lstm

    def arrays(self):
        """Random x, h0, c0, dy, dh, dc; sequences laid out as the model wants them."""
        random = np.random.default_rng(self.seed)

        def sequence(features):
            axes = (self.B, self.T) if self.batch_first else (self.T, self.B)
            return random.standard_normal((*axes, features)).astype(self.dtype)

        def state():
            return random.standard_normal(self.state_shape).astype(self.dtype)

        x, dy = sequence(self.I), sequence(self.directions * self.H)
        return x, state(), state(), dy, state(), state()

    def time_major(self, array):
        """The same sequence as (T, B, ·)."""
        return array.swapaxes(0, 1) if self.batch_first else array


@st.composite
def cases(draw, dtypes=("float32", "float64"), max_layers=3):
    """Models and inputs of any shape."""
    return Case(
        T=draw(st.sampled_from(STEPS)),
        B=draw(st.sampled_from(ROWS)),
        I=draw(st.sampled_from(FEATURES)),
        H=draw(st.sampled_from(FEATURES)),
        layers=draw(st.integers(1, max_layers)),
        bidirectional=draw(st.booleans()),
        bias=draw(st.booleans()),
        batch_first=draw(st.booleans()),
        dtype=draw(st.sampled_from(dtypes)),
        seed=draw(st.integers(0, 2**20)),
    )
