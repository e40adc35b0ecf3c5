"""The command ``numba-lstm bench``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from ..files import write_file
from . import report
from .chart import FORMATS, picture
from .comparison import MODES, SECONDS, Comparison, MismatchError, check_threads, compare
from .engines import PEERS
from .language_model import LEARNERS, TrainingComparison, compare_training
from .process import EngineError
from .shapes import INFERENCE, TRAINING, Shape, parse

LANGUAGE_MODEL = "language-model"
# Of what a mode has in the tables: a few that differ, and that do not take long.
_DEFAULT_SHAPES = {
    "inference": ("vad-minute", "diarisation", "basecall-fast"),
    "stream": ("vad-step", "amp-buffer", "asr-chunk"),
    "training": ("hydrology", "char-rnn", "ptb-small"),
}
_TABLES = {
    "inference": INFERENCE,
    "stream": {name: shape for name, shape in INFERENCE.items() if not shape.bidirectional},
    "training": TRAINING,
}
_FAILURE_STATUS = 1
# Columns of a table that is written into a pipe or a file.
_WIDTH_OF_FILES = 140


def _shapes(texts: tuple[str, ...], mode: str) -> list[Shape]:
    """Shapes that the user names, or those of the mode."""
    shapes: list[Shape] = []
    for text in texts or _DEFAULT_SHAPES[mode]:
        shapes += _TABLES[mode].values() if text == "all" else [parse(text)]
    return list(dict.fromkeys(shapes))


def _threads(texts: tuple[str, ...]) -> list[int]:
    """Numbers of threads, each once."""
    parts = [part.strip() for text in texts for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise click.UsageError(f"--threads must be numbers, like 1,2; got {','.join(texts)}")
    return [check_threads(int(part)) for part in dict.fromkeys(parts)]


def _against(text: str) -> list[str]:
    """Names of the other engines."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in PEERS:
            raise click.UsageError(f"--against must name some of {', '.join(PEERS)}; got {name}")
    return names


def _check_files(json_file: Path | None, plot: Path | None) -> None:
    """Find out before anything is measured whether the results have a place."""
    for path in (json_file, plot):
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise click.UsageError(f"{path} must be a file in a folder that exists")
    if plot is not None:
        if plot.suffix[1:] not in FORMATS:
            raise click.UsageError(f"--plot must end in one of {', '.join(FORMATS)}; got {plot}")
        if find_spec("matplotlib") is None:
            raise ImportError('--plot needs matplotlib: pip install "numba-lstm[cli]"')


def _show(comparisons: list[Comparison], markdown: bool) -> None:
    """Print the comparisons of one number of threads."""
    if markdown:
        click.echo(report.markdown(comparisons))
    else:
        console = Console()
        if not console.is_terminal:
            console = Console(width=_WIDTH_OF_FILES)
        console.print(report.table(comparisons))
    click.echo(report.limit_line([one.limits for one in comparisons]))
    for line in report.skipped_lines(comparisons):
        click.echo(line)


def _compare_shapes(
    shapes: list[Shape], markdown: bool, *, threads: int, **options: Any
) -> Iterator[Comparison]:
    """Compare engines at some shapes on so many threads, and show the table of those done."""
    done: list[Comparison] = []
    try:
        for comparison in compare(shapes, threads=threads, **options):
            done.append(comparison)
            if sys.stderr.isatty():
                on_threads = report.count(threads, "thread")
                click.echo(f"{comparison.shape.name} on {on_threads} done", err=True)
            yield comparison
    finally:
        if done:
            _show(done, markdown)


def _train_language_models(peers: list[str], threads: int, rounds: int) -> TrainingComparison:
    """Compare training steps of the language model on so many threads, and show the result."""
    learners = {name: LEARNERS[name] for name in peers if name in LEARNERS}
    training = compare_training(threads=threads, against=learners, rounds=rounds)
    click.echo(f"language model, {report.count(threads, 'thread')}")
    click.echo("\n".join(report.training_lines(training)))
    for name in peers:
        if name not in LEARNERS:
            click.echo(f"skipped {name}: no {LANGUAGE_MODEL}")
    return training


@click.command()
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="SHAPE",
    help="A name, or T,B,I,H[,L][,bi]; may be given again. `all` takes the table of the mode.",
)
@click.option(
    "--mode",
    type=click.Choice([*MODES, LANGUAGE_MODEL]),
    default=MODES[0],
    show_default=True,
    help="What is timed; language-model is the training step of `numba-lstm train`.",
)
@click.option(
    "--threads",
    multiple=True,
    default=("1",),
    show_default=True,
    metavar="N[,N...]",
    help="Numbers of threads, each a comparison.",
)
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32")
@click.option(
    "--against",
    default=",".join(PEERS),
    show_default=True,
    help="The other engines; those that are not installed are named and skipped.",
)
@click.option("--rounds", default=5, show_default=True, help="How often the turn goes round.")
@click.option(
    "--seconds",
    type=float,
    help=f"Time for a shape and number of threads, shared by all engines; {SECONDS:g} by default. "
    "The language model takes 20 steps a round instead.",
)
@click.option("--markdown", is_flag=True, help="Print the tables as Markdown.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="File for all that was measured."
)
@click.option(
    "--plot", type=click.Path(path_type=Path), help="File for a picture, .png, .svg or .pdf."
)
def bench(
    shapes: tuple[str, ...],
    mode: str,
    threads: tuple[str, ...],
    dtype: str,
    against: str,
    rounds: int,
    seconds: float | None,
    markdown: bool,
    json_file: Path | None,
    plot: Path | None,
) -> None:
    """Measure this machine's limits, and numba-lstm beside other engines.

    Every engine runs in a process of its own, with the same weights and inputs; they take turns, so
    that no two run at once, and their results are compared. `ratio` is to the fastest of the
    others, `of limit` the share of what the measured limits leave in reach.
    """
    counts = _threads(threads)
    peers = _against(against)
    _check_files(json_file, plot)
    if mode == LANGUAGE_MODEL and (shapes or plot or seconds is not None or dtype != "float32"):
        raise click.UsageError(
            "--mode language-model takes neither --shape, --dtype, --seconds nor --plot"
        )
    chosen = [] if mode == LANGUAGE_MODEL else _shapes(shapes, mode)
    comparisons: list[Comparison] = []
    trainings: list[TrainingComparison] = []
    try:
        for count in counts:
            if mode == LANGUAGE_MODEL:
                trainings.append(_train_language_models(peers, count, rounds))
            else:
                comparisons += _compare_shapes(
                    chosen,
                    markdown,
                    mode=mode,
                    threads=count,
                    dtype=dtype,
                    against={name: PEERS[name] for name in peers},
                    rounds=rounds,
                    seconds=SECONDS if seconds is None else seconds,
                )
    except (MismatchError, EngineError) as error:
        click.echo(f"numba-lstm: {error}", err=True)
        sys.exit(_FAILURE_STATUS)
    finally:  # what was measured until an engine failed, or Ctrl-C came, took its time
        if json_file is not None and (comparisons or trainings):
            data = report.as_data(comparisons, trainings)
            write_file(json_file, json.dumps(data, indent=2).encode() + b"\n")
        if plot is not None and comparisons:
            write_file(plot, picture(comparisons, plot.suffix[1:]))
