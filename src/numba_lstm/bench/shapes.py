"""Shapes that people run, by name, and how a user writes others."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import LSTMConfig
from ..validation import integer

# Backward costs twice the products of the forward pass: to the inputs, and to the weights.
_TRAINING_COST = 3


@dataclass(frozen=True)
class Shape:
    """Sizes of one call.

    Attributes
    ----------
    name : str
    T, B, I, H : int
        Steps, batch, inputs and hidden units.
    layers : int
    bidirectional : bool
    """

    name: str
    T: int
    B: int
    I: int
    H: int
    layers: int = 1
    bidirectional: bool = False

    def __post_init__(self) -> None:
        for size in ("T", "B", "I", "H", "layers"):
            integer(f"{size} of shape {self.name}", getattr(self, size), least=1)

    @property
    def config(self) -> LSTMConfig:
        """Configuration of the model."""
        return LSTMConfig(self.I, self.H, self.layers, bidirectional=self.bidirectional)

    def operations(self, *, training: bool) -> int:
        """Floating-point operations of the products in one call, activations not counted."""
        return self.config.operations(self.T, self.B) * (_TRAINING_COST if training else 1)


def _table(*shapes: Shape) -> dict[str, Shape]:
    return {shape.name: shape for shape in shapes}


# Sizes as they are written where the models are defined.
INFERENCE = _table(
    Shape("vad-step", 1, 1, 128, 128),  # voice activity detection, a step every 32 ms
    Shape("vad-minute", 1875, 1, 128, 128),  # the same, a minute at once
    Shape("amp-buffer", 4096, 1, 1, 18, 3),  # guitar amplifier, a step per audio sample
    Shape("ocr-line", 400, 1, 96, 256, bidirectional=True),  # text line recognition
    Shape("asr-chunk", 16, 1, 2048, 2048),  # streaming speech recognition
    Shape("music-separation", 255, 1, 512, 256, 3, True),  # source separation
    Shape("diarisation", 293, 32, 60, 128, 2, True),  # who speaks when
    Shape("basecall-fast", 500, 32, 96, 96),  # nanopore basecalling
    Shape("basecall-hac", 400, 32, 384, 384),  # the same, larger
    Shape("basecall-sup", 50, 96, 1024, 1024),  # the same, largest
)
TRAINING = _table(
    Shape("hydrology", 365, 256, 32, 64),  # rainfall-runoff, a year of days
    Shape("quant-alpha", 60, 800, 6, 64, 2),  # stock features
    Shape("char-rnn", 50, 50, 65, 128, 2),  # character language model
    Shape("amp-tbptt", 1000, 50, 1, 32),  # audio effect, truncated BPTT
    Shape("ptb-small", 20, 20, 200, 200, 2),  # Zaremba, Sutskever & Vinyals 2014, small
    Shape("ptb-medium", 35, 20, 650, 650, 2),  # the same, medium
    Shape("awd-layer", 70, 20, 400, 1150),  # Merity, Keskar & Socher 2017
    Shape("speech-bi", 200, 32, 80, 320, 3, True),  # acoustic model
)
NAMED = {**INFERENCE, **TRAINING}


def parse(text: str) -> Shape:
    """Read a shape as a user writes it.

    Parameters
    ----------
    text : str
        A name of the tables, or ``T,B,I,H[,L][,bi]``.

    Returns
    -------
    Shape

    Raises
    ------
    ValueError
        If it is neither, or a size is below 1.
    """
    if text in NAMED:
        return NAMED[text]
    parts = [part.strip() for part in text.split(",")]
    bidirectional = parts[-1] == "bi"
    sizes = parts[:-1] if bidirectional else parts
    if len(sizes) not in (4, 5) or not all(size.isdecimal() for size in sizes):
        raise ValueError(
            f"a shape must be T,B,I,H[,L][,bi] or one of {', '.join(NAMED)}; got {text!r}"
        )
    T, B, I, H = map(int, sizes[:4])
    layers = int(sizes[4]) if len(sizes) == 5 else 1
    return Shape(",".join(parts), T, B, I, H, layers, bidirectional)
