"""PyTorch's names for the parameters of an LSTM; the order of the gates is the same.

PyTorch has two biases where only their sum matters: ``bias_ih`` holds it, ``bias_hh`` is zero.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

from .config import LSTMConfig
from .parameters import Parameters
from .validation import (
    FloatArray,
    boolean,
    describe_shape,
    named,
    nearest_dtype,
    real_array,
    real_numbers,
    require_shape,
    string,
)


def _names_under(prefix: str, mapping: Any) -> set[str]:
    """Names in a state dict that begin with a prefix, without it."""
    return {key[len(prefix) :] for key in named("mapping", mapping) if key.startswith(prefix)}


def _pytorch_names(name: str) -> tuple[str, ...]:
    """PyTorch's names for a parameter of ours: two for a bias, the first of which holds it."""
    if not name.startswith("bias_"):
        return (name,)
    suffix = name.removeprefix("bias_")
    return f"bias_ih_{suffix}", f"bias_hh_{suffix}"


def state_dict_of(parameters: Parameters) -> dict[str, FloatArray]:
    """Copy the parameters of an LSTM under PyTorch's names.

    Parameters
    ----------
    parameters : Parameters

    Returns
    -------
    dict of str to ndarray
    """
    state: dict[str, FloatArray] = {}
    for name, array in parameters.items():
        holder, *others = _pytorch_names(name)
        state[holder] = array.copy()
        state.update((other, np.zeros_like(array)) for other in others)
    return state


def arrays_from(
    mapping: Mapping[str, Any], config: LSTMConfig, owner: str, *, prefix: str, strict: bool
) -> dict[str, FloatArray]:
    """Take parameters out of a state dict.

    Parameters
    ----------
    mapping : mapping of str to array
    config : LSTMConfig
        Whose sizes they must have.
    owner : str
        The model, as errors name it.
    prefix : str
        Beginning of the names that are meant.
    strict : bool
        Whether further names under the prefix are an error.

    Returns
    -------
    dict of str to ndarray
        By our names, biases added up.

    Raises
    ------
    TypeError, ValueError
        If a name is missing or unknown, or an array of the wrong kind or shape.
    """
    strict = boolean("strict", strict)
    expected = {
        key: shape for name, shape in config.shapes().items() for key in _pytorch_names(name)
    }
    present = _names_under(string("prefix", prefix), mapping)
    missing = [prefix + key for key in expected if key not in present]
    unknown = [prefix + key for key in sorted(present - set(expected))] if strict else []
    if missing or unknown:
        parts = [f"lacks {', '.join(missing)}"] if missing else []
        parts += [f"has unknown {', '.join(unknown)}"] if unknown else []
        raise ValueError(f"the state dict must have the names of {owner}; it {' and '.join(parts)}")
    arrays = {}
    for key, shape in expected.items():
        arrays[key] = real_array(prefix + key, mapping[prefix + key], config.numpy_dtype)
        require_shape(prefix + key, arrays[key], shape)
    return {
        name: functools.reduce(operator.add, [arrays[key] for key in _pytorch_names(name)])
        for name in config.shapes()
    }


def sizes_from(mapping: Mapping[str, Any], *, prefix: str) -> dict[str, Any]:
    """Read from a state dict what an LSTM must be like to take it.

    Parameters
    ----------
    mapping : mapping of str to array
    prefix : str
        Beginning of the names that are meant.

    Returns
    -------
    dict
        Arguments of `LSTM`.

    Raises
    ------
    TypeError, ValueError
        If the weights of the first layer are missing, or of the wrong kind or shape.
    """
    names = _names_under(string("prefix", prefix), mapping)
    first = f"{prefix}weight_ih_l0"
    if "weight_ih_l0" not in names:
        raise ValueError(f"the state dict must have {first}; got {', '.join(map(str, mapping))}")
    weight = real_numbers(first, mapping[first])
    if weight.ndim != 2 or weight.shape[0] % 4 != 0:
        raise ValueError(f"{first} must have shape (4H, I); got {describe_shape(weight.shape)}")
    layers = 0
    while f"weight_ih_l{layers}" in names:
        layers += 1
    return {
        "input_size": weight.shape[1],
        "hidden_size": weight.shape[0] // 4,
        "num_layers": layers,
        "bias": "bias_ih_l0" in names,
        "bidirectional": "weight_ih_l0_reverse" in names,
        "dtype": nearest_dtype(weight),
    }
