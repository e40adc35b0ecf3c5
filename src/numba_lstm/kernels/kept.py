"""What training keeps of every step: gates, cell states and hidden states."""

from __future__ import annotations

from ..jit import inlined
from ..simd.pointer import address
from .rooms import kept_row


@inlined
def outputs_row(call, cell):
    """Numbers in a row of a layer's outputs: D H."""
    return call.directions * cell.hidden


@inlined
def keeps_gates(call, step):
    """Whether there is room for the gates of a step."""
    return call.first_kept <= step < call.first_kept + call.gate_steps


@inlined
def kept_hidden(call, cell, direction, workspace, step):
    """Hidden state that training keeps behind a step, rows D H apart."""
    row = outputs_row(call, cell)
    place = cell.outputs + direction * cell.hidden
    return address(workspace, place) + (step - call.first_held) * call.batch * row


@inlined
def kept_cell_state(call, cell, workspace, step, room, row):
    """Cell state of a row that training keeps behind a step."""
    slot = step - call.first_kept + 1 - cell.reverse
    return address(workspace, cell.c) + kept_row(room, call.gate_steps + 1, slot, row) * cell.c_row


@inlined
def kept_term(call, step, room, row):
    """Number of a term (t, row) of those whose gates training keeps."""
    return kept_row(room, call.gate_steps, step - call.first_kept, row)
