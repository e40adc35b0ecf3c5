"""The command ``numba-lstm``: train, generate, evaluate, info."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

try:
    import click
    from click.core import ParameterSource
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise ImportError(
        f"the command line needs {error.name}: pip install 'numba-lstm[cli]'"
    ) from None

import llvmlite
import numba
import numpy as np

from . import __version__, jit, threads
from .kernels.gemm import ROWS
from .language_model import CharLanguageModel, Corpus, Settings, TrainingRun, text_file
from .language_model import python_reference as python_reference_corpus
from .language_model.corpus import read_text
from .language_model.run import CHECKPOINT, MODEL, PICTURE, Watcher
from .simd import cpu
from .storage import load

Command = TypeVar("Command", bound=Callable[..., Any])

_BAD_INPUT_STATUS = 2
_INTERRUPTED_STATUS = 130
# Plain lines, where nobody watches a bar.
_SECONDS_BETWEEN_LINES = 10.0
# Settings under the names of their options.
_OPTIONS = {
    "hidden": "--hidden",
    "layers": "--layers",
    "embedding": "--embedding",
    "steps": "--steps",
    "batch": "--batch",
    "epochs": "--epochs",
    "learning_rate": "--learning-rate",
    "dropout": "--dropout",
    "clip": "--clip",
    "seed": "--seed",
}


class _Bar(Watcher):
    """A live progress bar on a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("[bold]{task.fields[bits]}[/] bits/char"),
            TextColumn("held out [bold]{task.fields[held_out]}[/]"),
            TextColumn("{task.fields[speed]} chars/s"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._bar.stop()

    def _fields(self, run: TrainingRun) -> dict[str, Any]:
        progress = run.progress
        epoch = min(progress.epoch + 1, run.settings.epochs)
        return {
            "epoch": f"{epoch}/{run.settings.epochs}",
            "bits": f"{progress.bits:.3f}" if progress.losses else "-",
            "held_out": f"{progress.held_out[-1]:.3f}" if progress.held_out else "-",
            "speed": f"{progress.speed:,.0f}",
        }

    def started(self, run: TrainingRun) -> None:
        done = run.progress.epoch * run.streams.windows + run.progress.window
        total = run.settings.epochs * run.streams.windows
        self._task = self._bar.add_task("", total=total, completed=done, **self._fields(run))

    def stepped(self, run: TrainingRun) -> None:
        assert self._task is not None
        self._bar.update(self._task, advance=1, **self._fields(run))

    def completed_epoch(self, run: TrainingRun, sample: str) -> None:
        assert self._task is not None
        self._bar.update(self._task, **self._fields(run))
        self._console.print(_epoch_line(run), highlight=False)
        self._console.print(_indented(sample), style="dim", markup=False, highlight=False)


class _Lines(Watcher):
    """Plain lines in a pipe or a log file."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def stepped(self, run: TrainingRun) -> None:
        if time.monotonic() - self._last < _SECONDS_BETWEEN_LINES:
            return
        self._last = time.monotonic()
        progress = run.progress
        left = (run.settings.epochs - progress.epoch) * run.streams.windows - progress.window
        characters = left * run.settings.steps * run.settings.batch
        click.echo(
            f"epoch {progress.epoch + 1}/{run.settings.epochs}, "
            f"window {progress.window}/{run.streams.windows}: "
            f"{progress.bits:.3f} bits/char, {progress.speed:,.0f} chars/s, "
            f"{characters / progress.speed:.0f} s left"
        )

    def completed_epoch(self, run: TrainingRun, sample: str) -> None:
        click.echo(_epoch_line(run))
        click.echo(_indented(sample))


def _epoch_line(run: TrainingRun) -> str:
    """One line on the epoch that was completed last."""
    progress = run.progress
    return (
        f"epoch {progress.epoch}/{run.settings.epochs}: "
        f"{progress.training[-1]:.3f} bits/char in training, "
        f"{progress.held_out[-1]:.3f} held out, {progress.speed:,.0f} chars/s"
    )


def _indented(sample: str) -> str:
    """A sample, set off from the lines around it."""
    return "\n".join(f"    {line}" for line in sample.strip().splitlines())


class _OneLineErrors(click.Group):
    """Shows what the user can mend in one line, with exit status 2."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().main(*arguments, **{**options, "standalone_mode": False})
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            sys.exit(_BAD_INPUT_STATUS)
        except click.ClickException as error:
            _fail(error.format_message())
        except (click.Abort, KeyboardInterrupt):
            sys.exit(_INTERRUPTED_STATUS)
        except (OSError, ValueError, TypeError, FloatingPointError) as error:
            _fail(_message(error))


def _message(error: Exception) -> str:
    """What an error says, in one line."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


def _fail(message: str) -> None:
    """End with a line on what is wrong."""
    click.echo(f"numba-lstm: {message}", err=True)
    sys.exit(_BAD_INPUT_STATUS)


@click.group(cls=_OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="numba-lstm")
def main() -> None:
    """Train and run LSTMs on a CPU."""


def _setting(name: str, kind: Any, text: str) -> Callable[[Command], Command]:
    """Option of a setting, its default taken from `Settings`."""
    default = getattr(Settings(), name)
    return click.option(
        _OPTIONS[name], name, type=kind, default=default, show_default=True, help=text
    )


@main.command()
@click.argument("text", required=False, type=click.Path(path_type=Path))
@_setting("hidden", int, "Units of an LSTM layer.")
@_setting("layers", int, "LSTM layers.")
@_setting("embedding", int, "Features of a character.")
@_setting("steps", int, "Characters of a window of truncated back-propagation.")
@_setting("batch", int, "Parallel streams of the text.")
@_setting("epochs", int, "Passes over the training text; may be raised when resuming.")
@_setting("learning_rate", float, "Learning rate of Adam.")
@_setting("dropout", float, "Dropout between the layers.")
@_setting("clip", float, "Largest norm of the gradients.")
@_setting("seed", int, "Source of weights, dropout and samples.")
@click.option("--threads", type=int, help="Upper bound of threads; all by default.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("numba-lstm-run"),
    show_default=True,
    help="Folder of the run.",
)
@click.option("--resume", is_flag=True, help="Go on with the run in the folder.")
@click.option("--overwrite", is_flag=True, help="Replace the run in the folder.")
@click.pass_context
def train(
    context: click.Context,
    /,
    text: Path | None,
    threads: int | None,
    out: Path,
    resume: bool,
    overwrite: bool,
    **settings: Any,
) -> None:
    """Train a character-level language model on TEXT.

    Without TEXT it learns the Python language reference that every CPython carries.
    """
    if resume and overwrite:
        raise click.UsageError("--resume and --overwrite exclude each other")
    if resume:
        given = {
            name: value
            for name, value in settings.items()
            if context.get_parameter_source(name) is not ParameterSource.DEFAULT
        }
        run = TrainingRun.resume(out, _resumed_corpus(out, text), threads=threads, **given)
    else:
        corpus = python_reference_corpus() if text is None else text_file(text)
        run = TrainingRun.create(
            out, corpus, Settings(**settings), threads=threads, overwrite=overwrite
        )
    _announce(run)
    try:
        console = Console()
        if console.is_terminal:
            with _Bar(console) as bar:
                run.train(bar)
        else:
            run.train(_Lines())
    except KeyboardInterrupt:
        click.echo(f"interrupted; --resume --out {out} goes on from here", err=True)
        raise
    _conclude(run)


def _resumed_corpus(out: Path, text: Path | None) -> Corpus:
    """Text of a run that goes on: the one given, or the one that it began with."""
    if text is not None:
        return text_file(text)
    reference = python_reference_corpus()
    source = TrainingRun.source(out)
    return reference if source == reference.name else text_file(source)


def _announce(run: TrainingRun) -> None:
    """Say what is about to happen."""
    click.echo(
        f"{run.corpus.name}: {len(run.corpus.training):,} characters to learn, "
        f"{len(run.corpus.held_out):,} held out, "
        f"{len(run.model.vocabulary)} different"
    )
    click.echo(f"{run.model!r}: {run.model.parameters.size:,} parameters")


def _conclude(run: TrainingRun) -> None:
    """Draw the picture; show the figures and where things are."""
    from .language_model.plot import draw  # needs matplotlib, which takes long to import

    draw(run)
    progress = run.progress
    per_character = run.operations_per_window / (run.settings.steps * run.settings.batch)
    click.echo(f"held out    {progress.held_out[-1]:.4f} bits per character")
    click.echo(f"training    {progress.training[-1]:.4f} bits per character")
    click.echo(f"speed       {progress.speed:,.0f} characters per second")
    click.echo(f"            {per_character * progress.speed / 1e9:.1f} GFLOP/s")
    click.echo(f"time        {progress.seconds:.1f} s in training steps")
    click.echo(f"model       {run.folder / MODEL}")
    click.echo(f"picture     {run.folder / PICTURE}")
    click.echo(f"checkpoint  {run.folder / CHECKPOINT}")


def _language_model(path: Path, threads: int | None) -> CharLanguageModel:
    """Read a language model."""
    model = load(path, threads=threads)
    if not isinstance(model, CharLanguageModel):
        raise ValueError(f"{path} must hold a CharLanguageModel; got {type(model).__name__}")
    return model


@main.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--prompt", default="\n", help="Text to continue; a line's start by default.")
@click.option("--length", default=500, show_default=True, help="Characters to write.")
@click.option("--temperature", default=0.8, show_default=True, help="0 takes the likeliest.")
@click.option("--seed", type=int, help="Source of the draws; a fresh one by default.")
@click.option("--threads", type=int, help="Upper bound of threads; all by default.")
def generate(
    model: Path,
    prompt: str,
    length: int,
    temperature: float,
    seed: int | None,
    threads: int | None,
) -> None:
    """Write text with MODEL, a file that `train` made."""
    language_model = _language_model(model, threads)
    written = language_model.generate(prompt, length, temperature=temperature, seed=seed)
    click.echo(prompt.lstrip("\n") + written)


@main.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("text", type=click.Path(path_type=Path))
@click.option("--threads", type=int, help="Upper bound of threads; all by default.")
def evaluate(model: Path, text: Path, threads: int | None) -> None:
    """Measure how many bits per character MODEL needs for TEXT."""
    bits = _language_model(model, threads).evaluate(read_text(text))
    click.echo(f"{bits:.4f} bits per character")


@main.command()
def info() -> None:
    """Show what this machine offers and what the kernels make of it."""
    level1, level2, level3 = (f"{size >> 10} KiB" for size in cpu.cache_sizes())
    rows = {
        "CPU": f"{cpu.model_name()} ({cpu.cpu_name()})",
        "vector": f"{cpu.vector_bits()} bits, {cpu.lanes(4)} float32 or {cpu.lanes(8)} float64",
        "tile": f"{ROWS} rows x 4 vectors of {cpu.vector_registers()} registers",
        "caches": f"L1 {level1}, L2 {level2}, L3 {level3}",
        "threads": f"{threads.available()} of {cpu.cores()} cores, layer {threads.layer()}",
        "kernel cache": jit.cache_folder()
        or "none can be written: kernels compile in each process",
        "versions": (
            f"numba-lstm {__version__}, numba {numba.__version__}, "
            f"llvmlite {llvmlite.__version__}, NumPy {np.__version__}, "
            f"Python {sys.version.split()[0]}"
        ),
    }
    for name, value in rows.items():
        click.echo(f"{name:<13} {value}")
