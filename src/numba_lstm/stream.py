"""Step-by-step inference with kept state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from .config import LSTMConfig
from .guarded import Guarded
from .kernels.inactive_rows import restore_inactive_rows
from .kernels.step import STEP, lstm_step
from .layout import layout
from .locks import Turn
from .memory import aligned_zeros, flat, writable
from .packed_layout import PanelForm
from .packing import PackedCopies, PackedWeights
from .passes import run_forward
from .validation import (
    FloatArray,
    State,
    array_of_kind,
    overlap,
    real_array,
    refuse_overlap,
    require_output,
    require_shape,
    state_pair,
    states_of_lstms,
)
from .workspace import Workspace

_ONE_CALL = "another call of this stream is under way: give each thread its own"


def refuse_copy(stream: object) -> NoReturn:
    """Refuse to copy or pickle a stream, which reads the weights of its model where they stand."""
    raise TypeError(
        f"a {type(stream).__name__} is not copied, but its model is, and its state: "
        "begin another stream, and assign state"
    )


def active_rows(active: Any, batch_size: int) -> NDArray[np.bool_] | None:
    """Validate which rows take part in a step; None for all."""
    if active is None:
        return None
    mask = array_of_kind("active", active, "b", "an array of bool")
    require_shape("active", mask, (batch_size,), f"{batch_size} = batch_size")
    return np.ascontiguousarray(mask)


def row_indices(rows: Any, batch_size: int) -> NDArray[Any] | slice:
    """Validate which rows are meant: None for all, a mask, or indices."""
    if rows is None:
        return slice(None)
    if isinstance(rows, (list, tuple)) and not rows:
        return np.empty(0, np.int64)  # which NumPy would take for floats
    array = array_of_kind("rows", rows, "biu", "None, a mask of bool or indices")
    if array.dtype == np.bool_:
        require_shape("rows", array, (batch_size,), f"{batch_size} = batch_size")
        return array
    if array.ndim > 1:
        raise ValueError(f"rows must have one axis or none; got shape {array.shape}")
    if array.size and (array.min() < 0 or array.max() >= batch_size):
        raise ValueError(
            f"rows must lie in [0, {batch_size}), {batch_size} = batch_size; "
            f"got values from {array.min()} to {array.max()}"
        )
    return np.atleast_1d(array)


class Stream(Guarded):
    """An LSTM that is fed as its input comes, for a batch of sequences at once.

    `LSTM.stream` makes one. Whatever the pieces, the outputs have the bits of one call with the
    whole sequence. One thread at a time may use it; different streams of one model are independent.
    A stream is neither copied nor pickled (a TypeError): begin another one and assign `state`. In a
    child that was forked in the midst of another thread's call its state is of no meaning: assign
    or reset it.

    Parameters
    ----------
    config : LSTMConfig
        Of a model with one direction.
    panels : mapping of PanelForm to PackedWeights
        Its weights, packed for forward passes.
    run : callable
        ``run(x, hx, out=, threads=)``, inference of the model.
    batch_size : int
        B, sequences that advance together.
    threads : int
        Largest number of threads of a call.

    Attributes
    ----------
    batch_size : int
    """

    _fixed = frozenset({"batch_size"})

    def __init__(
        self,
        config: LSTMConfig,
        panels: Mapping[PanelForm, PackedWeights],
        run: Callable[..., Any],
        batch_size: int,
        threads: int,
    ) -> None:
        self._config = config
        self._run = run
        self.batch_size = batch_size
        self._dtype = dtype = config.numpy_dtype
        self._threads = threads
        self._turn = Turn(_ONE_CALL)
        shape = (config.cells, batch_size, config.hidden_size)
        self._h, self._c = aligned_zeros(shape, dtype), aligned_zeros(shape, dtype)
        self._before = aligned_zeros((2, *shape), dtype)
        laid_out = layout(config, 1, batch_size, False, threads)
        self._laid_out = laid_out
        self._panels = panels[laid_out.form]
        self._x_shape = (batch_size, config.input_size)
        self._y_shape = (batch_size, config.output_size)
        self._workers = laid_out.split.workers
        self._workspace = Workspace(dtype).reserve(laid_out.size)
        self._lease: PackedCopies | None = None
        self._table = np.zeros(1, STEP)
        self._enter(
            calls=laid_out.call,
            cells=laid_out.cells,
            h=self._h,
            c=self._c,
            workspace=self._workspace,
        )

    def __reduce__(self) -> NoReturn:
        refuse_copy(self)

    def __del__(self) -> None:
        lease = getattr(self, "_lease", None)
        if lease is not None:
            self._panels.give_back(lease)

    def _enter(self, **arrays: NDArray[Any]) -> None:
        """Enter in the table of a step where it finds some arrays."""
        for name, array in arrays.items():
            self._table[name] = array.ctypes.data
            self._table[f"{name}_size"] = array.size

    def _packed(self) -> FloatArray:
        """Panels of the present weights, to which the table of a step points from now on."""
        lease = self._lease
        if lease is None or lease.version != self._panels.version:
            self._lease = None
            if lease is not None:
                self._panels.give_back(lease)
            lease = self._panels.lease(self._laid_out.split.copies)
            # The table first: an interruption in between must not leave it behind.
            self._enter(packed=lease.buffer)
            self._lease = lease
        return lease.buffer

    @property
    def state_shape(self) -> tuple[int, ...]:
        """Shape of h and of c: (L, B, H)."""
        return self._h.shape

    def step(self, x: Any, *, active: Any = None, out: FloatArray | None = None) -> FloatArray:
        """Take one step.

        Parameters
        ----------
        x : array
            (B, I). Any dtype of real numbers and any strides.
        active : array of bool, optional
            (B,); rows that take part, all by default. The others keep their state, and their output
            is 0.
        out : array, optional
            (B, H), where to write the output; it may not overlap x.

        Returns
        -------
        ndarray
            (B, H), output of the last layer.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong kind, shape or layout; the state is as it was then.
        RuntimeError
            If another call of this stream is under way.
        MemoryError
            If there is no room for the output; the state is as it was then.
        """
        dtype = self._dtype
        array = real_array("x", x, dtype)
        if array.shape != self._x_shape:
            B, I = self._x_shape
            require_shape("x", array, (B, I), f"{B} = batch_size, {I} = input_size")
        if out is None:
            y = np.empty(self._y_shape, dtype)
        else:
            y = require_output("out", out, self._y_shape, dtype)
        mask = None if active is None else active_rows(active, self.batch_size)
        if mask is not None or self._workers > 1:  # `lstm_step` looks itself, in less time
            refuse_overlap("out", y, {"x": array})
        self._turn.begin()
        if mask is not None:
            self._before[0], self._before[1] = self._h, self._c
        try:  # a `with` would take a quarter of a microsecond more
            packed = self._packed()
            if self._workers > 1:
                self._share_out(packed, flat(array), y.ravel())
            elif not lstm_step(self._table, writable(array), y):
                raise overlap("out", "x")
        finally:  # Ctrl-C during the step is served behind it
            if mask is not None:
                self._restore(mask, y)
            self._turn.end()
        return y

    def _restore(self, active: NDArray[np.bool_], y: FloatArray) -> None:
        """Give the rows that sat a step out the state that they had."""
        h, c, before = flat(self._h), flat(self._c), flat(self._before)
        restore_inactive_rows(flat(active), self._config.cells, before, h, c, y.ravel())

    def _share_out(self, packed: FloatArray, x: FloatArray, y: FloatArray) -> None:
        """Run a step on several threads."""
        laid_out, h, c = self._laid_out, flat(self._h), flat(self._c)
        arrays = (x, h, c, y, h, c)
        run_forward(laid_out, laid_out.split, laid_out.call, packed, arrays, self._workspace)

    def process(self, chunk: Any, *, out: FloatArray | None = None) -> FloatArray:
        """Take several steps.

        Parameters
        ----------
        chunk : array
            (T, B, I), or (B, T, I) for a model with `batch_first`.
        out : array, optional
            (T, B, H) or (B, T, H), where to write the output; it may not overlap the chunk.

        Returns
        -------
        ndarray
            (T, B, H) or (B, T, H), output of the last layer.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong kind, shape or layout; the state is as it was then.
        RuntimeError
            If another call of this stream is under way.
        MemoryError
            If there is no room for the output; the state is as it was then.
        """
        config = self._config
        array = real_array("chunk", chunk, config.numpy_dtype)
        B, I = self._x_shape
        axes: Sequence[int | str] = (B, "T", I) if config.batch_first else ("T", B, I)
        require_shape("chunk", array, axes, f"{B} = batch_size, {I} = input_size")
        shape = (*array.shape[:2], config.output_size)
        y = np.empty(shape, array.dtype) if out is None else out
        require_output("out", y, shape, array.dtype)
        refuse_overlap("out", y, {"chunk": array})
        with self._turn:
            state = (self._h, self._c)
            self._run(array, state, out=(y, state), threads=self._threads)
        return y

    @property
    def state(self) -> State:
        """Copies of h and c, (L, B, H) each; may be assigned.

        Raises
        ------
        TypeError, ValueError
            If what is assigned has the wrong kind or shape; the state is as it was then.
        RuntimeError
            If another call of this stream is under way.
        """
        with self._turn:
            return self._h.copy(), self._c.copy()

    @state.setter
    def state(self, state: Any) -> None:
        h, c = state_pair("state", state, self._h.shape, self._h.dtype)
        with self._turn:
            self._h[...], self._c[...] = h, c

    def reset(self, rows: Any = None) -> None:
        """Set states to zero.

        Parameters
        ----------
        rows : array of bool or int, optional
            Rows of the batch, as a mask or by number; all by default.

        Raises
        ------
        TypeError, ValueError
            If they are of another kind or out of range.
        RuntimeError
            If another call of this stream is under way.
        """
        chosen = row_indices(rows, self.batch_size)
        with self._turn:
            self._h[:, chosen] = 0
            self._c[:, chosen] = 0


class SequentialStream(Guarded):
    """A `Sequential` that is fed as its input comes.

    `Sequential.stream` makes one; see `Stream`, of which it has one for every LSTM. Like that it is
    neither copied nor pickled.

    Parameters
    ----------
    layers : sequence of Stream or callable
        A stream for every LSTM; and the others, ``layer(x, out=)``.
    shapes : sequence of tuple of int
        Shape of what the first takes for one step, and of what each gives.
    batch_first : bool
        Whether a chunk is (B, T, ...).
    dtype : dtype
    run : callable
        ``run(x, hx, out=)``, inference of the model.

    Attributes
    ----------
    batch_size : int
    """

    _fixed = frozenset({"batch_size"})

    def __init__(
        self,
        layers: Sequence[Stream | Callable[..., FloatArray]],
        shapes: Sequence[tuple[int, ...]],
        batch_first: bool,
        dtype: np.dtype[Any],
        run: Callable[..., Any],
    ) -> None:
        self._layers = layers
        self._dtype = dtype
        self._run = run
        self._batch_first = batch_first
        self._x_shape, *between, self._y_shape = shapes
        self.batch_size, *features = self._x_shape
        self._meaning = f"{self.batch_size} = batch_size"
        for taken in features:
            self._meaning += f", {taken} = features of the first layer"
        self._between = [np.zeros(shape, dtype) for shape in between]
        self._turn = Turn(_ONE_CALL)

    def __reduce__(self) -> NoReturn:
        refuse_copy(self)

    @property
    def _streams(self) -> list[Stream]:
        return [layer for layer in self._layers if isinstance(layer, Stream)]

    def step(self, x: Any, *, active: Any = None, out: FloatArray | None = None) -> FloatArray:
        """Take one step.

        Parameters
        ----------
        x : array
            (B,) tokens, which count in active rows only, or (B, I).
        active : array of bool, optional
            (B,); rows that take part, all by default. The others keep their states; what the model
            gives for them has no meaning.
        out : array, optional
            Where to write the output of the last layer, (B, features).

        Returns
        -------
        ndarray
            (B, features), output of the last layer.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong kind, shape or layout; the states are as they were then.
        RuntimeError
            If another call of this stream is under way.
        MemoryError
            If there is no room for the output; the state is as it was then.
        """
        mask = active_rows(active, self.batch_size)
        given = array_of_kind("x", x, "fiu", "an array of tokens or of real numbers")
        if given.shape != self._x_shape:
            require_shape("x", given, self._x_shape, self._meaning)
        y = np.empty(self._y_shape, self._dtype) if out is None else out
        require_output("out", y, self._y_shape, self._dtype)
        refuse_overlap("out", y, {"x": given})
        value: Any = given
        if mask is not None and given.ndim == 1:  # tokens: what pads a batch may be none
            value = np.where(mask, given, 0)
        with self._turn:
            for layer, target in zip(self._layers, [*self._between, y], strict=True):
                if isinstance(layer, Stream):
                    value = layer.step(value, active=mask, out=target)
                else:
                    value = layer(value, out=target)
        return y

    def process(self, chunk: Any, *, out: FloatArray | None = None) -> FloatArray:
        """Take several steps.

        Parameters
        ----------
        chunk : array
            What the model takes: (T, B) tokens or (T, B, I), batch first if its LSTMs are.
        out : array, optional
            (T, B, features), or batch first; where to write the output of the last layer. It may
            not overlap the chunk.

        Returns
        -------
        ndarray
            Output of the last layer.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong kind, shape or layout; the states are as they were then.
        RuntimeError
            If another call of this stream is under way.
        MemoryError
            If there is no room for the output; the state is as it was then.
        """
        given = array_of_kind("chunk", chunk, "fiu", "an array of tokens or of real numbers")
        B, *features = self._x_shape
        axes: list[int | str] = [B, "T"] if self._batch_first else ["T", B]
        require_shape("chunk", given, [*axes, *features], self._meaning)
        shape = (*given.shape[:2], *self._y_shape[1:])
        y = np.empty(shape, self._dtype) if out is None else out
        require_output("out", y, shape, self._dtype)
        refuse_overlap("out", y, {"chunk": given})
        with self._turn:
            _, after = self._run(given, self._states(), out=y)
            self._enter_states(after)
        return y

    @property
    def state(self) -> tuple[State, ...]:
        """Copies of (h, c) of every LSTM, (L, B, H) each; may be assigned.

        Raises
        ------
        TypeError, ValueError
            If what is assigned has the wrong kind or shape; the states are as they were then.
        RuntimeError
            If another call of this stream is under way.
        """
        with self._turn:
            return self._states()

    @state.setter
    def state(self, states: Any) -> None:
        streams = self._streams
        given = states_of_lstms("state", states, len(streams))
        checked = [
            state_pair(f"state[{number}]", state, stream.state_shape, self._dtype)
            for number, (stream, state) in enumerate(zip(streams, given, strict=True))
        ]
        with self._turn:
            self._enter_states(checked)

    def _states(self) -> tuple[State, ...]:
        """Copies of the states, taken in the midst of a call."""
        return tuple(stream.state for stream in self._streams)

    def _enter_states(self, states: Sequence[State]) -> None:
        """Put states in their places in the midst of a call."""
        for stream, state in zip(self._streams, states, strict=True):
            stream.state = state

    def reset(self, rows: Any = None) -> None:
        """Set states to zero.

        Parameters
        ----------
        rows : array of bool or int, optional
            Rows of the batch, as a mask or by number; all by default.

        Raises
        ------
        TypeError, ValueError
            If they are of another kind or out of range.
        RuntimeError
            If another call of this stream is under way.
        """
        row_indices(rows, self.batch_size)
        with self._turn:
            for stream in self._streams:
                stream.reset(rows)
