"""Where everything stands that a call needs, in one piece of memory.

Places are taken one behind another, and entered with all sizes in the tables that kernels read.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import LSTMConfig
from .kernels.gradient_tasks import most_features_of_task, steps_for_batch
from .kernels.tables import BLOCK_TERMS, CALL, FLOATS_OF_FLAG, ROOM_FOR_TERMS
from .kernels.tiling import ROWS, TILE_VECTORS, WIDE, stretches_for_terms
from .memory import APART_BYTES, CACHE_LINE, Places, round_up
from .packed_layout import PanelForm, packed_layout, panel_form, row_stride
from .pieces import Piece, Pieces
from .schedule import (
    LONGEST_CHUNK,
    Sharing,
    Split,
    are_distant,
    groups_of_sums,
    inference_split,
    projects_ahead,
    row_workers,
    training_split,
)
from .simd import cpu

# Backward goes at once through as many steps as have so many times `cpu.cached_numbers` of gates.
_CACHES_OF_A_SPAN = 6


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
    pieces : Pieces
        What training runs through at once.
    form : PanelForm
        Of the packed weights that it reads.
    training : bool
        Whether what backward needs is kept.
    span : int
        Steps of a piece that backward goes through at once: a multiple of those of a block of
        weight gradients. 0 without training.
    """

    call: NDArray[Any]
    cells: NDArray[Any]
    size: int
    split: Split
    flags: slice
    pieces: Pieces
    form: PanelForm
    training: bool
    span: int

    def copy_of_call(self) -> NDArray[Any]:
        """Copy `call` as numbers: field by field it takes NumPy 16 us instead of 2."""
        return self.call.view(np.int64).copy().view(CALL)

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


def _cached_steps(config: LSTMConfig, rows: int) -> int:
    """Steps whose gates, of so many rows, a core's L2 cache keeps from one use to the next."""
    numbers_of_step = 4 * config.hidden_size * rows
    return cpu.cached_numbers(config.numpy_dtype.itemsize) // max(1, numbers_of_step)


def _steps_ahead(config: LSTMConfig, steps: int, rows: int) -> int:
    """Steps whose inputs are projected ahead of the recurrence at once, where that is done.

    The sums wait in the place of the gates until the recurrence comes by, so a chunk of them should
    stay in half of the L2 cache; in a wavefront another core fills another half with the next one.
    Chunks are nearly equal: a step by itself would be no tile.
    """
    longest = min(LONGEST_CHUNK, max(2 * ROWS, _cached_steps(config, rows)))
    chunks = max(1, -(-steps // (longest // ROWS * ROWS)))
    return -(-steps // chunks)


def _steps_of_input_gradient(config: LSTMConfig, rows: int) -> int:
    """Steps whose dgates pass through the weights of one panel before the next: a quarter of L2.

    With all steps at once every panel fetches all dgates from memory again: 75 instead of 105
    GFLOP/s at T35 B20 I650 H650. But where even a step or two are a quarter, they are so many that
    weights from L3 are used by eight tiles before the next ones (whole training steps on an Intel
    CPU, T12 B20 I1024 H1024 at 123 GFLOP/s with one step, at 128 with three). Steps of few rows are
    the rows of a tile, and must fill it.
    """
    fewest = 4 * ROWS if rows < ROWS else math.ceil(8 * ROWS / rows)
    return max(fewest, _cached_steps(config, rows) // 2)


def _span(config: LSTMConfig, T: int, B: int, checkpointed: bool) -> int:
    """Steps that backward goes through at once: gates, then at once the weight gradients.

    What backward has from memory the weight gradients then have from the caches. That is worth most
    where units are few: one thread went through T365 B256 I32 H64 at 145 GFLOP/s with all steps at
    once and at 178 so, through T60 B800 I6 H64 in two layers at 162 and 184; half or twice as many
    steps are as fast. But the sums of weight gradients are gone through once for every span, and
    must stay in the L2 cache.
    """
    H = config.hidden_size
    cached = cpu.cached_numbers(config.numpy_dtype.itemsize)
    block = steps_for_batch(B)
    both_ways = config.bidirectional and not checkpointed
    if both_ways or 4 * H * (1 + config.most_terms) > cached:
        return round_up(max(1, T), block)
    numbers_of_step = 4 * H * max(1, B) * config.num_layers
    return round_up(max(1, _CACHES_OF_A_SPAN * cached // numbers_of_step), block)


class _Draft:
    """Tables of a call while they are filled in, one subject after another.

    Parameters
    ----------
    config, T, B, training, threads, segment, vocabulary
        Of `layout`.
    """

    def __init__(
        self,
        config: LSTMConfig,
        T: int,
        B: int,
        training: bool,
        threads: int,
        segment: int,
        vocabulary: int,
    ) -> None:
        self.config, self.T, self.B = config, T, B
        self.training, self.vocabulary = training, vocabulary
        self.itemsize = config.numpy_dtype.itemsize
        self.lanes = cpu.lanes(self.itemsize)
        self.panels = -(-config.hidden_size // self.lanes)
        self.pieces = Pieces(config, T, segment)
        self.checkpointed = self.pieces.are_several
        self.steps = segment if self.checkpointed else T  # that are kept at once in training
        # What is looked up takes next to no time.
        worked = replace(config, input_size=1) if vocabulary else config
        share_out = training_split if training else inference_split
        self.split = share_out(worked, T, B, threads)
        self.rows = self.split.rows(B)  # of a worker
        self.places = Places(self.itemsize)
        self.call = np.zeros(1, CALL)
        self.enter_sequence()
        self.enter_chunks()
        self.take_scratches()
        self.flags = self.take_flags()
        self.enter_rooms(threads)
        self.form = panel_form(config, self.rows, training, bool(self.sizes["ahead"]))
        packed = packed_layout(config, self.form)
        self.sizes["packed_apart"] = packed.forward_size if self.split.copies > 1 else 0
        self.cells = packed.cells.copy()
        self.cells["gates_panel"] = self.gates_panel
        self.take_vocabulary()
        self.span = _span(config, T, B, self.checkpointed) if training else 0
        if training:
            self.take_training()
            self.take_sums()
        else:
            self.take_inference()

    @property
    def sizes(self) -> Any:
        """The only row of the table of the call."""
        return self.call[0]

    @property
    def outputs_of_step(self) -> int:
        """Numbers that a layer gives in one step."""
        return self.B * self.config.output_size

    @property
    def terms(self) -> int:
        """Terms (t, row) of a room whose gates there is a place for."""
        return int(self.sizes["gate_steps"]) * int(self.sizes["room_rows"])

    @property
    def gates_panel(self) -> int:
        """From the gates of a panel to those of the next one.

        An odd number of cache lines spreads the panels over the sets of a cache.
        """
        return self.terms * 4 * self.lanes + CACHE_LINE // self.itemsize

    @property
    def features_of_task(self) -> int:
        """Features that a task of weight gradients has at most."""
        H = self.config.hidden_size
        features = [1 + self.config.inputs(layer) + H for layer in range(self.config.num_layers)]
        if self.vocabulary:  # sums over the steps, and over the tokens
            features[:1] = [1 + H, self.config.input_size]
        return max(int(most_features_of_task(count)) for count in features)

    def enter_sequence(self) -> None:
        """Enter the call's sizes, and all of it as what is run."""
        config, sizes = self.config, self.sizes
        sizes["steps"], sizes["batch"], sizes["training"] = self.T, self.B, self.training
        sizes["layers"], sizes["directions"] = config.num_layers, config.directions
        sizes["x_step"], sizes["x_row"] = _strides(config, self.T, self.B, config.input_size)
        sizes["y_step"], sizes["y_row"] = _strides(config, self.T, self.B, config.output_size)
        sizes["last_layer"], sizes["last_direction"] = config.num_layers, config.directions
        sizes["stop"] = self.T

    def enter_chunks(self) -> None:
        """Enter how many steps are taken at once, and what the caches keep meanwhile."""
        config, sizes, split, rows = self.config, self.sizes, self.split, self.rows
        if split.sharing is Sharing.STAGES:
            sizes["wave"] = _steps_ahead(config, split.wave, rows)
            # The inputs of a chunk are projected while the one before is gone through.
            sizes["ahead"] = 2 * sizes["wave"]
        elif self.vocabulary or projects_ahead(config, self.steps, rows, self.training):
            sizes["ahead"] = _steps_ahead(config, self.steps, rows)
        sizes["gate_steps"] = self.steps if self.training else sizes["ahead"]
        sizes["dx_steps"] = _steps_of_input_gradient(config, rows)
        sizes["cached"] = cpu.cached_numbers(self.itemsize)
        sizes["cached_in_part"] = cpu.numbers_cached_in_part(self.itemsize)
        sizes["asked"] = are_distant(config)

    def take_scratches(self) -> None:
        """Take a scratch for each worker.

        It holds the sums of a tile; or of all rows, where they wait for the next stretch of terms
        and not in the place of the gates; or those of a block of weight gradients. Behind them the
        worker notes which way it goes through the panels next.
        """
        terms, lanes, sizes = self.config.most_terms, self.lanes, self.sizes
        cached = cpu.cached_numbers(self.itemsize)
        # There are no more terms, tiles and vectors in a row than these.
        stretches = stretches_for_terms(terms, WIDE, self.rows, cached, sizes["asked"], lanes)
        waiting = stretches > 1 and not self.training and sizes["ahead"] == 0
        sums = max(TILE_VECTORS, 4 * self.rows if waiting else 0) * lanes
        block = ROOM_FOR_TERMS + BLOCK_TERMS * self.features_of_task
        sizes["way_place"] = max(sums, block if self.training else 0)
        taken = self.places.take_apart(self.split.workers, int(sizes["way_place"]) + 1)
        sizes["scratch"], sizes["scratch_apart"] = taken

    def take_flags(self) -> slice:
        """Take what workers tell one another, if they share out units or stages."""
        split, sizes = self.split, self.sizes
        if split.by_rows:
            return slice(0, 0)
        sizes["tasks"], sizes["abreast"] = split.tasks, split.abreast
        count = 2 * self.config.directions * split.tasks
        if split.sharing is Sharing.STAGES:
            count = self.config.num_layers * (split.tasks + 1)
        sizes["flags"] = first = self.places.take(count, FLOATS_OF_FLAG)
        return slice(first, self.places.size)

    def enter_rooms(self, threads: int) -> None:
        """Enter in how many rooms the rows of states and gates are, and how many there are in one.

        A worker with rows of its own has a room of its own. In training these are as many as
        `piece_split` gives a whole piece workers.
        """
        rooms = 1
        if self.split.by_rows:
            in_training = row_workers(threads, self.B, self.pieces.most_operations(self.B))
            rooms = in_training if self.training else self.split.workers
        self.sizes["rooms"] = rooms
        self.sizes["room_rows"] = self.B if self.training else self.rows

    def take_vocabulary(self) -> None:
        """Take tables of what follows from the rows of a table that inputs are looked up in."""
        stride = self.vocabulary * 4 * self.lanes + CACHE_LINE // self.itemsize
        self.sizes["vocabulary_panel"] = stride
        self.cells["projected"] = -1
        for cell in self.cells[: self.config.directions if self.vocabulary else 0]:
            cell["projected"] = cell["token_sums"] = self.places.take(self.panels, stride)
            if self.checkpointed:
                cell["token_sums"] = self.places.take(self.panels, stride)

    def take_inference(self) -> None:
        """Take states and gates, and the outputs between layers.

        Who has rows of its own goes through the cells one after another, all in the same room.
        """
        cells, places, split = self.cells, self.places, self.split
        D = self.config.directions
        cells["c_row"] = cells["state_row"]
        state = self.rows * int(cells["state_row"][0])
        room = Places(self.itemsize)
        in_room = {
            "gates": room.take(self.panels, self.gates_panel),
            "h": room.take(2, state),
            "c": room.take(state),
        }
        rooms_of_cells = 1 if split.by_rows else len(cells)
        rooms = split.workers if split.by_rows else rooms_of_cells
        first, apart = places.take_apart(rooms, room.size)
        self.sizes["rooms_apart"] = apart if split.by_rows else 0
        for name, place in in_room.items():
            cells[name] = first + apart * (np.arange(len(cells)) % rooms_of_cells) + place
        for below in range(0, len(cells) - D, D):
            cells["outputs"][below : below + D] = places.take(self.T, self.outputs_of_step)
        cells["source"][D:] = cells["outputs"][:-D]

    def take_training(self) -> None:
        """Take what backward needs: states, gates, outputs, and gradients of states and outputs."""
        config, cells, places, steps, B = self.config, self.cells, self.places, self.steps, self.B
        H, D, lanes = config.hidden_size, config.directions, self.lanes
        outputs = self.outputs_of_step
        # The directions begin at opposite ends of the sequence: the outputs of all steps are kept.
        kept = self.T if D == 2 else steps
        doutputs = []
        if config.num_layers > 1:
            # One direction after the other reads the upper layer's when it is checkpointed.
            count = 2 if D == 2 and self.checkpointed else 1
            steps_back = self.T if D == 2 else min(steps, self.span)
            doutputs = [places.take(steps_back, outputs) for _ in range(count)]
        # Tiles read whole vectors behind the last term.
        gates_size = H // lanes * self.gates_panel + (self.terms * (H % lanes) + lanes) * 4
        cells["c_row"] = c_row = row_stride(H, self.itemsize)
        state = B * int(cells["state_row"][0])
        self.sizes["rooms_apart"] = rooms_apart = APART_BYTES // self.itemsize
        apart = (int(self.sizes["rooms"]) - 1) * rooms_apart
        for index, cell in enumerate(cells):
            layer, direction = divmod(index, D)
            cell["gates"] = places.take(gates_size)
            cell["c"] = places.take(steps + 1, B, c_row)
            cell["dh"], cell["dc"] = places.take(state + apart), places.take(state + apart)
            # Without checkpoints the states before are read once, ahead of the way back.
            cell["marks"] = cell["dh"]
            if self.checkpointed:
                cell["marks"] = places.take(-(-self.T // steps), 2, state)
            if direction == 1:
                for shared in ("outputs", "doutputs", "source"):
                    cell[shared] = cells[index - 1][shared]
                continue
            cell["outputs"] = places.take(kept + D, outputs) + outputs
            if doutputs:
                cell["doutputs"] = doutputs[layer % len(doutputs)]
            if layer > 0:
                dropped = config.dropout > 0
                cell["source"] = (
                    places.take(kept, outputs) if dropped else cells[index - D]["outputs"]
                )

    def take_sums(self) -> None:
        """Take the sums of weight gradients of each group of rows."""
        groups = 1
        if not self.vocabulary:  # sums by tokens are those of the whole batch
            groups = groups_of_sums(self.config, self.T, self.B)
        sums = Places(self.itemsize)
        for cell in self.cells:
            features = 1 + int(cell["inputs"]) + self.config.hidden_size
            cell["partial"] = sums.take(self.panels, features, 4, self.lanes)
        first, apart = self.places.take_apart(groups, sums.size)
        self.cells["partial"] += first
        self.sizes["groups"], self.sizes["partial_apart"] = groups, apart


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
    draft = _Draft(config, T, B, training, threads, segment, vocabulary)
    size = draft.places.size
    if size > np.iinfo(np.int64).max:
        raise OverflowError("64 bits do not number what the call needs")
    return Layout(
        draft.call,
        draft.cells,
        size,
        draft.split,
        draft.flags,
        draft.pieces,
        draft.form,
        training,
        draft.span,
    )
