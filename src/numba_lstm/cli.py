"""The command ``numba-lstm``: train, generate, evaluate, warmup, bench, info."""

from __future__ import annotations

import io
import os
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

try:
    import click
    from click.core import ParameterSource
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
except ImportError as error:
    raise ImportError(
        f'the command line needs {error.name}: pip install "numba-lstm[cli]"'
    ) from None

import llvmlite
import numba
import numpy as np

from . import __version__, jit, threadpool
from .bench.command import bench
from .kernels.gemm import ROWS
from .language_model import (
    CharLanguageModel,
    Settings,
    TrainingRun,
    Watcher,
    python_reference,
    text_file,
)
from .language_model.corpus import read_text
from .language_model.plot import draw
from .language_model.run import CHECKPOINT, MODEL, PICTURE
from .simd import cpu
from .storage import load
from .warmup import warmup as warm_up

Command = TypeVar("Command", bound=Callable[..., Any])

_BAD_INPUT_STATUS = 2
_INTERRUPTED_STATUS = 130
_NO_CACHE = "none can be written: what is not there compiles in each process"
# How long a training step and its checkpoint may take after Ctrl-C.
_SECONDS_TO_FINISH = 0.7
# Plain lines, where nobody watches a bar.
_SECONDS_BETWEEN_LINES = 10.0


class _Bar(Watcher):
    """A live progress bar on a terminal."""

    def __init__(self, console: Console, run: TrainingRun) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("[bold]{task.description}[/]"),
            BarColumn(bar_width=None),
            TextColumn("training [bold cyan]{task.fields[training]}[/]"),
            TextColumn("held out [bold magenta]{task.fields[held_out]}[/] bits/char"),
            TextColumn("{task.fields[speed]:,.0f} chars/s"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            expand=True,
            refresh_per_second=4,  # each refresh takes time from the kernels
        )
        windows = run.streams.windows
        self._task = self._bar.add_task(
            "",
            total=run.settings.epochs * windows,
            completed=run.progress.epoch * windows + run.progress.window,
        )
        self._show(run, "loading kernels")

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._bar.stop()

    def _show(self, run: TrainingRun, description: str, **changes: Any) -> None:
        progress = run.progress
        self._bar.update(
            self._task,
            description=description,
            training=f"{progress.bits:.3f}" if progress.losses else "-",
            held_out=f"{progress.held_out[-1]:.3f}" if progress.held_out else "-",
            speed=progress.speed,
            **changes,
        )

    def stepped(self, run: TrainingRun) -> None:
        self._show(run, _position(run), advance=1)

    def evaluating(self, run: TrainingRun, characters: int) -> None:
        share = characters / (len(run.corpus.held_out) - 1)  # the first one is given
        self._show(run, f"{_position(run)} evaluating {share:.0%}")

    def completed_epoch(self, run: TrainingRun, sample: str) -> None:
        self._show(run, _position(run))
        self._console.print(_epoch_line(run), highlight=False)
        self._console.print(_indented(sample), style="dim", markup=False, highlight=False)


class _Lines(Watcher):
    """Plain lines in a pipe or a log file."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def stepped(self, run: TrainingRun) -> None:
        progress = run.progress
        if time.monotonic() - self._last < _SECONDS_BETWEEN_LINES or not progress.speed:
            return
        self._last = time.monotonic()
        left = (run.settings.epochs - progress.epoch) * run.streams.windows - progress.window
        characters = left * run.settings.steps * run.settings.batch
        click.echo(
            f"{_position(run)}, window {progress.window}/{run.streams.windows}: "
            f"{progress.bits:.3f} bits/char, {progress.speed:,.0f} chars/s, "
            f"{characters / progress.speed:.0f} s left"
        )

    def completed_epoch(self, run: TrainingRun, sample: str) -> None:
        click.echo(_epoch_line(run))
        click.echo(_indented(sample))


def _position(run: TrainingRun) -> str:
    """The epoch that a run is in."""
    epochs = run.settings.epochs
    return f"epoch {min(run.progress.epoch + 1, epochs)}/{epochs}"


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
        except click.ClickException as error:
            _fail(error.format_message())
        except (click.Abort, KeyboardInterrupt):
            sys.exit(_INTERRUPTED_STATUS)
        except (
            OSError,
            ValueError,
            TypeError,
            FloatingPointError,
            ImportError,
            MemoryError,
        ) as error:
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


@contextmanager
def _prompt_end(folder: Path) -> Iterator[None]:
    """End within a second of Ctrl-C, also in a long kernel or a compilation.

    Python hears of a signal only between two of its own instructions, but the byte that the signal
    writes wakes a thread. Ending there costs what was done since the last checkpoint.
    """
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    finished = threading.Event()

    def watch() -> None:
        while received := receiver.recv(1):
            if received[0] == signal.SIGINT and not finished.wait(_SECONDS_TO_FINISH):
                Console().show_cursor()
                _say_interrupted(folder)
                os._exit(_INTERRUPTED_STATUS)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        finished.set()
        signal.set_wakeup_fd(before)
        sender.close()
        watcher.join()
        receiver.close()


def _say_interrupted(folder: Path) -> None:
    """Say how an interrupted run goes on."""
    out = shlex.quote(str(folder))
    click.echo(f"interrupted; numba-lstm train --resume --out {out} goes on", err=True)


@click.group(
    cls=_OneLineErrors,
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
)
@click.version_option(__version__, prog_name="numba-lstm")
@click.pass_context
def main(context: click.Context, /) -> None:
    """Train and run LSTMs on a CPU."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what a terminal lacks must not end a run
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def _setting(name: str, kind: Any, text: str) -> Callable[[Command], Command]:
    """Option of a setting, its default taken from `Settings`."""
    default = getattr(Settings(), name)
    option = "--" + name.replace("_", "-")
    return click.option(option, type=kind, default=default, show_default=True, help=text)


@main.command()
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
        with _prompt_end(out):
            if sys.stdout.isatty() and not console.is_dumb_terminal:
                with _Bar(console, run) as bar:
                    run.train(bar)
            else:
                run.train(_Lines())
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


@main.command()
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


@main.command()
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


@main.command()
@click.option(
    "--dtype",
    "dtypes",
    type=click.Choice(["float32", "float64"]),
    multiple=True,
    default=("float32", "float64"),
    help="Of the models to come; may be given twice. Both by default.",
)
@click.option("--inference", is_flag=True, help="Leave the kernels of training out.")
@click.option("--threads", type=int, help="Upper bound of threads of the calls to come.")
def warmup(dtypes: tuple[str, ...], inference: bool, threads: int | None) -> None:
    """Compile all kernels ahead of their first use, as in the build of a container."""
    kernels = warm_up(dtypes=dtypes, training=not inference, threads=threads)
    for kernel in kernels:
        how = "compiled" if kernel.compiled else "from the cache"
        how += "" if kernel.kept else ", not kept"
        click.echo(f"{kernel.name:<36}  {kernel.dtype}  {kernel.seconds:6.2f} s  {how}")
    compiled = sum(kernel.compiled for kernel in kernels)
    lost = sum(not kernel.kept for kernel in kernels)
    click.echo(
        f"{compiled} kernels compiled, {len(kernels) - compiled} from the cache, "
        f"in {sum(kernel.seconds for kernel in kernels):.1f} s"
    )
    click.echo(f"kernel cache  {jit.cache_folder() or _NO_CACHE}")
    if lost and jit.cache_folder():
        click.echo(f"{lost} kernels could not be written there, and compile in each process")


main.add_command(bench)


def _size(count: int) -> str:
    """Bytes in the largest unit that makes them a whole number."""
    return f"{count >> 20} MiB" if count % (1 << 20) == 0 else f"{count >> 10} KiB"


@main.command()
def info() -> None:
    """Show what this machine offers and what the kernels make of it."""
    level1, level2, level3 = map(_size, cpu.cache_sizes())
    rows = {
        "CPU": f"{cpu.model_name()} ({cpu.cpu_name()})",
        "vector": f"{cpu.vector_bits()} bits, {cpu.lanes(4)} float32 or {cpu.lanes(8)} float64",
        "tile": f"{ROWS} rows x 4 vectors of {cpu.vector_registers()} registers",
        "caches": f"L1 {level1}, L2 {level2}, L3 {level3}",
        "threads": f"{threadpool.available()} of {cpu.cores()} cores, layer {threadpool.layer()}",
        "kernel cache": jit.cache_folder() or _NO_CACHE,
        "versions": (
            f"numba-lstm {__version__}, numba {numba.__version__}, "
            f"llvmlite {llvmlite.__version__}, NumPy {np.__version__}, "
            f"Python {sys.version.split()[0]}"
        ),
    }
    for name, value in rows.items():
        click.echo(f"{name:<13} {value}")
