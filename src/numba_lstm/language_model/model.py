"""CharLanguageModel: predicts the next character of a text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..embedding import Embedding
from ..initialization import Seed, generator
from ..linear import Linear
from ..losses import softmax_cross_entropy
from ..lstm import LSTM
from ..sequential import Sequential, States
from ..validation import integer, number, string
from .corpus import Vocabulary

if TYPE_CHECKING:
    from typing_extensions import Self

# Steps of a text that are evaluated in one call.
_EVALUATED_STEPS = 512


class CharLanguageModel(Sequential):
    """Embedding, LSTM stack and linear layer over characters (Graves 2013, section 3).

    Parameters
    ----------
    vocabulary : str
        The characters, each once, in ascending order.
    hidden_size, num_layers : int
        Of the LSTM stack.
    embedding_dim : int
        Features of a character.
    dropout : float
        Between the layers of the stack.
    threads : int, optional
        Upper bound of threads for a call; all by default.
    seed : int, Generator, SeedSequence or None
        Source of the initial weights and of dropout.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    MemoryError
        If there is no room for the parameters.
    """

    _fixed = Sequential._fixed | {"vocabulary", "embedding", "lstm", "linear"}

    def __init__(
        self,
        vocabulary: str,
        *,
        hidden_size: int = 256,
        num_layers: int = 2,
        embedding_dim: int = 64,
        dropout: float = 0.0,
        threads: int | None = None,
        seed: Seed = None,
    ) -> None:
        self.vocabulary = Vocabulary(vocabulary)
        random = generator(seed)
        self.embedding = Embedding(len(self.vocabulary), embedding_dim, seed=random)
        self.lstm = LSTM(embedding_dim, hidden_size, num_layers, dropout=dropout, seed=random)
        self.linear = Linear(hidden_size, len(self.vocabulary), seed=random)
        super().__init__(self.embedding, self.lstm, self.linear, threads=threads)

    def configuration(self) -> dict[str, Any]:
        """Return the keyword arguments, without threads and seed, that build the same model.

        Returns
        -------
        dict
        """
        return {
            "vocabulary": self.vocabulary.characters,
            "hidden_size": self.lstm.config.hidden_size,
            "num_layers": self.lstm.config.num_layers,
            "embedding_dim": self.embedding.embedding_dim,
            "dropout": self.lstm.config.dropout,
        }

    @classmethod
    def from_configuration(
        cls, configuration: Mapping[str, Any], *, threads: int | None = None
    ) -> Self:
        """Build a model from what `configuration` returned.

        Parameters
        ----------
        configuration : mapping
            Keyword arguments.
        threads : int, optional
            Upper bound of threads for a call.

        Returns
        -------
        CharLanguageModel

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind or out of range.
        MemoryError
            If there is no room for the parameters.
        """
        return cls(**configuration, threads=threads)

    def operations(self, T: int, B: int) -> int:
        """Floating-point operations of the forward products over T steps of B streams.

        Raises
        ------
        TypeError, ValueError
            If one of them is no integer of at least 0.
        """
        steps, streams = integer("T", T, least=0), integer("B", B, least=0)
        linear = 2 * steps * streams * self.lstm.config.output_size * len(self.vocabulary)
        return self.lstm.config.operations(steps, streams) + linear

    @property
    def opening(self) -> str:
        """What a text begins after: the end of a line, in a vocabulary that has lines."""
        characters = self.vocabulary.characters
        return "\n" if "\n" in characters else characters[0]

    def generate(
        self, prompt: str, length: int, *, temperature: float = 1.0, seed: Seed = None
    ) -> str:
        """Continue a text.

        Parameters
        ----------
        prompt : str
            At least one character.
        length : int
            Characters to draw.
        temperature : float
            Divides the logits: below 1 the likely becomes likelier; 0 takes the likeliest.
        seed : int, Generator, SeedSequence or None
            Source of the draws.

        Returns
        -------
        str
            The characters that follow the prompt.

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind or out of range, or the vocabulary lacks a character
            of the prompt.
        """
        count = integer("length", length, least=0)
        scale = number("temperature", temperature, least=0.0)
        random = generator(seed)
        if not string("prompt", prompt):
            raise ValueError("prompt must have at least one character; got none")
        stream = self.stream()
        logits = stream.process(self.vocabulary.encode(prompt, name="prompt")[:, None])[-1]
        drawn = np.empty(count, np.int64)
        for position in range(count):
            # The largest of logits with Gumbel noise is a draw from their softmax (Gumbel 1954).
            noise = random.gumbel(scale=scale, size=len(self.vocabulary))
            drawn[position] = np.argmax(logits[0] + noise)
            stream.step(drawn[position : position + 1], out=logits)
        return self.vocabulary.decode(drawn)

    def evaluate(self, text: str, *, progress: Callable[[int], None] | None = None) -> float:
        """Bits that the model needs per character of a text, its state carried through all of it.

        Parameters
        ----------
        text : str
            At least two characters: the first is given, the others are predicted.
        progress : callable, optional
            Called with the number of characters done, after every few hundred.

        Returns
        -------
        float

        Raises
        ------
        TypeError
            If it is no string.
        ValueError
            If the text is too short, or the vocabulary lacks one of its characters.
        """
        if len(string("text", text)) < 2:
            raise ValueError(f"text must have at least 2 characters; got {len(text)}")
        tokens = self.vocabulary.encode(text)
        nats = 0.0
        state: States | None = None
        for first in range(0, tokens.size - 1, _EVALUATED_STEPS):
            last = min(tokens.size - 1, first + _EVALUATED_STEPS)
            logits, state = self(tokens[first:last], state)
            loss, _ = softmax_cross_entropy(logits, tokens[first + 1 : last + 1])
            nats += loss * (last - first)
            if progress is not None:
                progress(last)
        return nats / (tokens.size - 1) / math.log(2)
