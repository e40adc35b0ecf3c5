"""Checks of what users pass in: every error says what was expected and what came."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Arrays of the model's dtype. Which of the two it is, is known only at run time.
FloatArray = NDArray[Any]
# h and c of all layers and directions.
State = tuple[FloatArray, FloatArray]


def integer(name: str, value: Any, *, least: int, most: int | None = None) -> int:
    """Return `value` as an int of at least `least`, and at most `most`.

    Raises
    ------
    TypeError
        If it is no integer (a bool is none).
    ValueError
        If it is out of bounds.
    """
    plain = type(value) is int  # the abstract class of integers takes half a microsecond to ask
    if not plain and (
        isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral)
    ):
        raise TypeError(f"{name} must be an integer; got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}; got {value}")
    if most is not None and int(value) > most:
        raise ValueError(f"{name} must be at most {most}; got {value}")
    return int(value)


def number(
    name: str,
    value: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> float:
    """Return `value` as a finite float within the given bounds.

    Raises
    ------
    TypeError
        If it is no real number (a bool is none).
    ValueError
        If it is NaN, infinite or out of bounds.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number; got {value!r}")
    try:
        converted = float(value)
    except OverflowError:  # an integer or a fraction that no float reaches
        converted = -math.inf if value < 0 else math.inf
    within = (
        math.isfinite(converted)
        and (least is None or converted >= least)
        and (above is None or converted > above)
        and (most is None or converted <= most)
        and (below is None or converted < below)
    )
    if not within:
        bounds = [
            f"{sign} {bound:g}"
            for sign, bound in ((">=", least), (">", above), ("<=", most), ("<", below))
            if bound is not None
        ]
        expected = " and ".join(["finite", *bounds])
        raise ValueError(f"{name} must be {expected}; got {value}")
    return converted


def boolean(name: str, value: Any) -> bool:
    """Return `value` as a bool.

    Raises
    ------
    TypeError
        If it is none.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False; got {value!r}")
    return bool(value)


def string(name: str, value: Any) -> str:
    """Return `value` if it is a string.

    Raises
    ------
    TypeError
        If it is none.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string; got {value!r}")
    return value


def named(name: str, value: Any) -> Mapping[str, Any]:
    """Return `value` if it is a mapping whose keys are strings.

    Raises
    ------
    TypeError
        If it is none.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping from names; got {type(value).__name__}")
    for key in value:
        if not isinstance(key, str):
            raise TypeError(f"{name} must be a mapping from names; got the key {key!r}")
    return value


def float_dtype(dtype: Any) -> np.dtype[Any]:
    """Return the dtype of a model.

    Raises
    ------
    ValueError
        If it is neither float32 nor float64.
    """
    for known in (np.dtype(np.float32), np.dtype(np.float64)):
        try:
            if np.dtype(dtype) == known and dtype is not None:
                return known
        except (TypeError, ValueError, SyntaxError, DeprecationWarning):
            pass  # What NumPy raises for what names no dtype; the last where warnings are errors.
    raise ValueError(f"dtype must be float32 or float64; got {dtype!r}")


def dtype_in_words(dtype: np.dtype[Any]) -> str:
    """A layer's last argument as a call would have it, unless it is the default."""
    return "" if dtype == np.float32 else f", dtype={dtype.name!r}"


def array_of_kind(name: str, value: Any, kinds: str, expected: str) -> NDArray[Any]:
    """Return `value` as an array whose dtype is of one of `kinds`.

    Raises
    ------
    TypeError
        If it is no such array, or a masked one: what its mask hides is no number to compute with.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must be {expected}; got a masked array")
    try:
        array = np.asarray(value)
    except ValueError:
        raise TypeError(f"{name} must be {expected}; got a ragged sequence") from None
    if array.dtype.kind not in kinds:
        raise TypeError(f"{name} must be {expected}; got dtype {array.dtype}")
    return array


def real_numbers(name: str, value: Any) -> NDArray[Any]:
    """Return `value` as an array of any dtype of real numbers.

    Raises
    ------
    TypeError
        If it is none: complex, bool, object and strings are no real numbers.
    """
    return array_of_kind(name, value, "fiu", "an array of real numbers")


def nearest_dtype(array: NDArray[Any]) -> np.dtype[Any]:
    """The dtype that keeps the numbers best: float64 for floats of 8 bytes and more, or float32."""
    wide = array.dtype.kind == "f" and array.dtype.itemsize >= 8
    return np.dtype(np.float64 if wide else np.float32)


def real_array(name: str, value: Any, dtype: np.dtype[Any]) -> FloatArray:
    """Return `value` as a C-contiguous, aligned array of `dtype`, copied only where it is not one.

    Numbers beyond the range of `dtype` become infinite, of which NumPy warns.

    Raises
    ------
    TypeError
        If it is no array of real numbers: complex, bool, object and strings are none.
    MemoryError
        If there is no room for the copy.
    """
    if type(value) is np.ndarray and value.dtype is dtype and value.flags.carray:
        return value  # the way of most arrays: a microsecond instead of three
    array = real_numbers(name, value)
    with np.errstate(under="ignore"):  # it is no news that numbers are rounded
        return np.require(array, dtype=dtype, requirements=["C", "A"])


def integer_array(name: str, value: Any) -> NDArray[np.int64]:
    """Return `value` as a C-contiguous array of int64.

    Raises
    ------
    TypeError
        If its dtype is no integer.
    ValueError
        If a number has no place in int64.
    MemoryError
        If there is no room for the copy.
    """
    array = array_of_kind(name, value, "iu", "an array of integers")
    if array.dtype.kind == "u" and array.dtype.itemsize == 8 and array.size:
        integer(f"the largest of {name}", array.max(), least=0, most=np.iinfo(np.int64).max)
    return np.require(array, dtype=np.int64, requirements=["C", "A"])


def describe_shape(shape: Sequence[int | str]) -> str:
    """Write a shape as Python writes a tuple, with names for the sizes that are free."""
    inner = ", ".join(str(size) for size in shape)
    return f"({inner},)" if len(shape) == 1 else f"({inner})"


def require_shape(
    name: str, array: NDArray[Any], expected: Sequence[int | str], meaning: str = ""
) -> None:
    """Check the shape of an array.

    Parameters
    ----------
    name : str
        What the user calls it.
    array : ndarray
        What came.
    expected : sequence of int or str
        A number must match; a name stands for any size.
    meaning : str
        What a number in `expected` is, for the message.

    Raises
    ------
    ValueError
        If the shape is another.
    """
    matches = array.ndim == len(expected) and all(
        isinstance(size, str) or size == actual
        for size, actual in zip(expected, array.shape, strict=True)
    )
    if not matches:
        explained = (
            f"{describe_shape(expected)}, {meaning}" if meaning else describe_shape(expected)
        )
        raise ValueError(f"{name} must have shape {explained}; got {describe_shape(array.shape)}")


def require_output(
    name: str, array: Any, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> FloatArray:
    """Check an array that a result is to be written into.

    Raises
    ------
    TypeError
        If it is no array, or one of a class with rules of its own, like a masked array or a matrix.
    ValueError
        If shape, dtype or layout are others, or if it is read-only.
    """
    if type(array) is not np.ndarray and not isinstance(array, np.memmap):
        raise TypeError(f"{name} must be an array; got {type(array).__name__}")
    if array.shape != shape:
        require_shape(name, array, shape)
    if array.dtype != dtype:
        raise ValueError(f"{name} must have dtype {dtype}; got {array.dtype}")
    if not array.flags.carray:
        raise ValueError(f"{name} must be C-contiguous and writable")
    return array


def require_wanted(name: str, dx: Any, wanted: bool) -> None:
    """Check that no array for dx is lent where dx is not wanted.

    Raises
    ------
    ValueError
        If one is.
    """
    if dx is not None and not wanted:
        got = type(dx).__name__
        raise ValueError(f"{name} must be None where input_gradient is False; got {got}")


def overlap(name: str, other: str) -> ValueError:
    """Error of an array to be written that shares memory with another one."""
    return ValueError(f"{name} must not overlap {other}; got arrays that share memory")


def refuse_overlap(
    name: str,
    array: FloatArray,
    others: Mapping[str, FloatArray],
    same: tuple[str, FloatArray] | None = None,
) -> None:
    """Check that an array to be written shares no memory with others.

    `same` is another one by its name: it may be the very same memory, but may not overlap it in
    another way.

    Raises
    ------
    ValueError
        If it does.
    """
    if same is not None and same[1] is not array and np.may_share_memory(array, same[1]):
        other, memory = same
        if memory.__array_interface__["data"] != array.__array_interface__["data"]:
            others = {**others, other: memory}
    for other, memory in others.items():
        if np.may_share_memory(array, memory):
            raise overlap(name, other)


def state_pair(name: str, state: Any, shape: Sequence[int], dtype: np.dtype[Any]) -> State:
    """Return a pair of states (h, c) as arrays of `dtype`.

    Raises
    ------
    TypeError
        If it is no pair of arrays of real numbers.
    ValueError
        If a shape is another.
    """
    if not isinstance(state, (tuple, list)) or len(state) != 2:
        got = f"{len(state)} items" if isinstance(state, (tuple, list)) else type(state).__name__
        raise TypeError(f"{name} must be a pair (h, c); got {got}")
    arrays = []
    for part, value in zip(("h", "c"), state, strict=True):
        label = f"{part} of {name}"
        array = real_array(label, value, dtype)
        if array.shape != shape:
            batch = "batch, " if len(shape) == 3 else ""
            require_shape(label, array, shape, f"(layers x directions, {batch}hidden_size)")
        arrays.append(array)
    return arrays[0], arrays[1]


def states_of_lstms(name: str, states: Any, count: int) -> Sequence[Any]:
    """Return states of so many LSTMs, none of which has been looked at.

    Raises
    ------
    TypeError
        If it is no tuple or list of as many.
    """
    if not isinstance(states, (tuple, list)) or len(states) != count:
        got = len(states) if isinstance(states, (tuple, list)) else type(states).__name__
        raise TypeError(f"{name} must be a tuple of {count} states, one per LSTM; got {got}")
    return states
