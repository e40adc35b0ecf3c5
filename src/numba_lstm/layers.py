"""Embedding, Linear, and Sequential, which joins layers over one flat parameter buffer."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from . import threads as threading_of_kernels
from .initialization import Seed, fill_uniform, generator
from .kernels import linear as kernels
from .kernels.embedding import distinct_tokens, embedding_backward
from .kernels.gemm import TILE_VECTORS
from .kernels.linear import rooms_for_gradients
from .kernels.panels import pack_matrix
from .layer import Layer
from .lstm import LSTM, TokenSequence, dropout_numbers
from .memory import flat
from .packing import PackedWeights
from .parameters import Parameters
from .schedule import projects_vocabulary, row_workers, task_workers
from .simd import cpu
from .storage import StoredModel
from .stream import SequentialStream, State
from .tape import Tape
from .validation import (
    FloatArray,
    boolean,
    float_dtype,
    integer,
    integer_array,
    named,
    real_array,
    refuse_overlap,
    require_output,
    require_shape,
    state_pair,
    string,
)
from .workspace import WorkspacePool, cached_numbers, segment_steps

if TYPE_CHECKING:
    from typing_extensions import Self


class Embedding(Layer):
    """A table with a row of features for every token.

    Parameters
    ----------
    num_embeddings : int
        N, number of tokens.
    embedding_dim : int
        E, features of a token.
    dtype : dtype
        float32 or float64.
    seed : int, Generator, SeedSequence or None
        Source of the initial table, drawn from a normal distribution.

    Attributes
    ----------
    parameters : Parameters
        ``weight`` (N, E).

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    MemoryError
        If there is no room for the parameters.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        dtype: Any = "float32",
        seed: Seed = None,
    ) -> None:
        self.num_embeddings = integer("num_embeddings", num_embeddings, least=1)
        self.embedding_dim = integer("embedding_dim", embedding_dim, least=1)
        shapes = {"weight": (self.num_embeddings, self.embedding_dim)}
        self.parameters = Parameters(shapes, float_dtype(dtype))
        self.parameters["weight"] = generator(seed).standard_normal(shapes["weight"])
        self._tape: Tape[NDArray[np.int64]] = Tape("Embedding")

    def configuration(self) -> dict[str, Any]:
        """Return the keyword arguments, without the seed, that build the same layer.

        Returns
        -------
        dict
        """
        return {
            "num_embeddings": self.num_embeddings,
            "embedding_dim": self.embedding_dim,
            "dtype": self.parameters.dtype.name,
        }

    @classmethod
    def from_configuration(
        cls, configuration: Mapping[str, Any], *, threads: int | None = None
    ) -> Self:
        """Build a layer from what `configuration` returned.

        Parameters
        ----------
        configuration : mapping
            Keyword arguments.
        threads : int, optional
            Checked, and of no further meaning: looking up rows takes one thread.

        Returns
        -------
        Embedding

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind or out of range.
        MemoryError
            If there is no room for the parameters.
        """
        threading_of_kernels.check(threads)
        return cls(**configuration)

    def __repr__(self) -> str:
        return f"Embedding({self.num_embeddings}, {self.embedding_dim})"

    def _tokens(self, tokens: Any) -> NDArray[np.int64]:
        """Validate tokens."""
        array = integer_array("tokens", tokens)
        if array.size and (array.min() < 0 or array.max() >= self.num_embeddings):
            raise ValueError(
                f"tokens must lie in [0, {self.num_embeddings}), "
                f"{self.num_embeddings} = num_embeddings; "
                f"got values from {array.min()} to {array.max()}"
            )
        return array

    def __call__(self, tokens: Any, *, out: FloatArray | None = None) -> FloatArray:
        """Look up rows.

        Parameters
        ----------
        tokens : array of int
            (...) in [0, N).
        out : array, optional
            (..., E), where to write the result.

        Returns
        -------
        ndarray
            (..., E).

        Raises
        ------
        TypeError, ValueError
            If a token is no integer or out of range, or out has the wrong kind, shape or layout.
        MemoryError
            If there is no room for the result.
        """
        array = self._tokens(tokens)
        table = self.parameters["weight"]
        if out is None:
            out = np.empty((*array.shape, self.embedding_dim), table.dtype)
        require_output("out", out, (*array.shape, self.embedding_dim), table.dtype)
        refuse_overlap("out", out, {"tokens": array})
        # Without a mode, NumPy would take the rows into a buffer first.
        return np.take(table, array, axis=0, out=out, mode="clip")

    def forward(self, tokens: Any) -> FloatArray:
        """Look up rows and keep the tokens for `backward`.

        Parameters
        ----------
        tokens : array of int
            (...) in [0, N).

        Returns
        -------
        ndarray
            (..., E).

        Raises
        ------
        TypeError, ValueError
            If a token is no integer or out of range.
        MemoryError
            If there is no room for the result.
        RuntimeError
            If another thread is in `forward` or `backward` of this layer.
        """
        array = self._tokens(tokens)
        with self._tape.alone():
            self._tape.record(array.copy(), self.parameters)
            return self(array)

    def backward(self, dy: Any, *, accumulate: bool = True) -> None:
        """Add the gradient of every output to the row of its token.

        Parameters
        ----------
        dy : array
            (..., E), as the output.
        accumulate : bool
            Whether to what is there; otherwise to zeros.

        Raises
        ------
        TypeError, ValueError
            If dy has the wrong kind or shape; nothing is changed then.
        RuntimeError
            If there was no `forward`, or its `backward` was called, or the parameters have changed,
            or another thread is in `forward` or `backward` of this layer.
        """
        added = boolean("accumulate", accumulate)
        with self._tape.alone():
            tokens = self._tape.read(self.parameters)
            array = real_array("dy", dy, self.parameters.dtype)
            require_shape("dy", array, (*tokens.shape, self.embedding_dim), "as the output")
            self._tape.clear()
            if not added:
                self.gradients.zero()
            with self.gradients.edit() as target:
                embedding_backward(flat(tokens), flat(array), self.embedding_dim, target)


@dataclass(frozen=True)
class _Rows:
    """An input of `Linear`, its leading axes taken together."""

    array: FloatArray
    count: int


class Linear(Layer):
    """``y = x @ weight.T + bias``.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
        Whether there is a bias.
    dtype : dtype
        float32 or float64.
    threads : int, optional
        Upper bound of threads for a call; all by default.
    seed : int, Generator, SeedSequence or None
        Source of the initial weights, drawn from U(-1/sqrt(in), 1/sqrt(in)).

    Attributes
    ----------
    parameters : Parameters
        ``weight`` (out, in), ``bias`` (out,).

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    MemoryError
        If there is no room for the parameters.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        dtype: Any = "float32",
        threads: int | None = None,
        seed: Seed = None,
    ) -> None:
        self.in_features = integer("in_features", in_features, least=1)
        self.out_features = integer("out_features", out_features, least=1)
        self.bias = boolean("bias", bias)
        self.threads = threading_of_kernels.check(threads)
        shapes: dict[str, tuple[int, ...]] = {"weight": (self.out_features, self.in_features)}
        if self.bias:
            shapes["bias"] = (self.out_features,)
        self.parameters = Parameters(shapes, float_dtype(dtype))
        bound = 1 / math.sqrt(self.in_features)
        fill_uniform(self.parameters, generator(seed), bound, draws_of_bias=1)
        lanes = cpu.lanes(self.parameters.dtype.itemsize)

        def packed_size(terms: int, columns: int) -> int:
            return (1 + terms) * -(-columns // lanes) * lanes

        self._forward_panels = PackedWeights(
            self.parameters, packed_size(self.in_features, self.out_features), self._pack_forward
        )
        self._backward_panels = PackedWeights(
            self.parameters, packed_size(self.out_features, self.in_features), self._pack_backward
        )
        self._pool = WorkspacePool(self.parameters.dtype)
        self._tile_size = TILE_VECTORS * lanes
        self._task_size = rooms_for_gradients(self.in_features, self.out_features, lanes).size
        self._tape: Tape[_Rows] = Tape("Linear")

    def configuration(self) -> dict[str, Any]:
        """Return the keyword arguments, without threads and seed, that build the same layer.

        Returns
        -------
        dict
        """
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "bias": self.bias,
            "dtype": self.parameters.dtype.name,
        }

    def __repr__(self) -> str:
        return f"Linear({self.in_features}, {self.out_features})"

    def _split(self, array: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Weight and bias (empty if there is none) in a flat array of all parameters."""
        size = self.out_features * self.in_features
        return array[:size], array[size:]

    def _pack_forward(self, parameters: FloatArray, packed: FloatArray, workers: int) -> None:
        """Pack the matrix (in, out) that takes x to y."""
        weight, bias = self._split(parameters)
        matrix = (weight, self.in_features, self.out_features, True)
        threading_of_kernels.share_out(pack_matrix, (*matrix, bias, packed), workers)

    def _pack_backward(self, parameters: FloatArray, packed: FloatArray, workers: int) -> None:
        """Pack the matrix (out, in) that takes dy to dx."""
        weight, _ = self._split(parameters)
        matrix = (weight, self.out_features, self.in_features, False)
        threading_of_kernels.share_out(pack_matrix, (*matrix, weight[:0], packed), workers)

    def _rows(self, x: Any) -> _Rows:
        """Validate an input."""
        array = real_array("x", x, self.parameters.dtype)
        if array.ndim == 0 or array.shape[-1] != self.in_features:
            raise ValueError(
                f"x must have shape (..., {self.in_features}), {self.in_features} = in_features; "
                f"got {array.shape}"
            )
        return _Rows(array, math.prod(array.shape[:-1]))

    def _operations(self, rows: int) -> int:
        """Floating-point operations of one product."""
        return 2 * rows * self.in_features * self.out_features

    def _threads(self, threads: int | None) -> int:
        """Upper bound of threads of a call."""
        return threading_of_kernels.resolve(self.threads if threads is None else threads)

    def _product(
        self, panels: PackedWeights, source: FloatArray, rows: int, out: FloatArray, most: int
    ) -> None:
        """Multiply rows by one of the two packed matrices."""
        workers = row_workers(most, rows, self._operations(rows))
        workspace = self._pool.borrow()
        try:
            scratches = workspace.reserve(workers * self._tile_size)
            with panels.borrow(workers) as packed:
                cached = cached_numbers(out.itemsize)
                sizes = (rows, source.shape[-1], packed, out.shape[-1], cached)
                threading_of_kernels.share_out(
                    kernels.linear_product,
                    (flat(source), *sizes, flat(out), scratches),
                    workers,
                )
        finally:
            self._pool.give_back(workspace)

    def __call__(
        self, x: Any, *, out: FloatArray | None = None, threads: int | None = None
    ) -> FloatArray:
        """Multiply and add.

        Parameters
        ----------
        x : array
            (..., in).
        out : array, optional
            (..., out), where to write the result; it may not overlap x.
        threads : int, optional
            Upper bound of threads for this call.

        Returns
        -------
        ndarray
            (..., out).

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong kind, shape or layout.
        MemoryError
            If there is no room for the result.
        """
        rows = self._rows(x)
        most = self._threads(threads)
        shape = (*rows.array.shape[:-1], self.out_features)
        y = np.empty(shape, self.parameters.dtype) if out is None else out
        require_output("out", y, shape, self.parameters.dtype)
        refuse_overlap("out", y, {"x": rows.array})
        self._product(self._forward_panels, rows.array, rows.count, y, most)
        return y

    def forward(self, x: Any, *, threads: int | None = None) -> FloatArray:
        """Multiply and add, and keep x for `backward`.

        Parameters
        ----------
        x : array
            (..., in). It must stay as it is until `backward`, unless it had to be copied.
        threads : int, optional
            Upper bound of threads for this call.

        Returns
        -------
        ndarray
            (..., out).

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong kind or shape.
        MemoryError
            If there is no room for the result.
        RuntimeError
            If another thread is in `forward` or `backward` of this layer.
        """
        rows = self._rows(x)
        with self._tape.alone():
            y = self(rows.array, threads=threads)
            self._tape.record(rows, self.parameters)
        return y

    def backward(
        self,
        dy: Any,
        *,
        input_gradient: bool = True,
        accumulate: bool = True,
        threads: int | None = None,
    ) -> FloatArray | None:
        """Go back through the last `forward` and add to the gradients of the parameters.

        Parameters
        ----------
        dy : array
            (..., out), as the output.
        input_gradient : bool
            Whether dx is wanted.
        accumulate : bool
            Whether the gradients are added to those that are there; or else take their place.
        threads : int, optional
            Upper bound of threads for this call.

        Returns
        -------
        dx : ndarray or None
            (..., in).

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong kind or shape; nothing is changed then.
        RuntimeError
            If there was no `forward`, or its `backward` was called, or the parameters have changed,
            or another thread is in `forward` or `backward` of this layer.
        """
        wanted = boolean("input_gradient", input_gradient)
        added = boolean("accumulate", accumulate)
        most = self._threads(threads)
        with self._tape.alone():
            rows = self._tape.read(self.parameters)
            array = real_array("dy", dy, self.parameters.dtype)
            require_shape("dy", array, (*rows.array.shape[:-1], self.out_features), "as the output")
            self._tape.clear()
            dx = None
            if wanted:
                dx = np.empty(rows.array.shape, array.dtype)
                self._product(self._backward_panels, array, rows.count, dx, most)
            self._set_gradients(rows, array, added, most)
        return dx

    def _set_gradients(self, rows: _Rows, dy: FloatArray, accumulate: bool, most: int) -> None:
        """Set the gradients of weight and bias, or add to them."""
        if rows.count == 0:
            if not accumulate:
                self.gradients.zero()
            return
        workers = task_workers(most, self._operations(rows.count))
        workspace = self._pool.borrow()
        try:
            scratches = workspace.reserve(workers * self._task_size)
            with self.gradients.edit() as target:
                sizes = (rows.count, self.in_features, self.out_features, accumulate)
                threading_of_kernels.share_out(
                    kernels.linear_gradients,
                    (flat(rows.array), flat(dy), *sizes, *self._split(target), scratches),
                    workers,
                )
        finally:
            self._pool.give_back(workspace)


def _values(name: str, mapping: Any, *keys: str) -> list[Any]:
    """Values of a mapping that has just these keys."""
    if set(named(name, mapping)) != set(keys):
        raise ValueError(f"{name} must have the keys {', '.join(keys)}; got {', '.join(mapping)}")
    return [mapping[key] for key in keys]


AnyLayer = Embedding | LSTM | Linear
States = tuple[State, ...]


def _input(layer: AnyLayer, x: Any) -> NDArray[Any]:
    """Validate what a layer takes."""
    if isinstance(layer, Embedding):
        return layer._tokens(x)
    return layer._rows(x).array if isinstance(layer, Linear) else layer._sequence(x).array


def _distinct(tokens: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the tokens that occur, and for every token its place among these."""
    slots = np.empty(2 << tokens.size.bit_length(), np.int64)
    distinct, places = np.empty(tokens.size, np.int64), np.empty(tokens.shape, np.int64)
    count = distinct_tokens(flat(tokens), slots, distinct, flat(places))
    return distinct[:count], places


def _leading_axes(layer: AnyLayer, array: NDArray[Any]) -> tuple[int, ...]:
    """Axes of what a layer takes, without the features."""
    return array.shape if isinstance(layer, Embedding) else array.shape[:-1]


def axis_of_steps(layers: Sequence[AnyLayer], array: NDArray[Any]) -> int | None:
    """Axis of an input that every LSTM among these layers walks along from its beginning.

    Parameters
    ----------
    layers : sequence of Embedding, LSTM or Linear
        The first takes the input.
    array : ndarray
        Validated input.

    Returns
    -------
    int or None
        None if there is no such axis.
    """
    configs = [layer.config for layer in layers if isinstance(layer, LSTM)]
    batched = len(_leading_axes(layers[0], array)) == 2
    axes = {int(batched and config.batch_first) for config in configs}
    if len(axes) != 1 or any(config.bidirectional for config in configs):
        return None
    return axes.pop()


def _steps_and_rows(lstm: LSTM, leading: tuple[int, ...]) -> tuple[int, int]:
    """T and B of a sequence that has these axes beside the features."""
    if len(leading) == 1:
        return leading[0], 1
    first, second = leading
    return (second, first) if lstm.config.batch_first else (first, second)


def _features(layer: AnyLayer) -> tuple[int | None, int]:
    """Features that a layer takes (None for tokens) and gives."""
    if isinstance(layer, Embedding):
        return None, layer.embedding_dim
    if isinstance(layer, Linear):
        return layer.in_features, layer.out_features
    return layer.config.input_size, layer.config.output_size


class Sequential(StoredModel):
    """Layers one after the other, over one flat buffer of parameters and one of gradients.

    Where an LSTM follows an embedding, and tokens occur often enough, it projects the row of each
    once and looks up what follows from it, to the same bits; on the way back the gradients of a
    token's steps are summed before they meet the weights. That saves a fifteenth of a training step
    in the language model of ``numba-lstm train``, and more where features are as many as units. It
    is the model that then knows which row is whose: after its `forward` call its own `backward`,
    not that of one layer after the other.

    Parameters
    ----------
    *layers : Embedding, LSTM or Linear
        At least one, of one dtype, each taking what the one before gives. Their parameters move
        into the common buffer.
    threads : int, optional
        Upper bound of threads for a call; by default each layer has its own.

    Attributes
    ----------
    layers : tuple
    parameters : Parameters
        Names are ``{position}.{name}``: ``0.weight``, ``1.weight_ih_l0``, ...
    gradients : Parameters
        The same for gradients; `backward` adds to them.

    Raises
    ------
    TypeError, ValueError
        If a layer is of another kind, stands in another model, or does not fit its neighbours.
    """

    def __init__(self, *layers: AnyLayer, threads: int | None = None) -> None:
        self.threads = threading_of_kernels.check(threads)
        if not layers:
            raise ValueError("layers must be at least one; got none")
        for position, layer in enumerate(layers):
            if not isinstance(layer, (Embedding, LSTM, Linear)):
                raise TypeError(
                    f"layer {position} must be an Embedding, an LSTM or a Linear; got {layer!r}"
                )
            if any(layer is other for other in layers[:position]):
                raise ValueError(f"layer {position} must be another object; got {layer!r} twice")
            taken, _ = _features(layer)
            given = _features(layers[position - 1])[1] if position else taken
            if taken != given:
                raise ValueError(
                    f"layer {position} must take the {given} features of the layer before; "
                    f"got {layer!r}"
                )
        self.layers = layers
        named = {str(position): layer for position, layer in enumerate(layers)}
        self.parameters = Parameters.join({name: layer.parameters for name, layer in named.items()})
        self.gradients = Parameters.join({name: layer.gradients for name, layer in named.items()})

    @property
    def _lstms(self) -> list[LSTM]:
        return [layer for layer in self.layers if isinstance(layer, LSTM)]

    @property
    def dropout_state(self) -> list[dict[str, int]]:
        """State of dropout of every LSTM, in order; may be assigned.

        Raises
        ------
        TypeError, ValueError
            If what is assigned is of another kind, has another length, or numbers are out of range;
            nothing is changed then.
        """
        return [lstm.dropout_state for lstm in self._lstms]

    @dropout_state.setter
    def dropout_state(self, states: Sequence[Mapping[str, int]]) -> None:
        if not isinstance(states, (tuple, list)):
            raise TypeError(f"dropout_state must be a list; got {type(states).__name__}")
        if len(states) != len(self._lstms):
            raise ValueError(
                f"dropout_state must have {len(self._lstms)} items, one for each LSTM; "
                f"got {len(states)}"
            )
        checked = [dropout_numbers(state) for state in states]
        for lstm, state in zip(self._lstms, checked, strict=True):
            lstm.dropout_state = state

    def configuration(self) -> dict[str, Any]:
        """Return class and configuration of every layer.

        Returns
        -------
        dict
        """
        return {
            "layers": [
                {"model": type(layer).__name__, "configuration": layer.configuration()}
                for layer in self.layers
            ]
        }

    @classmethod
    def from_configuration(
        cls, configuration: Mapping[str, Any], *, threads: int | None = None
    ) -> Self:
        """Build a model from what `configuration` returned.

        Parameters
        ----------
        configuration : mapping
        threads : int, optional
            Upper bound of threads for a call.

        Returns
        -------
        Sequential

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind or out of range.
        MemoryError
            If there is no room for the parameters.
        """
        kinds: dict[str, type[AnyLayer]] = {"Embedding": Embedding, "LSTM": LSTM, "Linear": Linear}
        layers = []
        for layer in _values("configuration", configuration, "layers")[0]:
            kind, arguments = _values("a layer", layer, "model", "configuration")
            if string("model", kind) not in kinds:
                raise ValueError(f"model must be one of {', '.join(kinds)}; got {kind!r}")
            layers.append(kinds[kind].from_configuration(arguments))
        return cls(*layers, threads=threads)

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(repr, self.layers))})"

    def _states(self, name: str, states: Any, axes: list[tuple[int, ...]]) -> list[State | None]:
        """Validate a state for every LSTM, whose sequences have these axes beside the features."""
        lstms = self._lstms
        if states is None:
            return [None] * len(lstms)
        if not isinstance(states, (tuple, list)) or len(states) != len(lstms):
            got = len(states) if isinstance(states, (tuple, list)) else type(states).__name__
            raise TypeError(
                f"{name} must be a tuple of {len(lstms)} states, one per LSTM; got {got}"
            )
        checked: list[State | None] = []
        for lstm, state, leading in zip(lstms, states, axes, strict=True):
            config = lstm.config
            _, rows = _steps_and_rows(lstm, leading)
            shape = (config.cells, *((rows,) if len(leading) == 2 else ()), config.hidden_size)
            checked.append(
                None if state is None else state_pair(name, state, shape, config.numpy_dtype)
            )
        return checked

    def _checked(self, x: Any, hx: Any) -> tuple[NDArray[Any], Iterator[State | None]]:
        """Validate an input and the states before it, ahead of all layers."""
        first = self.layers[0]
        array = _input(first, x)
        leading = _leading_axes(first, array)
        if self._lstms and len(leading) not in (1, 2):
            raise ValueError(
                "x must have an axis of steps, one of the batch or none, and what "
                f"{first!r} takes; got shape {array.shape}"
            )
        return array, iter(self._states("hx", hx, [leading] * len(self._lstms)))

    def _check_segments(
        self, checkpoint: Any, leading: tuple[int, ...], threads: int | None
    ) -> None:
        """Refuse a checkpoint that an LSTM would refuse, ahead of all layers."""
        segment_steps(checkpoint, 0, 0)  # also where there is no LSTM
        for lstm in self._lstms:
            T, B = _steps_and_rows(lstm, leading)
            lstm._layout(T, B, True, lstm._threads(threads), segment_steps(checkpoint, T, B))

    def _bound(self, threads: int | None) -> int | None:
        """Upper bound of threads of a call; None leaves it to the layers."""
        return self.threads if threads is None else threading_of_kernels.check(threads)

    def __call__(
        self, x: Any, hx: Any = None, *, threads: int | None = None
    ) -> tuple[FloatArray, States]:
        """Run inference.

        Parameters
        ----------
        x : array
            What the first layer takes.
        hx : tuple of (h, c), optional
            A pair of states for every LSTM, in order; zeros by default.
        threads : int, optional
            Upper bound of threads for this call.

        Returns
        -------
        y : ndarray
            What the last layer gives.
        hx : tuple of (h, c)
            States after the last step, for every LSTM.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong kind or shape.
        MemoryError
            If there is no room for the result.
        """
        return self._infer(self.layers, x, hx, self._bound(threads))

    def _infer(
        self, layers: Sequence[AnyLayer], x: Any, hx: Any, threads: int | None
    ) -> tuple[FloatArray, States]:
        """Run inference of the first layers, all LSTMs among them."""
        x, before = self._checked(x, hx)
        after: list[State] = []
        for layer in layers:
            if isinstance(layer, LSTM):
                x, state = layer(x, next(before), threads=threads)
                after.append(state)
            elif isinstance(layer, Linear):
                x = layer(x, threads=threads)
            else:
                x = self._rows_of_tokens(layer, x)
        return x, tuple(after)

    def _rows_of_tokens(
        self,
        look_up: Callable[[NDArray[np.int64]], FloatArray],
        tokens: NDArray[np.int64],
        *,
        training: bool = False,
        checkpointed: bool = False,
    ) -> FloatArray | TokenSequence:
        """Look up the row of every token; or of those that occur, for an LSTM to project these."""
        if len(self.layers) > 1 and isinstance(above := self.layers[1], LSTM):
            projects = functools.partial(
                projects_vocabulary,
                above.config,
                tokens=tokens.size,
                cached=cached_numbers(self.parameters.dtype.itemsize),
                training=training,
                checkpointed=checkpointed,
            )
            if projects(1):  # were there only one row; to number the tokens takes longer
                distinct, places = _distinct(tokens)
                if projects(len(distinct)):
                    return TokenSequence(places, look_up(distinct))
        return look_up(tokens)

    def _advance(self, x: Any, hx: Any) -> States:
        """Return the states after the last step; nothing runs that stands above the last LSTM."""
        last = max(place for place, layer in enumerate(self.layers) if isinstance(layer, LSTM))
        return self._infer(self.layers[: last + 1], x, hx, self.threads)[1]

    def stream(self, batch_size: int = 1, *, threads: int | None = None) -> SequentialStream:
        """Begin to run the model step by step, with states that are kept between calls.

        Parameters
        ----------
        batch_size : int
            B, sequences that advance together.
        threads : int, optional
            Upper bound of threads of a call.

        Returns
        -------
        SequentialStream
            Its states are zero.

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind or out of range, or an LSTM is bidirectional.
        MemoryError
            If there is no room for the states.
        """
        rows = integer("batch_size", batch_size, least=1)
        most = self._bound(threads)
        layers = [
            layer.stream(rows, threads=most) if isinstance(layer, LSTM) else layer
            for layer in self.layers
        ]
        shapes = [(rows, _features(layer)[1]) for layer in self.layers]
        return SequentialStream(layers, shapes, self.parameters.dtype, self)

    def forward(
        self,
        x: Any,
        hx: Any = None,
        *,
        training: bool = True,
        checkpoint: int | Literal["auto"] | None = None,
        threads: int | None = None,
    ) -> tuple[FloatArray, States]:
        """Run the model and keep what `backward` needs.

        Parameters
        ----------
        x : array
            What the first layer takes.
        hx : tuple of (h, c), optional
            A pair of states for every LSTM, in order; zeros by default.
        training : bool
            Whether dropout is active.
        checkpoint : int or "auto", optional
            As for `LSTM.forward`, for every LSTM: keep the state every so many steps only, and
            compute again what lies between. What the other layers take is kept of all steps.
        threads : int, optional
            Upper bound of threads for this call.

        Returns
        -------
        y : ndarray
            What the last layer gives.
        hx : tuple of (h, c)
            States after the last step, for every LSTM.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong kind or shape; what an earlier call kept is still there.
        MemoryError
            If there is no room for the result.
        RuntimeError
            If another thread is in `forward` or `backward` of a layer.
        """
        most = self._bound(threads)
        active = boolean("training", training)
        x, before = self._checked(x, hx)
        self._check_segments(checkpoint, _leading_axes(self.layers[0], x), most)
        after: list[State] = []
        for layer in self.layers:
            if isinstance(layer, LSTM):
                x, state = layer.forward(
                    x, next(before), training=active, checkpoint=checkpoint, threads=most
                )
                after.append(state)
            elif isinstance(layer, Linear):
                x = layer.forward(x, threads=most)
            else:
                x = self._rows_of_tokens(
                    layer.forward, x, training=True, checkpointed=checkpoint is not None
                )
        return x, tuple(after)

    def backward(
        self,
        dy: Any,
        dhx: Any = None,
        *,
        input_gradient: bool = True,
        accumulate: bool = True,
        threads: int | None = None,
    ) -> tuple[FloatArray | None, States]:
        """Go back through the last `forward` and add to the gradients of the parameters.

        Parameters
        ----------
        dy : array
            Gradient of the loss with respect to y, of its shape.
        dhx : tuple of (dh, dc), optional
            Gradients with respect to the states after the last step; zeros by default.
        input_gradient : bool
            Whether dx is wanted; tokens have none in any case.
        accumulate : bool
            Whether the gradients are added to those that are there; or else take their place.
        threads : int, optional
            Upper bound of threads for this call.

        Returns
        -------
        dx : ndarray or None
            Gradient with respect to x.
        dhx : tuple of (dh, dc)
            Gradients with respect to the states before the first step, for every LSTM.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong kind or shape; nothing is changed then.
        MemoryError
            If there is no room for the result.
        RuntimeError
            If there was no `forward`, or its `backward` was called, or the parameters have changed.
        """
        wanted = boolean("input_gradient", input_gradient)
        added = boolean("accumulate", accumulate)
        most = self._bound(threads)
        for layer in self.layers:
            layer._tape.read(layer.parameters)
        saved = [lstm._tape.read(lstm.parameters) for lstm in self._lstms]
        axes = [call.sequence.axes for call in saved]
        after = iter(reversed(self._states("dhx", dhx, axes)))
        before: list[State] = []
        for position, layer in reversed(list(enumerate(self.layers))):
            needed = wanted or position > 0
            if isinstance(layer, LSTM):
                dy, state = layer.backward(
                    dy, next(after), input_gradient=needed, accumulate=added, threads=most
                )
                before.append(state)
            elif isinstance(layer, Linear):
                dy = layer.backward(dy, input_gradient=needed, accumulate=added, threads=most)
            else:
                layer.backward(dy, accumulate=added)
                dy = None
        return dy, tuple(reversed(before))
