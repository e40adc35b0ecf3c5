"""Pieces of a sequence: what training runs through at once, so that memory is what was wished."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from .config import LSTMConfig
from .kernels.gradient_tasks import steps_for_batch
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
        call["first_layer"], call["last_layer"] = self.layers
        call["first_direction"], call["last_direction"] = self.directions
        call["start"], call["stop"], call["segment"] = self.start, self.stop, self.segment
        call["kept"] = self.start
        # The directions begin at opposite ends of the sequence: the outputs of all steps are held.
        call["held"] = self.start if call["directions"] == 1 else 0


def pieces_of(config: LSTMConfig, T: int, segment: int) -> tuple[Piece, ...]:
    """Cut a sequence into pieces.

    Parameters
    ----------
    config : LSTMConfig
    T : int
    segment : int
        From `segment_steps`.

    Returns
    -------
    tuple of Piece
        In the order of the forward pass.
    """
    D, L = config.directions, config.num_layers
    starts = range(0, T, segment) if segment else ()
    if len(starts) <= 1:
        return (Piece((0, L), (0, D), 0, T, 0),)
    # The second direction of a layer runs the other way, and both must end before the next layer.
    layers = [(0, L)] if D == 1 else [(layer, layer + 1) for layer in range(L)]
    return tuple(
        Piece(some, (direction, direction + 1), start, min(T, start + segment), number)
        for some in layers
        for direction in range(D)
        for number, start in list(enumerate(starts))[:: -1 if direction else 1]
    )


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
