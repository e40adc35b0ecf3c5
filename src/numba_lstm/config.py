"""Sizes and options of an LSTM, validated once and frozen."""

from __future__ import annotations

import functools
from dataclasses import asdict, astuple, dataclass, fields
from typing import Any

import numpy as np

from .validation import boolean, float_dtype, integer, number


@dataclass(frozen=True)
class LSTMConfig:
    """What determines the parameters of an LSTM and what it computes.

    Attributes
    ----------
    input_size, hidden_size, num_layers : int
        I, H and L; at least 1.
    bias, batch_first, bidirectional : bool
    dropout : float
        Share of the outputs of every layer but the last that training drops, 0 to 1.
    dtype : str
        "float32" or "float64".
    """

    input_size: int
    hidden_size: int
    num_layers: int = 1
    bias: bool = True
    batch_first: bool = False
    dropout: float = 0.0
    bidirectional: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {
            name: integer(name, getattr(self, name), least=1)
            for name in ("input_size", "hidden_size", "num_layers")
        }
        for name in ("bias", "batch_first", "bidirectional"):
            checked[name] = boolean(name, getattr(self, name))
        checked["dropout"] = number("dropout", self.dropout, least=0.0, most=1.0)
        checked["dtype"] = float_dtype(self.dtype).name
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def __hash__(self) -> int:
        return self._hash

    @functools.cached_property
    def _hash(self) -> int:
        # Kept, as every call looks its layout up. Of the numbers only: it goes with a pickle, and
        # strings have another hash in every process.
        return hash(tuple(value for value in astuple(self) if not isinstance(value, str)))

    @property
    def directions(self) -> int:
        """D: 2 if bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    @functools.cached_property
    def cells(self) -> int:
        """L D: every layer has a cell for each direction."""
        return self.num_layers * self.directions

    @functools.cached_property
    def output_size(self) -> int:
        """D H: features of y."""
        return self.directions * self.hidden_size

    @functools.cached_property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The dtype of parameters, states and outputs."""
        return np.dtype(self.dtype)

    def inputs(self, layer: int) -> int:
        """Features that a layer reads."""
        return self.input_size if layer == 0 else self.output_size

    def suffix(self, cell: int) -> str:
        """Ending of the names of a cell's parameters: ``l{k}`` or ``l{k}_reverse``."""
        layer, direction = divmod(cell, self.directions)
        return f"l{layer}" + ("_reverse" if direction else "")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the parameters, cell by cell."""
        H = self.hidden_size
        table: dict[str, tuple[int, ...]] = {}
        for cell in range(self.cells):
            suffix = self.suffix(cell)
            table[f"weight_ih_{suffix}"] = (4 * H, self.inputs(cell // self.directions))
            table[f"weight_hh_{suffix}"] = (4 * H, H)
            if self.bias:
                table[f"bias_{suffix}"] = (4 * H,)
        return table

    def operations(self, T: int, B: int) -> int:
        """Floating-point operations of the forward products over T steps of B rows."""
        return T * B * self._operations_of_row

    def operations_of_row(self, layers: tuple[int, int], directions: int) -> int:
        """Those of a row in one step, in the layers from one on to behind another."""
        terms = sum(self.inputs(layer) + self.hidden_size for layer in range(*layers))
        return 8 * self.hidden_size * directions * terms

    @functools.cached_property
    def _operations_of_row(self) -> int:
        return self.operations_of_row((0, self.num_layers), self.directions)

    @functools.cached_property
    def most_terms(self) -> int:
        """Inputs and hidden units of the layer that has most of them."""
        return max(map(self.inputs, range(self.num_layers))) + self.hidden_size

    def as_dict(self) -> dict[str, Any]:
        """Keyword arguments from which the same configuration can be built."""
        return asdict(self)

    def describe(self) -> str:
        """Write the arguments as a call would, without those that stand at their defaults."""
        parts = [
            str(getattr(self, field.name))
            if field.name in ("input_size", "hidden_size")
            else f"{field.name}={getattr(self, field.name)!r}"
            for field in fields(self)
            if getattr(self, field.name) != field.default
        ]
        return ", ".join(parts)
