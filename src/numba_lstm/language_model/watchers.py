"""How the command line shows a run: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from .run import TrainingRun, Watcher

# Plain lines, where nobody watches a bar.
_SECONDS_BETWEEN_LINES = 10.0


class Bar(Watcher):
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

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._bar.stop()

    def _show(self, run: TrainingRun, description: str, **changes: Any) -> None:
        progress = run.progress
        self._bar.update(
            self._task,
            description=description,
            training=f"{progress.smoothed:.3f}" if progress.losses else "-",
            held_out=f"{progress.held_out[-1]:.3f}" if progress.held_out else "-",
            speed=progress.speed,
            **changes,
        )

    def stepped(self, run: TrainingRun) -> None:
        """See `Watcher`."""
        self._show(run, _position(run), advance=1)

    def evaluating(self, run: TrainingRun, characters: int) -> None:
        """See `Watcher`."""
        share = characters / (len(run.corpus.held_out) - 1)  # the first one is given
        self._show(run, f"{_position(run)} evaluating {share:.0%}")

    def completed_epoch(self, run: TrainingRun, sample: str) -> None:
        """See `Watcher`."""
        self._show(run, _position(run))
        self._console.print(_epoch_line(run), highlight=False)
        self._console.print(_indented(sample), style="dim", markup=False, highlight=False)


class Lines(Watcher):
    """Plain lines in a pipe or a log file."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def stepped(self, run: TrainingRun) -> None:
        """See `Watcher`."""
        progress = run.progress
        if time.monotonic() - self._last < _SECONDS_BETWEEN_LINES or not progress.speed:
            return
        self._last = time.monotonic()
        left = (run.settings.epochs - progress.epoch) * run.streams.windows - progress.window
        characters = left * run.settings.steps * run.settings.batch
        click.echo(
            f"{_position(run)}, window {progress.window}/{run.streams.windows}: "
            f"{progress.smoothed:.3f} bits/char, {progress.speed:,.0f} chars/s, "
            f"{characters / progress.speed:.0f} s left"
        )

    def completed_epoch(self, run: TrainingRun, sample: str) -> None:
        """See `Watcher`."""
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
