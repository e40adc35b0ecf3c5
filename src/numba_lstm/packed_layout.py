"""How weights are packed, and where those of every cell stand."""

from __future__ import annotations

import enum
import functools
import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import LSTMConfig
from .kernels.tables import CELL
from .kernels.tiling import NARROW, WIDE, widest_for_rows
from .memory import CACHE_LINE, Places, round_up
from .simd import cpu

# Rows whose distance is a multiple of this fall into the same sets of the L1 cache.
_ALIASING_BYTES = 4096
# Inputs projected ahead up to which a last panel of half of the units or fewer is padded.
_INPUTS_OF_WHOLE_PANELS = 200


class PanelForm(enum.Enum):
    """How weights are packed (`kernels.panels`)."""

    WIDE = "panels of four vectors"
    WHOLE = "the same, with room for W units in the last one, however few they are"
    NARROW = "panels of two vectors, for tall tiles"
    NARROW_AHEAD = "the same, but the inputs' rows wide: they are projected ahead"

    # There is one object of each: Enum's own takes a fifth of a microsecond of every call.
    __hash__ = object.__hash__

    @property
    def widest(self) -> int:
        """Vectors in a row of their widest panels, by which alone those for the way back differ."""
        return NARROW if self in (PanelForm.NARROW, PanelForm.NARROW_AHEAD) else WIDE


@dataclass(frozen=True)
class PackedLayout:
    """Where the packed weights of every cell stand.

    Attributes
    ----------
    cells : array of CELL
        Sizes, places of the parameters and of the packed weights.
    forward_size, backward_size : int
        Numbers of what the forward pass reads, and of what the backward pass reads.
    """

    cells: NDArray[Any]
    forward_size: int
    backward_size: int


def row_stride(count: int, itemsize: int) -> int:
    """Numbers from one row to the next, off the multiples of 4096 bytes."""
    aliased = (count * itemsize) % _ALIASING_BYTES == 0
    return count + CACHE_LINE // itemsize if aliased else count


@functools.lru_cache(maxsize=256)
def packed_layout(config: LSTMConfig, form: PanelForm) -> PackedLayout:
    """Lay out packed weights.

    Parameters
    ----------
    config : LSTMConfig
    form : PanelForm

    Returns
    -------
    PackedLayout
    """
    shapes = config.shapes()
    ends = itertools.accumulate(map(math.prod, shapes.values()))
    places = dict(zip(shapes, (0, *ends), strict=False))
    itemsize = config.numpy_dtype.itemsize
    W = cpu.lanes(itemsize)
    H, D = config.hidden_size, config.directions
    padded = round_up(H, W)
    columns = 4 * (padded if form is PanelForm.WHOLE else H)
    cells = np.zeros(config.cells, CELL)
    forward, backward = Places(itemsize), Places(itemsize)
    for index, cell in enumerate(cells):
        suffix = config.suffix(index)
        cell["inputs"] = config.inputs(index // D)
        cell["hidden"] = H
        cell["reverse"] = index % D
        cell["state_row"] = row_stride(padded, itemsize)
        cell["weight_ih"] = places[f"weight_ih_{suffix}"]
        cell["weight_hh"] = places[f"weight_hh_{suffix}"]
        cell["bias"] = places.get(f"bias_{suffix}", -1)
        cell["gate_columns"] = columns
        cell["widest"] = form.widest
        rows_of_inputs = 1 + int(cell["inputs"])
        cell["wide_rows"] = rows_of_inputs + H
        if form.widest == NARROW:
            cell["wide_rows"] = rows_of_inputs if form is PanelForm.NARROW_AHEAD else 0
        cell["panels"] = forward.take(rows_of_inputs + H, round_up(columns, W))
        cell["zero_products"] = forward.take(4, padded)
        cell["recurrent_panels"] = backward.take(1 + columns, padded)
        if index % D == 0:
            input_panels = backward.take(1 + D * columns, round_up(int(cell["inputs"]), W))
        cell["input_panels"] = input_panels
    return PackedLayout(cells, forward.size, backward.size)


def panel_form(config: LSTMConfig, rows: int, training: bool, ahead: bool) -> PanelForm:
    """Form of the weights for so many rows of a worker, of inputs that are projected ahead or not.

    One row takes two whole panels in one tile, but a narrow one after the whole one (H 18: 149 ns a
    step, and 101 in whole panels). Where there are more panels, or more rows, padding the last
    panel is no gain or a loss, unless it has as many vectors anyhow. Many inputs, projected ahead
    in full tiles, lose by padding half a panel what the recurrence gains. (T500 B1 H20 on an Intel
    CPU, us in whole panels and not: I 64 220 and 253, I 128 286 and 308, I 300 350 and 317.)
    """
    if widest_for_rows(rows) == NARROW:
        return PanelForm.NARROW_AHEAD if ahead else PanelForm.NARROW
    H, W = config.hidden_size, cpu.lanes(config.numpy_dtype.itemsize)
    many_inputs = ahead and config.input_size > _INPUTS_OF_WHOLE_PANELS
    almost = (W < H <= W + W // 2 and not many_inputs) or H % W > W * 3 // 4
    return PanelForm.WHOLE if not training and rows == 1 and almost else PanelForm.WIDE
