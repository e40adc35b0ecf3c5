"""Pieces of a sequence: what training runs through at once, so that memory is what was wished."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import LSTMConfig
from .kernels.gradient_tasks import steps_for_batch
from .kernels.tables import PIECE
from .memory import round_up
from .validation import integer


@dataclass(frozen=True)
class Piece:
    """Layers, directions and steps that the kernels run through at once when they train.

    Attributes
    ----------
    layers, directions : tuple of (int, int)
        First, and the one behind the last.
    start, stop : int
        First step, and the one behind the last.
    segment : int
        Number of these steps among the segments of the sequence.
    """

    layers: tuple[int, int]
    directions: tuple[int, int]
    start: int
    stop: int
    segment: int

    def select(self, call: NDArray[Any]) -> None:
        """Make this piece the one that a call runs."""
        # The directions begin at opposite ends of the sequence: the outputs of all steps are held.
        first_held = self.start if call["directions"] == 1 else 0
        steps = self.start, self.stop, self.segment, self.start, first_held
        # At once, as numbers: field by field it takes three times as long.
        call.view(np.int64)[PIECE] = (*self.layers, *self.directions, *steps)


@dataclass(frozen=True)
class Pieces:
    """How a sequence is cut into pieces; they are many, and made one by one.

    Attributes
    ----------
    config : LSTMConfig
    T : int
    segment : int
        From `segment_steps`.
    """

    config: LSTMConfig
    T: int
    segment: int

    @property
    def are_several(self) -> bool:
        """Whether the sequence is cut at all."""
        return 0 < self.segment < self.T

    @property
    def directions(self) -> int:
        """Directions of a piece."""
        return 1 if self.are_several else self.config.directions

    @property
    def _layers(self) -> list[tuple[int, int]]:
        """Layers of a piece, of all kinds that there are."""
        L = self.config.num_layers
        if not self.are_several or self.config.directions == 1:
            return [(0, L)]
        # The second direction runs the other way, and both must end before the next layer.
        return [(layer, layer + 1) for layer in range(L)]

    def forward(self) -> Iterator[Piece]:
        """Yield the pieces in the order of the forward pass."""
        return self._in_order(back=False)

    def back(self) -> Iterator[Piece]:
        """Yield them from the end, but the first direction before the second.

        A sum over both directions has one order, however the sequence is cut.
        """
        return self._in_order(back=True)

    def _in_order(self, *, back: bool) -> Iterator[Piece]:
        """Yield the pieces in one of the orders."""
        T, segment, D = self.T, self.segment, self.config.directions
        if not self.are_several:
            yield Piece((0, self.config.num_layers), (0, D), 0, T, 0)
            return
        starts = range(0, T, segment)
        for layers in self._layers[:: -1 if back else 1]:
            for direction in range(D):
                against = back != (direction == 1)
                for start in reversed(starts) if against else starts:
                    stop = min(T, start + segment)
                    yield Piece(layers, (direction, direction + 1), start, stop, start // segment)

    def operations(self, piece: Piece, steps: int, B: int) -> int:
        """Floating-point operations of the forward products of some steps of a piece."""
        first, last = piece.directions
        return steps * B * self.config.operations_of_row(piece.layers, last - first)

    def most_operations(self, B: int) -> int:
        """The same of all steps of the largest piece."""
        D, steps = self.directions, self.segment if self.are_several else self.T
        return steps * B * max(self.config.operations_of_row(some, D) for some in self._layers)


def segment_steps(checkpoint: Any, T: int, B: int) -> int:
    """Steps between two states that are kept, 0 for all in one.

    Parameters
    ----------
    checkpoint : int, "auto" or None
        Wish of the user.
    T, B : int

    Returns
    -------
    int
        A multiple of the steps of a block of weight gradients.

    Raises
    ------
    TypeError, ValueError
        If the wish is another, or below 1.
    """
    if checkpoint is None:
        return 0
    if isinstance(checkpoint, str):
        if checkpoint != "auto":
            raise ValueError(f'checkpoint must be an integer, "auto" or None; got {checkpoint!r}')
        wish = max(1, math.isqrt(T))
    else:
        wish = integer("checkpoint", checkpoint, least=1)
    return round_up(wish, steps_for_batch(B))
