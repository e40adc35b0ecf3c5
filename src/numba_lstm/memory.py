"""Arrays as kernels take them, aligned to a cache line, flat, of one type each; places in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .validation import describe_shape

CACHE_LINE = 64
# What stands for an array that was left out.
NOTHING = {name: np.empty(0, name) for name in ("float32", "float64")}
# Between what one worker writes over and over, and what another does. The prefetchers of a core run
# ahead of what it reads to the end of a page, and take the other core's lines away: two cores with
# an L3 each went through T1000 B50 I1 H32 at 144 GFLOP/s, where one did at 136, and 262 with this.
APART_BYTES = 4096


def round_up(count: int, multiple: int) -> int:
    """Round up to a multiple."""
    return -(-count // multiple) * multiple


def aligned_empty(shape: int | Sequence[int], dtype: Any) -> NDArray[Any]:
    """Return an uninitialised array that starts on a cache line (`np.empty` aligns to 16 bytes).

    Raises
    ------
    MemoryError
        If there is no room for it.
    """
    dtype = np.dtype(dtype)
    axes = tuple(shape) if isinstance(shape, Sequence) else (shape,)
    nbytes = math.prod(axes) * dtype.itemsize
    if nbytes > np.iinfo(np.intp).max - CACHE_LINE:
        raise MemoryError(f"no room for an array of shape {describe_shape(axes)} in {dtype}")
    raw = np.empty(nbytes + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    aligned: NDArray[Any] = raw[start : start + nbytes].view(dtype).reshape(shape)
    return aligned


def aligned_zeros(shape: int | Sequence[int], dtype: Any) -> NDArray[Any]:
    """Return an array of zeros that starts on a cache line.

    Raises
    ------
    MemoryError
        If there is no room for it.
    """
    array = aligned_empty(shape, dtype)
    array.fill(0)
    return array


class _Writable:
    """The memory of a read-only array under a writable face."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array
        self.__array_interface__ = {
            **array.__array_interface__,
            "data": (array.__array_interface__["data"][0], False),
        }


def writable(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array under a writable face, for a kernel that only reads it.

    To Numba a read-only array has another type, for which it would compile every kernel again.
    """
    return array if array.flags.writeable else np.asarray(_Writable(array))


def flat(array: NDArray[Any]) -> NDArray[Any]:
    """Return a flat, writable view of a C-contiguous array, for a kernel."""
    return writable(array).ravel()  # in a seventh of the time of `reshape`


class Places:
    """Hands out places in a buffer, each at the start of a cache line.

    Parameters
    ----------
    itemsize : int
        Bytes of its numbers.

    Attributes
    ----------
    size : int
        Numbers up to the end of the last place.
    """

    def __init__(self, itemsize: int) -> None:
        self._line = CACHE_LINE // itemsize
        self.size = 0

    def take(self, *shape: int) -> int:
        """Take a place; returns where it begins, counted in numbers."""
        place = self.size
        self.size += round_up(math.prod(shape), self._line)
        return place

    def take_apart(self, count: int, size: int) -> tuple[int, int]:
        """Take so many places alike; returns the first, and how far on the next one is."""
        between = APART_BYTES // CACHE_LINE * self._line if count > 1 else 0
        onwards = round_up(size, self._line) + between
        return self.take(count, onwards), onwards
