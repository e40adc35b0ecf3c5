"""Forward and backward, to the input and all parameters."""

import numpy as np

import numba_lstm as nl

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


# Tokens, features, units, layers, steps, rows.
LANGUAGE_MODELS = {
    "characters": (96, 64, 256, 2, 64, 32),
    "words": (10_000, 650, 650, 2, 35, 20),
}


class LanguageModel:
    """One step of a trainer: embedding, LSTM, linear layer, loss, clipping and optimiser."""

    params = (list(LANGUAGE_MODELS), [1, 2])
    param_names = ("model", "threads")

    def setup(self, model, threads):
        tokens, features, units, layers, steps, rows = LANGUAGE_MODELS[model]
        network = nl.Sequential(
            nl.Embedding(tokens, features, seed=0),
            nl.LSTM(features, units, layers, seed=1),
            nl.Linear(units, tokens, seed=2),
            threads=threads,
        )
        optimizer = nl.SGD(network.parameters, lr=1e-3)
        self.trainer = nl.Trainer(network, nl.softmax_cross_entropy, optimizer, clip=1.0)
        # Some tokens are much more frequent than others, as in any text (Zipf 1935).
        frequencies = 1 / np.arange(1, tokens + 1)
        random = np.random.default_rng(0)
        chosen = random.choice(tokens, (2, steps, rows), p=frequencies / frequencies.sum())
        self.inputs, self.targets = chosen
        self.time_step(model, threads)

    def time_step(self, model, threads):
        self.trainer.step(self.inputs, self.targets)
