"""Rooms: where the rows of a batch stand in the workspace, those of a worker apart from the others.

Of gates and cell states, which training keeps of every step, a room has those of its own rows, one
step behind another. With the rows of all workers side by side in each step, the prefetchers of a
core would run ahead of what it writes into the rows of another one, and take them away from its
cache. (T50 B50 I65 H128 in two layers on two cores with an L3 each: forward 332 GFLOP/s side by
side and 380 in rooms, back 343 and 370.)
"""

from __future__ import annotations

from typing import NamedTuple

from ..jit import inlined
from .workers import first_of_share


class Room(NamedTuple):
    """Rows of a batch that stand together."""

    number: int
    first: int
    rows: int


@inlined
def room_of(call, number):
    """One of the rooms of a call."""
    first = first_of_share(call.batch, number, call.rooms)
    return Room(number, first, first_of_share(call.batch, number + 1, call.rooms) - first)


@inlined
def whole_batch(call):
    """The only room, where workers have no rows of their own."""
    return Room(0, 0, call.batch)


@inlined
def number_of_room(call, row):
    """Number of the room that a row stands in."""
    return ((row + 1) * call.rooms - 1) // call.batch


@inlined
def room_with(call, row):
    """The room that a row stands in."""
    return room_of(call, number_of_room(call, row))


@inlined
def rows_in_room(call, number, worker, workers):
    """One of the rooms, first of a worker's rows in it, and their number."""
    room = room_of(call, number)
    first = max(room.first, first_of_share(call.batch, worker, workers))
    behind = min(room.first + room.rows, first_of_share(call.batch, worker + 1, workers))
    return room, first, max(0, behind - first)


@inlined
def kept_row(room, steps, step, row):
    """Number of a row at a step among all those that the rooms keep, of so many steps each."""
    return room.first * steps + step * room.rows + row - room.first
