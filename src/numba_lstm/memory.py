"""Arrays as kernels take them: aligned to a cache line, flat, of one type each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .validation import describe_shape

CACHE_LINE = 64


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
