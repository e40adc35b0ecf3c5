"""The picture of a run: its loss over time."""

from __future__ import annotations

import io
import warnings

import numpy as np
from numpy.typing import NDArray

from ..files import write_file
from .run import PICTURE, TrainingRun

_WINDOW_COLOUR = "#bcd0e6"
_TRAINING_COLOUR = "#1f5fa8"
_HELD_OUT_COLOUR = "#d1495b"
_TEXT_COLOUR = "#555555"
# Share of the first epoch that may leave the picture at the top: there the loss falls fast.
_STEEP_START = 0.2


def draw(run: TrainingRun) -> None:
    """Write `training.png` into the folder of a run.

    Parameters
    ----------
    run : TrainingRun
        With at least one window done.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    # Only the end of a run needs it, and it takes half a second to import.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    windows = run.streams.windows
    losses = np.array(run.progress.losses)
    smooth = _smoothed(losses, max(1, windows // 8))
    epochs = np.arange(1, losses.size + 1) / windows
    held_out = np.array(run.progress.held_out)
    completed = np.arange(1, held_out.size + 1)

    figure = Figure(figsize=(9, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(epochs, losses, color=_WINDOW_COLOUR, linewidth=0.8, label="training, each window")
    axes.plot(epochs, smooth, color=_TRAINING_COLOUR, linewidth=2, label="training, running mean")
    if completed.size:
        axes.plot(
            completed,
            held_out,
            "o-",
            color=_HELD_OUT_COLOUR,
            linewidth=2,
            label="held out",
            clip_on=False,
            zorder=3,
        )
        axes.annotate(
            f"{held_out[-1]:.3f}",
            (completed[-1], held_out[-1]),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            color=_HELD_OUT_COLOUR,
            fontweight="bold",
            annotation_clip=False,
        )

    start = min(losses.size - 1, int(_STEEP_START * windows))
    visible = np.concatenate((losses[start:], smooth[start:], held_out))
    room = max(0.02, float(np.ptp(visible)))
    axes.set_ylim(visible.min() - 0.06 * room, visible.max() + 0.06 * room)
    axes.set_xlim(0, epochs[-1])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch", color=_TEXT_COLOUR)
    axes.set_ylabel("bits per character", color=_TEXT_COLOUR)
    axes.tick_params(color=_TEXT_COLOUR, labelcolor=_TEXT_COLOUR)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#bbbbbb")
    axes.legend(loc="upper right", edgecolor="none", framealpha=0.9, labelcolor=_TEXT_COLOUR)
    # A file's name may hold what would be read as a formula.
    axes.set_title(
        run.corpus.name, loc="left", fontsize=14, fontweight="bold", pad=26, parse_math=False
    )
    axes.text(0, 1.03, _description(run), transform=axes.transAxes, fontsize=9, color=_TEXT_COLOUR)
    picture = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script without a font
        figure.savefig(picture, format="png")
    write_file(run.folder / PICTURE, picture.getvalue())


def _smoothed(losses: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Running mean over `width` windows, fewer at both ends."""
    sums = np.concatenate(([0.0], np.cumsum(losses)))
    position = np.arange(losses.size)
    first = np.maximum(0, position - width // 2)
    last = np.minimum(losses.size, position + width // 2 + 1)
    means: NDArray[np.float64] = (sums[last] - sums[first]) / (last - first)
    return means


def _description(run: TrainingRun) -> str:
    """What was trained, and how fast, in a line."""
    settings = run.settings
    layers = "layer" if settings.layers == 1 else "layers"
    return (
        f"{settings.layers} {layers} of {settings.hidden} units, "
        f"{run.model.parameters.size:,} parameters, "
        f"{settings.batch} streams of {settings.steps} steps, "
        f"Adam {settings.learning_rate:g}, "
        f"{run.progress.speed:,.0f} characters per second"
    )
