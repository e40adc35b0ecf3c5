"""What determines the course of a training run."""

from __future__ import annotations

from dataclasses import dataclass

from ..losses import softmax_cross_entropy
from ..optimizers import Adam
from ..trainer import Trainer
from ..validation import integer, number
from .model import CharLanguageModel

# The learning rate falls over this last share of all windows. Held-out bits per character of the
# defaults with two seeds: 1.863 and 1.803 without, 1.792 for the first with a quarter; 1.823 with
# a half and 1.873 with three quarters, which leave too little time to learn.
_COOLING_SHARE = 0.25
# Adam takes ten times of it in its first step, and float32 ends at 3.4e38.
_LARGEST_RATE = 1e37


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
        Of Adam; over the last quarter of all windows it falls linearly towards zero.
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
        sizes = ("hidden", "layers", "embedding", "steps", "batch", "epochs")
        checked: dict[str, float] = {
            **{name: integer(name, getattr(self, name), least=1) for name in sizes},
            "learning_rate": number(
                "learning_rate", self.learning_rate, above=0.0, most=_LARGEST_RATE
            ),
            "dropout": number("dropout", self.dropout, least=0.0, below=1.0),
            "clip": number("clip", self.clip, above=0.0),
            "seed": integer("seed", self.seed, least=0),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)  # as JSON can hold it

    def model(self, characters: str, threads: int | None = None) -> CharLanguageModel:
        """Return the untrained model over some characters.

        Parameters
        ----------
        characters : str
            All different.
        threads : int, optional
            Upper bound of threads for a call.

        Returns
        -------
        CharLanguageModel
        """
        return CharLanguageModel(
            characters,
            hidden_size=self.hidden,
            num_layers=self.layers,
            embedding_dim=self.embedding,
            dropout=self.dropout,
            threads=threads,
            seed=self.seed,
        )

    def rate(self, left: int, windows: int) -> float:
        """Return the learning rate of a window.

        Parameters
        ----------
        left : int
            Windows up to the end of the run, itself among them.
        windows : int
            Of an epoch.

        Returns
        -------
        float
        """
        return self.learning_rate * min(1.0, left / (_COOLING_SHARE * self.epochs * windows))

    def trainer(self, model: CharLanguageModel) -> Trainer:
        """Return what trains a model.

        Parameters
        ----------
        model : CharLanguageModel

        Returns
        -------
        Trainer
        """
        optimizer = Adam(model.parameters, lr=self.learning_rate)
        return Trainer(model, softmax_cross_entropy, optimizer, clip=self.clip)
