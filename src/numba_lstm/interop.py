"""PyTorch's names for the parameters of an LSTM; the order of the gates is the same.

PyTorch has two biases where only their sum matters: ``bias_ih`` holds it, ``bias_hh`` is zero.
"""

from __future__ import annotations

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


def _shapes(config: LSTMConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of the parameters, by PyTorch's names in PyTorch's order."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in config.shapes().items():
        if name.startswith("bias_"):
            suffix = name.removeprefix("bias_")
            shapes[f"bias_ih_{suffix}"] = shapes[f"bias_hh_{suffix}"] = shape
        else:
            shapes[name] = shape
    return shapes


def state_dict_of(config: LSTMConfig, parameters: Parameters) -> dict[str, FloatArray]:
    """Copy parameters under PyTorch's names.

    Parameters
    ----------
    config : LSTMConfig
    parameters : Parameters

    Returns
    -------
    dict of str to ndarray
    """
    state: dict[str, FloatArray] = {}
    for name, array in parameters.items():
        if name.startswith("bias_"):
            suffix = name.removeprefix("bias_")
            state[f"bias_ih_{suffix}"] = array.copy()
            state[f"bias_hh_{suffix}"] = np.zeros_like(array)
        else:
            state[name] = array.copy()
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
    expected = _shapes(config)
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
    for name in config.shapes():
        if name.startswith("bias_"):
            suffix = name.removeprefix("bias_")
            arrays[name] = arrays.pop(f"bias_ih_{suffix}") + arrays.pop(f"bias_hh_{suffix}")
    return arrays


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
