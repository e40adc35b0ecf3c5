"""Linear: rows times a matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import threadpool
from .initialization import Seed, fill_uniform, generator
from .kernels.linear import linear_gradients, linear_product, places_for_gradients
from .kernels.panels import pack_matrix
from .kernels.tiling import TILE_VECTORS
from .layer import ThreadedLayer
from .memory import flat
from .packing import PackedWeights
from .parameters import Parameters
from .schedule import row_workers, task_workers
from .simd import cpu
from .tape import Tape
from .validation import (
    FloatArray,
    boolean,
    dtype_in_words,
    float_dtype,
    integer,
    real_array,
    refuse_overlap,
    require_output,
    require_shape,
    require_wanted,
)
from .workspace import WorkspacePool


@dataclass(frozen=True)
class _Rows:
    """An input of `Linear`, its leading axes taken together."""

    x: FloatArray
    count: int


class Linear(ThreadedLayer):
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
    gradients : Parameters
        The same for gradients; `backward` adds to them.
    in_features, out_features : int
    bias : bool
    threads : int or None
        As given; may be changed between calls.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    MemoryError
        If there is no room for the parameters.
    """

    _fixed = ThreadedLayer._fixed | {"in_features", "out_features", "bias"}

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
        self.threads = threads
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
        self._task_size = places_for_gradients(self.in_features, self.out_features, lanes).size
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
        bias = "" if self.bias else ", bias=False"
        sizes = f"{self.in_features}, {self.out_features}"
        return f"Linear({sizes}{bias}{dtype_in_words(self.parameters.dtype)})"

    def _split(self, array: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Weight and bias (empty if there is none) in a flat array of all parameters."""
        size = self.out_features * self.in_features
        return array[:size], array[size:]

    def _pack_forward(self, parameters: FloatArray, packed: FloatArray, workers: int) -> None:
        """Pack the matrix (in, out) that takes x to y."""
        weight, bias = self._split(parameters)
        matrix = (weight, self.in_features, self.out_features, True)
        threadpool.share_out(pack_matrix, (*matrix, bias, packed), workers)

    def _pack_backward(self, parameters: FloatArray, packed: FloatArray, workers: int) -> None:
        """Pack the matrix (out, in) that takes dy to dx."""
        weight, _ = self._split(parameters)
        matrix = (weight, self.out_features, self.in_features, False)
        threadpool.share_out(pack_matrix, (*matrix, weight[:0], packed), workers)

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

    def _product(
        self, panels: PackedWeights, source: FloatArray, rows: int, out: FloatArray, most: int
    ) -> None:
        """Multiply rows by one of the two packed matrices."""
        workers = row_workers(most, rows, self._operations(rows))
        scratches = self._pool.borrow(workers * self._tile_size)
        try:
            with panels.borrow(workers) as packed:
                cached = cpu.cached_numbers(out.itemsize)
                sizes = (rows, source.shape[-1], packed, out.shape[-1], cached)
                threadpool.share_out(
                    linear_product,
                    (flat(source), *sizes, flat(out), scratches),
                    workers,
                )
        finally:
            self._pool.give_back(scratches)

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
        shape = (*rows.x.shape[:-1], self.out_features)
        y = np.empty(shape, self.parameters.dtype) if out is None else out
        require_output("out", y, shape, self.parameters.dtype)
        refuse_overlap("out", y, {"x": rows.x})
        self._product(self._forward_panels, rows.x, rows.count, y, most)
        return y

    def forward(
        self, x: Any, *, out: FloatArray | None = None, threads: int | None = None
    ) -> FloatArray:
        """Multiply and add, and keep x for `backward`.

        Parameters
        ----------
        x : array
            (..., in). It must stay as it is until `backward`, unless it had to be copied.
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
        RuntimeError
            If another `forward` or `backward` of this layer is under way.
        """
        rows = self._rows(x)
        with self._tape.alone:
            version = self.parameters.version
            y = self(rows.x, out=out, threads=threads)
            self._tape.record(rows, version)
        return y

    def backward(
        self,
        dy: Any,
        *,
        out: FloatArray | None = None,
        input_gradient: bool = True,
        accumulate: bool = True,
        threads: int | None = None,
    ) -> FloatArray | None:
        """Go back through the last `forward` and add to the gradients of the parameters.

        Parameters
        ----------
        dy : array
            (..., out), as the output.
        out : array, optional
            (..., in), where to write dx; it may overlap neither x nor dy.
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
            If an argument has the wrong kind, shape or layout, arrays overlap, or there is one for
            dx though it is not wanted; nothing is changed then.
        RuntimeError
            If there was no `forward`, or its `backward` was called, or the parameters have changed,
            or another `forward` or `backward` of this layer is under way.
        MemoryError
            If there is no room for dx; the same then holds.
        """
        wanted = boolean("input_gradient", input_gradient)
        added = boolean("accumulate", accumulate)
        most = self._threads(threads)
        with self._tape.alone:
            rows = self._tape.read(self.parameters)
            array = real_array("dy", dy, self.parameters.dtype)
            require_shape("dy", array, (*rows.x.shape[:-1], self.out_features), "as the output")
            dx = out
            require_wanted("out", out, wanted)
            if out is not None:
                require_output("out", out, rows.x.shape, self.parameters.dtype)
                refuse_overlap("out", out, {"x": rows.x, "dy": array})
            elif wanted:
                dx = np.empty(rows.x.shape, self.parameters.dtype)
            self._tape.clear()
            if dx is not None:
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
        scratches = self._pool.borrow(workers * self._task_size)
        try:
            with self.gradients.edit() as target:
                sizes = (rows.count, self.in_features, self.out_features, accumulate)
                threadpool.share_out(
                    linear_gradients,
                    (flat(rows.x), flat(dy), *sizes, *self._split(target), scratches),
                    workers,
                )
        finally:
            self._pool.give_back(scratches)
