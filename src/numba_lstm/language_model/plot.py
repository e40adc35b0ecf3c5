"""The picture of a run: its loss over time."""

from __future__ import annotations

import io

import numpy as np

from ..storage import write_file
from .run import PICTURE, TrainingRun


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
    # Only a finished run needs it, and it takes half a second to import.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    losses = np.array(run.progress.losses)
    windows = run.streams.windows
    figure = Figure(figsize=(9, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    epochs = np.arange(1, losses.size + 1) / windows
    axes.plot(epochs, losses, color="#b9cfe8", linewidth=0.7, label="training, each window")
    width = max(1, windows // 10)
    if losses.size > width:
        smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
        axes.plot(epochs[width - 1 :], smooth, color="#1f5fa8", linewidth=1.8, label="training")
    completed = np.arange(1, len(run.progress.held_out) + 1)
    if completed.size:
        bits = run.progress.held_out
        axes.plot(completed, bits, "o-", color="#d1495b", linewidth=1.8, label="held out")
        axes.annotate(
            f"{bits[-1]:.3f}",
            (completed[-1], bits[-1]),
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
            color="#d1495b",
            fontweight="bold",
        )
    visible = losses[min(losses.size - 1, windows // 4) :]
    lowest = min(visible.min(), *run.progress.held_out, visible.min())
    highest = max(visible.max(), *run.progress.held_out, visible.max())
    room = max(0.05, highest - lowest)
    axes.set_ylim(lowest - 0.08 * room, highest + 0.15 * room)
    axes.set_xlim(0, max(epochs[-1], completed.size) * 1.03)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel("bits per character")
    settings = run.settings
    axes.set_title(
        f"{run.corpus.name}: {settings.layers} x {settings.hidden} units, "
        f"{run.progress.speed:,.0f} characters per second",
        loc="left",
        fontsize=11,
    )
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_file(run.folder / PICTURE, picture.getvalue())
