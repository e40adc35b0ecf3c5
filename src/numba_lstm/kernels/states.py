"""States before and behind what a call runs: the user's, and those between segments."""

from __future__ import annotations

from ..jit import device, inlined
from ..simd.pointer import address
from ..simd.vector import (
    absolute,
    broadcast,
    copysign,
    lane_sum,
    load_first,
    store,
    where_less,
    width,
)
from .lanes import copy_columns, load_up_to
from .order import at_begin, at_end


@device
def load_state(states, index, call, cell, first, rows, target):
    """Copy rows of a user's (L D, B, H) state, or zeros where it is empty, and pad with zeros."""
    H = cell.hidden
    lanes = width(target)
    source = address(states, 0)
    if states.size > 0:
        source = source + (index * call.batch + first) * H
    for row in range(rows):
        for unit in range(0, cell.state_row, lanes):
            held = max(0, min(lanes, H - unit)) if states.size > 0 else 0
            units = load_first(source + (row * H + unit), held)
            store(units, target + (row * cell.state_row + unit))


@device
def save_state(source, source_row, index, call, cell, first, rows, states):
    """Copy rows of a state into a user's (L D, B, H) array."""
    H = cell.hidden
    target = address(states, (index * call.batch + first) * H)
    copy_columns(rows, H, source, source_row, target, H)


@device
def are_zeros(rows, columns, source, row_size, positive):
    """Whether the first columns of some rows hold zeros only; if so wished, not even -0."""
    zeros, ones = broadcast(source, 0.0), broadcast(source, 1.0)
    counted = broadcast(source, 1.0 if positive else 0.0)
    for row in range(rows):
        total = zeros
        for column in range(0, columns, width(source)):
            numbers = load_up_to(source + (row * row_size + column), columns - column)
            negative = where_less(copysign(ones, numbers), zeros, counted, zeros)
            total = total + (absolute(numbers) + negative)
        if lane_sum(total) != 0.0:  # NaN neither
            return False
    return True


@inlined
def _marks(call, cell, workspace, segment, first):
    """Where h and c before a segment are kept, of the rows from one on."""
    slot = call.batch * cell.state_row
    h = address(workspace, cell.marks + segment * 2 * slot + first * cell.state_row)
    return h, h + slot


@device
def begin_states(call, cell, index, h0, c0, first, rows, walk, workspace):
    """Put the states before this call's piece in their places."""
    state_row = cell.state_row
    if call.training == 0:
        load_state(h0, index, call, cell, first, rows, walk.h_before)
        load_state(c0, index, call, cell, first, rows, walk.c_before)
        return
    h, c = _marks(call, cell, workspace, call.segment, first)
    if call.recomputed == 0 and at_begin(call, cell):
        load_state(h0, index, call, cell, first, rows, h)
        load_state(c0, index, call, cell, first, rows, c)
    copy_columns(rows, cell.hidden, h, state_row, walk.h_before, walk.h_row)
    copy_columns(rows, cell.hidden, c, state_row, walk.c_before, walk.c_row)


@device
def end_states(call, cell, index, h_n, c_n, first, rows, walk, workspace):
    """Hand on the states behind this call's piece, which the next step would begin with."""
    if call.recomputed == 1:
        return
    state_row = cell.state_row
    if call.training == 0 or at_end(call, cell):
        save_state(walk.h_before, walk.h_row, index, call, cell, first, rows, h_n)
        save_state(walk.c_before, walk.c_row, index, call, cell, first, rows, c_n)
    else:
        following = call.segment + 1 - 2 * cell.reverse
        h, c = _marks(call, cell, workspace, following, first)
        copy_columns(rows, cell.hidden, walk.h_before, walk.h_row, h, state_row)
        copy_columns(rows, cell.hidden, walk.c_before, walk.c_row, c, state_row)
