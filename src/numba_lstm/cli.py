"""The command ``numba-lstm``: train, generate, evaluate, warmup, bench, info."""

from __future__ import annotations

import io
import sys
from typing import Any

import click
import llvmlite
import numba
import numpy as np

from . import __version__, jit, threadpool
from .bench.command import bench
from .kernels.tiling import ROWS
from .language_model.command import evaluate, generate, train
from .language_model.interruption import INTERRUPTED_STATUS
from .simd import cpu
from .warmup import warmup as warm_up

_BAD_INPUT_STATUS = 2
_NO_CACHE = "none can be written: what is not there compiles in each process"


class _OneLineErrors(click.Group):
    """Shows what the user can mend in one line, with exit status 2."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().main(*arguments, **{**options, "standalone_mode": False})
        except click.ClickException as error:
            _fail(error.format_message())
        except (click.Abort, KeyboardInterrupt):
            sys.exit(INTERRUPTED_STATUS)
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


for command in (train, generate, evaluate, bench):
    main.add_command(command)


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
