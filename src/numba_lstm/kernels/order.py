"""The order in which a cell takes steps, and where it reads its input.

Forward in time, step t reads the state behind step t - 1 and leaves one behind step t; backward in
time it reads the one of t + 1.
"""

from __future__ import annotations

from typing import NamedTuple

from ..jit import inlined
from ..simd.pointer import Pointer, address


class Strided(NamedTuple):
    """A sequence: the numbers of row b at step t stand from ``start[t * step + b * row]``."""

    start: Pointer
    step: int
    row: int


@inlined
def layer_and_direction(call, index):
    """Layer of a cell, and its direction in it."""
    layer = index // call.directions
    return layer, index - layer * call.directions


@inlined
def outputs_below(call, cells, layer, workspace):
    """Where a layer reads what the layer below gave."""
    cell = cells[layer * call.directions]
    step = call.batch * cell.inputs
    return Strided(address(workspace, cell.source) - call.first_held * step, step, cell.inputs)


@inlined
def source_of_layer(call, cells, layer, x, workspace):
    """Where a layer's input stands: x, or what the layer below gave."""
    if layer == 0:
        return Strided(address(x, 0), call.x_step, call.x_row)
    return outputs_below(call, cells, layer, workspace)


@inlined
def step_at(call, cell, past):
    """Step that a cell takes after so many others of those at hand."""
    return call.stop - 1 - past if cell.reverse == 1 else call.start + past


@inlined
def at_begin(call, cell):
    """Whether the first step that a cell takes is at hand."""
    return step_at(call, cell, 0) == cell.reverse * (call.steps - 1)


@inlined
def at_end(call, cell):
    """Whether the last step that a cell takes is at hand."""
    return step_at(call, cell, call.stop - call.start - 1) == (1 - cell.reverse) * (call.steps - 1)
