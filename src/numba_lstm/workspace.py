"""Every buffer that a call needs, laid out beforehand in one piece of memory.

Places are taken one behind another, and entered with all sizes in the tables that kernels read.
"""

from __future__ import annotations

import enum
import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import LSTMConfig
from .kernels.gemm import (
    NARROW,
    ROWS,
    TILE_VECTORS,
    WIDE,
    stretches_for_terms,
    widest_for_rows,
)
from .kernels.gradient_tasks import steps_for_batch
from .kernels.tables import BLOCK_TERMS, CALL, CELL, FLOATS_OF_FLAG, ROOM_FOR_TERMS, TASK_FEATURES
from .memory import CACHE_LINE, aligned_empty
from .schedule import (
    LONGEST_CHUNK,
    Split,
    are_distant,
    groups_of_sums,
    inference_split,
    projects_ahead,
    row_workers,
    training_split,
)
from .simd import cpu
from .validation import FloatArray, integer

# Backward goes at once through as many steps as have so many times `cpu.cached_numbers` of gates.
_SPAN = 6
# Rows whose distance is a multiple of this fall into the same sets of the L1 cache.
_ALIASING_BYTES = 4096
# Between what one worker writes over and over, and what another does. The prefetchers of a core run
# ahead of what it reads to the end of a page, and take the other core's lines away: two cores with
# an L3 each went through T1000 B50 I1 H32 at 144 GFLOP/s, where one did at 136, and 262 with this.
_APART_BYTES = 4096


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

    def take_apart(self, workers: int, count: int) -> tuple[int, int]:
        """Take a place for each worker; returns the first, and how far on the next one's is."""
        between = _APART_BYTES // CACHE_LINE * self._line if workers > 1 else 0
        onwards = _up(count, self._line) + between
        return self.take(workers, onwards), onwards


class PanelForm(enum.Enum):
    """How weights are packed (`kernels.panels`)."""

    WIDE = "panels of four vectors"
    WHOLE = "the same, with room for W units in the last one, however few they are"
    TALL = "panels of two vectors, for tall tiles"
    TALL_AHEAD = "the same, but the inputs' rows wide: they are projected ahead"


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
def packed_layout(config: LSTMConfig, form: PanelForm) -> PackedLayout:
    """Lay out packed weights.

    Parameters
    ----------
    config : LSTMConfig
    form : PanelForm

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
    columns = 4 * (padded if form is PanelForm.WHOLE else H)
    tall = form in (PanelForm.TALL, PanelForm.TALL_AHEAD)
    cells = np.zeros(config.cells, CELL)
    forward, backward = _Places(itemsize), _Places(itemsize)
    for index, cell in enumerate(cells):
        suffix = config.suffix(index)
        cell["inputs"] = config.inputs(index // D)
        cell["hidden"] = H
        cell["reverse"] = index % D
        cell["state_row"] = _row_stride(padded, itemsize)
        cell["weight_ih"] = places[f"weight_ih_{suffix}"]
        cell["weight_hh"] = places[f"weight_hh_{suffix}"]
        cell["bias"] = places.get(f"bias_{suffix}", -1)
        cell["gate_columns"] = columns
        cell["widest"] = NARROW if tall else WIDE
        rows_of_inputs = 1 + int(cell["inputs"])
        cell["wide_rows"] = rows_of_inputs + H
        if tall:
            cell["wide_rows"] = rows_of_inputs if form is PanelForm.TALL_AHEAD else 0
        cell["panels"] = forward.take(rows_of_inputs + H, _up(columns, W))
        cell["recurrent_panels"] = backward.take(1 + columns, padded)
        if index % D == 0:
            input_panels = backward.take(1 + D * columns, _up(int(cell["inputs"]), W))
        cell["input_panels"] = input_panels
    return PackedLayout(cells, forward.size, backward.size)


@dataclass(frozen=True)
class Piece:
    """Layers, directions and steps that the kernels run through at once when they train.

    Attributes
    ----------
    layers, directions : tuple of (int, int)
        First, and the one behind the last.
    start, stop : int
        First step, and the one behind the last.
    segment : int
        Number of these steps among the segments of the sequence.
    """

    layers: tuple[int, int]
    directions: tuple[int, int]
    start: int
    stop: int
    segment: int

    def select(self, call: NDArray[Any]) -> None:
        """Make this piece the one that a call runs."""
        call["first_layer"], call["last_layer"] = self.layers
        call["first_direction"], call["last_direction"] = self.directions
        call["start"], call["stop"], call["segment"] = self.start, self.stop, self.segment
        call["kept"] = self.start
        # The directions begin at opposite ends of the sequence: the outputs of all steps are held.
        call["held"] = self.start if call["directions"] == 1 else 0


def _pieces(config: LSTMConfig, T: int, segment: int) -> tuple[Piece, ...]:
    """Pieces of a sequence, in the order of the forward pass."""
    D, L = config.directions, config.num_layers
    starts = range(0, T, segment) if segment else ()
    if len(starts) <= 1:
        return (Piece((0, L), (0, D), 0, T, 0),)
    # The second direction of a layer runs the other way, and both must end before the next layer.
    layers = [(0, L)] if D == 1 else [(layer, layer + 1) for layer in range(L)]
    return tuple(
        Piece(some, (direction, direction + 1), start, min(T, start + segment), number)
        for some in layers
        for direction in range(D)
        for number, start in list(enumerate(starts))[:: -1 if direction else 1]
    )


def segment_steps(checkpoint: Any, T: int, B: int) -> int:
    """Steps between two states that are kept, 0 for all in one.

    Parameters
    ----------
    checkpoint : int, "auto" or None
        Wish of the user.
    T, B : int

    Returns
    -------
    int
        A multiple of the steps of a block of weight gradients.

    Raises
    ------
    TypeError, ValueError
        If the wish is another, or below 1.
    """
    if checkpoint is None:
        return 0
    if isinstance(checkpoint, str):
        if checkpoint != "auto":
            raise ValueError(f'checkpoint must be an integer, "auto" or None; got {checkpoint!r}')
        wish = max(1, math.isqrt(T))
    else:
        wish = integer("checkpoint", checkpoint, least=1)
    return _up(wish, steps_for_batch(B))


@dataclass(frozen=True)
class Layout:
    """Where everything stands that one call needs.

    Attributes
    ----------
    call : (1,) array of CALL
        Sizes and places; a training call changes a copy.
    cells : array of CELL
    size : int
        Numbers in the workspace.
    split : Split
        How the call is shared out. Training never takes more workers than these, each of which has
        a scratch of its own.
    flags : slice
        Of the workspace: what workers tell one another, zero before every call.
    pieces : tuple of Piece
        What training runs through at once, in the order of the forward pass.
    form : PanelForm
        Of the packed weights that it reads.
    span : int
        Steps of a piece that backward goes through at once: a multiple of those of a block of
        weight gradients. 0 without training.
    """

    call: NDArray[Any]
    cells: NDArray[Any]
    size: int
    split: Split
    flags: slice
    pieces: tuple[Piece, ...]
    form: PanelForm
    span: int

    @property
    def pieces_back(self) -> list[Piece]:
        """The same for the backward pass: from the end, but the first direction before the second.

        A sum over both directions has one order, however the sequence is cut.
        """

        def place(piece: Piece) -> tuple[int, int, int]:
            direction = piece.directions[0]
            return -piece.layers[0], direction, piece.segment if direction else -piece.segment

        return sorted(self.pieces, key=place)

    def spans_back(self, piece: Piece) -> Iterator[tuple[int, int]]:
        """Yield first step, and the one behind the last, of what backward goes through at once."""
        starts = range(piece.start, piece.stop, self.span) or (piece.start,)
        for start in starts if piece.directions[0] else reversed(starts):
            yield start, min(piece.stop, start + self.span)


def _strides(config: LSTMConfig, T: int, B: int, features: int) -> tuple[int, int]:
    """Distances, in numbers, from step to step and from row to row; B is 1 without a batch."""
    if config.batch_first:
        return features, T * features
    return B * features, features


def _steps_ahead(config: LSTMConfig, steps: int, rows: int) -> int:
    """Steps whose inputs are projected ahead of the recurrence at once, where that is done.

    The sums wait in the place of the gates until the recurrence comes by, so a chunk of them should
    stay in half of the L2 cache; in a wavefront another core fills another half with the next one.
    Chunks are nearly equal: a step by itself would be no tile.
    """
    _, level2, _ = cpu.cache_sizes()
    step_bytes = 4 * config.hidden_size * rows * config.numpy_dtype.itemsize
    longest = min(LONGEST_CHUNK, max(2 * ROWS, level2 // 2 // max(1, step_bytes)))
    chunks = max(1, -(-steps // (longest // ROWS * ROWS)))
    return -(-steps // chunks)


def _steps_of_input_gradient(config: LSTMConfig, rows: int) -> int:
    """Steps whose dgates pass through the weights of one panel before the next: a quarter of L2.

    With all steps at once every panel fetches all dgates from memory again: 75 instead of 105
    GFLOP/s at T35 B20 I650 H650. Steps of few rows are the rows of a tile, and must fill it.
    """
    _, level2, _ = cpu.cache_sizes()
    step_bytes = 4 * config.hidden_size * rows * config.numpy_dtype.itemsize
    return max(1 if rows >= ROWS else 4 * ROWS, level2 // 4 // max(1, step_bytes))


def _span(config: LSTMConfig, T: int, B: int, pieces: tuple[Piece, ...], cached: int) -> int:
    """Steps that backward goes through at once: gates, then at once the weight gradients.

    What backward has from memory the weight gradients then have from the caches. That is worth most
    where units are few: one thread went through T365 B256 I32 H64 at 145 GFLOP/s with all steps at
    once and at 178 so, through T60 B800 I6 H64 in two layers at 162 and 184; half or twice as many
    steps are as fast. But the sums of weight gradients are gone through once for every span, and
    must stay in the L2 cache.
    """
    H = config.hidden_size
    block = steps_for_batch(B)
    both_ways = config.bidirectional and len(pieces) == 1
    if both_ways or 4 * H * (1 + config.most_terms) > cached:
        return _up(max(1, T), block)
    numbers_of_step = 4 * H * max(1, B) * config.num_layers
    return _up(max(1, _SPAN * cached // numbers_of_step), block)


@functools.lru_cache(maxsize=256)
def layout(
    config: LSTMConfig,
    T: int,
    B: int,
    training: bool,
    threads: int,
    segment: int = 0,
    vocabulary: int = 0,
) -> Layout:
    """Lay out the workspace of a call.

    Parameters
    ----------
    config : LSTMConfig
    T, B : int
        Steps and batch.
    training : bool
        Whether what backward needs is kept.
    threads : int
        Upper bound.
    segment : int
        Steps that backward goes through at once, restoring what it needs from the state before
        them; 0 keeps everything of all steps.
    vocabulary : int
        Rows that there is room for in the table that inputs are looked up in; 0 if they are a
        sequence themselves.

    Returns
    -------
    Layout

    Raises
    ------
    OverflowError
        If 64 bits do not number what the call needs.
    """
    itemsize = config.numpy_dtype.itemsize
    W = cpu.lanes(itemsize)
    H, D, L = config.hidden_size, config.directions, config.num_layers
    pieces = _pieces(config, T, segment)
    checkpointed = len(pieces) > 1
    steps = segment if checkpointed else T
    places = _Places(itemsize)
    call = np.zeros(1, CALL)
    sizes = call[0]
    sizes["steps"], sizes["batch"], sizes["layers"], sizes["directions"] = T, B, L, D
    sizes["x_step"], sizes["x_row"] = _strides(config, T, B, config.input_size)
    sizes["y_step"], sizes["y_row"] = _strides(config, T, B, config.output_size)
    sizes["last_layer"], sizes["last_direction"], sizes["stop"] = L, D, T
    sizes["training"] = training
    cached = cpu.cached_numbers(itemsize)
    # What is looked up takes next to no time.
    worked = replace(config, input_size=1) if vocabulary else config
    if training:
        split = training_split(worked, T, B, threads)
    else:
        split = inference_split(worked, T, B, threads)
    workers = split.workers
    rows = B if split.tasks else -(-B // workers)
    if split.wave:
        sizes["wave"] = _steps_ahead(config, split.wave, rows)
        # The inputs of a chunk are projected while the one before is gone through.
        sizes["ahead"] = 2 * sizes["wave"]
    elif vocabulary or projects_ahead(config, steps, rows, training):
        sizes["ahead"] = _steps_ahead(config, steps, rows)
    sizes["gate_steps"] = steps if training else sizes["ahead"]
    sizes["cached"], sizes["cached_in_part"] = cached, cpu.numbers_cached_in_part(itemsize)
    sizes["asked"] = are_distant(config)
    sizes["dx_steps"] = _steps_of_input_gradient(config, rows)
    panels = -(-H // W)
    # Sums of a tile; or of all rows, where they wait for the next stretch of terms and not in the
    # place of the gates. There are no more terms, tiles and vectors in a row than these.
    stretches = stretches_for_terms(config.most_terms, WIDE, rows, cached, W)
    cut = stretches > 1 and not training and sizes["ahead"] == 0
    sums = max(TILE_VECTORS, 4 * rows if cut else 0) * W
    features = min(TASK_FEATURES, 1 + config.most_terms)
    block = ROOM_FOR_TERMS + BLOCK_TERMS * features if training else 0
    sizes["scratch"], sizes["scratch_apart"] = places.take_apart(workers, max(sums, block))
    flags = slice(0, 0)
    if split.tasks:
        sizes["tasks"], sizes["abreast"] = split.tasks, split.abreast
        count = L * (split.tasks + 1) if split.wave else 2 * D * split.tasks
        first = places.take(count, FLOATS_OF_FLAG)
        sizes["flags"] = first
        flags = slice(first, places.size)
    sizes["room_rows"] = room_rows = B if training else rows
    count_of_rooms = 1
    if not split.tasks:
        # As many as `piece_split` gives a whole piece workers: each has a room of its own.
        operations = config.operations(steps, B)
        count_of_rooms = row_workers(threads, B, operations) if training else workers
    sizes["rooms"] = count_of_rooms
    terms = int(sizes["gate_steps"]) * room_rows
    # An odd number of cache lines spreads the panels over the sets of a cache.
    gates_panel = terms * 4 * W + CACHE_LINE // itemsize
    # Tiles read whole vectors behind the last term.
    gates_size = H // W * gates_panel + (terms * (H % W) + W) * 4
    span = _span(config, T, B, pieces, cached) if training else 0
    # The directions begin at opposite ends of the sequence: the outputs of all steps are kept.
    kept = T if D == 2 else steps
    outputs_size = B * config.output_size
    doutputs = []
    if training and L > 1:
        # One direction after the other reads the upper layer's when it is checkpointed.
        count = 2 if D == 2 and checkpointed else 1
        steps_back = T if D == 2 else min(steps, span)
        doutputs = [places.take(steps_back, outputs_size) for _ in range(count)]
    # One row takes two whole panels in one tile, but a narrow one after the whole one (H 18: 149 ns
    # a step, and 101 in whole panels). Where there are more panels, or more rows, padding the last
    # panel is no gain or a loss, unless it has as many vectors anyhow.
    almost = W < H <= W + W // 2 or H % W > W * 3 // 4
    whole = not training and rows == 1 and almost
    form = PanelForm.WHOLE if whole else PanelForm.WIDE
    if widest_for_rows(rows) == NARROW:
        form = PanelForm.TALL_AHEAD if sizes["ahead"] > 0 else PanelForm.TALL
    packed = packed_layout(config, form)
    sizes["packed_apart"] = packed.forward_size if split.copies > 1 else 0
    cells = packed.cells.copy()
    state_row = int(cells[0]["state_row"])
    state = room_rows * state_row
    cells["gates_panel"] = gates_panel
    cells["c_row"] = c_row = _row_stride(H, itemsize) if training else state_row
    cells["projected"] = -1
    sizes["vocabulary_panel"] = vocabulary_panel = vocabulary * 4 * W + CACHE_LINE // itemsize
    for cell in cells[: D if vocabulary else 0]:
        cell["projected"] = places.take(panels, vocabulary_panel)
        cell["token_sums"] = cell["projected"]
        if checkpointed:
            cell["token_sums"] = places.take(panels, vocabulary_panel)
    groups = 1
    if training and not vocabulary:  # sums by tokens are those of the whole batch
        groups = groups_of_sums(config, T, B)
    sizes["groups"] = groups
    partial = _Places(itemsize)
    one_by_one = not (training or split.tasks)
    if training:
        sizes["rooms_apart"] = _APART_BYTES // itemsize
    else:
        # Who has rows of its own goes through the cells one after another, all in the same room.
        room = _Places(itemsize)
        in_room = {
            "gates": room.take(panels, gates_panel),
            "h": room.take(2, state),
            "c": room.take(state),
        }
        rooms, apart = places.take_apart(workers if one_by_one else len(cells), room.size)
        sizes["rooms_apart"] = apart if one_by_one else 0
    for index, cell in enumerate(cells):
        layer, direction = divmod(index, D)
        below = cells[(layer - 1) * D]
        if training:
            cell["gates"] = places.take(gates_size)
            cell["c"] = places.take(steps + 1, B, c_row)
            between = (count_of_rooms - 1) * int(sizes["rooms_apart"])
            cell["dh"], cell["dc"] = places.take(state + between), places.take(state + between)
            # Without checkpoints the states before are read once, ahead of the way back.
            cell["marks"] = cell["dh"]
            if checkpointed:
                cell["marks"] = places.take(-(-T // steps), 2, state)
            cell["partial"] = partial.take(panels, 1 + int(cell["inputs"]) + H, 4, W)
        else:
            for name, place in in_room.items():
                cell[name] = rooms + (0 if one_by_one else index * apart) + place
        if direction == 1:
            for shared in ("outputs", "doutputs", "source"):
                cell[shared] = cells[index - 1][shared]
            continue
        if training:
            cell["outputs"] = places.take(kept + D, outputs_size) + outputs_size
        elif layer < L - 1:
            cell["outputs"] = places.take(T, outputs_size)
        if doutputs:
            cell["doutputs"] = doutputs[layer % len(doutputs)]
        if layer > 0:
            copied = training and config.dropout > 0
            cell["source"] = places.take(kept, outputs_size) if copied else below["outputs"]
    first, sizes["partial_apart"] = places.take_apart(groups, partial.size)
    cells["partial"] += first
    if places.size > np.iinfo(np.int64).max:
        raise OverflowError("64 bits do not number what the call needs")
    return Layout(call, cells, places.size, split, flags, pieces, form, span)


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
