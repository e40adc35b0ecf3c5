"""LSTM: validates, borrows a workspace, passes over the sequence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from . import jit
from .config import LSTMConfig
from .initialization import Seed, fill_uniform, generator
from .interop import arrays_from, sizes_from, state_dict_of
from .jit import WarmKernel
from .layer import ThreadedLayer
from .layout import Layout, layout
from .memory import NOTHING
from .parameters import Parameters
from .passes import Passes, Run, compile_schedules
from .pieces import segment_steps
from .plan import Plan, plan_of
from .results import gradients_before, outputs
from .schedule import operations_of_reading, worth_sharing
from .sequences import given_state, input_sequence
from .stream import Stream
from .tape import Tape
from .validation import (
    FloatArray,
    State,
    boolean,
    integer,
    named,
    real_array,
    require_shape,
)
from .workspace import Workspace, WorkspacePool

if TYPE_CHECKING:
    from typing_extensions import Self


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
        Source of the initial weights, drawn from U(-1/sqrt(H), 1/sqrt(H)), of the biases, each the
        sum of two such draws as in PyTorch, and of dropout.

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
        self._operations_of_reading = operations_of_reading(self.config)
        self._passes = Passes(self.config, self.parameters)
        self._pool = WorkspacePool(self.config.numpy_dtype)
        self._training_workspace = Workspace(self.config.numpy_dtype)
        self._tape: Tape[Run] = Tape("LSTM")

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

    def _layout(
        self, T: int, B: int, training: bool, threads: int, segment: int = 0, vocabulary: int = 0
    ) -> Layout:
        """Lay out a call, or refuse one that no memory is large enough for."""
        if B == 0:
            segment = 0  # steps of no rows need none, however many they are
        try:
            return layout(self.config, T, B, training, threads, segment, vocabulary)
        except OverflowError:
            raise ValueError(
                f"T and B must be such that 64 bits number what a call needs; got {T} and {B}"
            ) from None

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
            Instead of y, and of the pair, None stands for new arrays.
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
        config = self.config
        sequence = input_sequence(config, x)
        state = given_state(config, sequence, "hx", hx)
        results = outputs(config, sequence, state, out)
        T, B = sequence.T, sequence.B
        # With little to compute and to read no call is shared out, and how many threads there may
        # be takes microseconds.
        shared = worth_sharing(max(config.operations(T, B), self._operations_of_reading))
        most = self._threads(threads) if shared or threads is not None else 1
        laid_out = self._layout(T, B, False, most, 0, sequence.vocabulary)
        workspace = self._pool.borrow(laid_out.size)
        try:
            call = laid_out.call
            if sequence.tokens is not None:
                call = laid_out.copy_of_call()
                sequence.enter_tokens(call)
            run = Run(sequence, laid_out, call, workspace)
            self._passes.forward(run, laid_out.split, state, results)
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
        return Stream(self.config, self._passes.panels, self, rows, self._threads(threads))

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
            If another `forward` or `backward` of this model is under way.
        """
        active = boolean("training", training)
        sequence = input_sequence(self.config, x)
        state = given_state(self.config, sequence, "hx", hx)
        segment = segment_steps(checkpoint, sequence.T, sequence.B)
        most = self._threads(threads)
        T, B = sequence.T, sequence.B
        laid_out = self._layout(T, B, True, most, segment, sequence.vocabulary)
        with self._tape.alone:
            results = outputs(self.config, sequence, state, out)
            workspace = self._training_workspace.reserve(laid_out.size)
            self._tape.clear()
            version = self.parameters.version
            call = laid_out.copy_of_call()
            sequence.enter_tokens(call)
            if active and self.config.dropout > 0:
                call["dropped"] = int(self.config.dropout * 2**53)
                call["seed"] = self._dropout_seed
                call["dropout_call"] = self._dropout_calls
                self._dropout_calls += 1
            run = Run(sequence, laid_out, call, workspace)
            self._passes.forward_by_pieces(run, state, results, most)
            self._tape.record(run, version)
        return results

    def backward(
        self,
        dy: Any = None,
        dhx: Any = None,
        *,
        out: Any = None,
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
        out : (array, (array, array)), optional
            Where to write the results. They may overlap neither one another nor x, `dy` and
            `dhx`, but dh0 and dc0 may be the arrays of `dhx`. Instead of dx, and of the pair, None
            stands for new arrays.
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
            If an argument has the wrong kind, shape or layout, arrays overlap, or there is one for
            dx though it is not wanted; nothing is changed then.
        MemoryError
            If there is no room for the result; the same then holds.
        RuntimeError
            If there was no `forward`, if its `backward` was already called, if the parameters have
            changed in between, or if another `forward` or `backward` of this model is under way.
        """
        wanted = boolean("input_gradient", input_gradient)
        added = boolean("accumulate", accumulate)
        most = self._threads(threads)
        with self._tape.alone:
            run = self._tape.read(self.parameters)
            config, sequence = self.config, run.sequence
            dtype = config.numpy_dtype
            nothing = NOTHING[config.dtype]
            dy_array = nothing
            if dy is not None:
                dy_array = real_array("dy", dy, dtype)
                require_shape("dy", dy_array, sequence.shape(config.output_size), "as y")
            dstate = given_state(config, sequence, "dhx", dhx)
            results = gradients_before(config, sequence, dy_array, dstate, wanted, out)
            dx, dstate_before = results
            self._tape.clear()
            self._passes.back(
                run,
                (dy_array, *dstate),
                (nothing if dx is None else dx, *dstate_before),
                self.gradients,
                input_gradient=wanted,
                accumulate=added,
                threads=most,
            )
        return results

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
        laid_out = self._layout_of_sizes(T, B, training, checkpoint, self._threads(None))
        return laid_out.size * self.config.numpy_dtype.itemsize

    def plan(
        self,
        T: int,
        B: int,
        *,
        training: bool = False,
        checkpoint: int | Literal["auto"] | None = None,
    ) -> Plan:
        """Say what a call will run, and why.

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
        Plan
            Printed, it is a short table.

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind or out of range.
        """
        threads = self._threads(None)
        laid_out = self._layout_of_sizes(T, B, training, checkpoint, threads)
        return plan_of(self.config, laid_out, threads)

    def _layout_of_sizes(
        self, T: Any, B: Any, training: Any, checkpoint: Any, threads: int
    ) -> Layout:
        """Lay out a call of which only the sizes are known."""
        steps, batch = integer("T", T, least=0), integer("B", B, least=0)
        segment = segment_steps(checkpoint, steps, batch)
        kept = boolean("training", training)
        return self._layout(steps, batch, kept, threads, segment if kept else 0)

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
            compile_schedules(shared=self.threads != 1, training=wanted)
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
