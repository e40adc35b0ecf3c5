"""``python -m numba_lstm``, which is the command ``numba-lstm``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command, or say which package it lacks."""
    try:
        from .cli import main as command
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package not in ("click", "rich"):
            raise
        print(
            f'numba-lstm: the command line needs {package}: pip install "numba-lstm[cli]"',
            file=sys.stderr,
        )
        sys.exit(2)
    command()


if __name__ == "__main__":
    main()
