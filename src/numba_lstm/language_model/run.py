"""A training run in a folder, which goes on where it stopped.

One file, the checkpoint, holds all that determines the rest of the run: weights, moments, carried
state, position, curves. It is written beside the old one and renamed, so whatever kills the process
leaves a checkpoint from which the same bits follow.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files import discard_parts
from ..sequential import States
from ..storage import FormatError, read_tensors, write_tensors
from ..validation import state_pair
from .corpus import Corpus, Streams, python_reference, text_file
from .interruption import Interruption
from .progress import Progress
from .settings import Settings

CHECKPOINT = "checkpoint.safetensors"
MODEL = "model.safetensors"
PICTURE = "training.png"
_KIND = "training run"
# Lists of `Progress`, kept as tensors.
_CURVES = ("losses", "training", "held_out")

# Seconds of work that a kill may cost.
_CHECKPOINT_SECONDS = 20.0
_SAMPLE_LENGTH = 200
_SAMPLE_TEMPERATURE = 0.7


class Watcher:
    """Is told what happens in a run; the command line shows it."""

    def stepped(self, run: TrainingRun) -> None:
        """Report that one more window is done."""

    def evaluating(self, run: TrainingRun, characters: int) -> None:
        """Report that so many characters of the held-out text are evaluated."""

    def completed_epoch(self, run: TrainingRun, sample: str) -> None:
        """Report that an epoch is done, with a text that the model now writes."""


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
        self.streams = Streams(vocabulary.encode(corpus.training), settings.batch, settings.steps)
        if len(corpus.held_out) < 2:
            raise ValueError(
                f"the held-out text must have at least 2 characters; got {len(corpus.held_out)}"
            )
        self.model = settings.model(vocabulary.characters, threads)
        self._trainer = settings.trainer(self.model)
        self.progress = Progress()
        self._state: States | None = None
        self._interruption = Interruption()
        self._saved_at = time.monotonic()
        self._kernels_are_loaded = False

    @staticmethod
    def exists(folder: Path) -> bool:
        """Tell whether a folder holds a run, or parts of one."""
        return any((folder / name).exists() for name in (CHECKPOINT, MODEL, PICTURE))

    @classmethod
    def create(
        cls,
        folder: str | os.PathLike[str],
        corpus: Corpus,
        settings: Settings,
        *,
        threads: int | None = None,
        overwrite: bool = False,
    ) -> TrainingRun:
        """Begin a run.

        Parameters
        ----------
        folder : path-like
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
        folder = Path(folder)
        if cls.exists(folder) and not overwrite:
            raise FileExistsError(
                f"{folder} must hold no run yet; it holds one, to resume or to overwrite"
            )
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(f"{folder} must be a folder; it is a file")
        run = cls(folder, corpus, settings, threads)
        folder.mkdir(parents=True, exist_ok=True)
        run._discard_parts()
        run.save_checkpoint()
        for name in (MODEL, PICTURE):
            (folder / name).unlink(missing_ok=True)
        return run

    @classmethod
    def resume(
        cls,
        folder: str | os.PathLike[str],
        corpus: Corpus | None = None,
        *,
        threads: int | None = None,
        **changes: Any,
    ) -> TrainingRun:
        """Go on with a run from its last checkpoint.

        Parameters
        ----------
        folder : path-like
        corpus : Corpus, optional
            The text of the run; by default it is read from where the run had it.
        threads : int, optional
            Upper bound of threads; all by default. The bits do not depend on it.
        **changes
            Settings that the user gave: they must be those of the run, but for `epochs`, which
            may be any number from the completed ones on.

        Returns
        -------
        TrainingRun

        Raises
        ------
        OSError
            If there is no checkpoint, or it or the text cannot be read.
        FormatError
            If the checkpoint is damaged or of another program.
        ValueError
            If the text or a setting is another than the run's.
        """
        path = Path(folder) / CHECKPOINT
        if not path.exists():
            raise FileNotFoundError(f"{folder} must hold a run to resume; it has no {CHECKPOINT}")
        tensors, metadata = read_tensors(path)
        if metadata.get("kind") != _KIND:
            raise FormatError(f"{path} must be the checkpoint of a training run; it is a model")
        try:
            settings = Settings(**json.loads(metadata["settings"]))
            lists = {name: tensors.pop(name).tolist() for name in _CURVES}
            progress = Progress(**json.loads(metadata["progress"]), **lists)
            text_path, digest = metadata["text_path"], metadata["text_digest"]
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise FormatError(f"{path} is no whole checkpoint: {error}") from None
        kept, settings = settings, replace(settings, **changes)
        for name in changes.keys() - {"epochs"}:
            if getattr(settings, name) != getattr(kept, name):
                raise ValueError(
                    f"{name} must be {getattr(kept, name)} as in the run in {folder}; "
                    f"got {getattr(settings, name)}"
                )
        if settings.epochs < progress.epoch:
            raise ValueError(
                f"epochs must be at least {progress.epoch}, completed by the run in {folder}; "
                f"got {settings.epochs}"
            )
        if corpus is None:
            corpus = text_file(text_path) if text_path else python_reference()
        if corpus.digest != digest:
            raise ValueError(
                f"the text must be the one that the run in {folder} began with; "
                f"{corpus.name} is another"
            )
        run = cls(Path(folder), corpus, settings, threads)
        try:
            run._load(tensors, progress)
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{path} is no whole checkpoint: {error}") from None
        run._discard_parts()
        return run

    def _discard_parts(self) -> None:
        """Delete what processes that were killed in the middle of a file left behind."""
        for name in (CHECKPOINT, MODEL, PICTURE):
            discard_parts(self.folder / name)

    def _load(self, tensors: dict[str, NDArray[Any]], progress: Progress) -> None:
        """Take over what a checkpoint holds."""
        progress.require_windows(self.streams.windows)
        for name, array in tensors.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ValueError(f"{name} must be finite")
        if "h" in tensors:
            settings = self.settings
            shape = (settings.layers, settings.batch, settings.hidden)
            pair = tensors.pop("h"), tensors.pop("c")
            self._state = (state_pair("state", pair, shape, self.model.parameters.dtype),)
        self._trainer.load_state_dict(tensors)
        self.progress = progress

    def save_checkpoint(self) -> None:
        """Write all that determines the rest of the run.

        Raises
        ------
        OSError
            If it cannot be written; the checkpoint before it is still there.
        """
        numbers = {item.name: getattr(self.progress, item.name) for item in fields(Progress)}
        curves = {name: np.array(numbers.pop(name), np.float64) for name in _CURVES}
        tensors = {**self._trainer.state_dict(), **curves}
        if self._state is not None:
            ((tensors["h"], tensors["c"]),) = self._state
        metadata = {
            "kind": _KIND,
            "settings": json.dumps(asdict(self.settings)),
            "progress": json.dumps(numbers),
            "text_path": self.corpus.path or "",
            "text_digest": self.corpus.digest,
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
                while self.progress.epoch < self.settings.epochs:
                    while self.progress.window < self.streams.windows:
                        self._step()
                        watcher.stepped(self)
                        if time.monotonic() - self._saved_at > _CHECKPOINT_SECONDS:
                            with self._interruption.deferred():
                                self.save_checkpoint()
                    self._complete_epoch(watcher)
            except KeyboardInterrupt:
                with self._interruption.deferred():  # a second one
                    self.save_checkpoint()
                raise

    def _step(self) -> None:
        """Train on one window."""
        progress = self.progress
        with self._interruption.deferred():
            started = time.perf_counter()
            inputs, targets = self.streams.window(progress.window)
            windows = self.streams.windows
            left = (self.settings.epochs - progress.epoch) * windows - progress.window
            self._trainer.optimizer.lr = self.settings.rate(left, windows)
            loss, self._state = self._trainer.step(inputs, targets, self._state)
            if self._kernels_are_loaded:
                progress.seconds += time.perf_counter() - started
                progress.characters += inputs.size
            self._kernels_are_loaded = True
            progress.complete_window(loss)

    def _complete_epoch(self, watcher: Watcher) -> None:
        """Evaluate, write a sample, and save."""
        progress = self.progress
        held_out = self.model.evaluate(
            self.corpus.held_out, progress=lambda done: watcher.evaluating(self, done)
        )
        sample = self.sample()
        with self._interruption.deferred():
            progress.complete_epoch(held_out)
            self._state = None
            # In this order: a kill between them leaves an epoch that is completed once more.
            self.model.save(self.folder / MODEL)
            self.save_checkpoint()
        watcher.completed_epoch(self, sample)

    def sample(self) -> str:
        """A short text that the model writes now, the same for the same weights."""
        seed = np.random.SeedSequence((self.settings.seed, self.progress.epoch))
        return self.model.generate(
            self.model.opening, _SAMPLE_LENGTH, temperature=_SAMPLE_TEMPERATURE, seed=seed
        )

    @property
    def operations_per_window(self) -> int:
        """Floating-point operations of a training step; backward costs twice the forward pass."""
        return 3 * self.model.operations(self.settings.steps, self.settings.batch)
