"""What a layer's `forward` leaves for its `backward`, for one call at a time."""

from __future__ import annotations

from typing import Generic, TypeVar

from .locks import Turn
from .parameters import Parameters

Saved = TypeVar("Saved")


class Tape(Generic[Saved]):
    """Holds what was saved, and lets one Python thread at a time work with it.

    Parameters
    ----------
    layer : str
        Name of the layer, for messages.

    Attributes
    ----------
    alone : Turn
        Of a training call.
    """

    def __init__(self, layer: str) -> None:
        self._layer = layer
        self.alone = Turn(
            f"another forward or backward of this {layer} is under way: "
            "training state belongs to one call at a time"
        )
        self._saved: Saved | None = None
        self._version = 0

    @property
    def latest(self) -> Saved | None:
        """What was kept last, if no `backward` has used it up."""
        return self._saved

    def record(self, saved: Saved, version: int) -> None:
        """Keep what `backward` needs in the place of what was there.

        The version is that of the parameters before the pass: they may have changed meanwhile.
        """
        self._saved, self._version = saved, version

    def read(self, parameters: Parameters) -> Saved:
        """Return what was kept.

        Raises
        ------
        RuntimeError
            If nothing was kept since the last `backward`, or the parameters have changed.
        """
        if self._saved is None:
            raise RuntimeError(
                f"backward of this {self._layer} needs a forward before it, one for each backward"
            )
        if self._version != parameters.version:
            raise RuntimeError(
                f"the parameters of this {self._layer} have changed since forward: run it again"
            )
        return self._saved

    def clear(self) -> None:
        """Forget what was kept."""
        self._saved = None
