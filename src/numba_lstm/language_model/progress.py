"""Where a training run stands: position, losses and speed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ..validation import integer, number

# Weight of the past in the smoothed loss that is shown while an epoch runs.
_SMOOTHING = 0.98


@dataclass
class Progress:
    """Where a run stands.

    Attributes
    ----------
    epoch, window : int
        Epochs completed, and windows completed of the next.
    smoothed : float
        Running mean of the training loss, in bits per character; NaN at the start.
    seconds : float
        Spent in training steps, but for the first of a process, which loads or compiles kernels.
    characters : int
        Trained on in those seconds.
    losses : list of float
        Mean training loss of every window, in bits per character.
    training, held_out : list of float
        Bits per character of every completed epoch.
    """

    epoch: int = 0
    window: int = 0
    smoothed: float = math.nan
    seconds: float = 0.0
    characters: int = 0
    losses: list[float] = field(default_factory=list)
    training: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("epoch", "window", "characters"):
            integer(name, getattr(self, name), least=0)
        number("seconds", self.seconds, least=0.0)
        if not isinstance(self.smoothed, float):  # NaN at the start
            raise TypeError(f"smoothed must be a number; got {self.smoothed!r}")

    def require_windows(self, windows: int) -> None:
        """Refuse a progress that no run of so many windows an epoch comes to.

        Parameters
        ----------
        windows : int

        Raises
        ------
        ValueError
            If it is of another run.
        """
        integer("window", self.window, least=0, most=windows)
        lengths = {"losses": self.epoch * windows + self.window}
        lengths |= dict.fromkeys(("training", "held_out"), self.epoch)
        for name, length in lengths.items():
            if len(getattr(self, name)) != length:
                raise ValueError(
                    f"{name} must have {length} numbers after {self.epoch} epochs and "
                    f"{self.window} windows; got {len(getattr(self, name))}"
                )

    def complete_window(self, loss: float) -> None:
        """Take down that one more window is done.

        Parameters
        ----------
        loss : float
            Its mean training loss, in nats per character.
        """
        bits = loss / math.log(2)
        self.window += 1
        self.losses.append(bits)
        mixed = _SMOOTHING * self.smoothed + (1 - _SMOOTHING) * bits
        self.smoothed = bits if math.isnan(self.smoothed) else mixed

    def complete_epoch(self, held_out: float) -> None:
        """Take down that all windows of an epoch are done.

        Parameters
        ----------
        held_out : float
            Bits per character of the held-out text.
        """
        self.training.append(math.fsum(self.losses[-self.window :]) / self.window)
        self.held_out.append(held_out)
        self.epoch += 1
        self.window = 0

    @property
    def speed(self) -> float:
        """Characters per second of training; 0 where none were timed."""
        return self.characters / self.seconds if self.seconds else 0.0
