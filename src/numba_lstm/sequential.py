"""Sequential: layers one after the other, over one flat buffer of parameters."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import threadpool
from .embedding import Embedding, number_tokens
from .linear import Linear
from .lstm import LSTM, dropout_numbers
from .parameters import Parameters
from .pieces import segment_steps
from .schedule import projects_vocabulary
from .sequences import TokenSequence, input_sequence, state_shape
from .storage import StoredModel
from .stream import SequentialStream, Stream
from .tape import Tape
from .validation import (
    FloatArray,
    State,
    boolean,
    integer,
    named,
    real_array,
    refuse_overlap,
    require_output,
    require_wanted,
    state_pair,
    states_of_lstms,
    string,
)
from .workspace import Loan, WorkspacePool

if TYPE_CHECKING:
    from typing_extensions import Self


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
    if isinstance(layer, Linear):
        return layer._rows(x).x
    return input_sequence(layer.config, x).array


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


def _features(layer: AnyLayer) -> tuple[int | None, int]:
    """Features that a layer takes (None for tokens) and gives."""
    if isinstance(layer, Embedding):
        return None, layer.embedding_dim
    if isinstance(layer, Linear):
        return layer.in_features, layer.out_features
    return layer.config.input_size, layer.config.output_size


class _Passed(NamedTuple):
    """What `forward` of a `Sequential` leaves for its `backward`."""

    leading: tuple[int, ...]  # axes beside the features
    between: Loan  # what the layers gave one another
    kept: tuple[Any, ...]  # by each layer, on a tape of its own


class Sequential(StoredModel):
    """Layers one after the other, over one flat buffer of parameters and one of gradients.

    Where an LSTM follows an embedding, and tokens occur often enough, it projects the row of each
    once and looks up what follows from it, to the same bits; on the way back the gradients of a
    token's steps are summed before they meet the weights. That saves a fifteenth of a training step
    in the language model of ``numba-lstm train``, and more where features are as many as units. It
    is the model that then knows which row is whose: after its `forward` call its own `backward`,
    not that of one layer after the other. Methods of layers whose classes derive from these are
    called with `out` and the other keywords of theirs.

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
    threads : int or None
        As given; may be changed between calls.

    Raises
    ------
    TypeError, ValueError
        If a layer is of another kind, stands in another model, or does not fit its neighbours.
    """

    _fixed = StoredModel._fixed | {"layers"}
    _checks: ClassVar[dict[str, Any]] = {"threads": threadpool.check}

    def __init__(self, *layers: AnyLayer, threads: int | None = None) -> None:
        self.threads = threads
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
        dtypes = [str(layer.parameters.dtype) for layer in layers]
        if len(set(dtypes)) > 1:
            raise ValueError(f"layers must have one dtype; got {', '.join(dtypes)}")
        for position, layer in enumerate(layers):
            if layer.parameters.joined:
                raise ValueError(
                    f"layer {position} must not stand in another model already; got {layer!r}"
                )
        self.layers = layers
        named = {str(position): layer for position, layer in enumerate(layers)}
        self.parameters = Parameters.join({name: layer.parameters for name, layer in named.items()})
        self.gradients = Parameters.join({name: layer.gradients for name, layer in named.items()})
        self._pool = WorkspacePool(self.parameters.dtype)
        self._tape: Tape[_Passed] = Tape("Sequential")

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

    def _adjustments(self) -> dict[str, Any]:
        of_layers = [layer._adjustments() for layer in self.layers]
        return {"threads": self.threads, "layers": of_layers}

    def _adjust(self, adjustments: dict[str, Any]) -> None:
        self.threads = adjustments["threads"]
        for layer, of_layer in zip(self.layers, adjustments["layers"], strict=True):
            layer._adjust(of_layer)

    def _states(self, name: str, states: Any, axes: list[tuple[int, ...]]) -> list[State | None]:
        """Validate a state for every LSTM, whose sequences have these axes beside the features."""
        lstms = self._lstms
        if states is None:
            return [None] * len(lstms)
        checked: list[State | None] = []
        given = states_of_lstms(name, states, len(lstms))
        for number, (lstm, state, leading) in enumerate(zip(lstms, given, axes, strict=True)):
            if state is not None:
                shape = state_shape(lstm.config, leading)
                state = state_pair(f"{name}[{number}]", state, shape, lstm.config.numpy_dtype)
            checked.append(state)
        return checked

    def _checked(self, x: Any, hx: Any) -> tuple[NDArray[Any], list[State | None]]:
        """Validate an input and the states before it, ahead of all layers."""
        first = self.layers[0]
        array = _input(first, x)
        leading = _leading_axes(first, array)
        if self._lstms and len(leading) not in (1, 2):
            raise ValueError(
                "x must have an axis of steps, one of the batch or none, and what "
                f"{first!r} takes; got shape {array.shape}"
            )
        return array, self._states("hx", hx, [leading] * len(self._lstms))

    def _bound(self, threads: int | None) -> int | None:
        """Upper bound of threads of a call; None leaves it to the layers."""
        return self.threads if threads is None else threadpool.check(threads)

    def _check_out(
        self, out: Any, x: NDArray[Any], leading: tuple[int, ...], states: list[State | None]
    ) -> None:
        """Refuse an output that cannot be written to, ahead of all layers."""
        if out is None:
            return
        y_shape = (*leading, _features(self.layers[-1])[1])
        self._require_out(out, y_shape, {"x": x}, "hx", states)

    def _require_out(
        self,
        out: Any,
        shape: tuple[int, ...],
        read: dict[str, NDArray[Any]],
        name: str,
        states: list[State | None],
    ) -> None:
        """Check that an array can be written to, and overlaps nothing read and no states."""
        require_output("out", out, shape, self.parameters.dtype)
        refuse_overlap("out", out, read)
        for array in itertools.chain.from_iterable(state or () for state in states):
            refuse_overlap("out", out, {name: array})

    def __call__(
        self,
        x: Any,
        hx: Any = None,
        *,
        out: FloatArray | None = None,
        threads: int | None = None,
    ) -> tuple[FloatArray, States]:
        """Run inference.

        Parameters
        ----------
        x : array
            What the first layer takes.
        hx : tuple of (h, c), optional
            A pair of states for every LSTM, in order; zeros by default.
        out : array, optional
            Where to write y; it may overlap nothing.
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
            If an argument has the wrong kind, shape or layout; nothing is computed then.
        MemoryError
            If there is no room for the result.
        """
        return self._infer(self.layers, x, hx, out, self._bound(threads))

    def _infer(
        self,
        layers: Sequence[AnyLayer],
        x: Any,
        hx: Any,
        out: FloatArray | None,
        threads: int | None,
    ) -> tuple[FloatArray, States]:
        """Run inference of the first layers, all LSTMs among them; `out` is of the last layer."""
        x, states = self._checked(x, hx)
        self._check_out(out, x, _leading_axes(self.layers[0], x), states)
        between = Loan(self._pool)
        try:
            return self._run(layers, x, states, out, between, threads)
        finally:
            between.end()

    def _run(
        self,
        layers: Sequence[AnyLayer],
        x: Any,
        states: list[State | None],
        out: FloatArray | None,
        between: Loan,
        threads: int | None,
        options: dict[str, Any] | None = None,
    ) -> tuple[FloatArray, States]:
        """Run some layers in turn; all keep what `backward` needs if there are options for that.

        What they give one another is of the loan, and goes back as soon as nobody needs it.
        """
        leading = _leading_axes(layers[0], x)
        training = options is not None
        before = iter(states)
        after: list[State] = []

        def room(axes: tuple[int, ...], layer: AnyLayer) -> FloatArray | None:
            """Room for what a layer gives; None if it is to find some itself."""
            return out if layer is self.layers[-1] else between.array((*axes, _features(layer)[1]))

        for layer in layers:
            call: Callable[..., Any] = layer.forward if training else layer
            if isinstance(layer, Embedding):
                found = self._distinct_tokens(x, training=training)
                if found is None:
                    x = call(x, out=room(leading, layer))
                else:
                    distinct, places = found
                    x = TokenSequence(places, call(distinct, out=room(distinct.shape, layer)))
            elif isinstance(layer, Linear):
                x = call(x, out=room(leading, layer), threads=threads)
            else:
                y = room(leading, layer)
                lent = None if y is None else (y, None)
                x, state = call(x, next(before), out=lent, threads=threads, **(options or {}))
                after.append(state)
            if not training:
                between.end_but_for_the_last()
        return x, tuple(after)

    def _distinct_tokens(
        self, tokens: NDArray[np.int64], *, training: bool
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Number the tokens, if an LSTM is to project those that occur: which, and where."""
        if len(self.layers) > 1 and isinstance(above := self.layers[1], LSTM):
            projects = functools.partial(
                projects_vocabulary,
                above.config,
                tokens=tokens.size,
                training=training,
            )
            if projects(1):  # were there only one row; to number the tokens takes longer
                distinct, places = number_tokens(tokens)
                if projects(len(distinct)):
                    return distinct, places
        return None

    def _advance(self, x: Any, hx: Any) -> States:
        """Return the states after the last step; nothing runs that stands above the last LSTM."""
        last = max(place for place, layer in enumerate(self.layers) if isinstance(layer, LSTM))
        return self._infer(self.layers[: last + 1], x, hx, None, self.threads)[1]

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
            If an argument is of the wrong kind or out of range, or an LSTM is bidirectional, or
            some LSTMs are batch first and others not.
        MemoryError
            If there is no room for the states.
        """
        rows = integer("batch_size", batch_size, least=1)
        most = self._bound(threads)
        orders = {lstm.config.batch_first for lstm in self._lstms}
        if len(orders) > 1:
            raise ValueError(
                f"LSTMs of a stream must all be batch first, or none of them; got {self!r}"
            )
        layers: list[Stream | Callable[..., FloatArray]] = []
        for layer in self.layers:
            if isinstance(layer, LSTM):
                layers.append(layer.stream(rows, threads=most))
            elif isinstance(layer, Linear):
                layers.append(functools.partial(layer, threads=most))
            else:
                layers.append(layer)
        taken, _ = _features(self.layers[0])
        x_shape = (rows,) if taken is None else (rows, taken)
        shapes = [x_shape, *((rows, _features(layer)[1]) for layer in self.layers)]
        batch_first = orders == {True}
        run = functools.partial(self, threads=most)
        return SequentialStream(layers, shapes, batch_first, self.parameters.dtype, run)

    def forward(
        self,
        x: Any,
        hx: Any = None,
        *,
        out: FloatArray | None = None,
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
        out : array, optional
            Where to write y; it may overlap nothing.
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
            If another `forward` or `backward` of this model is under way.
        """
        most = self._bound(threads)
        active = boolean("training", training)
        x, states = self._checked(x, hx)
        leading = _leading_axes(self.layers[0], x)
        segment_steps(checkpoint, 0, 0)  # refuses what is none, ahead of all layers
        self._check_out(out, x, leading, states)
        with self._tape.alone:
            self._tape.clear()
            version = self.parameters.version
            between = Loan(self._pool)
            options = {"training": active, "checkpoint": checkpoint}
            results = self._run(self.layers, x, states, out, between, most, options)
            kept = tuple(layer._tape.latest for layer in self.layers)
            self._tape.record(_Passed(leading, between, kept), version)
        return results

    def backward(
        self,
        dy: Any,
        dhx: Any = None,
        *,
        out: FloatArray | None = None,
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
        out : array, optional
            Where to write dx; it may overlap neither x nor `dy` nor `dhx`. Where tokens are the
            input there is no dx, and no place for it.
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
            If an argument has the wrong kind, shape or layout, arrays overlap, or there is one for
            dx though it is not wanted; nothing is changed then.
        MemoryError
            If there is no room for the result.
        RuntimeError
            If there was no `forward`, or its `backward` was called, or the parameters have changed,
            or if another `forward` or `backward` of this model is under way.
        """
        wanted = boolean("input_gradient", input_gradient)
        added = boolean("accumulate", accumulate)
        most = self._bound(threads)
        with self._tape.alone:
            passed = self._tape.read(self.parameters)
            for layer, kept in zip(self.layers, passed.kept, strict=True):
                if layer._tape.read(layer.parameters) is not kept:
                    raise RuntimeError(
                        f"{layer!r} has run by itself since forward of its Sequential: run it again"
                    )
            states = self._states("dhx", dhx, [passed.leading] * len(self._lstms))
            if dy is not None:
                dy = real_array("dy", dy, self.parameters.dtype)
            self._check_out_of_backward(out, passed, dy, states, wanted)
            between = Loan(self._pool)
            try:
                results = self._backward(passed, dy, states, out, wanted, added, most, between)
            finally:
                between.end()
            self._tape.clear()
            passed.between.end()
        return results

    def _check_out_of_backward(
        self,
        out: Any,
        passed: _Passed,
        dy: FloatArray | None,
        states: list[State | None],
        wanted: bool,
    ) -> None:
        """Refuse an array for dx that cannot be written to, ahead of all layers."""
        if out is None:
            return
        require_wanted("out", out, wanted)
        if isinstance(self.layers[0], Embedding):
            got = type(out).__name__
            raise ValueError(f"out must be None where tokens are the input; got {got}")
        x = passed.kept[0].x
        read = {"x": x} if dy is None else {"x": x, "dy": dy}
        self._require_out(out, x.shape, read, "dhx", states)

    def _backward(
        self,
        passed: _Passed,
        dy: FloatArray | None,
        states: list[State | None],
        out: FloatArray | None,
        wanted: bool,
        added: bool,
        threads: int | None,
        between: Loan,
    ) -> tuple[FloatArray | None, States]:
        """Go back through all layers; gradients of what they gave one another are of the loan."""
        after = iter(reversed(states))
        before: list[State] = []
        for position, layer in reversed(list(enumerate(self.layers))):
            if isinstance(layer, Embedding):
                layer.backward(dy, accumulate=added)
                return None, tuple(reversed(before))
            lent = between.array(passed.kept[position].x.shape) if position > 0 else out
            options: dict[str, Any] = {
                "input_gradient": wanted or position > 0,
                "accumulate": added,
                "threads": threads,
            }
            if isinstance(layer, LSTM):
                dy, state = layer.backward(dy, next(after), out=(lent, None), **options)
                before.append(state)
            else:
                dy = layer.backward(dy, out=lent, **options)
            between.end_but_for_the_last()
        return dy, tuple(reversed(before))
