"""Forward and backward, to the input and all parameters."""

import numpy as np

from .shapes import TRAINING, model_and_input


class Training:
    """One step without loss and optimiser."""

    params = (list(TRAINING), [1, 2])
    param_names = ("shape", "threads")

    def setup(self, shape, threads):
        self.lstm, self.x = model_and_input(TRAINING[shape], threads)
        y, _ = self.lstm(self.x)
        self.dy = np.random.default_rng(1).standard_normal(y.shape, np.float32)
        self.time_forward_and_backward(shape, threads)

    # Gradients are set to zero beforehand, as every revision can.
    def time_forward_and_backward(self, shape, threads):
        self.lstm.forward(self.x)
        self.lstm.gradients.zero()
        self.lstm.backward(self.dy)

    def track_workspace(self, shape, threads):
        T, B, *_ = TRAINING[shape]
        return self.lstm.workspace_nbytes(T, B, training=True)

    track_workspace.unit = "bytes"
