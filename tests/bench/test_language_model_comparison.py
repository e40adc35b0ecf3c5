"""The main job's training step, by us and by PyTorch."""

import math
import os

import pytest

from numba_lstm.bench import EngineError, MismatchError, compare_training, language_model
from numba_lstm.bench.engines import OWN
from numba_lstm.language_model import Settings
from numba_lstm.simd import cpu

SMALL = Settings(hidden=12, layers=2, embedding=6, steps=8, batch=4)


class WrongStart(language_model.OwnLearner):
    def __init__(self, task):
        super().__init__(task)
        with self._model.parameters.edit() as flat:
            flat *= 1.1


class OneBias(language_model.TorchLearner):
    """PyTorch updates two biases of which only the sum matters; here it has one, as we have."""

    def __init__(self, task):
        super().__init__(task)
        for name, parameter in self._model.named_parameters():
            parameter.requires_grad_("bias_hh" not in name)


class Crashing(language_model.OwnLearner):
    def learn(self, window):
        os._exit(4)


class Absent(language_model.OwnLearner):
    packages = ("no_such_package",)


def test_engines_that_drop_out_and_one_that_is_the_same():
    engines = {"same": language_model.OwnLearner, "crashing": Crashing, "absent": Absent}
    outcome = compare_training(SMALL, against=engines, rounds=2, steps=4)
    assert outcome.skipped == {
        "crashing": "failed: its process ended with status 4",
        "absent": "no_such_package not installed",
    }
    own, same = outcome.trainings[OWN], outcome.trainings["same"]
    assert list(outcome.trainings) == [OWN, "same"]
    assert len(own.losses) == 8
    assert own.losses == same.losses  # the same weights, windows and carried states
    assert own.loss == sum(own.losses[-2:]) / 2
    assert own.losses[0] == pytest.approx(math.log2(language_model_size()), rel=0.05)
    assert outcome.speed(OWN) == 32 / own.seconds
    assert outcome.ratio == outcome.speed(OWN) / outcome.speed("same")


def language_model_size():
    return len(language_model.python_reference().vocabulary)


def test_pytorch_learns_the_same():
    pytest.importorskip("torch")
    outcome = compare_training(SMALL, against={"torch": OneBias}, rounds=2, steps=10)
    own, torch = outcome.trainings[OWN], outcome.trainings["torch"]
    assert torch.version
    assert torch.losses == pytest.approx(own.losses, rel=1e-5)
    assert own.loss < own.losses[0]


def test_another_start_is_an_error():
    with pytest.raises(MismatchError, match="wrong must begin with the loss of numba-lstm"):
        compare_training(SMALL, against={"wrong": WrongStart}, rounds=1, steps=2)


def test_windows_begin_anew_after_the_last():
    task = language_model._task(SMALL, 1, 3)
    learner = language_model.OwnLearner(task)
    learned = []
    learner.learn = lambda window: learned.append(window) or 0.0
    learner.steps(2)
    learner.steps(3)
    assert learned == [0, 1, 2, 0, 1]


def test_without_numba_lstm_there_is_no_comparison(monkeypatch):
    monkeypatch.setattr(language_model, "OwnLearner", Crashing)
    with pytest.raises(EngineError, match="numba-lstm failed: its process ended with status 4"):
        compare_training(SMALL, against={}, rounds=1, steps=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threads": 0}, "threads must be at least 1; got 0"),
        ({"threads": cpu.cores() + 1}, "threads must be at most"),
        ({"rounds": 0}, "rounds must be at least 1; got 0"),
        ({"steps": 1}, "steps must be at least 2; got 1"),
    ],
)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        compare_training(SMALL, **change)
