"""Trainer: one step from a batch to updated parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .layers import Sequential
from .lstm import LSTM
from .optimizers import Optimizer, clip_by_global_norm, global_norm
from .parameters import Parameters
from .validation import FloatArray, integer_array, number, real_array, require_shape

Loss = Callable[[Any, Any], tuple[float, FloatArray]]
Model = LSTM | Sequential


def _first_not_finite(gradients: Parameters) -> str:
    """Name of the first array with a NaN or an infinity; finite ones can have an infinite norm."""
    return next(
        (name for name, array in gradients.items() if not np.isfinite(array).all()), "their norm"
    )


class Trainer:
    """Runs training steps: forward, loss, backward, clipping, update.

    Parameters
    ----------
    model : LSTM or Sequential
    loss : callable
        ``loss(y, target)`` returns a number and its gradient with respect to y, like
        `softmax_cross_entropy` and `mse`.
    optimizer : Optimizer
        Of the model's parameters.
    clip : float, optional
        Largest norm of the gradients.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    """

    def __init__(
        self, model: Model, loss: Loss, optimizer: Optimizer, *, clip: float | None = None
    ) -> None:
        if not isinstance(model, (LSTM, Sequential)):
            raise TypeError(f"model must be an LSTM or a Sequential; got {model!r}")
        if not callable(loss):
            raise TypeError(f"loss must be callable; got {loss!r}")
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer must be an Optimizer; got {optimizer!r}")
        if optimizer.parameters is not model.parameters:
            raise ValueError(
                "optimizer must be one of model.parameters; got one of other parameters"
            )
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.clip = None if clip is None else number("clip", clip, above=0.0)

    def step(self, x: Any, target: Any, hx: Any = None) -> tuple[float, Any]:
        """Learn from one batch.

        Carrying the returned state into the next step is truncated back-propagation through time
        (Williams & Peng 1990).

        Parameters
        ----------
        x : array
            What the model takes.
        target : array
            What the loss takes.
        hx : optional
            State before the first step of x, as the model takes it; zeros by default.

        Returns
        -------
        loss : float
            Before the update.
        hx : tuple
            State after the last step of x.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong kind or shape.
        FloatingPointError
            If the loss or a gradient is not finite; parameters and moments are as they were.
        """
        y, state = self.model.forward(x, hx)
        loss, dy = self.loss(y, target)
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss must be finite; got {loss}")
        gradients = self.model.gradients
        gradients.zero()
        self.model.backward(dy, input_gradient=False)
        norm = (
            global_norm(gradients)
            if self.clip is None
            else clip_by_global_norm(gradients, self.clip)
        )
        if not math.isfinite(norm):
            raise FloatingPointError(
                f"gradients must be finite; {_first_not_finite(gradients)} is not"
            )
        self.optimizer.step(gradients)
        return loss, state

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
        states = [[state["seed"], state["calls"]] for state in self._dropout_states()]
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
        given = {name for name in state if not name.startswith("optimizer.")}
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
        require_shape("dropout", dropout, (len(self._dropout_states()), 2))
        self.optimizer.load_state_dict(
            {
                name.removeprefix("optimizer."): value
                for name, value in state.items()
                if name.startswith("optimizer.")
            }
        )
        for name, array in arrays.items():
            parameters[name] = array
        states = [{"seed": seed, "calls": calls} for seed, calls in dropout.tolist()]
        if isinstance(self.model, LSTM):
            (self.model.dropout_state,) = states
        else:
            self.model.dropout_state = states

    def _dropout_states(self) -> list[dict[str, int]]:
        """State of dropout of every LSTM."""
        state = self.model.dropout_state
        return [state] if isinstance(state, dict) else state
