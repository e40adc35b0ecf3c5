"""The picture of a comparison: a bar for every engine and shape, and what is in reach."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import groupby

from .comparison import Comparison
from .engines import OWN, PEERS
from .report import count

FORMATS = ("pdf", "png", "svg")

_COLOURS = dict(
    zip((OWN, *PEERS), ("#1f5fa8", "#e07b39", "#6a9f58", "#967bb6", "#b0a060"), strict=True)
)
_OTHER_COLOUR = "#999999"
_LIMIT_COLOUR = "#444444"
_TEXT_COLOUR = "#555555"
_GROUP_WIDTH = 0.8
_INCHES_PER_SHAPE = 1.3


def picture(comparisons: Sequence[Comparison], file_format: str) -> bytes:
    """Draw comparisons, a row of the picture for every number of threads.

    Parameters
    ----------
    comparisons : sequence of Comparison
        At least one.
    file_format : str
        One of `FORMATS`.

    Returns
    -------
    bytes
        The content of a file.
    """
    # It takes half a second to import, and most comparisons are not drawn.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [list(group) for _, group in groupby(comparisons, key=lambda one: one.limits.threads)]
    engines = list(dict.fromkeys(name for one in comparisons for name in one.measurements))
    width = 3 + _INCHES_PER_SHAPE * max(map(len, rows))
    figure = Figure(figsize=(width, 3.4 * len(rows)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    bar = _GROUP_WIDTH / len(engines)
    for axes, row in zip(figure.subplots(len(rows), squeeze=False)[:, 0], rows, strict=True):
        for number, engine in enumerate(engines):
            places, heights = [], []
            for position, one in enumerate(row):
                if engine in one.measurements:
                    places.append(position + (number + 0.5) * bar - _GROUP_WIDTH / 2)
                    heights.append(one.rate(engine) / 1e9)
            colour = _COLOURS.get(engine, _OTHER_COLOUR)
            axes.bar(places, heights, bar, color=colour, label=engine)
        for position, one in enumerate(row):
            axes.hlines(
                one.highest_rate / 1e9,
                position - _GROUP_WIDTH / 2,
                position + _GROUP_WIDTH / 2,
                color=_LIMIT_COLOUR,
                linestyle="dashed",
                linewidth=1.2,
                label=None if position else "in reach",
            )
        axes.set_xticks(range(len(row)), [one.shape.name for one in row])
        axes.set_ylabel("GFLOP/s", color=_TEXT_COLOUR)
        axes.tick_params(color=_TEXT_COLOUR, labelcolor=_TEXT_COLOUR)
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        limits = row[0].limits
        title = f"{row[0].mode}, {limits.dtype}, {count(limits.threads, 'thread')}"
        axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", edgecolor="none")
    content = io.BytesIO()
    figure.savefig(content, format=file_format)
    return content.getvalue()
