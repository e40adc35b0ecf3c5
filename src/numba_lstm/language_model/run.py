"""A training run in a folder, which goes on where it stopped.

One file, the checkpoint, holds all that determines the rest of the run: weights, moments, carried
state, position, curves. It is written beside the old one and renamed, so whatever kills the process
leaves a checkpoint from which the same bits follow.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..layers import States
from ..losses import softmax_cross_entropy
from ..optimizers import Adam
from ..storage import FormatError, read_tensors, write_tensors
from ..trainer import Trainer
from ..validation import integer, number
from .corpus import Corpus, Streams
from .model import CharLanguageModel

CHECKPOINT = "checkpoint.safetensors"
MODEL = "model.safetensors"
PICTURE = "training.png"
_KIND = "training run"

# Seconds of work that a kill may cost.
_CHECKPOINT_SECONDS = 20.0
_SAMPLE_LENGTH = 200
# Weight of the past in the smoothed loss that is shown while an epoch runs.
_SMOOTHING = 0.98


@dataclass(frozen=True)
class Settings:
    """What determines the course of a training run.

    Attributes
    ----------
    hidden, layers, embedding : int
        Sizes of the model.
    steps, batch : int
        Characters of a window, and parallel streams.
    epochs : int
    learning_rate : float
    dropout : float
        Between the layers of the stack, at least 0 and below 1.
    clip : float
        Largest norm of the gradients.
    seed : int
    """

    hidden: int = 256
    layers: int = 2
    embedding: int = 64
    steps: int = 64
    batch: int = 32
    epochs: int = 8
    learning_rate: float = 2e-3
    dropout: float = 0.0
    clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("hidden", "layers", "embedding", "steps", "batch", "epochs"):
            integer(name, getattr(self, name), least=1)
        number("learning_rate", self.learning_rate, above=0.0)
        number("dropout", self.dropout, least=0.0, below=1.0)
        number("clip", self.clip, above=0.0)
        integer("seed", self.seed, least=0)


@dataclass
class Progress:
    """Where a run stands.

    Attributes
    ----------
    epoch, window : int
        Epochs completed, and windows completed of the next.
    epoch_loss : float
        Sum of the windows' losses of this epoch, in nats per character.
    smoothed : float
        Running mean of the training loss, in nats per character; NaN at the start.
    seconds : float
        Spent in training steps.
    characters : int
        Trained on.
    losses : list of float
        Mean training loss of every window, in bits per character.
    training, held_out : list of float
        Bits per character of every completed epoch.
    """

    epoch: int = 0
    window: int = 0
    epoch_loss: float = 0.0
    smoothed: float = math.nan
    seconds: float = 0.0
    characters: int = 0
    losses: list[float] = field(default_factory=list)
    training: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)

    @property
    def bits(self) -> float:
        """Smoothed training loss in bits per character."""
        return self.smoothed / math.log(2)

    @property
    def speed(self) -> float:
        """Characters per second."""
        return self.characters / self.seconds if self.seconds else 0.0


class Watcher:
    """Is told what happens in a run; the command line shows it."""

    def started(self, run: TrainingRun) -> None:
        """Report that training begins or goes on."""

    def stepped(self, run: TrainingRun) -> None:
        """Report that one more window is done."""

    def evaluating(self, run: TrainingRun) -> None:
        """Report that the held-out text is about to be evaluated."""

    def completed_epoch(self, run: TrainingRun, sample: str) -> None:
        """Report that an epoch is done, with a text that the model now writes."""


class _Interruption:
    """Ctrl-C, put off while something runs that must not be cut in two."""

    def __init__(self) -> None:
        self._wanted = False
        self._deferred = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._wanted = True
        if not self._deferred:
            raise KeyboardInterrupt

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Take over SIGINT, where this thread may."""
        try:
            before = signal.signal(signal.SIGINT, self._handle)
        except ValueError:  # not the main thread: Ctrl-C does not arrive here
            yield
            return
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Finish what is within first."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if self._wanted:
            raise KeyboardInterrupt


class TrainingRun:
    """Training of a `CharLanguageModel` in a folder.

    Use `create` or `resume`, then `train`.

    Parameters
    ----------
    folder : Path
    corpus : Corpus
    settings : Settings
    threads : int, optional
        Upper bound of threads; all by default.

    Attributes
    ----------
    model : CharLanguageModel
    progress : Progress
    streams : Streams
        The training text.

    Raises
    ------
    ValueError
        If the text is too short.
    """

    def __init__(
        self, folder: Path, corpus: Corpus, settings: Settings, threads: int | None
    ) -> None:
        self.folder = folder
        self.corpus = corpus
        self.settings = settings
        vocabulary = corpus.vocabulary
        tokens = vocabulary.encode(corpus.training)
        self.streams = Streams(tokens, settings.batch, settings.steps)
        if len(corpus.held_out) < 2:
            raise ValueError(
                f"the held-out text must have at least 2 characters; got {len(corpus.held_out)}"
            )
        self.model = CharLanguageModel(
            vocabulary.characters,
            hidden_size=settings.hidden,
            num_layers=settings.layers,
            embedding_dim=settings.embedding,
            dropout=settings.dropout,
            threads=threads,
            seed=settings.seed,
        )
        optimizer = Adam(self.model.parameters, lr=settings.learning_rate)
        self._trainer = Trainer(self.model, softmax_cross_entropy, optimizer, clip=settings.clip)
        self.progress = Progress()
        self._state: States | None = None
        self._interruption = _Interruption()
        self._saved_at = time.monotonic()

    @staticmethod
    def exists(folder: Path) -> bool:
        """Tell whether a folder holds a run, or parts of one."""
        return any((folder / name).exists() for name in (CHECKPOINT, MODEL, PICTURE))

    @classmethod
    def create(
        cls,
        folder: Path,
        corpus: Corpus,
        settings: Settings,
        *,
        threads: int | None = None,
        overwrite: bool = False,
    ) -> TrainingRun:
        """Begin a run.

        Parameters
        ----------
        folder : Path
            Made if it is not there.
        corpus : Corpus
        settings : Settings
        threads : int, optional
            Upper bound of threads; all by default.
        overwrite : bool
            Whether a run in the folder may be replaced.

        Returns
        -------
        TrainingRun

        Raises
        ------
        FileExistsError
            If the folder holds a run that may not be replaced.
        OSError
            If the folder cannot be written.
        ValueError
            If the text is too short.
        """
        if cls.exists(folder) and not overwrite:
            raise FileExistsError(
                f"{folder} must hold no run yet; it does: "
                "--resume goes on with it, --overwrite replaces it"
            )
        run = cls(folder, corpus, settings, threads)
        folder.mkdir(parents=True, exist_ok=True)
        run.save_checkpoint()
        for name in (MODEL, PICTURE):
            (folder / name).unlink(missing_ok=True)
        return run

    @classmethod
    def resume(
        cls,
        folder: Path,
        corpus: Corpus | None = None,
        *,
        threads: int | None = None,
        **changes: Any,
    ) -> TrainingRun:
        """Go on with a run from its last checkpoint.

        Parameters
        ----------
        folder : Path
        corpus : Corpus
            The text of the run.
        threads : int, optional
            Upper bound of threads; all by default. The bits do not depend on it.
        **changes
            Settings that the user gave: they must be those of the run, but for `epochs`.

        Returns
        -------
        TrainingRun

        Raises
        ------
        OSError
            If there is no checkpoint, or it cannot be read.
        FormatError
            If the checkpoint is damaged or of another program.
        ValueError
            If the text or a setting is another than the run's.
        """
        path = folder / CHECKPOINT
        tensors, metadata = read_tensors(path)
        if metadata.get("kind") != _KIND:
            raise FormatError(f"{path} must be the checkpoint of a training run; it is a model")
        settings = Settings(**json.loads(metadata["settings"]))
        for name, value in changes.items():
            kept = getattr(settings, name)
            if name != "epochs" and value != kept:
                raise ValueError(f"{name} must be {kept} as in the run in {folder}; got {value}")
        if corpus is None or corpus.digest != metadata["corpus"]:
            raise ValueError(f"the text must be that of the run in {folder}; got another")
        settings = replace(settings, epochs=changes.get("epochs", settings.epochs))
        run = cls(folder, corpus, settings, threads)
        run._load(tensors, json.loads(metadata["progress"]))
        return run

    @staticmethod
    def source(folder: Path) -> str:
        """Name of the text of the run in a folder.

        Raises
        ------
        OSError, FormatError
            If there is no checkpoint or it cannot be read.
        """
        _, metadata = read_tensors(folder / CHECKPOINT)
        return metadata.get("source", "")

    def _load(self, tensors: dict[str, NDArray[Any]], progress: dict[str, Any]) -> None:
        """Take over what a checkpoint holds."""
        lists = {name: tensors.pop(name).tolist() for name in ("losses", "training", "held_out")}
        self.progress = Progress(**progress, **lists)
        if "h" in tensors:
            self._state = ((tensors.pop("h"), tensors.pop("c")),)
        self._trainer.load_state_dict(tensors)

    def save_checkpoint(self) -> None:
        """Write all that determines the rest of the run.

        Raises
        ------
        OSError
            If it cannot be written; the checkpoint before it is still there.
        """
        progress = {item.name: getattr(self.progress, item.name) for item in fields(self.progress)}
        lists = {
            name: np.array(progress.pop(name), np.float64)
            for name in ("losses", "training", "held_out")
        }
        tensors = {**self._trainer.state_dict(), **lists}
        if self._state is not None:
            ((tensors["h"], tensors["c"]),) = self._state
        metadata = {
            "kind": _KIND,
            "settings": json.dumps(asdict(self.settings)),
            "progress": json.dumps(progress),
            "corpus": self.corpus.digest,
            "source": self.corpus.name,
        }
        write_tensors(self.folder / CHECKPOINT, tensors, metadata)
        self._saved_at = time.monotonic()

    def train(self, watcher: Watcher) -> None:
        """Train until all epochs are done.

        Parameters
        ----------
        watcher : Watcher
            Is told what happens.

        Raises
        ------
        KeyboardInterrupt
            At Ctrl-C, after a checkpoint.
        OSError
            If a checkpoint cannot be written; the one before it is still there.
        FloatingPointError
            If the loss or a gradient is not finite.
        """
        with self._interruption.handled():
            try:
                watcher.started(self)
                while self.progress.epoch < self.settings.epochs:
                    while self.progress.window < self.streams.windows:
                        self._step()
                        watcher.stepped(self)
                        if time.monotonic() - self._saved_at > _CHECKPOINT_SECONDS:
                            with self._interruption.deferred():
                                self.save_checkpoint()
                    watcher.evaluating(self)
                    self._complete_epoch(watcher)
            except KeyboardInterrupt:
                self.save_checkpoint()
                raise

    def _step(self) -> None:
        """Train on one window."""
        progress = self.progress
        with self._interruption.deferred():
            started = time.perf_counter()
            inputs, targets = self.streams.window(progress.window)
            loss, self._state = self._trainer.step(inputs, targets, self._state)
            progress.seconds += time.perf_counter() - started
            progress.characters += inputs.size
            progress.window += 1
            progress.epoch_loss += loss
            progress.losses.append(loss / math.log(2))
            past = progress.smoothed
            mixed = _SMOOTHING * past + (1 - _SMOOTHING) * loss
            progress.smoothed = loss if math.isnan(past) else mixed

    def _complete_epoch(self, watcher: Watcher) -> None:
        """Evaluate, write a sample, and save."""
        progress = self.progress
        held_out = self.model.evaluate(self.corpus.held_out)
        sample = self.sample()
        with self._interruption.deferred():
            progress.training.append(progress.epoch_loss / self.streams.windows / math.log(2))
            progress.held_out.append(held_out)
            progress.epoch += 1
            progress.window = 0
            progress.epoch_loss = 0.0
            self._state = None
            self.save_checkpoint()
            self.model.save(self.folder / MODEL)
        watcher.completed_epoch(self, sample)

    def sample(self) -> str:
        """A short text that the model writes now, the same for the same weights."""
        characters = self.model.vocabulary.characters
        prompt = "\n" if "\n" in characters else self.corpus.training[0]
        seed = np.random.SeedSequence((self.settings.seed, self.progress.epoch))
        return self.model.generate(prompt, _SAMPLE_LENGTH, temperature=0.7, seed=seed)

    @property
    def operations_per_window(self) -> int:
        """Floating-point operations of a training step; backward costs twice the forward pass."""
        return 3 * self.model.operations(self.settings.steps, self.settings.batch)
