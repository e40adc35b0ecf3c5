"""Trainer: one step from a batch to updated parameters."""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from numbers import Number, Real
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from .embedding import Embedding
from .guarded import Guarded
from .locks import Turn
from .lstm import LSTM, dropout_numbers
from .optimizers import Optimizer, clip_factor, global_norm
from .parameters import Parameters
from .pieces import segment_steps
from .sequences import input_sequence
from .sequential import AnyLayer, Sequential, axis_of_steps
from .validation import (
    FloatArray,
    integer,
    integer_array,
    named,
    number,
    real_array,
    require_shape,
    string,
)

Loss = Callable[[Any, Any], tuple[float, FloatArray]]
Model = LSTM | Sequential


_NONFINITE = ("raise", "skip")
_ONE_STEP = "another step of this trainer is under way: a model learns from one batch at a time"
_INTRUDED = "forward of the model has run again since that of this step: it cannot go back"
# Outputs of so many bytes may come fresh from the system, a page at a time. Fewer come sooner than
# they are checked.
_BYTES_KEPT = 1 << 17


def _not_finite(gradients: Parameters) -> str:
    """Say why gradients have no finite norm."""
    for name, array in gradients.items():
        if not np.isfinite(array).all():
            return f"gradients must be finite; {name} is not"
    return "gradients must have a finite norm; every one is finite, but their squares overflow"


def _options(loss: Loss) -> tuple[str, ...]:
    """What a loss takes besides y and target, unless it is told, of what a trainer has to offer."""
    try:
        parameters = inspect.signature(loss).parameters
    except (TypeError, ValueError):  # a callable that shows none
        return ()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    offers = (parameters[name] for name in ("out", "threads") if name in parameters)
    return tuple(offer.name for offer in offers if offer.default is None and offer.kind in named)


def _axes(model: Model, x: Any) -> tuple[int, ...] | None:
    """Axes of a model's output but for its features; None if x is no array yet."""
    if not isinstance(x, np.ndarray):
        return None
    axes: tuple[int, ...] = x.shape
    tokens = isinstance(model, Sequential) and isinstance(model.layers[0], Embedding)
    return axes if tokens else axes[:-1]


def _shared(array: FloatArray, given: Any) -> bool:
    """Whether what the user gave may hold memory of an array; of unknown objects, that it may."""
    if isinstance(given, (tuple, list)):
        return any(_shared(array, part) for part in given)
    if isinstance(given, Mapping):
        return any(_shared(array, part) for part in given.values())
    if isinstance(given, np.ndarray) and not given.dtype.hasobject:
        return np.may_share_memory(array, given)
    return not isinstance(given, (type(None), str, bytes, Number, np.generic))


def _loss_and_gradient(returned: Any) -> tuple[float, Any]:
    """Take apart what a loss returned."""
    if not isinstance(returned, (tuple, list)) or len(returned) != 2:
        got = f"{len(returned)} items" if isinstance(returned, (tuple, list)) else repr(returned)
        raise TypeError(f"loss must return a number and its gradient; got {got}")
    value, gradient = returned
    if gradient is None:  # to an LSTM it would mean zeros
        raise TypeError("the second of what loss returns must be a gradient; got None")
    single = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    if isinstance(single, (bool, np.bool_)) or not isinstance(single, Real):
        raise TypeError(f"the first of what loss returns must be a number; got {value!r}")
    try:
        return float(single), gradient
    except OverflowError:  # an integer or a fraction that no float reaches
        return math.inf, gradient


def _norm_bound(clip: float | None) -> float | None:
    """Validate the largest norm of the gradients."""
    return None if clip is None else number("clip", clip, above=0.0)


def _consequence(nonfinite: Any) -> str:
    """Validate what follows from a loss or a gradient that is not finite."""
    if string("nonfinite", nonfinite) not in _NONFINITE:
        raise ValueError(f"nonfinite must be one of {', '.join(_NONFINITE)}; got {nonfinite!r}")
    return str(nonfinite)


def _checkpoint(checkpoint: int | Literal["auto"] | None) -> int | Literal["auto"] | None:
    """Validate a checkpoint, for sequences of any length."""
    segment_steps(checkpoint, 0, 0)
    return checkpoint


class Trainer(Guarded):
    """Runs training steps: forward, loss, backward, clipping, update.

    A copy or a pickle has a model and an optimiser of its own, and goes on with the same bits.

    Parameters
    ----------
    model : LSTM or Sequential
    loss : callable
        ``loss(y, target)`` returns a number and its gradient with respect to y, like
        `softmax_cross_entropy` and `mse`. If it has an argument ``out=None`` as they do, it gets a
        large y for that, to write the gradient over. The trainer then keeps the array, and the next
        step has it for its y: it is not asked of the system again and again (T35 B20 with 10,000
        classes: a tenth of the step). If it has one ``threads=None``, it gets the model's upper
        bound.
    optimizer : Optimizer
        Of the model's parameters.
    clip : float, optional
        Largest norm of the gradients (Pascanu et al. 2013). What is larger is scaled down on its
        way into the update; the model's `gradients` keep what `backward` gave.
    nonfinite : {"raise", "skip"}
        What follows from a loss, a gradient or a norm of the gradients that is not finite: a
        FloatingPointError, or a RuntimeWarning and no update. Either names what it found first,
        the loss or an array of gradients in the order of the parameters, and either leaves
        `state_dict` as it was: parameters, moments, the count of steps, and the count of calls
        that dropout draws its masks from. The training goes on as if the batch had not been.
    checkpoint : int or "auto", optional
        As for the model's `forward`: a training step in less memory, with the same bits.

    Attributes
    ----------
    model : LSTM or Sequential
    clip, nonfinite, checkpoint
        As given; they may be changed between steps, and are checked again.
    skipped : int
        Batches without an update so far.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    """

    clip: float | None
    nonfinite: str
    checkpoint: int | Literal["auto"] | None

    _fixed = frozenset({"model"})
    _checks: ClassVar[dict[str, Any]] = {
        "clip": _norm_bound,
        "nonfinite": _consequence,
        "checkpoint": _checkpoint,
    }

    def __init__(
        self,
        model: Model,
        loss: Loss,
        optimizer: Optimizer,
        *,
        clip: float | None = None,
        nonfinite: str = "raise",
        checkpoint: int | Literal["auto"] | None = None,
    ) -> None:
        if not isinstance(model, (LSTM, Sequential)):
            raise TypeError(f"model must be an LSTM or a Sequential; got {model!r}")
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.clip = clip
        self.nonfinite = nonfinite
        self.checkpoint = checkpoint
        self.skipped = 0
        self._y: FloatArray | None = None
        self._alone = Turn(_ONE_STEP)

    @property
    def optimizer(self) -> Optimizer:
        """The optimiser; may be changed between steps, like the loss.

        Raises
        ------
        TypeError, ValueError
            If what is assigned is none, or one of other parameters than the model's.
        """
        return self._optimizer

    @optimizer.setter
    def optimizer(self, optimizer: Optimizer) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer must be an Optimizer; got {optimizer!r}")
        if optimizer.parameters is not self.model.parameters:
            raise ValueError(
                "optimizer must be one of model.parameters; got one of other parameters"
            )
        self._optimizer = optimizer

    @property
    def loss(self) -> Loss:
        """The loss.

        Raises
        ------
        TypeError
            If what is assigned is not callable.
        """
        return self._loss

    @loss.setter
    def loss(self, loss: Loss) -> None:
        if not callable(loss):
            raise TypeError(f"loss must be callable; got {loss!r}")
        self._loss = loss
        self._loss_takes = _options(loss)

    def step(self, x: Any, target: Any, hx: Any = None, *, burn_in: int = 0) -> tuple[float, Any]:
        """Learn from one batch.

        Carrying the returned state into the next step is truncated back-propagation through time
        (Williams & Peng 1990). Where a state is not known, or was computed with older parameters,
        a burn-in lets it settle before the steps that are learnt from (Kapturowski et al. 2019).

        Parameters
        ----------
        x : array
            What the model takes.
        target : array
            What the loss takes, for the steps after the burn-in.
        hx : optional
            State before the first step of x, as the model takes it; zeros by default.
        burn_in : int
            K, at least 0 and below T: the first K steps of x only lead to the state before the
            others. They run as inference, without dropout; nothing of them is kept, no gradient
            reaches them, and their outputs are not in the loss. Every LSTM must have one direction.

        Returns
        -------
        loss : float
            Before the update.
        hx : tuple
            State after the last step of x; of a batch that was skipped the state as it was given,
            since the other one may not be finite.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong kind or shape or is out of range, or the learning rate or
            another option of the optimiser is too large for the dtype of the parameters.
        MemoryError
            If there is no room for the result.
        RuntimeError
            If another step of this trainer is under way, or another `forward` or `backward` of its
            model, or has been since this step's `forward`.
        FloatingPointError
            If the loss or a gradient is not finite and `nonfinite` is "raise".

        Warns
        -----
        RuntimeWarning
            If the loss or a gradient is not finite and `nonfinite` is "skip".
        """
        steps = integer("burn_in", burn_in, least=0)
        with self._alone:
            loss, state, problem = self._step(x, target, hx, steps)
        if problem is None:
            return loss, state
        if self.nonfinite == "raise":
            raise FloatingPointError(problem)
        self.skipped += 1
        warnings.warn(f"no update: {problem}", RuntimeWarning, stacklevel=2)
        return loss, hx

    def _step(self, x: Any, target: Any, hx: Any, steps: int) -> tuple[float, Any, str | None]:
        """Learn from one batch; return the loss, the state, and what is not finite, if anything."""
        learnt, before = self._burn_in(x, hx, steps) if steps else (x, hx)
        dropout = self._dropout()
        threads = self._threads()
        updated = False
        try:
            y, state = self._forward(learnt, before, target)
            passed = self.model._tape.latest
            kept = y if y.nbytes >= _BYTES_KEPT else None
            offered = {"out": kept, "threads": threads}
            returned = self.loss(y, target, **{name: offered[name] for name in self._loss_takes})
            loss, dy = _loss_and_gradient(returned)
            if self.model._tape.latest is not passed:
                raise RuntimeError(_INTRUDED)
            norm, problem = self._go_back(loss, dy, threads)
            if problem is None:
                scale = 1.0 if self.clip is None else clip_factor(norm, self.clip)
                self.optimizer.step(self.model.gradients, scale=scale, threads=threads)
                updated = True
        finally:
            if not updated:
                self._set_dropout(dropout)
        if "out" in self._loss_takes:
            self._y = kept
        return loss, state, problem

    def _burn_in(self, x: Any, hx: Any, steps: int) -> tuple[FloatArray, Any]:
        """Run the first steps of an input; return the others, and the state before them."""
        model = self.model
        layers: Sequence[AnyLayer]
        if isinstance(model, LSTM):
            layers, array = (model,), input_sequence(model.config, x).array
        else:
            layers, (array, _) = model.layers, model._checked(x, hx)
        axis = axis_of_steps(layers, array)
        if axis is None:
            raise ValueError(
                "burn_in must be 0 unless LSTMs of one direction share the axis of their steps; "
                f"got {steps} for {model!r}"
            )
        T = array.shape[axis]
        if steps >= T:
            raise ValueError(f"burn_in must be below {T}, the steps of x; got {steps}")
        first, others = np.split(array, [steps], axis)
        before = model(first, hx)[1] if isinstance(model, LSTM) else model._advance(first, hx)
        return others, before

    def _threads(self) -> int | None:
        """Upper bound of threads of a step: the model's, or the largest of its layers'."""
        model = self.model
        if isinstance(model, LSTM) or model.threads is not None:
            return model.threads
        bounds = [layer.threads for layer in model.layers if not isinstance(layer, Embedding)]
        known = [bound for bound in bounds if bound is not None]
        return max(known) if known and len(known) == len(bounds) else None

    def _forward(self, x: Any, hx: Any, target: Any) -> tuple[FloatArray, Any]:
        """Run the model, y in the array of the step before if it fits and the user has none of it.

        A loss may have let it out.
        """
        model = self.model
        y, self._y = self._y, None
        if y is not None and (_axes(model, x) != y.shape[:-1] or _shared(y, (x, hx, target))):
            y = None
        if isinstance(model, Sequential):
            return model.forward(x, hx, out=y, checkpoint=self.checkpoint)
        out = None if y is None else (y, None)
        return model.forward(x, hx, out=out, checkpoint=self.checkpoint)

    def _go_back(
        self, loss: float, dy: FloatArray, threads: int | None
    ) -> tuple[float, str | None]:
        """Set the gradients of a batch; return their norm, and what is not finite, if anything."""
        if not math.isfinite(loss):
            return math.nan, f"the loss must be finite; got {loss}"
        gradients = self.model.gradients
        self.model.backward(dy, input_gradient=False, accumulate=False)
        norm = global_norm(gradients, threads=threads)
        return norm, None if math.isfinite(norm) else _not_finite(gradients)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return copies of all that determines the following steps.

        Returns
        -------
        dict of str to ndarray
            Parameters under ``parameters.``, the optimiser's state under ``optimizer.``, seed and
            call numbers of dropout as ``dropout``.
        """
        parameters = {f"parameters.{k}": v.copy() for k, v in self.model.parameters.items()}
        optimizer = {f"optimizer.{k}": v for k, v in self.optimizer.state_dict().items()}
        states = [[state["seed"], state["calls"]] for state in self._dropout()]
        dropout = np.array(states, np.int64).reshape(-1, 2)
        return {**parameters, **optimizer, "dropout": dropout}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned, for the same kind of model and optimiser.

        Parameters
        ----------
        state : mapping of str to array

        Raises
        ------
        TypeError, ValueError
            If a name, kind or shape is another, or a number out of range; nothing is changed then.
        """
        parameters = self.model.parameters
        names = {f"parameters.{name}" for name in parameters} | {"dropout"}
        given = {name for name in named("state", state) if not name.startswith("optimizer.")}
        if names != given:
            missing = ", ".join(sorted(names - given)) or "nothing"
            unknown = ", ".join(sorted(given - names)) or "nothing"
            raise ValueError(f"state must be of this model; it lacks {missing}, and adds {unknown}")
        arrays = {}
        for name, shape in parameters.shapes.items():
            key = f"parameters.{name}"
            arrays[name] = real_array(key, state[key], parameters.dtype)
            require_shape(key, arrays[name], shape)
        dropout = integer_array("dropout", state["dropout"])
        require_shape("dropout", dropout, (len(self._dropout()), 2))
        states = [
            dropout_numbers({"seed": seed, "calls": calls}) for seed, calls in dropout.tolist()
        ]
        self.optimizer.load_state_dict(
            {
                name.removeprefix("optimizer."): value
                for name, value in state.items()
                if name.startswith("optimizer.")
            }
        )
        parameters._assign(arrays)
        self._set_dropout(states)

    def __copy__(self) -> Trainer:
        return copy.deepcopy(self)

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_y": None}
        del state["_alone"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._alone = Turn(_ONE_STEP)
        # Model and optimiser were copied each with its parameters: the same ones again.
        vars(self.optimizer)["parameters"] = self.model.parameters

    def _dropout(self) -> list[dict[str, int]]:
        """State of dropout of every LSTM."""
        state = self.model.dropout_state
        return [state] if isinstance(state, dict) else state

    def _set_dropout(self, states: list[dict[str, int]]) -> None:
        """Take over what `_dropout` returned."""
        if isinstance(self.model, LSTM):
            (self.model.dropout_state,) = states
        else:
            self.model.dropout_state = states
