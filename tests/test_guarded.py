"""Attributes that kernels rely on stay as they are, and options are checked when they are set."""

import copy

import numpy as np
import pytest

import numba_lstm as nl
from numba_lstm.language_model import CharLanguageModel, Settings


def lstm():
    return nl.LSTM(3, 4, seed=0)


FIXED = [
    (lstm, "config", lambda: nl.LSTM(3, 5).config),
    (lstm, "parameters", lambda: nl.LSTM(3, 4).parameters),
    (lstm, "gradients", lambda: nl.LSTM(3, 4).gradients),
    (lambda: nl.Linear(3, 4), "in_features", lambda: 300),
    (lambda: nl.Linear(3, 4), "out_features", lambda: 300),
    (lambda: nl.Linear(3, 4), "bias", lambda: False),
    (lambda: nl.Embedding(3, 4), "num_embeddings", lambda: 300),
    (lambda: nl.Embedding(3, 4), "embedding_dim", lambda: 300),
    (lambda: nl.Sequential(lstm()), "layers", lambda: (lstm(),)),
    (lambda: nl.Sequential(lstm()), "gradients", lambda: None),
    (lambda: CharLanguageModel("ab"), "vocabulary", lambda: "abc"),
    (lambda: lstm().stream(3), "batch_size", lambda: 2),
    (lambda: nl.Sequential(lstm()).stream(3), "batch_size", lambda: 2),
    (lambda: nl.SGD(lstm().parameters), "parameters", lambda: lstm().parameters),
]


@pytest.mark.parametrize(("build", "name", "other"), FIXED)
def test_what_stays_as_it_is(build, name, other):
    thing = build()
    kind, before = type(thing).__name__, getattr(thing, name)
    with pytest.raises(AttributeError, match=f"{name} of this {kind} stays as it is; build"):
        setattr(thing, name, other())
    assert getattr(thing, name) is before


@pytest.mark.parametrize("threads", [0, -1, "2", 2.0, True])
@pytest.mark.parametrize("build", [lstm, lambda: nl.Linear(3, 4), lambda: nl.Sequential(lstm())])
def test_threads_are_checked_when_they_are_set(build, threads):
    layer = build()
    layer.threads = 1
    with pytest.raises((TypeError, ValueError), match="threads must be"):
        layer.threads = threads
    assert layer.threads == 1


OPTIONS = {
    nl.SGD: {"lr": -1, "momentum": -1, "nesterov": 2, "weight_decay": None, "steps": -1},
    nl.Adam: {"betas": (0.9, 1.0), "eps": -1, "weight_decay": float("nan"), "steps": 1.5},
    nl.AdamW: {"betas": None, "lr": "fast"},
    nl.RMSprop: {"alpha": 1.0, "momentum": -1, "eps": None, "lr": float("inf")},
}


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [(kind, name, value) for kind, options in OPTIONS.items() for name, value in options.items()],
)
def test_options_of_optimisers_are_checked_when_they_are_set(kind, name, value):
    optimizer = kind(lstm().parameters)
    before = getattr(optimizer, name)
    with pytest.raises((TypeError, ValueError), match=f"{name} must be"):
        setattr(optimizer, name, value)
    assert getattr(optimizer, name) == before


def test_nesterov_needs_momentum_also_later():
    model = lstm()
    optimizer = nl.SGD(model.parameters, momentum=0.9, nesterov=True)
    optimizer.momentum = 0
    before = model.parameters.flat.copy()
    with pytest.raises(ValueError, match="momentum must be > 0 with nesterov=True; got 0"):
        optimizer.step(copy.copy(model.parameters))
    np.testing.assert_array_equal(model.parameters.flat, before)
    assert optimizer.steps == 0


def test_settings_are_kept_as_plain_numbers():
    settings = Settings(hidden=np.int64(8), learning_rate=np.float32(0.5), seed=np.uint8(3))
    assert type(settings.hidden) is type(settings.seed) is int
    assert type(settings.learning_rate) is float
