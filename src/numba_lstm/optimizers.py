"""Optimisers: what follows from a gradient. Formulas and defaults are PyTorch's."""

from __future__ import annotations

import copy
import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from . import threadpool
from .guarded import Guarded
from .kernels import updates
from .memory import aligned_zeros
from .parameters import Parameters
from .validation import (
    FloatArray,
    boolean,
    integer,
    integer_array,
    named,
    number,
    real_array,
    require_shape,
)


def _require_parameters(name: str, value: Any) -> None:
    """Refuse what are no Parameters."""
    if not isinstance(value, Parameters):
        raise TypeError(f"{name} must be Parameters; got {type(value).__name__}")


def _require_same_arrays(parameters: Parameters, gradients: Parameters) -> None:
    """Refuse gradients that lie otherwise in their buffer than the parameters in theirs."""
    _require_parameters("gradients", gradients)
    arrays, expected = list(gradients.shapes.items()), list(parameters.shapes.items())
    if arrays != expected or gradients.dtype != parameters.dtype:
        raise ValueError(
            f"gradients must have the names, shapes and dtype of the parameters, {parameters!r}; "
            f"got {gradients!r}"
        )


_AT_LEAST_0 = functools.partial(number, least=0.0)
_SHARE = functools.partial(number, least=0.0, below=1.0)


def _two_shares(name: str, value: Any) -> tuple[float, float]:
    """Return a pair of numbers in [0, 1)."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{name} must be a pair of numbers; got {value!r}")
    first, second = (_SHARE(name, share) for share in value)
    return first, second


def _checked(**checks: Callable[[str, Any], Any]) -> dict[str, Callable[[Any], Any]]:
    """Checks of attributes, each of which is told the name for its message."""
    return {name: functools.partial(check, name) for name, check in checks.items()}


class Optimizer(Guarded, ABC):
    """What optimisers share: parameters, a learning rate, and flat moments beside them.

    A copy or a pickle has parameters of its own: copy the `Trainer` to copy a model with it.

    Parameters
    ----------
    parameters : Parameters
        What `step` updates.
    lr : float
        Learning rate, at least 0.
    moments : tuple of str
        Names of the flat arrays that the optimiser keeps.

    Attributes
    ----------
    parameters : Parameters
    lr : float
        Learning rate. This and other options may be changed between steps.
    steps : int
        Updates so far.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    MemoryError
        If there is no room for the moments.
    """

    # Takes the flat parameters, gradients and moments, `scale` and what `_coefficients` gives.
    _kernel: ClassVar[Callable[..., None]]
    _fixed = frozenset({"parameters"})
    _checks: ClassVar[dict[str, Any]] = _checked(
        lr=_AT_LEAST_0, steps=functools.partial(integer, least=0)
    )

    def __init__(self, parameters: Parameters, lr: float, moments: tuple[str, ...]) -> None:
        _require_parameters("parameters", parameters)
        self.parameters = parameters
        self.lr = lr
        self.steps = 0
        self._moments = {name: aligned_zeros(parameters.size, parameters.dtype) for name in moments}

    def step(
        self, gradients: Parameters, *, scale: float = 1.0, threads: int | None = None
    ) -> None:
        """Update the parameters.

        Parameters
        ----------
        gradients : Parameters
            With the names, shapes and dtype of the parameters.
        scale : float
            What they are multiplied with on the way into the update; they stay as they are. With
            ``min(1, max_norm / (norm + 1e-6))`` that is clipping by their norm, to the same bits as
            `clip_by_global_norm` ahead of the step.
        threads : int, optional
            Upper bound of threads for this call; all by default. The bits do not depend on it.

        Raises
        ------
        TypeError, ValueError
            If they are others, or an argument is of the wrong kind or out of range, or the learning
            rate, `scale` or another option is too large for the dtype of the parameters; nothing is
            changed then.
        """
        _require_same_arrays(self.parameters, gradients)
        factor = number("scale", scale)
        workers = threadpool.workers_of_pass(threads, self.parameters.size)
        steps = self.steps + 1
        coefficients = self._cast((factor, *self._coefficients(steps)))
        with self.parameters.edit() as flat:
            arrays = (flat, gradients._writable, *self._moments.values())
            self.steps = steps  # Ctrl-C during the update is served behind it
            threadpool.share_out(self._kernel, (*arrays, *coefficients), workers)

    @abstractmethod
    def _coefficients(self, steps: int) -> tuple[float, ...]:
        """What the kernel multiplies with and adds in a step, of which this number is the count."""

    def _cast(self, coefficients: tuple[float, ...]) -> tuple[Any, ...]:
        """Coefficients in the dtype of the parameters."""
        dtype = self.parameters.dtype
        with np.errstate(over="ignore"):  # refused below
            cast = tuple(map(dtype.type, coefficients))
        if not all(map(math.isfinite, cast)):
            raise ValueError(
                f"lr, scale and the other options must give a step that is finite in {dtype}; "
                f"got coefficients {', '.join(f'{coefficient:g}' for coefficient in coefficients)}"
            )
        return cast

    def __copy__(self) -> Optimizer:
        return copy.deepcopy(self)

    def state_dict(self) -> dict[str, FloatArray]:
        """Return copies of the moments, the learning rate and the number of steps.

        Returns
        -------
        dict of str to ndarray
        """
        state = {name: moment.copy() for name, moment in self._moments.items()}
        return {**state, "steps": np.array(self.steps), "lr": np.array(self.lr)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned.

        Parameters
        ----------
        state : mapping of str to array

        Raises
        ------
        TypeError, ValueError
            If a name, kind or shape is another, or a number out of range; nothing is changed then.
        """
        expected = {*self._moments, "steps", "lr"}
        if set(named("state", state)) != expected:
            raise ValueError(
                f"state must have the names {', '.join(sorted(expected))}; "
                f"got {', '.join(sorted(state))}"
            )
        moments = {}
        for name, moment in self._moments.items():
            moments[name] = real_array(name, state[name], moment.dtype)
            require_shape(name, moments[name], moment.shape)
        count = integer_array("steps", state["steps"])
        rate = real_array("lr", state["lr"], np.dtype(np.float64))
        require_shape("steps", count, ())
        require_shape("lr", rate, ())
        steps = integer("steps", count.item(), least=0)
        self.lr = rate.item()
        self.steps = steps
        for name, moment in self._moments.items():
            moment[:] = moments[name]


class SGD(Optimizer):
    """Stochastic gradient descent with momentum (Sutskever et al. 2013).

    Parameters
    ----------
    parameters : Parameters
    lr : float
    momentum : float
        Share of the velocity that a step keeps, at least 0.
    weight_decay : float
        Multiple of the parameters that joins the gradient, at least 0.
    nesterov : bool
        Nesterov's momentum.

    Attributes
    ----------
    momentum, weight_decay : float
    nesterov : bool
        As given.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    """

    _kernel = staticmethod(updates.sgd_update)
    _checks: ClassVar[dict[str, Any]] = Optimizer._checks | _checked(
        momentum=_AT_LEAST_0, weight_decay=_AT_LEAST_0, nesterov=boolean
    )

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-3,
        *,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.nesterov = nesterov
        super().__init__(parameters, lr, ("velocity",))
        self._coefficients(1)

    def _coefficients(self, steps: int) -> tuple[float, ...]:
        if self.nesterov and self.momentum == 0:
            raise ValueError("momentum must be > 0 with nesterov=True; got 0")
        return self.lr, self.momentum, self.weight_decay, float(self.nesterov)


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1).

    Parameters
    ----------
    parameters : Parameters
    lr : float
    betas : (float, float)
        Decay of the running means of the gradient and its square, each in [0, 1).
    eps : float
        Added to the root of the mean square, at least 0.
    weight_decay : float
        Multiple of the parameters that joins the gradient, at least 0.

    Attributes
    ----------
    betas : (float, float)
    eps, weight_decay : float
        As given.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    """

    _kernel = staticmethod(updates.adam_update)
    _checks: ClassVar[dict[str, Any]] = Optimizer._checks | _checked(
        betas=_two_shares, eps=_AT_LEAST_0, weight_decay=_AT_LEAST_0
    )

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        self.betas = betas
        self.eps = eps
        self.weight_decay = weight_decay
        super().__init__(parameters, lr, ("mean", "square"))

    def _decay(self) -> tuple[float, float]:
        """Factor on the parameters before a step, and their multiple that joins the gradient."""
        return 1.0, self.weight_decay

    def _coefficients(self, steps: int) -> tuple[float, ...]:
        beta1, beta2 = self.betas
        return (
            *self._decay(),
            beta1,
            1 - beta1,
            beta2,
            1 - beta2,
            self.lr / (1 - beta1**steps),
            math.sqrt(1 - beta2**steps),
            self.eps,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2).

    Parameters
    ----------
    parameters : Parameters
    lr : float
    betas : (float, float)
        Decay of the running means of the gradient and its square, each in [0, 1).
    eps : float
        Added to the root of the mean square, at least 0.
    weight_decay : float
        Share of the parameters, times lr, that every step takes away; at least 0.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    """

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(parameters, lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def _decay(self) -> tuple[float, float]:
        return 1.0 - self.lr * self.weight_decay, 0.0


class RMSprop(Optimizer):
    """RMSprop (Hinton 2012, lecture 6e of "Neural networks for machine learning").

    Parameters
    ----------
    parameters : Parameters
    lr : float
    alpha : float
        Decay of the running mean of the squared gradient, in [0, 1).
    eps : float
        Added to the root of the mean square, at least 0.
    weight_decay : float
        Multiple of the parameters that joins the gradient, at least 0.
    momentum : float
        Share of the velocity that a step keeps, at least 0.

    Attributes
    ----------
    alpha, eps, momentum, weight_decay : float
        As given.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    """

    _kernel = staticmethod(updates.rmsprop_update)
    _checks: ClassVar[dict[str, Any]] = Optimizer._checks | _checked(
        alpha=_SHARE, eps=_AT_LEAST_0, weight_decay=_AT_LEAST_0, momentum=_AT_LEAST_0
    )

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-2,
        *,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
    ) -> None:
        self.alpha = alpha
        self.eps = eps
        self.weight_decay = weight_decay
        self.momentum = momentum
        super().__init__(parameters, lr, ("square", "velocity"))

    def _coefficients(self, steps: int) -> tuple[float, ...]:
        return self.lr, self.alpha, 1 - self.alpha, self.eps, self.momentum, self.weight_decay


def global_norm(gradients: Parameters, *, threads: int | None = None) -> float:
    """Euclidean norm of all gradients together.

    Parameters
    ----------
    gradients : Parameters
    threads : int, optional
        Upper bound of threads for this call; all by default. The bits do not depend on it.

    Returns
    -------
    float
        Not finite if one of them is not.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    """
    _require_parameters("gradients", gradients)
    workers = threadpool.workers_of_pass(threads, gradients.size)
    sums = np.empty(updates.stripes_of(gradients.size))
    threadpool.share_out(updates.square_sums, (gradients._writable, sums), workers)
    return math.sqrt(sum(sums.tolist()))


def clip_factor(norm: float, max_norm: float) -> float:
    """What scales gradients of a norm down to at most another one (Pascanu et al. 2013)."""
    return min(1.0, max_norm / (norm + 1e-6)) if math.isfinite(norm) else 1.0


def clip_by_global_norm(
    gradients: Parameters, max_norm: float, *, threads: int | None = None
) -> float:
    """Scale gradients down so that their norm is at most `max_norm` (Pascanu et al. 2013).

    Parameters
    ----------
    gradients : Parameters
        Multiplied by ``min(1, max_norm / (norm + 1e-6))``; left as they are if the norm is not
        finite.
    max_norm : float
        Above 0.
    threads : int, optional
        Upper bound of threads for this call; all by default. The bits do not depend on it.

    Returns
    -------
    float
        The norm before.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    """
    most = number("max_norm", max_norm, above=0.0)
    norm = global_norm(gradients, threads=threads)
    factor = clip_factor(norm, most)
    if factor < 1:
        workers = threadpool.workers_of_pass(threads, gradients.size)
        with gradients.edit() as flat:
            arguments = (flat, gradients.dtype.type(factor))
            threadpool.share_out(updates.scale, arguments, workers)
    return norm
