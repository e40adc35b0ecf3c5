"""Files that are there whole at every moment: written beside their place, flushed, and renamed."""

from __future__ import annotations

import glob
import os
import secrets
import stat
from pathlib import Path

# Characters of a file's name that the one beside it has as well: of four bytes each, they leave it
# shorter than a name may be.
_LONGEST_BEGIN = 50


def _file_at(path: str | os.PathLike[str]) -> Path:
    """The file that a path leads to, behind all links."""
    return Path(os.path.realpath(path))


def _begin(name: str) -> str:
    """Beginning of a file's name."""
    return name[:_LONGEST_BEGIN]


def _part(begin: str, unique: str) -> str:
    """Name of a file that is being written, by the beginning of what it is to be."""
    return f".{begin}.{unique}.part"


def write_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that at every moment either the old or the new one is there, whole.

    A new one has the mode of the old one. What is no file, like a pipe, is written to as it is.

    Parameters
    ----------
    path : path-like
        Of the file, or of a link to it.
    content : bytes

    Raises
    ------
    OSError
        If it cannot be written; a file that was there before still is.
    """
    target = _file_at(path)
    beside = target.with_name(_part(_begin(target.name), secrets.token_hex(4)))
    try:
        given = Path(path)
        mode = given.stat().st_mode if given.exists() else None
        if mode is not None and not stat.S_ISREG(mode):
            given.write_bytes(content)
            return
        try:
            with beside.open("xb") as file:
                if mode is not None:
                    beside.chmod(stat.S_IMODE(mode))
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(target)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        _flush_folder(target.parent)
    except OSError as error:  # about the file that the caller named, not the one beside it
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None


def discard_parts(path: str | os.PathLike[str]) -> None:
    """Delete what was left beside a file by processes that were killed while they wrote it.

    Parameters
    ----------
    path : path-like
        Nobody else may be writing it now.
    """
    target = _file_at(path)
    for part in target.parent.glob(_part(glob.escape(_begin(target.name)), "*")):
        part.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Bring a renaming to disk, where folders can be opened at all."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
