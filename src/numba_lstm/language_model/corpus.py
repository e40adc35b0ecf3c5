"""Texts: where they come from, what is held out, and how characters become tokens."""

from __future__ import annotations

import hashlib
import os
import pydoc_data.topics
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..validation import string

_HELD_OUT_SHARE = 0.05
_HELD_OUT_TOPIC = 10


def _code_points(text: str) -> NDArray[np.uint32]:
    """Code points of a text; those of undecodable bytes in a command line are surrogates."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def _is_surrogate(character: str) -> bool:
    """Whether a character is half of a pair of UTF-16, which no file of UTF-8 holds."""
    return "\ud800" <= character <= "\udfff"


class Vocabulary:
    """The characters of a text, numbered in the order of their code points.

    Parameters
    ----------
    characters : str
        Each once, in ascending order.

    Raises
    ------
    TypeError
        If they are no string.
    ValueError
        If they are not distinct and ascending, or halves of a pair of UTF-16.
    """

    def __init__(self, characters: str) -> None:
        if not string("characters", characters) or list(characters) != sorted(set(characters)):
            raise ValueError(
                f"characters must be distinct, ascending, and at least one; got {characters!r}"
            )
        if any(_is_surrogate(character) for character in characters):
            raise ValueError(f"characters must be such as UTF-8 can hold; got {characters!r}")
        self.characters = characters
        self._codes = _code_points(characters)

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str, *, name: str = "text") -> NDArray[np.int64]:
        """Tokens of a text.

        Parameters
        ----------
        text : str
        name : str
            What an error calls it.

        Returns
        -------
        ndarray of int64
            (len(text),).

        Raises
        ------
        ValueError
            If the vocabulary lacks a character.
        """
        codes = _code_points(text)
        tokens = np.searchsorted(self._codes, codes)
        found = self._codes[np.minimum(tokens, len(self) - 1)] == codes
        if not found.all():
            position = int(np.argmin(found))
            raise ValueError(
                f"{name} must be written in the {len(self)} characters of the vocabulary; "
                f"got {text[position]!r} at position {position}"
            )
        return tokens.astype(np.int64)

    def decode(self, tokens: NDArray[np.int64]) -> str:
        """Text of tokens.

        Parameters
        ----------
        tokens : ndarray of int64
            (n,).

        Returns
        -------
        str
        """
        return "".join(self.characters[token] for token in tokens.tolist())


@dataclass(frozen=True)
class Corpus:
    """A text in two parts.

    Attributes
    ----------
    name : str
        What it is, for the user.
    training, held_out : str
    path : str, optional
        The file that it was read from.
    """

    name: str
    training: str
    held_out: str
    path: str | None = None

    @cached_property
    def digest(self) -> str:
        """Digest of both parts, by which a run knows its text again."""
        digest = hashlib.sha256(f"{len(self.training)}\n".encode())
        for part in (self.training, self.held_out):
            digest.update(part.encode())
        return digest.hexdigest()

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Characters of both parts.

        Raises
        ------
        ValueError
            If they are empty.
        """
        return Vocabulary("".join(sorted({*self.training, *self.held_out})))


def python_reference() -> Corpus:
    """Return the Python language reference that every CPython carries.

    Topics are sorted by name; a line that occurred before is left out; every tenth topic is held
    out.

    Returns
    -------
    Corpus
    """
    topics: dict[str, str] = pydoc_data.topics.topics
    parts: dict[bool, list[str]] = {False: [], True: []}
    seen: set[str] = set()
    for number, name in enumerate(sorted(topics), start=1):
        held_out = number % _HELD_OUT_TOPIC == 0
        for line in topics[name].splitlines():
            if line not in seen:
                seen.add(line)
                parts[held_out].append(line + "\n")
    return Corpus("Python language reference", "".join(parts[False]), "".join(parts[True]))


def text_file(path: str | os.PathLike[str]) -> Corpus:
    """Read a UTF-8 text, whose last 5 % are held out.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    Corpus

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is no UTF-8 text, or empty.
    """
    text = read_text(path)
    if not text:
        raise ValueError(f"{path} must be a text of at least one character; it is empty")
    cut = len(text) - int(len(text) * _HELD_OUT_SHARE)
    return Corpus(Path(path).name, text[:cut], text[cut:], str(Path(path).absolute()))


def read_text(path: str | os.PathLike[str]) -> str:
    """Read a UTF-8 text with its line ends as they are.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    str

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is no UTF-8 text.
    """
    try:
        return Path(path).read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be a UTF-8 text; byte {error.start} is none") from None


class Streams:
    """A text cut into parallel streams, read in windows (truncated BPTT with carried state).

    Parameters
    ----------
    tokens : ndarray of int64
        (n,).
    batch, steps : int
        Streams, and characters of each in a window.

    Raises
    ------
    ValueError
        If the text is shorter than one window.
    """

    def __init__(self, tokens: NDArray[np.int64], batch: int, steps: int) -> None:
        needed = batch * steps + 1
        if tokens.size < needed:
            raise ValueError(
                f"the training text must have at least {needed} characters, "
                f"batch {batch} x steps {steps} + 1; got {tokens.size}"
            )
        self.steps = steps
        self.windows = (tokens.size - 1) // batch // steps
        length = self.windows * steps
        self._inputs = tokens[: batch * length].reshape(batch, length).T
        self._targets = tokens[1 : batch * length + 1].reshape(batch, length).T

    def window(self, index: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokens of one window and the tokens that follow them, both (steps, batch)."""
        here = slice(index * self.steps, (index + 1) * self.steps)
        return np.ascontiguousarray(self._inputs[here]), np.ascontiguousarray(self._targets[here])
