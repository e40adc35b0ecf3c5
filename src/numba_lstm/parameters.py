"""Parameters: one flat buffer with named views on it. Gradients use the same class."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .memory import aligned_zeros
from .validation import (
    FloatArray,
    describe_shape,
    float_dtype,
    integer,
    named,
    real_array,
    require_shape,
)

# Versions are unique in the process: parameters that move to another buffer never get back to one
# that something was packed from.
_versions = itertools.count(1)


class _Store:
    """A flat buffer and the version of its content; shared by all parameters that stand in it."""

    def __init__(self, size: int, dtype: np.dtype[Any]) -> None:
        self.buffer = aligned_zeros(size, dtype)
        self.version = next(_versions)
        self.joined = False


def _checked_shapes(shapes: Any) -> dict[str, tuple[int, ...]]:
    """Validate names and shapes."""
    checked = {}
    for name, shape in named("shapes", shapes).items():
        if not isinstance(shape, (tuple, list)):
            raise TypeError(f"shapes must be tuples of integers; got {shape!r} for {name}")
        checked[name] = tuple(integer(f"sizes of {name}", size, least=0) for size in shape)
    return checked


class Parameters(Mapping[str, FloatArray]):
    """Named arrays side by side in one flat buffer.

    Views are read-only, so that nothing changes unnoticed: ``parameters[name] = array``,
    `edit` and `zero` write, and raise `version`, by which packed copies know that they are stale.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Names and shapes in the order in which they stand in the buffer.
    dtype : dtype
        float32 or float64.

    Raises
    ------
    TypeError
        If the shapes are no mapping of names to tuples of integers.
    ValueError
        If a size is negative, or the dtype another.
    MemoryError
        If there is no room for them.

    Examples
    --------
    >>> parameters = Parameters({"weight": (2, 3), "bias": (2,)}, "float32")
    >>> parameters["bias"] = [1.0, 2.0]
    >>> parameters.flat
    array([0., 0., 0., 0., 0., 0., 1., 2.], dtype=float32)
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dtype: Any) -> None:
        self._shapes = _checked_shapes(shapes)
        self._home(_Store(sum(map(math.prod, self._shapes.values())), float_dtype(dtype)), 0)

    def _home(self, store: _Store, start: int) -> None:
        """Make these parameters the section of a buffer that begins at `start`."""
        self._store = store
        self._start = start
        self._places: dict[str, int] = {}
        for name, shape in self._shapes.items():
            self._places[name] = start
            start += math.prod(shape)
        self._stop = start

    @property
    def joined(self) -> bool:
        """Whether they stand in one buffer with others; see `join`."""
        return self._store.joined

    @classmethod
    def join(cls, parts: Mapping[str, Parameters]) -> Parameters:
        """Bring several parameters together in one buffer.

        Each part becomes a section of the new buffer and keeps its names and values; views taken
        from it before no longer follow it.

        Parameters
        ----------
        parts : mapping of str to Parameters
            The parts by the prefix that their names get.

        Returns
        -------
        joined : Parameters
            All of them, under the names ``{prefix}.{name}``.

        Raises
        ------
        TypeError
            If they are no mapping of names to Parameters.
        ValueError
            If there are none, if their dtypes differ, or if one was joined before: it cannot follow
            two buffers.
        """
        for prefix, part in named("parts", parts).items():
            if not isinstance(part, Parameters):
                raise TypeError(f"parts must be Parameters; got {part!r} for {prefix}")
        dtypes = {part.dtype for part in parts.values()}
        if len(dtypes) != 1:
            raise ValueError(
                "parts must have one dtype; got "
                + (", ".join(sorted(map(str, dtypes))) or "no parts")
            )
        stores = {part._store for part in parts.values()}
        if len(stores) < len(parts) or any(store.joined for store in stores):
            raise ValueError(
                "parts must be different parameters, none of them joined before; "
                f"got {', '.join(parts)}"
            )
        shapes = {
            f"{prefix}.{name}": shape
            for prefix, part in parts.items()
            for name, shape in part.shapes.items()
        }
        joined = cls(shapes, dtypes.pop())
        joined._store.joined = True
        start = 0
        for part in parts.values():
            joined._store.buffer[start : start + part.size] = part.flat
            part._home(joined._store, start)
            start = part._stop
        return joined

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of every array."""
        return MappingProxyType(self._shapes)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of all arrays."""
        return self._store.buffer.dtype

    @property
    def size(self) -> int:
        """Numbers in all arrays together."""
        return self._stop - self._start

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays together."""
        return self.size * self.dtype.itemsize

    @property
    def version(self) -> int:
        """A number that every write raises; no two contents in a process share one."""
        return self._store.version

    @property
    def _writable(self) -> FloatArray:
        """The flat section, for kernels that write it."""
        return self._store.buffer[self._start : self._stop]

    @property
    def flat(self) -> FloatArray:
        """All arrays as one, (size,), read-only."""
        view = self._writable.view()
        view.flags.writeable = False
        return view

    def place(self, name: str) -> int:
        """Where an array begins in `flat`.

        Parameters
        ----------
        name : str

        Returns
        -------
        int

        Raises
        ------
        KeyError
            If there is no array of this name.
        TypeError
            If it can be no name, because it has no hash.
        """
        self._require(name)
        return self._places[name] - self._start

    def _require(self, name: str) -> None:
        """Raise KeyError if there is no array of this name."""
        if name not in self._shapes:
            raise KeyError(f"no parameter {name!r}; there are {', '.join(self._shapes)}")

    def __getitem__(self, name: str) -> FloatArray:
        """Read-only view of one array.

        Raises
        ------
        KeyError
            If there is no array of this name.
        TypeError
            If it can be no name, because it has no hash.
        """
        self._require(name)
        place, shape = self._places[name], self._shapes[name]
        view = self._store.buffer[place : place + math.prod(shape)].reshape(shape)
        view.flags.writeable = False
        return view

    def __setitem__(self, name: str, value: Any) -> None:
        """Write one array, converted to the dtype.

        Raises
        ------
        KeyError
            If there is no array of this name.
        TypeError
            If the value is no array of real numbers.
        ValueError
            If its shape is another.
        """
        self._require(name)
        array = real_array(name, value, self.dtype)
        require_shape(name, array, self._shapes[name])
        with self.edit() as flat:
            place = self.place(name)
            flat[place : place + array.size] = array.reshape(-1)

    def _assign(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write all arrays, of the right shapes, at once; those given may be views of these."""
        values = np.empty(self.size, self.dtype)
        for name, shape in self._shapes.items():
            place = self.place(name)
            values[place : place + math.prod(shape)] = arrays[name].reshape(-1)
        with self.edit() as flat:
            flat[:] = values

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def __eq__(self, other: object) -> bool:
        """Whether names, shapes, their order, the dtype and all numbers are equal."""
        if not isinstance(other, Parameters):
            return NotImplemented
        return (
            list(self._shapes.items()) == list(other._shapes.items())
            and self.dtype == other.dtype
            and np.array_equal(self.flat, other.flat)
        )

    # Numbers that change have no hash.
    __hash__ = None  # type: ignore[assignment]

    @contextmanager
    def edit(self) -> Iterator[FloatArray]:
        """Lend `flat` for writing; `version` rises before and afterwards.

        Yields
        ------
        ndarray
            All arrays as one, (size,); read-only afterwards. What is written later through views
            that were taken of it is not noticed.
        """
        lent = self._writable.view()
        # Before as well: Ctrl-C may come at the very end, and what was written must not go unseen.
        self._store.version = next(_versions)
        try:
            yield lent
        finally:
            lent.flags.writeable = False
            self._store.version = next(_versions)

    def zero(self) -> None:
        """Set every number to zero."""
        with self.edit() as flat:
            flat.fill(0)

    def __repr__(self) -> str:
        arrays = ", ".join(f"{name} {describe_shape(shape)}" for name, shape in self.shapes.items())
        return f"Parameters({arrays}; {self.dtype})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self._shapes, self.dtype.name, np.array(self.flat))


def _restored(shapes: Mapping[str, tuple[int, ...]], dtype: str, flat: NDArray[Any]) -> Parameters:
    """Build parameters from what a pickle holds."""
    parameters = Parameters(shapes, dtype)
    with parameters.edit() as target:
        target[:] = flat
    return parameters
