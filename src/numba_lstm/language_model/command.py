"""The commands ``numba-lstm train``, ``generate`` and ``evaluate``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource
from rich.console import Console
from rich.progress import Progress

from ..storage import load
from .corpus import python_reference, read_text, text_file
from .interruption import prompt_end
from .model import CharLanguageModel
from .plot import draw
from .run import CHECKPOINT, MODEL, PICTURE, TrainingRun
from .settings import Settings
from .watchers import Bar, Lines

Command = TypeVar("Command", bound=Callable[..., Any])


def _say_interrupted(folder: Path) -> None:
    """Say how an interrupted run goes on."""
    out = shlex.quote(str(folder))
    click.echo(f"interrupted; numba-lstm train --resume --out {out} goes on", err=True)


def _leave(console: Console, folder: Path) -> None:
    """Give the terminal back where a run ends in the midst of a step."""
    console.show_cursor()
    _say_interrupted(folder)


def _setting(name: str, kind: Any, text: str) -> Callable[[Command], Command]:
    """Option of a setting, its default taken from `Settings`."""
    default = getattr(Settings(), name)
    option = "--" + name.replace("_", "-")
    return click.option(option, type=kind, default=default, show_default=True, help=text)


@click.command()
@click.argument("text", required=False, type=click.Path(path_type=Path))
@_setting("hidden", int, "Units of an LSTM layer.")
@_setting("layers", int, "LSTM layers.")
@_setting("embedding", int, "Features of a character.")
@_setting("steps", int, "Characters of a window of truncated back-propagation.")
@_setting("batch", int, "Parallel streams of the text.")
@_setting("epochs", int, "Passes over the training text; may be raised when resuming.")
@_setting("learning_rate", float, "Learning rate of Adam; it falls over the last quarter.")
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
    if find_spec("matplotlib") is None:
        raise ImportError('training.png needs matplotlib: pip install "numba-lstm[cli]"')
    if resume:
        given = {
            name: value
            for name, value in settings.items()
            if context.get_parameter_source(name) is not ParameterSource.DEFAULT
        }
        corpus = None if text is None else text_file(text)
        run = TrainingRun.resume(out, corpus, threads=threads, **given)
    else:
        corpus = python_reference() if text is None else text_file(text)
        run = TrainingRun.create(
            out, corpus, Settings(**settings), threads=threads, overwrite=overwrite
        )
    _announce(run)
    console = Console()
    try:
        with prompt_end(lambda: _leave(console, out)):
            if sys.stdout.isatty() and not console.is_dumb_terminal:
                with Bar(console, run) as bar:
                    run.train(bar)
            else:
                run.train(Lines())
        _conclude(run)
    except KeyboardInterrupt:
        _say_interrupted(out)
        raise


def _announce(run: TrainingRun) -> None:
    """Say what is about to happen."""
    click.echo(
        f"{run.corpus.name}: {len(run.corpus.training):,} characters to learn, "
        f"{len(run.corpus.held_out):,} held out, "
        f"{len(run.model.vocabulary)} different"
    )
    click.echo(f"{run.model!r}: {run.model.parameters.size:,} parameters")
    click.echo("kernels are loaded first; where there are none yet, compiling takes some seconds")


def _conclude(run: TrainingRun) -> None:
    """Draw the picture; show the figures and where things are."""
    draw(run)
    progress = run.progress
    per_character = run.operations_per_window / (run.settings.steps * run.settings.batch)
    click.echo(f"held out    {progress.held_out[-1]:.4f} bits per character")
    click.echo(f"training    {progress.training[-1]:.4f} bits per character")
    click.echo(f"speed       {progress.speed:,.0f} characters per second")
    click.echo(f"            {per_character * progress.speed / 1e9:.1f} GFLOP/s")
    click.echo(f"time        {progress.seconds:.1f} s of training steps")
    click.echo(f"model       {run.folder / MODEL}")
    click.echo(f"picture     {run.folder / PICTURE}")
    click.echo(f"checkpoint  {run.folder / CHECKPOINT}")


def _language_model(path: Path, threads: int | None) -> CharLanguageModel:
    """Read a language model."""
    model = load(path, threads=threads)
    if not isinstance(model, CharLanguageModel):
        raise ValueError(f"{path} must hold a CharLanguageModel; got {type(model).__name__}")
    return model


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--prompt", help="Text to continue; by default a new line is written.")
@click.option("--length", default=500, show_default=True, help="Characters to write.")
@click.option("--temperature", default=0.8, show_default=True, help="0 takes the likeliest.")
@click.option("--seed", type=int, help="Source of the draws; a fresh one by default.")
@click.option("--threads", type=int, help="Upper bound of threads; all by default.")
def generate(
    model: Path,
    prompt: str | None,
    length: int,
    temperature: float,
    seed: int | None,
    threads: int | None,
) -> None:
    """Write text with MODEL, a file that `train` made."""
    language_model = _language_model(model, threads)
    written = language_model.generate(
        language_model.opening if prompt is None else prompt,
        length,
        temperature=temperature,
        seed=seed,
    )
    click.echo((prompt or "") + written)


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("text", type=click.Path(path_type=Path))
@click.option("--threads", type=int, help="Upper bound of threads; all by default.")
def evaluate(model: Path, text: Path, threads: int | None) -> None:
    """Measure how many bits per character MODEL needs for TEXT."""
    language_model = _language_model(model, threads)
    content = read_text(text)
    if sys.stderr.isatty():
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("evaluating", total=len(content) - 1)
            bits = language_model.evaluate(
                content, progress=lambda done: bar.update(task, completed=done)
            )
    else:
        bits = language_model.evaluate(content)
    click.echo(f"{bits:.4f} bits per character")
