"""The main job's training step, side by side with PyTorch as its users write it."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..language_model import Settings, python_reference
from ..language_model.corpus import Streams
from ..validation import FloatArray, integer
from .comparison import MismatchError, check_threads
from .engines import OWN
from .process import EngineProcess, Field, missing_packages

# Of the losses of the first window, before any update, as a share. Later ones drift apart: PyTorch
# updates two biases of which only the sum matters.
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class TrainingTask:
    """What both are to train.

    Attributes
    ----------
    settings : Settings
    threads : int
    vocabulary : str
    inputs, targets : ndarray of int64
        (windows, T, B) tokens.
    weights : mapping of str to ndarray
        Under the names of PyTorch's modules.
    """

    settings: Settings
    threads: int
    vocabulary: str
    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    weights: Mapping[str, FloatArray]


class Learner(ABC):
    """Trains on one window after another, its state carried along; lives in its own process.

    Parameters
    ----------
    task : TrainingTask

    Attributes
    ----------
    packages : tuple of str
        What must be installed.
    """

    packages: ClassVar[tuple[str, ...]] = ()

    def __init__(self, task: TrainingTask) -> None:
        self.task = task
        self._window = 0

    @staticmethod
    def environment(threads: int) -> dict[str, str]:
        """Further variables that must be set before the engine is imported."""
        return {}

    @property
    @abstractmethod
    def version(self) -> str:
        """Version of what runs."""

    @abstractmethod
    def learn(self, window: int) -> float:
        """Do one training step; window 0 begins with states of zero. Returns the loss in nats."""

    def steps(self, count: int) -> tuple[list[float], list[float]]:
        """Train on the next windows; return the seconds and the loss of each."""
        seconds, losses = [], []
        for _ in range(count):
            window = self._window % len(self.task.inputs)
            started = time.perf_counter()
            losses.append(self.learn(window))
            seconds.append(time.perf_counter() - started)
            self._window += 1
        return seconds, losses


class OwnLearner(Learner):
    """`CharLanguageModel` and `Trainer`, as ``numba-lstm train`` runs them."""

    def __init__(self, task: TrainingTask) -> None:
        super().__init__(task)
        self._model = task.settings.model(task.vocabulary, task.threads)
        self._trainer = task.settings.trainer(self._model)
        self._state: Any = None

    @property
    def version(self) -> str:
        """Version of this package."""
        return __version__

    def learn(self, window: int) -> float:
        """Do one training step."""
        loss, self._state = self._trainer.step(
            self.task.inputs[window], self.task.targets[window], self._state if window else None
        )
        return loss


class TorchLearner(Learner):
    """Modules, autograd and optimiser of PyTorch."""

    packages: ClassVar[tuple[str, ...]] = ("torch",)

    def __init__(self, task: TrainingTask) -> None:
        import torch
        from torch import nn

        super().__init__(task)
        self._torch = torch
        torch.set_num_threads(task.threads)
        settings, size = task.settings, len(task.vocabulary)
        self._model = nn.ModuleDict(
            {
                "embedding": nn.Embedding(size, settings.embedding),
                "lstm": nn.LSTM(
                    settings.embedding, settings.hidden, settings.layers, dropout=settings.dropout
                ),
                "linear": nn.Linear(settings.hidden, size),
            }
        )
        weights = {name: torch.from_numpy(array) for name, array in task.weights.items()}
        self._model.load_state_dict(weights)
        self._loss = nn.CrossEntropyLoss()
        self._optimizer = torch.optim.Adam(self._model.parameters(), lr=settings.learning_rate)
        self._state: Any = None

    @property
    def version(self) -> str:
        """Version of PyTorch."""
        return str(self._torch.__version__)

    def learn(self, window: int) -> float:
        """Do one training step."""
        torch, model = self._torch, self._model
        inputs = torch.from_numpy(self.task.inputs[window])
        targets = torch.from_numpy(self.task.targets[window])
        state = tuple(part.detach() for part in self._state) if window else None
        self._optimizer.zero_grad()
        y, self._state = model["lstm"](model["embedding"](inputs), state)
        logits = model["linear"](y)
        loss = self._loss(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), self.task.settings.clip)
        self._optimizer.step()
        return float(loss)


LEARNERS: dict[str, type[Learner]] = {"torch": TorchLearner}


@dataclass(frozen=True)
class Training:
    """What one of them showed.

    Attributes
    ----------
    version : str
    seconds : float
        Of a training step, the median.
    losses : tuple of float
        Of every window, in bits per character.
    """

    version: str
    seconds: float
    losses: tuple[float, ...]

    @property
    def loss(self) -> float:
        """Mean over the last quarter of the windows, in bits per character."""
        last = self.losses[-max(1, len(self.losses) // 4) :]
        return sum(last) / len(last)


@dataclass(frozen=True)
class TrainingComparison:
    """The same training on the same text, by numba-lstm and by others.

    Attributes
    ----------
    settings : Settings
    threads : int
    trainings : mapping of str to Training
        numba-lstm first.
    skipped : mapping of str to str
        Why an engine was left out.
    """

    settings: Settings
    threads: int
    trainings: Mapping[str, Training]
    skipped: Mapping[str, str]

    def speed(self, engine: str) -> float:
        """Characters per second."""
        return self.settings.steps * self.settings.batch / self.trainings[engine].seconds

    @property
    def ratio(self) -> float | None:
        """How many times as fast as the fastest of the others numba-lstm is."""
        peers = [self.speed(engine) for engine in self.trainings if engine != OWN]
        return self.speed(OWN) / max(peers) if peers else None


def compare_training(
    settings: Settings | None = None,
    *,
    threads: int = 1,
    against: Mapping[str, type[Learner]] = LEARNERS,
    rounds: int = 5,
    steps: int = 20,
) -> TrainingComparison:
    """Train the main job's language model with numba-lstm and with others.

    All begin with the same weights and read the same windows of the Python language reference, at
    a constant learning rate. They take turns: while one trains, the others are blocked.

    Parameters
    ----------
    settings : Settings, optional
        Those of ``numba-lstm train`` by default; `epochs` is not used.
    threads : int
    against : mapping of str to type
        The others by name. Those that are not installed are skipped.
    rounds : int
        How often the turn goes round.
    steps : int
        Training steps of a round, at least 2: the first one ever is not timed.

    Returns
    -------
    TrainingComparison

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; nothing is run then.
    MismatchError
        If the loss of the first window is not that of numba-lstm.
    EngineError
        If numba-lstm itself fails.
    """
    settings = Settings() if settings is None else settings
    threads = check_threads(threads)
    rounds = integer("rounds", rounds, least=1)
    steps = integer("steps", steps, least=2)
    missing = {name: missing_packages(learner.packages) for name, learner in against.items()}
    present = {name: learner for name, learner in against.items() if not missing[name]}
    skipped = {
        name: f"{' and '.join(packages)} not installed"
        for name, packages in missing.items()
        if packages
    }
    task = _task(settings, threads, rounds * steps)
    with ExitStack() as stack:
        processes = {
            name: stack.enter_context(closing(EngineProcess(learner, threads)))
            for name, learner in {OWN: OwnLearner, **present}.items()
        }
        field = Field(processes)
        versions = field.ask_all("build", task)
        seconds: dict[str, list[float]] = {name: [] for name in field.engines}
        losses: dict[str, list[float]] = {name: [] for name in field.engines}
        for number_of_round in range(rounds):
            for name in field.in_turn(number_of_round):
                taken, lost = field.ask(name, "steps", steps) or ((), ())
                seconds[name] += taken
                losses[name] += [loss / math.log(2) for loss in lost]
    for name in field.engines:
        if not math.isclose(losses[name][0], losses[OWN][0], rel_tol=_TOLERANCE):
            raise MismatchError(
                f"{name} must begin with the loss of numba-lstm, {losses[OWN][0]:.6f} bits per "
                f"character; got {losses[name][0]:.6f}"
            )
    trainings = {
        name: Training(versions[name], float(np.median(seconds[name][1:])), tuple(losses[name]))
        for name in field.engines
    }
    return TrainingComparison(settings, threads, trainings, {**skipped, **field.failed})


def _task(settings: Settings, threads: int, count: int) -> TrainingTask:
    """Cut windows out of the text; draw the weights."""
    corpus = python_reference()
    streams = Streams(corpus.vocabulary.encode(corpus.training), settings.batch, settings.steps)
    windows = [streams.window(index) for index in range(min(count, streams.windows))]
    inputs, targets = (np.stack(part) for part in zip(*windows, strict=True))
    model = settings.model(corpus.vocabulary.characters, threads)
    weights = {
        **{f"embedding.{name}": array for name, array in model.embedding.parameters.items()},
        **{f"lstm.{name}": array for name, array in model.lstm.state_dict().items()},
        **{f"linear.{name}": array for name, array in model.linear.parameters.items()},
    }
    weights = {name: np.array(array) for name, array in weights.items()}
    return TrainingTask(settings, threads, model.vocabulary.characters, inputs, targets, weights)
