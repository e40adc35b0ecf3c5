"""Passes of an LSTM over a sequence, forward and back: which kernels run, and in what order."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import jit, threadpool
from .config import LSTMConfig
from .kernels.backward import lstm_backward
from .kernels.forward import lstm_forward
from .kernels.gradients import lstm_gradients, lstm_sums_of_groups
from .kernels.panels import pack_cells, pack_products
from .kernels.region import all_shares
from .kernels.token_sums import group_tokens
from .kernels.units import lstm_units
from .kernels.units_back import lstm_units_back
from .kernels.vocabulary import lstm_vocabulary
from .kernels.vocabulary_back import lstm_vocabulary_back
from .kernels.wavefront import lstm_wavefront
from .layout import Layout
from .memory import NOTHING, flat
from .packed_layout import PanelForm, packed_layout
from .packing import PackedWeights
from .parameters import Parameters
from .schedule import Sharing, Split, pass_workers, piece_split, task_workers
from .sequences import InputSequence
from .validation import FloatArray, State

# The kernel that goes forward where workers share out so.
_FORWARD = {
    Sharing.NOTHING: lstm_forward,
    Sharing.ROWS: lstm_forward,
    Sharing.DIRECTIONS: lstm_units,
    Sharing.UNITS: lstm_units,
    Sharing.STAGES: lstm_wavefront,
}


class Run(NamedTuple):
    """A call under way; once `forward` is through, what it leaves for `backward`.

    Attributes
    ----------
    sequence : InputSequence
    layout : Layout
    call : (1,) array of CALL
        That of the layout, with what this call alone has: its tokens, and the piece at hand.
    workspace : ndarray
    """

    sequence: InputSequence
    layout: Layout
    call: NDArray[Any]
    workspace: FloatArray

    @property
    def x(self) -> FloatArray:
        """What the model took: the array of the sequence."""
        return self.sequence.array


def run_forward(
    layout: Layout,
    split: Split,
    call: NDArray[Any],
    packed: FloatArray,
    arrays: tuple[FloatArray, ...],
    workspace: FloatArray,
) -> None:
    """Run the kernel that goes forward; the flat arrays are x, h0, c0, y, h and c."""
    if not split.by_rows:
        workspace[layout.flags] = 0
    arguments = (call, layout.cells, packed, *arrays, workspace)
    threadpool.share_out(_FORWARD[split.sharing], arguments, split.workers)


def _pack(
    kernel: Callable[..., None],
    tables: tuple[Any, ...],
    parameters: FloatArray,
    packed: FloatArray,
    workers: int,
) -> None:
    """Pack the weights by one of the kernels."""
    threadpool.share_out(kernel, (*tables, parameters, packed), workers)


class Passes:
    """The passes of one model, and the panels of its weights that they read.

    Parameters
    ----------
    config : LSTMConfig
    parameters : Parameters

    Attributes
    ----------
    panels : dict of PanelForm to PackedWeights
        For the way forward, packed when a call comes by that wants the form.
    """

    def __init__(self, config: LSTMConfig, parameters: Parameters) -> None:
        self._config = config
        self.panels = {form: self._packed_forward(parameters, form) for form in PanelForm}
        self._panels_back = {
            form.widest: self._packed_backward(parameters, form)
            for form in (PanelForm.WIDE, PanelForm.NARROW)
        }

    def _packed_forward(self, parameters: Parameters, form: PanelForm) -> PackedWeights:
        """What forward passes read."""
        packed = packed_layout(self._config, form)
        pack = functools.partial(_pack, pack_cells, (packed.cells,))
        return PackedWeights(parameters, packed.forward_size, pack)

    def _packed_backward(self, parameters: Parameters, form: PanelForm) -> PackedWeights:
        """What backward passes read."""
        packed = packed_layout(self._config, form)
        pack = functools.partial(_pack, pack_products, (packed.cells, self._config.directions))
        return PackedWeights(parameters, packed.backward_size, pack)

    def forward(
        self,
        run: Run,
        split: Split,
        hx: State,
        results: tuple[FloatArray, State],
        *,
        begins: bool = True,
    ) -> None:
        """Go forward through what is at hand; where it begins, project the rows of a table first.

        Parameters
        ----------
        run : Run
        split : Split
        hx : (array, array)
            States before, or arrays of size 0 for zeros.
        results : (array, (array, array))
            y, h and c; assigned.
        begins : bool
            Whether these are the first steps of a pass.
        """
        sequence, laid_out, call, workspace = run
        if sequence.B == 0:  # nothing to compute, in however many steps
            return
        y, (h, c) = results
        panels = self.panels[laid_out.form]
        # Weights of a model that is trained are new in every step.
        packed = panels.lease(split.copies, split.workers if laid_out.training else 1)
        try:
            h0, c0 = hx if hx[0].size == 0 else map(flat, hx)
            x = flat(sequence.array)
            if begins and sequence.tokens is not None:
                rows = (call, laid_out.cells, packed.buffer, x, workspace)
                threadpool.share_out(lstm_vocabulary, rows, split.workers)
            arrays = (x, h0, c0, y.ravel(), h.ravel(), c.ravel())
            run_forward(laid_out, split, call, packed.buffer, arrays, workspace)
        finally:
            panels.give_back(packed)

    def forward_by_pieces(
        self, run: Run, hx: State, results: tuple[FloatArray, State], threads: int
    ) -> None:
        """Go forward in training, piece by piece, on so many threads at most; see `forward`."""
        pieces, B = run.layout.pieces, run.sequence.B
        for number, piece in enumerate(pieces.forward()):
            piece.select(run.call)
            operations = pieces.operations(piece, piece.stop - piece.start, B)
            split = piece_split(run.layout.split, pieces.directions, threads, B, operations)
            self.forward(run, split, hx, results, begins=number == 0)

    def back(
        self,
        run: Run,
        given: tuple[FloatArray, ...],
        results: tuple[FloatArray, ...],
        gradients: Parameters,
        *,
        input_gradient: bool,
        accumulate: bool,
        threads: int,
    ) -> None:
        """Go back through a run of `forward_by_pieces`, piece by piece from the end.

        Parameters
        ----------
        run : Run
        given : tuple of ndarray
            dy, and the gradients of the states after; of size 0 for zeros.
        results : tuple of ndarray
            dx, if it is wanted, and the gradients of the states before; assigned.
        gradients : Parameters
            Added to, or assigned.
        input_gradient, accumulate : bool
            Whether dx is wanted, and whether the gradients are added to those that are there.
        threads : int
            Upper bound.
        """
        sequence, laid_out, call, _ = run
        if sequence.T * sequence.B == 0 and not accumulate:
            gradients.zero()
        if sequence.B == 0:
            return
        workspace = flat(run.workspace)
        tokens = sequence.tokens
        call["input_gradient"] = input_gradient and tokens is None
        call["accumulate"] = accumulate
        if tokens is not None:
            order = np.empty((tokens.size, 2), np.int64)
            group_tokens(call, tokens, len(sequence.array), order)
            call["order"] = order.ctypes.data
        threads = min(threads, laid_out.split.workers)
        # One split for all: in the midst of the sequence a worker leaves gradients to itself.
        pieces, B = laid_out.pieces, sequence.B
        operations = pieces.most_operations(B)
        split = piece_split(laid_out.split, pieces.directions, threads, B, operations)
        kernel = lstm_backward if split.by_rows else lstm_units_back
        panels = self._panels_back[laid_out.form.widest]
        with panels.borrow(threads) as buffer, gradients.edit():
            packed, x = flat(buffer), flat(sequence.array)
            dx, dh0, dc0 = map(flat, results)
            back = (call, laid_out.cells, packed, *map(flat, given), dx, dh0, dc0, workspace)
            total = gradients._writable
            sums = (call, laid_out.cells, x, total, workspace)
            for piece in pieces.back():
                piece.select(call)
                if pieces.are_several:
                    self._compute_again(run, split)
                for start, stop in laid_out.spans_back(piece):
                    call["start"], call["stop"] = start, stop
                    workspace[laid_out.flags] = 0
                    threadpool.share_out(kernel, back, split.workers)
                    operations = pieces.operations(piece, stop - start, B)
                    threadpool.share_out(lstm_gradients, sums, task_workers(threads, operations))
            if laid_out.call["groups"][0] > 1:
                workers = pass_workers(threads, total.size)
                threadpool.share_out(lstm_sums_of_groups, sums, workers)
            if tokens is not None:
                rows = (call, laid_out.cells, packed, x, dx, total, workspace)
                threadpool.share_out(lstm_vocabulary_back, rows, split.workers)

    def _compute_again(self, run: Run, split: Split) -> None:
        """Go forward once more through the piece at hand, of which only the states were kept."""
        run.call["recomputed"] = 1
        nothing = NOTHING[self._config.dtype]
        nowhere = (nothing, nothing)
        self.forward(run, split, nowhere, (nothing, nowhere), begins=False)


def compile_schedules(*, shared: bool, training: bool) -> None:
    """Compile the kernels that other sizes need, once those of the smallest model are.

    Parameters
    ----------
    shared : bool
        Whether there may be several threads.
    training : bool
        Whether passes back are wanted.
    """
    if training:
        jit.compile_alike(lstm_sums_of_groups, lstm_gradients)
    if not shared:
        return
    jit.compile_alike(lstm_units, lstm_forward)
    jit.compile_alike(lstm_wavefront, lstm_forward)
    jit.compile_region(all_shares, lstm_forward)
    if training:
        jit.compile_alike(lstm_units_back, lstm_backward)
        kernels = (lstm_backward, lstm_gradients, pack_cells, pack_products)
        jit.compile_region(all_shares, *kernels)
