"""Numbers of the terms (t, row) of a sum, among all those of which training keeps something."""

from __future__ import annotations

from ..jit import device, inlined
from .rooms import kept_row, number_of_room, room_of


@inlined
def number_in_a_row(first, count, numbers):
    """Number so many terms that stand one behind another."""
    for k in range(count):
        numbers[k] = first + k


@device
def number_terms(call, kept, block, numbers):
    """Write the numbers that the terms of a block have among all that is kept from a step on."""
    first_room, end = number_of_room(call, block.row), block.row + block.rows
    for step in range(block.step - kept, block.step + block.steps - kept):
        row, number = block.row, first_room
        while row < end:
            room = room_of(call, number)
            behind = min(end, room.first + room.rows)
            first = kept_row(room, call.gate_steps, step, row)
            number_in_a_row(first, behind - row, numbers)
            numbers = numbers + (behind - row)
            row = behind
            number += 1
