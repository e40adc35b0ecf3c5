"""What was measured, as tables and as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import llvmlite
import numba
import numpy as np
from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from .. import __version__
from ..simd import cpu
from .comparison import Comparison
from .language_model import TrainingComparison
from .limits import Limits
from .shapes import Shape

# A narrow terminal folds names rather than leaving out digits.
_FIGURE_WIDTH = 6
_STYLES = {"ratio": "bold cyan", "of limit": "magenta"}


def table(comparisons: Sequence[Comparison]) -> Table:
    """Lay out comparisons of one number of threads for a terminal.

    Parameters
    ----------
    comparisons : sequence of Comparison
        At least one.

    Returns
    -------
    rich.table.Table
    """
    engines = _engines(comparisons)
    laid_out = Table(title=_title(comparisons[0]), title_justify="left", box=SIMPLE)
    laid_out.add_column(comparisons[0].mode, no_wrap=True)
    laid_out.add_column("sizes", style="dim")
    for header in (*engines, "ratio", "of limit"):
        style = _STYLES.get(header)
        laid_out.add_column(
            header, justify="right", style=style, min_width=_FIGURE_WIDTH, overflow="fold"
        )
    for comparison in comparisons:
        name, *sizes, layers = _shape_cells(comparison.shape)
        cells = _measured_cells(comparison, engines, bold=("[bold]", "[/]"))
        laid_out.add_row(escape(name), f"{' x '.join(sizes)}, {layers}", *cells)
    return laid_out


def markdown(comparisons: Sequence[Comparison]) -> str:
    """Lay out comparisons of one number of threads as a Markdown table, losing rows included.

    Parameters
    ----------
    comparisons : sequence of Comparison
        At least one.

    Returns
    -------
    str
    """
    engines = _engines(comparisons)
    rows = [[comparisons[0].mode, "T", "B", "I", "H", "layers", *engines, "ratio", "of limit"]]
    for comparison in comparisons:
        cells = _measured_cells(comparison, engines, bold=("**", "**"))
        rows.append([*_shape_cells(comparison.shape), *cells])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|---" * len(rows[0]) + "|")
    return "\n".join([f"{_title(comparisons[0])}.", "", *lines])


def training_lines(comparison: TrainingComparison) -> list[str]:
    """Describe a comparison of the main job's training step, a line for every engine.

    Parameters
    ----------
    comparison : TrainingComparison

    Returns
    -------
    list of str
    """
    lines = [
        f"{name:<13} {comparison.speed(name):>9,.0f} characters/s, "
        f"{training.loss:.3f} bits/char after {len(training.losses)} steps"
        for name, training in comparison.trainings.items()
    ]
    if comparison.ratio is not None:
        lines.append(f"{'ratio':<13} {comparison.ratio:>9.2f}")
    return lines + [f"skipped {name}: {reason}" for name, reason in comparison.skipped.items()]


def skipped_lines(comparisons: Sequence[Comparison]) -> list[str]:
    """Say which engines were left out of some shapes, or of all, and why.

    Parameters
    ----------
    comparisons : sequence of Comparison

    Returns
    -------
    list of str
    """
    shapes: dict[tuple[str, str], list[str]] = {}
    for comparison in comparisons:
        for reason in comparison.skipped.items():
            shapes.setdefault(reason, []).append(comparison.shape.name)
    return [
        f"skipped {name}{'' if len(some) == len(comparisons) else ' at ' + ' and '.join(some)}: "
        f"{reason}"
        for (name, reason), some in shapes.items()
    ]


def limit_line(limits: Sequence[Limits]) -> str:
    """Describe the limits of this machine.

    Parameters
    ----------
    limits : sequence of Limits
        Of the same threads and dtype, at different times.

    Returns
    -------
    str
    """
    one = limits[0]
    rates = [f"{rate / 1e9:.1f}" for rate in sorted(limit.operations for limit in limits)]
    operations = rates[0] if rates[0] == rates[-1] else f"{rates[0]} to {rates[-1]}"
    reads = ", ".join(f"{level} {rate / 1e9:.0f}" for level, rate in one.bandwidths.items())
    return (
        f"limits on {count(one.threads, 'thread')}: {operations} GFLOP/s of "
        f"{one.dtype} multiply-adds; reads in GB/s: {reads}"
    )


def count(number: int, thing: str) -> str:
    """Write a number of things.

    Parameters
    ----------
    number : int
    thing : str
        In the singular.

    Returns
    -------
    str
    """
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def as_data(
    comparisons: Sequence[Comparison], training: Sequence[TrainingComparison]
) -> dict[str, Any]:
    """Return all that was measured as what JSON can hold.

    Parameters
    ----------
    comparisons : sequence of Comparison
    training : sequence of TrainingComparison

    Returns
    -------
    dict
    """
    return {
        "machine": {
            "cpu": cpu.model_name(),
            "compiled_for": cpu.cpu_name(),
            "vector_bits": cpu.vector_bits(),
            "cores": cpu.cores(),
            "cache_bytes": list(cpu.cache_sizes()),
        },
        "versions": {
            "numba-lstm": __version__,
            "numba": numba.__version__,
            "llvmlite": llvmlite.__version__,
            "numpy": np.__version__,
        },
        "limits": [
            {
                "threads": limit.threads,
                "dtype": limit.dtype,
                "gigabytes_per_second": {
                    level: rate / 1e9 for level, rate in limit.bandwidths.items()
                },
            }
            for limit in {one.limits.threads: one.limits for one in comparisons}.values()
        ],
        "comparisons": [_comparison_data(comparison) for comparison in comparisons],
        "language_model": [_training_data(comparison) for comparison in training],
    }


def _comparison_data(comparison: Comparison) -> dict[str, Any]:
    shape = comparison.shape
    return {
        "shape": {
            "name": shape.name,
            "T": shape.T,
            "B": shape.B,
            "I": shape.I,
            "H": shape.H,
            "layers": shape.layers,
            "bidirectional": shape.bidirectional,
        },
        "mode": comparison.mode,
        "dtype": comparison.limits.dtype,
        "threads": comparison.limits.threads,
        "operations": comparison.operations,
        "multiply_add_gflops": comparison.limits.operations / 1e9,
        "limit_gflops": comparison.highest_rate / 1e9,
        "engines": {
            name: {
                "version": measurement.version,
                "seconds": measurement.seconds,
                "quartiles": list(measurement.quartiles),
                "samples": measurement.samples,
                "gflops": comparison.rate(name) / 1e9,
                "difference": measurement.difference,
            }
            for name, measurement in comparison.measurements.items()
        },
        "skipped": dict(comparison.skipped),
        "best_peer": comparison.best_peer,
        "ratio": comparison.ratio,
        "share_of_limit": comparison.share_of_limit,
    }


def _training_data(comparison: TrainingComparison) -> dict[str, Any]:
    return {
        "threads": comparison.threads,
        "engines": {
            name: {
                "version": training.version,
                "seconds": training.seconds,
                "characters_per_second": comparison.speed(name),
                "losses": list(training.losses),
                "loss": training.loss,
            }
            for name, training in comparison.trainings.items()
        },
        "skipped": dict(comparison.skipped),
        "ratio": comparison.ratio,
    }


def _title(comparison: Comparison) -> str:
    figures = "Microseconds a step" if comparison.mode == "stream" else "GFLOP/s"
    return f"{figures} on {count(comparison.limits.threads, 'thread')}, {comparison.limits.dtype}"


def _engines(comparisons: Sequence[Comparison]) -> list[str]:
    """Engines that measured something, in the order in which they came."""
    names = (name for comparison in comparisons for name in comparison.measurements)
    return list(dict.fromkeys(names))


def _shape_cells(shape: Shape) -> list[str]:
    """Name, T, B, I, H, and the layers of a shape."""
    layers = f"{shape.layers}, both ways" if shape.bidirectional else str(shape.layers)
    return [shape.name, *map(str, (shape.T, shape.B, shape.I, shape.H)), layers]


def _figure(comparison: Comparison, engine: str) -> str:
    """Speed of an engine: of a stream what one step takes, of others the rate."""
    if comparison.mode == "stream":
        return f"{comparison.measurements[engine].seconds / comparison.shape.T * 1e6:.1f}"
    return f"{comparison.rate(engine) / 1e9:.1f}"


def _measured_cells(
    comparison: Comparison, engines: Sequence[str], bold: tuple[str, str]
) -> list[str]:
    """Speed of every engine, the fastest in bold; the ratio; the share of the limit."""
    measured = comparison.measurements
    fastest = min(measured, key=lambda name: measured[name].seconds)
    cells = []
    for engine in engines:
        text = _figure(comparison, engine) if engine in measured else "-"
        cells.append(f"{bold[0]}{text}{bold[1]}" if engine == fastest else text)
    ratio = "-" if comparison.ratio is None else f"{comparison.ratio:.2f}"
    return [*cells, ratio, f"{comparison.share_of_limit:.0%}"]
