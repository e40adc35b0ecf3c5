"""Embedding: a table with a row of features for every token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import threadpool
from .initialization import Seed, generator
from .kernels.embedding import distinct_tokens, embedding_backward
from .layer import Layer
from .memory import flat
from .parameters import Parameters
from .tape import Tape
from .validation import (
    FloatArray,
    boolean,
    dtype_in_words,
    float_dtype,
    integer,
    integer_array,
    real_array,
    refuse_overlap,
    require_output,
    require_shape,
)

if TYPE_CHECKING:
    from typing_extensions import Self


def number_tokens(tokens: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the tokens that occur, and for every token its place among these.

    Parameters
    ----------
    tokens : array of int64
        (...), C-contiguous.

    Returns
    -------
    distinct : ndarray of int64
        (n,), in the order in which they first occur.
    places : ndarray of int64
        (...) in [0, n).
    """
    slots = np.empty(2 << tokens.size.bit_length(), np.int64)
    distinct, places = np.empty(tokens.size, np.int64), np.empty(tokens.shape, np.int64)
    count = distinct_tokens(flat(tokens), slots, distinct, flat(places))
    return distinct[:count], places


class Embedding(Layer):
    """A table with a row of features for every token.

    Parameters
    ----------
    num_embeddings : int
        N, number of tokens.
    embedding_dim : int
        E, features of a token.
    dtype : dtype
        float32 or float64.
    seed : int, Generator, SeedSequence or None
        Source of the initial table, drawn from a normal distribution.

    Attributes
    ----------
    parameters : Parameters
        ``weight`` (N, E).
    gradients : Parameters
        The same for gradients; `backward` adds to them.
    num_embeddings, embedding_dim : int
        N and E.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    MemoryError
        If there is no room for the parameters.
    """

    _fixed = Layer._fixed | {"num_embeddings", "embedding_dim"}

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        dtype: Any = "float32",
        seed: Seed = None,
    ) -> None:
        self.num_embeddings = integer("num_embeddings", num_embeddings, least=1)
        self.embedding_dim = integer("embedding_dim", embedding_dim, least=1)
        shapes = {"weight": (self.num_embeddings, self.embedding_dim)}
        self.parameters = Parameters(shapes, float_dtype(dtype))
        self.parameters["weight"] = generator(seed).standard_normal(shapes["weight"])
        self._tape: Tape[NDArray[np.int64]] = Tape("Embedding")

    def configuration(self) -> dict[str, Any]:
        """Return the keyword arguments, without the seed, that build the same layer.

        Returns
        -------
        dict
        """
        return {
            "num_embeddings": self.num_embeddings,
            "embedding_dim": self.embedding_dim,
            "dtype": self.parameters.dtype.name,
        }

    @classmethod
    def from_configuration(
        cls, configuration: Mapping[str, Any], *, threads: int | None = None
    ) -> Self:
        """Build a layer from what `configuration` returned.

        Parameters
        ----------
        configuration : mapping
            Keyword arguments.
        threads : int, optional
            Checked, and of no further meaning: looking up rows takes one thread.

        Returns
        -------
        Embedding

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind or out of range.
        MemoryError
            If there is no room for the parameters.
        """
        threadpool.check(threads)
        return cls(**configuration)

    def __repr__(self) -> str:
        sizes = f"{self.num_embeddings}, {self.embedding_dim}"
        return f"Embedding({sizes}{dtype_in_words(self.parameters.dtype)})"

    def _tokens(self, tokens: Any) -> NDArray[np.int64]:
        """Validate tokens."""
        array = integer_array("tokens", tokens)
        if array.size and (array.min() < 0 or array.max() >= self.num_embeddings):
            raise ValueError(
                f"tokens must lie in [0, {self.num_embeddings}), "
                f"{self.num_embeddings} = num_embeddings; "
                f"got values from {array.min()} to {array.max()}"
            )
        return array

    def __call__(self, tokens: Any, *, out: FloatArray | None = None) -> FloatArray:
        """Look up rows.

        Parameters
        ----------
        tokens : array of int
            (...) in [0, N).
        out : array, optional
            (..., E), where to write the result.

        Returns
        -------
        ndarray
            (..., E).

        Raises
        ------
        TypeError, ValueError
            If a token is no integer or out of range, or out has the wrong kind, shape or layout.
        MemoryError
            If there is no room for the result.
        """
        array = self._tokens(tokens)
        table = self.parameters["weight"]
        if out is None:
            out = np.empty((*array.shape, self.embedding_dim), table.dtype)
        require_output("out", out, (*array.shape, self.embedding_dim), table.dtype)
        refuse_overlap("out", out, {"tokens": array})
        # Without a mode, NumPy would take the rows into a buffer first.
        return np.take(table, array, axis=0, out=out, mode="clip")

    def forward(self, tokens: Any, *, out: FloatArray | None = None) -> FloatArray:
        """Look up rows and keep the tokens for `backward`.

        Parameters
        ----------
        tokens : array of int
            (...) in [0, N).
        out : array, optional
            (..., E), where to write the result.

        Returns
        -------
        ndarray
            (..., E).

        Raises
        ------
        TypeError, ValueError
            If a token is no integer or out of range, or out has the wrong kind, shape or layout.
        MemoryError
            If there is no room for the result.
        RuntimeError
            If another `forward` or `backward` of this layer is under way.
        """
        array = self._tokens(tokens)
        with self._tape.alone:
            version = self.parameters.version
            y = self(array, out=out)
            self._tape.record(array.copy(), version)
        return y

    def backward(self, dy: Any, *, accumulate: bool = True) -> None:
        """Add the gradient of every output to the row of its token.

        Parameters
        ----------
        dy : array
            (..., E), as the output.
        accumulate : bool
            Whether to what is there; otherwise to zeros.

        Raises
        ------
        TypeError, ValueError
            If dy has the wrong kind or shape; nothing is changed then.
        RuntimeError
            If there was no `forward`, or its `backward` was called, or the parameters have changed,
            or another `forward` or `backward` of this layer is under way.
        """
        added = boolean("accumulate", accumulate)
        with self._tape.alone:
            tokens = self._tape.read(self.parameters)
            array = real_array("dy", dy, self.parameters.dtype)
            require_shape("dy", array, (*tokens.shape, self.embedding_dim), "as the output")
            self._tape.clear()
            if not added:
                self.gradients.zero()
            with self.gradients.edit() as target:
                embedding_backward(flat(tokens), flat(array), self.embedding_dim, target)
