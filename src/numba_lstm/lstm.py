"""LSTM: validates, borrows a workspace, calls a kernel."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from . import jit, threadpool
from .config import LSTMConfig
from .initialization import Seed, fill_uniform, generator
from .interop import arrays_from, sizes_from, state_dict_of
from .jit import WarmKernel
from .kernels.backward import lstm_backward
from .kernels.forward import lstm_forward
from .kernels.gradients import lstm_gradients, lstm_sums_of_groups
from .kernels.panels import pack_cells, pack_products
from .kernels.region import all_shares
from .kernels.tables import CALL
from .kernels.token_sums import group_tokens
from .kernels.units import lstm_units
from .kernels.units_back import lstm_units_back
from .kernels.vocabulary import lstm_vocabulary
from .kernels.vocabulary_back import lstm_vocabulary_back
from .kernels.wavefront import lstm_wavefront
from .layer import ThreadedLayer
from .layout import Layout, PanelForm, layout, packed_layout
from .memory import flat
from .packing import PackedWeights
from .parameters import Parameters
from .pieces import Piece, segment_steps
from .plan import Plan, plan_of
from .schedule import Sharing, Split, pass_workers, piece_split, task_workers, worth_sharing
from .sequences import InputSequence, TokenSequence
from .stream import State, Stream
from .tape import Tape
from .validation import (
    FloatArray,
    boolean,
    integer,
    named,
    real_array,
    refuse_overlap,
    require_output,
    require_shape,
    state_pair,
)
from .workspace import Workspace, WorkspacePool

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class _Saved:
    """What `forward` leaves for `backward`."""

    sequence: InputSequence
    layout: Layout
    workspace: FloatArray


# A list of all segments is kept for every call that is laid out.
_MOST_SEGMENTS = 10**6

# The kernel that goes forward where workers share out so.
_FORWARD = {
    Sharing.NOTHING: lstm_forward,
    Sharing.ROWS: lstm_forward,
    Sharing.DIRECTIONS: lstm_units,
    Sharing.UNITS: lstm_units,
    Sharing.STAGES: lstm_wavefront,
}

# What stands for an argument that was left out.
_NOTHING = {name: np.empty(0, name) for name in ("float32", "float64")}


def _pack(
    kernel: Callable[..., None],
    tables: tuple[Any, ...],
    parameters: FloatArray,
    packed: FloatArray,
    workers: int,
) -> None:
    """Pack the weights by one of the kernels."""
    threadpool.share_out(kernel, (*tables, parameters, packed), workers)


def dropout_numbers(state: Any) -> dict[str, int]:
    """Validate what determines the masks of dropout: the seed, and the calls so far.

    Raises
    ------
    TypeError, ValueError
        If it is no mapping of these two to integers, or one of them is out of range.
    """
    if set(named("dropout_state", state)) != {"seed", "calls"}:
        raise ValueError(f"dropout_state must have the keys seed and calls; got {list(state)}")
    most = np.iinfo(np.int64).max
    return {name: integer(name, state[name], least=0, most=most) for name in ("seed", "calls")}


def _new_state(shape: tuple[int, ...], dtype: np.dtype[Any]) -> State:
    """Room for a pair of states."""
    return np.empty(shape, dtype), np.empty(shape, dtype)


class LSTM(ThreadedLayer):
    """Long short-term memory (Hochreiter & Schmidhuber 1997; Gers, Schmidhuber & Cummins 2000).

    Per step, with gates i (input), f (forget), g (cell candidate) and o (output)::

        i = sigmoid(W_i x + U_i h + b_i)    f = sigmoid(W_f x + U_f h + b_f)
        g = tanh(W_g x + U_g h + b_g)       o = sigmoid(W_o x + U_o h + b_o)
        c' = f c + i g                      h' = o tanh(c')

    Calling the object runs inference, from any number of Python threads at once; `forward` keeps
    what `backward` needs. For given weights, dtype and CPU a sequence's results have the same bits
    whatever the number of threads, the other sequences in its batch, and the pieces it is cut into.

    Parameters
    ----------
    input_size : int
        I, features of the input.
    hidden_size : int
        H, units of every layer and direction.
    num_layers : int
        L; each layer reads the output of the one below.
    bias : bool
        Whether the pre-activations have a bias.
    batch_first : bool
        Whether sequences are (B, T, ·) instead of (T, B, ·). States are (L D, B, H) in any case.
    dropout : float
        Share of every layer's outputs but the last's that `forward` sets to zero, scaling the
        others by 1 / (1 - dropout).
    bidirectional : bool
        Whether every layer also reads the sequence from its end (D = 2); the outputs of both
        directions stand side by side.
    dtype : dtype
        float32 or float64, of parameters, states and outputs.
    threads : int, optional
        Upper bound of threads for a call; all by default. The bits do not depend on it.
    seed : int, Generator, SeedSequence or None
        Source of the initial weights, drawn from U(-1/sqrt(H), 1/sqrt(H)), and of dropout.

    Attributes
    ----------
    parameters : Parameters
        ``weight_ih_l{k}`` (4H, I or D H), ``weight_hh_l{k}`` (4H, H) and ``bias_l{k}`` (4H,), gates
        in the order i, f, g, o; names of the second direction end in ``_reverse``.
    gradients : Parameters
        The same for gradients. `backward` adds to them.
    config : LSTMConfig
        Sizes and options.
    threads : int or None
        As given; may be changed between calls.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    MemoryError
        If there is no room for the parameters.

    Examples
    --------
    >>> import numpy as np
    >>> lstm = LSTM(3, 4, seed=0)
    >>> y, (h, c) = lstm(np.ones((5, 2, 3)))
    >>> y.shape, h.shape, c.shape
    ((5, 2, 4), (1, 2, 4), (1, 2, 4))
    """

    _fixed = ThreadedLayer._fixed | {"config"}

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: Any = "float32",
        threads: int | None = None,
        seed: Seed = None,
    ) -> None:
        self.config = LSTMConfig(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype
        )
        self.threads = threads
        random = generator(seed)
        self.parameters = Parameters(self.config.shapes(), self.config.numpy_dtype)
        bound = 1 / math.sqrt(self.config.hidden_size)
        fill_uniform(self.parameters, random, bound, draws_of_bias=2)
        self._dropout_seed = int(random.integers(2**63))
        self._dropout_calls = 0
        self._forward_panels = {form: self._packed_forward(form) for form in PanelForm}
        self._backward_panels = {
            form.widest: self._packed_backward(form) for form in (PanelForm.WIDE, PanelForm.NARROW)
        }
        self._pool = WorkspacePool(self.config.numpy_dtype)
        self._training_workspace = Workspace(self.config.numpy_dtype)
        self._training_call = np.zeros(1, CALL)
        self._tape: Tape[_Saved] = Tape("LSTM")

    def _packed_forward(self, form: PanelForm) -> PackedWeights:
        """What forward passes read, packed when one comes by."""
        packed = packed_layout(self.config, form)
        pack = functools.partial(_pack, pack_cells, (packed.cells,))
        return PackedWeights(self.parameters, packed.forward_size, pack)

    def _packed_backward(self, form: PanelForm) -> PackedWeights:
        """What backward passes read, likewise."""
        packed = packed_layout(self.config, form)
        pack = functools.partial(_pack, pack_products, (packed.cells, self.config.directions))
        return PackedWeights(self.parameters, packed.backward_size, pack)

    @property
    def dropout_state(self) -> dict[str, int]:
        """What determines the masks of the next `forward`: the seed and the calls so far.

        It may be assigned.

        Raises
        ------
        TypeError, ValueError
            If what is assigned is no mapping of these two to integers, or one of them is out of
            range.
        """
        return {"seed": self._dropout_seed, "calls": self._dropout_calls}

    @dropout_state.setter
    def dropout_state(self, state: Mapping[str, int]) -> None:
        numbers = dropout_numbers(state)
        self._dropout_seed, self._dropout_calls = numbers["seed"], numbers["calls"]

    def configuration(self) -> dict[str, Any]:
        """Return the keyword arguments, without threads and seed, that build the same model.

        Returns
        -------
        dict
        """
        return self.config.as_dict()

    def __repr__(self) -> str:
        return f"LSTM({self.config.describe()})"

    # Running it.

    def _steps_and_rows(self, axes: tuple[int, ...]) -> tuple[int, int]:
        """T and B of a sequence that has these axes beside the features."""
        if len(axes) == 1:
            return axes[0], 1
        first, second = axes
        return (second, first) if self.config.batch_first else (first, second)

    def _sequence(self, x: Any) -> InputSequence:
        """Validate an input."""
        config = self.config
        tokens = None
        if isinstance(x, TokenSequence):
            array, tokens, axes = x.table, x.tokens, x.tokens.shape
        else:
            array = real_array("x", x, config.numpy_dtype)
            axes = array.shape[:-1]
            if array.ndim not in (2, 3) or array.shape[-1] != config.input_size:
                both = ("B", "T") if config.batch_first else ("T", "B")
                names = ("T",) if array.ndim == 2 else both
                meaning = f"{config.input_size} = input_size"
                require_shape("x", array, (*names, config.input_size), meaning)
        batched = len(axes) == 2
        batch_first = batched and config.batch_first
        if tokens is not None:
            tokens = flat(np.ascontiguousarray(tokens.T if batch_first else tokens))
        return InputSequence(array, *self._steps_and_rows(axes), batched, batch_first, tokens)

    def _state(self, name: str, state: Any, sequence: InputSequence) -> State:
        """Validate a pair of states; arrays of size 0 stand for None."""
        if state is None:
            nothing = _NOTHING[self.config.dtype]
            return nothing, nothing
        expected = sequence.state_shape(self.config.cells, self.config.hidden_size)
        return state_pair(name, state, expected, self.config.numpy_dtype)

    def _outputs(self, out: Any, sequence: InputSequence, state: State) -> tuple[FloatArray, State]:
        """Allocate results, or validate those that the user lends."""
        config = self.config
        dtype = config.numpy_dtype
        y_shape = sequence.shape(config.output_size)
        state_shape = sequence.state_shape(config.cells, config.hidden_size)
        if out is None:  # nothing to check, which would take a small call as long again
            return np.empty(y_shape, dtype), _new_state(state_shape, dtype)
        pairs = (tuple, list)
        structured = isinstance(out, pairs) and len(out) == 2
        if structured and out[1] is None:
            out = out[0], _new_state(state_shape, dtype)
        elif not structured or not isinstance(out[1], pairs) or len(out[1]) != 2:
            got = f"{len(out)} items" if isinstance(out, pairs) else type(out).__name__
            got = f"(y, {type(out[1]).__name__})" if structured else got
            raise TypeError(f"out must have the structure (y, (h, c)) or (y, None); got {got}")
        y, (h, c) = out
        require_output("y of out", y, y_shape, dtype)
        require_output("h of out", h, state_shape, dtype)
        require_output("c of out", c, state_shape, dtype)
        h0, c0 = state
        read = {"x": sequence.array, "h of hx": h0, "c of hx": c0, "h of out": h, "c of out": c}
        refuse_overlap("y of out", y, read)
        refuse_overlap(
            "h of out", h, {"x": sequence.array, "c of hx": c0, "c of out": c}, same=("hx", h0)
        )
        refuse_overlap("c of out", c, {"x": sequence.array, "h of hx": h0}, same=("hx", c0))
        return y, (h, c)

    def _layout(
        self, T: int, B: int, training: bool, threads: int, segment: int = 0, vocabulary: int = 0
    ) -> Layout:
        """Lay out a call, or refuse one that no memory is large enough for."""
        if B == 0:
            segment = 0  # steps of no rows need none, however many they are
        elif segment > 0:
            segments = -(-T // segment)
            if segments > _MOST_SEGMENTS:
                raise ValueError(
                    f"checkpoint must cut {T} steps into at most {_MOST_SEGMENTS} segments; "
                    f"got {segments}"
                )
        try:
            return layout(self.config, T, B, training, threads, segment, vocabulary)
        except OverflowError:
            raise ValueError(
                f"T and B must be such that 64 bits number what a call needs; got {T} and {B}"
            ) from None

    def _piece_split(
        self, piece: Piece, sequence: InputSequence, laid_out: Layout, threads: int
    ) -> Split:
        """How a piece of a training call is shared out."""
        first, last = piece.directions
        operations = self.config.operations(piece.stop - piece.start, sequence.B)
        return piece_split(laid_out.split, last - first, threads, sequence.B, operations)

    def _run(
        self,
        sequence: InputSequence,
        state: State,
        results: tuple[FloatArray, State],
        laid_out: Layout,
        call: NDArray[Any],
        workspace: FloatArray,
        split: Split,
        *,
        begins: bool = True,
    ) -> None:
        """Run a forward kernel; where a sequence begins, after the rows of its table."""
        if sequence.B == 0:  # nothing to compute, in however many steps
            return
        y, (h, c) = results
        if not split.by_rows:
            workspace[laid_out.flags] = 0
        kernel = _FORWARD[split.sharing]
        panels = self._forward_panels[laid_out.form]
        # Weights of a model that is trained are new in every step.
        packed = panels.lease(split.copies, split.workers if laid_out.span else 1)
        try:
            h0, c0 = state if state[0].size == 0 else map(flat, state)
            x = flat(sequence.array)
            if begins and sequence.tokens is not None:
                rows = (call, laid_out.cells, packed.buffer, x, workspace)
                threadpool.share_out(lstm_vocabulary, rows, split.workers)
            arrays = (x, h0, c0, y.ravel(), h.ravel(), c.ravel())
            arguments = (call, laid_out.cells, packed.buffer, *arrays, workspace)
            threadpool.share_out(kernel, arguments, split.workers)
        finally:
            panels.give_back(packed)

    def __call__(
        self, x: Any, hx: Any = None, *, out: Any = None, threads: int | None = None
    ) -> tuple[FloatArray, State]:
        """Run inference: no dropout, nothing is kept.

        Parameters
        ----------
        x : array
            (T, B, I), (B, T, I) with `batch_first`, or (T, I) for one sequence. Any dtype of real
            numbers and any strides; copied if it is not C-contiguous in the model's dtype.
        hx : (array, array), optional
            States before, (L D, B, H) each, without B for one sequence; zeros by default.
        out : (array, (array, array)), optional
            Where to write the results. h and c may be the arrays of `hx`; y may overlap nothing.
            Instead of the pair None stands for new arrays.
        threads : int, optional
            Upper bound of threads for this call.

        Returns
        -------
        y : ndarray
            Outputs of the last layer, (T, B, D H), (B, T, D H) or (T, D H).
        (h, c) : tuple of ndarray
            States after the last step of each direction, (L D, B, H) each.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong kind, shape or layout; nothing is computed then.
        MemoryError
            If there is no room for the result.
        """
        sequence = self._sequence(x)
        state = self._state("hx", hx, sequence)
        results = self._outputs(out, sequence, state)
        T, B = sequence.T, sequence.B
        # A small call is not shared out, and how many threads there may be takes microseconds.
        shared = worth_sharing(self.config.operations(T, B))
        most = self._threads(threads) if shared or threads is not None else 1
        laid_out = self._layout(T, B, False, most, 0, sequence.vocabulary)
        workspace = self._pool.borrow()
        try:
            buffer = workspace.reserve(laid_out.size)
            call = sequence.entered(laid_out.call)
            self._run(sequence, state, results, laid_out, call, buffer, laid_out.split)
        finally:
            self._pool.give_back(workspace)
        return results

    def stream(self, batch_size: int = 1, *, threads: int | None = None) -> Stream:
        """Begin to run the model step by step, with states that are kept between calls.

        Parameters
        ----------
        batch_size : int
            B, sequences that advance together.
        threads : int, optional
            Upper bound of threads of a call.

        Returns
        -------
        Stream
            Its states are zero.

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind or out of range, or the model is bidirectional: its
            second direction begins where a stream has not arrived yet.
        MemoryError
            If there is no room for the states.
        """
        rows = integer("batch_size", batch_size, least=1)
        if self.config.bidirectional:
            raise ValueError(f"a stream must have one direction; got {self!r}")
        return Stream(self.config, self._forward_panels, self, rows, self._threads(threads))

    def forward(
        self,
        x: Any,
        hx: Any = None,
        *,
        out: Any = None,
        training: bool = True,
        checkpoint: int | Literal["auto"] | None = None,
        threads: int | None = None,
    ) -> tuple[FloatArray, State]:
        """Run the model and keep what `backward` needs.

        Parameters
        ----------
        x : array
            As for inference. It must stay as it is until `backward`, unless it had to be copied.
        hx : (array, array), optional
            States before; zeros by default.
        out : (array, (array, array)), optional
            As for inference.
        training : bool
            Whether dropout is active. Without dropout the result has the bits of inference.
        checkpoint : int or "auto", optional
            Keep the state every so many steps only, and compute again what lies between them when
            `backward` comes by (Gruslys et al. 2016): less memory for a forward pass more, and the
            same bits. The number is rounded up to whole blocks of the sums of weight gradients;
            "auto" is about the root of T. A bidirectional model keeps the outputs of its layers,
            too.
        threads : int, optional
            Upper bound of threads for this call.

        Returns
        -------
        y : ndarray
            Outputs of the last layer, (T, B, D H), (B, T, D H) or (T, D H).
        (h, c) : tuple of ndarray
            States after the last step of each direction, (L D, B, H) each.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong kind or shape; what an earlier call kept is still there.
        MemoryError
            If there is no room for the result; the same then holds.
        RuntimeError
            If another thread is in `forward` or `backward` of this model.
        """
        active = boolean("training", training)
        sequence = self._sequence(x)
        state = self._state("hx", hx, sequence)
        segment = segment_steps(checkpoint, sequence.T, sequence.B)
        most = self._threads(threads)
        T, B = sequence.T, sequence.B
        laid_out = self._layout(T, B, True, most, segment, sequence.vocabulary)
        with self._tape.alone:
            # What an earlier call kept is read with its own table: that changes once there is room.
            results = self._outputs(out, sequence, state)
            workspace = self._training_workspace.reserve(laid_out.size)
            self._tape.clear()
            call = self._training_call
            call[:] = sequence.entered(laid_out.call)
            if active and self.config.dropout > 0:
                call["dropped"] = int(self.config.dropout * 2**53)
                call["seed"] = self._dropout_seed
                call["number"] = self._dropout_calls
                self._dropout_calls += 1
            for piece in laid_out.pieces:
                piece.select(call)
                split = self._piece_split(piece, sequence, laid_out, most)
                begins = piece is laid_out.pieces[0]
                self._run(sequence, state, results, laid_out, call, workspace, split, begins=begins)
            self._tape.record(_Saved(sequence, laid_out, workspace), self.parameters)
        return results

    def backward(
        self,
        dy: Any = None,
        dhx: Any = None,
        *,
        input_gradient: bool = True,
        accumulate: bool = True,
        threads: int | None = None,
    ) -> tuple[FloatArray | None, State]:
        """Go back through the last `forward` and add to the gradients of the parameters.

        Parameters
        ----------
        dy : array, optional
            Gradient of the loss with respect to y, of its shape; zeros by default.
        dhx : (array, array), optional
            Gradients with respect to the states after the last step; zeros by default.
        input_gradient : bool
            Whether dx is wanted; a first layer can do without.
        accumulate : bool
            Whether the gradients are added to those that are there; or else take their place, so
            that nobody has to set them to zero.
        threads : int, optional
            Upper bound of threads for this call.

        Returns
        -------
        dx : ndarray or None
            Gradient with respect to x, of its shape.
        (dh0, dc0) : tuple of ndarray
            Gradients with respect to the states before the first step.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong kind or shape; nothing is changed then.
        MemoryError
            If there is no room for the result; the same then holds.
        RuntimeError
            If there was no `forward`, if its `backward` was already called, if the parameters have
            changed in between, or if another thread is in `forward` or `backward` of this model.
        """
        wanted = boolean("input_gradient", input_gradient)
        added = boolean("accumulate", accumulate)
        most = self._threads(threads)
        with self._tape.alone:
            saved = self._tape.read(self.parameters)
            config, sequence = self.config, saved.sequence
            dtype = config.numpy_dtype
            nothing = _NOTHING[config.dtype]
            dy_array = nothing
            if dy is not None:
                dy_array = real_array("dy", dy, dtype)
                require_shape("dy", dy_array, sequence.shape(config.output_size), "as y")
            dstate = self._state("dhx", dhx, sequence)
            dx = np.empty(sequence.array.shape, dtype) if wanted else nothing
            shape = sequence.state_shape(config.cells, config.hidden_size)
            dh0, dc0 = _new_state(shape, dtype)
            self._tape.clear()
            self._run_back(saved, (dy_array, *dstate), (dx, dh0, dc0), wanted, added, most)
        return (dx if wanted else None), (dh0, dc0)

    def _run_back(
        self,
        saved: _Saved,
        given: tuple[FloatArray, ...],
        results: tuple[FloatArray, ...],
        input_gradient: bool,
        accumulate: bool,
        threads: int,
    ) -> None:
        """Run the backward kernels, piece by piece from the end.

        Given are dy, dh_n and dc_n, the results dx, dh0 and dc0.
        """
        sequence, laid_out = saved.sequence, saved.layout
        if sequence.T * sequence.B == 0 and not accumulate:
            self.gradients.zero()
        if sequence.B == 0:
            return
        call = self._training_call
        tokens = sequence.tokens
        call["input_gradient"] = input_gradient and tokens is None
        call["accumulate"] = accumulate
        if tokens is not None:
            order = np.empty((tokens.size, 2), np.int64)
            group_tokens(call, tokens, len(sequence.array), order)
            call["order"] = order.ctypes.data
        threads = min(threads, laid_out.split.workers)
        workspace = flat(saved.workspace)
        nothing = _NOTHING[self.config.dtype]
        checkpointed = len(laid_out.pieces) > 1
        # One split for all: in the midst of the sequence a worker leaves gradients to itself.
        split = self._piece_split(laid_out.pieces[0], sequence, laid_out, threads)
        kernel = lstm_backward if split.by_rows else lstm_units_back
        x = flat(sequence.array)
        panels = self._backward_panels[laid_out.form.widest]
        with panels.borrow(threads) as packed, self.gradients.edit():
            dx, dh0, dc0 = map(flat, results)
            arrays = (*map(flat, given), dx, dh0, dc0)
            back = (call, laid_out.cells, flat(packed), *arrays, workspace)
            gradients = self.gradients._writable
            sums = (call, laid_out.cells, x, gradients, workspace)
            for piece in laid_out.pieces_back:
                piece.select(call)
                if checkpointed:
                    call["recomputed"] = 1
                    nowhere = (nothing, (nothing, nothing))
                    state = (nothing, nothing)
                    self._run(
                        sequence, state, nowhere, laid_out, call, workspace, split, begins=False
                    )
                for start, stop in laid_out.spans_back(piece):
                    call["start"], call["stop"] = start, stop
                    workspace[laid_out.flags] = 0
                    threadpool.share_out(kernel, back, split.workers)
                    operations = self.config.operations(stop - start, sequence.B)
                    workers = task_workers(threads, operations)
                    threadpool.share_out(lstm_gradients, sums, workers)
            if laid_out.call["groups"][0] > 1:
                workers = pass_workers(threads, gradients.size)
                threadpool.share_out(lstm_sums_of_groups, sums, workers)
            if tokens is not None:
                rows = (call, laid_out.cells, flat(packed), x, dx, gradients, workspace)
                threadpool.share_out(lstm_vocabulary_back, rows, split.workers)

    def workspace_nbytes(
        self,
        T: int,
        B: int,
        *,
        training: bool = False,
        checkpoint: int | Literal["auto"] | None = None,
    ) -> int:
        """Bytes of working memory that a call needs, besides its results and the packed weights.

        Parameters
        ----------
        T, B : int
            Steps and batch.
        training : bool
            For `forward` and `backward` instead of inference.
        checkpoint : int or "auto", optional
            As for `forward`.

        Returns
        -------
        int

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind or out of range.
        """
        steps, batch = integer("T", T, least=0), integer("B", B, least=0)
        segment = segment_steps(checkpoint, steps, batch)
        kept = boolean("training", training)
        laid_out = self._layout(steps, batch, kept, self._threads(None), segment if kept else 0)
        return laid_out.size * self.config.numpy_dtype.itemsize

    def plan(self, T: int, B: int, *, training: bool = False) -> Plan:
        """Say what a call will run, and why.

        Parameters
        ----------
        T, B : int
            Steps and batch.
        training : bool
            For `forward` and `backward` instead of inference.

        Returns
        -------
        Plan
            Printed, it is a short table.

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind or out of range.
        """
        steps, batch = integer("T", T, least=0), integer("B", B, least=0)
        kept = boolean("training", training)
        threads = self._threads(None)
        self._layout(steps, batch, kept, threads)
        return plan_of(self.config, steps, batch, training=kept, threads=threads)

    def compile(self, *, training: bool = False) -> list[WarmKernel]:
        """Compile what calls of this model need, or load it from the cache, ahead of the first one.

        Parameters
        ----------
        training : bool
            For `forward` and `backward` as well.

        Returns
        -------
        list of WarmKernel
            What was not ready before, in order.

        Raises
        ------
        TypeError
            If `training` is no bool.
        """
        wanted = boolean("training", training)
        with jit.warming() as ready:
            # Kernels know sizes at run time only: those of the smallest model are this one's.
            smallest = LSTM(1, 1, dtype=self.config.dtype, threads=1)
            y, _ = smallest(np.ones((1, 1, 1)))
            if self.config.directions == 1:
                smallest.stream().step(y[0], active=[True])
            if wanted:
                smallest.forward(y)
                smallest.backward(y)
                jit.compile_alike(lstm_sums_of_groups, lstm_gradients)
            if self.threads != 1:
                jit.compile_alike(lstm_units, lstm_forward)
                jit.compile_alike(lstm_wavefront, lstm_forward)
                jit.compile_region(all_shares, lstm_forward)
                if wanted:
                    jit.compile_alike(lstm_units_back, lstm_backward)
                    kernels = (lstm_backward, lstm_gradients, pack_cells, pack_products)
                    jit.compile_region(all_shares, *kernels)
        return ready

    # State dictionaries, with PyTorch's names.

    def state_dict(self) -> dict[str, FloatArray]:
        """Return copies of the parameters under PyTorch's names.

        PyTorch has two biases where only their sum matters: ``bias_ih`` holds it, ``bias_hh`` is
        zero.

        Returns
        -------
        dict of str to ndarray
        """
        return state_dict_of(self.parameters)

    def load_state_dict(
        self, mapping: Mapping[str, Any], *, prefix: str = "", strict: bool = True
    ) -> None:
        """Take over parameters with PyTorch's names; its two biases are added up.

        Parameters
        ----------
        mapping : mapping of str to array
            Anything that `numpy.asarray` understands.
        prefix : str
            Beginning of the names that belong to this model, like ``"lstm."``.
        strict : bool
            Whether further names under the prefix are an error.

        Raises
        ------
        TypeError, ValueError
            If a name is missing or unknown, or an array of the wrong kind or shape; nothing is
            changed then.
        """
        arrays = arrays_from(mapping, self.config, repr(self), prefix=prefix, strict=strict)
        self.parameters._assign(arrays)

    @classmethod
    def from_state_dict(
        cls,
        mapping: Mapping[str, Any],
        *,
        prefix: str = "",
        batch_first: bool = False,
        threads: int | None = None,
    ) -> Self:
        """Build a model from parameters with PyTorch's names, which tell its sizes.

        Parameters
        ----------
        mapping : mapping of str to array
            What ``torch.nn.LSTM.state_dict()`` holds, as arrays.
        prefix : str
            Beginning of the names that belong to this model, like ``"lstm."``.
        batch_first : bool
            Whether sequences are (B, T, ·).
        threads : int, optional
            Upper bound of threads for a call.

        Returns
        -------
        LSTM
            Its dtype is that of the weights: float64 for float64 and longer floats, else float32.

        Raises
        ------
        TypeError, ValueError
            If a name is missing or unknown, or an array of the wrong kind or shape.
        MemoryError
            If there is no room for the parameters.
        """
        sizes = sizes_from(mapping, prefix=prefix)
        lstm = cls(**sizes, batch_first=batch_first, threads=threads)
        lstm.load_state_dict(mapping, prefix=prefix)
        return lstm
