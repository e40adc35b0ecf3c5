"""Every buffer that a call needs, laid out beforehand in one piece of memory.

One table of (name, shape) per cell drives places, sizes and the tables that kernels read.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import LSTMConfig
from .kernels.gemm import ROWS
from .kernels.tables import CALL, CELL, TASK_FEATURES
from .memory import CACHE_LINE, aligned_empty
from .simd import cpu
from .validation import FloatArray

# Rows whose distance is a multiple of this fall into the same sets of the L1 cache.
_ALIASING_BYTES = 4096


def _up(count: int, multiple: int) -> int:
    """Round up to a multiple."""
    return -(-count // multiple) * multiple


class _Places:
    """Hands out places in a buffer, each at the start of a cache line."""

    def __init__(self, itemsize: int) -> None:
        self._line = CACHE_LINE // itemsize
        self.size = 0

    def take(self, *shape: int) -> int:
        place = self.size
        self.size += _up(math.prod(shape), self._line)
        return place


@dataclass(frozen=True)
class PackedLayout:
    """Where the packed weights of every cell stand.

    Attributes
    ----------
    cells : array of CELL
        Sizes, places of the parameters and of the packed weights.
    forward_size, backward_size : int
        Numbers of what the forward pass reads, and of what the backward pass reads.
    """

    cells: NDArray[Any]
    forward_size: int
    backward_size: int


def _row_stride(count: int, itemsize: int) -> int:
    """Numbers from one row to the next, off the multiples of 4096 bytes."""
    aliased = (count * itemsize) % _ALIASING_BYTES == 0
    return count + CACHE_LINE // itemsize if aliased else count


@functools.lru_cache(maxsize=256)
def packed_layout(config: LSTMConfig) -> PackedLayout:
    """Lay out packed weights.

    Parameters
    ----------
    config : LSTMConfig

    Returns
    -------
    PackedLayout
    """
    shapes = config.shapes()
    ends = itertools.accumulate(map(math.prod, shapes.values()))
    places = dict(zip(shapes, (0, *ends), strict=False))
    itemsize = config.numpy_dtype.itemsize
    W = cpu.lanes(itemsize)
    H, D = config.hidden_size, config.directions
    padded = _up(H, W)
    cells = np.zeros(config.cells, CELL)
    forward, backward = _Places(itemsize), _Places(itemsize)
    for index, cell in enumerate(cells):
        suffix = config.suffix(index)
        cell["inputs"] = config.inputs(index // D)
        cell["hidden"] = H
        cell["reverse"] = index % D
        cell["state_row"] = _row_stride(padded, itemsize)
        cell["gates_row"] = _row_stride(4 * padded, itemsize)
        cell["weight_ih"] = places[f"weight_ih_{suffix}"]
        cell["weight_hh"] = places[f"weight_hh_{suffix}"]
        cell["bias"] = places.get(f"bias_{suffix}", -1)
        cell["panels"] = forward.take(padded // W, 1 + int(cell["inputs"]) + H, 4, W)
        cell["recurrent_panels"] = backward.take(1 + 4 * padded, padded)
        if index % D == 0:
            input_panels = backward.take(1 + D * 4 * padded, _up(int(cell["inputs"]), W))
        cell["input_panels"] = input_panels
    return PackedLayout(cells, forward.size, backward.size)


@dataclass(frozen=True)
class Layout:
    """Where everything stands that one call needs.

    Attributes
    ----------
    call : (1,) array of CALL
        A template: each call fills in its own strides and dropout.
    cells : array of CELL
    size : int
        Numbers in the workspace.
    workers : int
        Largest number of workers that have a scratch.
    """

    call: NDArray[Any]
    cells: NDArray[Any]
    size: int
    workers: int


@functools.lru_cache(maxsize=256)
def layout(config: LSTMConfig, T: int, B: int, training: bool, workers: int) -> Layout:
    """Lay out the workspace of a call.

    Parameters
    ----------
    config : LSTMConfig
    T, B : int
        Steps and batch.
    training : bool
        Whether what backward needs is kept.
    workers : int
        Largest number of workers, each with a scratch of its own.

    Returns
    -------
    Layout
    """
    itemsize = config.numpy_dtype.itemsize
    W = cpu.lanes(itemsize)
    D, L = config.directions, config.num_layers
    places = _Places(itemsize)
    call = np.zeros(1, CALL)
    sizes = call[0]
    sizes["steps"], sizes["batch"], sizes["layers"], sizes["directions"] = T, B, L, D
    sizes["training"] = training
    sizes["h_slots"] = T + 1 if training else 2
    sizes["c_slots"] = T + 1 if training else 1
    # A tile, or the sums of a task of weight gradients and a row for the constant 1.
    scratch_rows = 1 + TASK_FEATURES if training else ROWS
    sizes["scratch_size"] = scratch_rows * 4 * W
    sizes["scratch"] = places.take(workers, int(sizes["scratch_size"]))
    cells = packed_layout(config).cells.copy()
    for index, cell in enumerate(cells):
        state_row = int(cell["state_row"])
        cell["h"] = places.take(int(sizes["h_slots"]), B, state_row)
        cell["c"] = places.take(int(sizes["c_slots"]), B, state_row)
        if training:
            cell["gates"] = places.take(T, B, int(cell["gates_row"]))
            cell["dh"] = places.take(B, state_row)
            cell["dc"] = places.take(B, state_row)
        if index < (L - 1) * D:
            if index % D == 0:
                outputs = places.take(T, B, config.output_size)
            cell["outputs"] = outputs
    if training and L > 1:
        sizes["doutputs"] = places.take(T, B, config.output_size)
    return Layout(call, cells, places.size, workers)


class Workspace:
    """Memory for one call at a time; it grows to the largest call and stays.

    Parameters
    ----------
    dtype : dtype
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self.buffer: FloatArray = aligned_empty(0, dtype)

    def reserve(self, size: int) -> FloatArray:
        """Return memory for at least `size` numbers."""
        if self.buffer.size < size:
            self.buffer = aligned_empty(size, self._dtype)
        return self.buffer


class WorkspacePool:
    """Workspaces of one model: as many as there were calls at the same time."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._free: list[Workspace] = []

    def borrow(self) -> Workspace:
        """Take a workspace that no other call has."""
        try:
            return self._free.pop()
        except IndexError:
            return Workspace(self._dtype)

    def give_back(self, workspace: Workspace) -> None:
        """Let other calls have a workspace."""
        self._free.append(workspace)
