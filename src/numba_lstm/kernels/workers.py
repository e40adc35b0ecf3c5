"""What belongs to which worker, and how workers wait for one another."""

from __future__ import annotations

from ..jit import inlined
from ..simd.atomic import let_others_run, observed, pause

# Looks at a counter before the core is offered to others.
_LOOKS = 2000


@inlined
def first_of_share(count, share, shares):
    """Where one of nearly equal shares of so many things begins; the next one ends it."""
    return count * share // shares


@inlined
def directions_abreast(call):
    """Directions that are gone through at once, of those at hand."""
    return min(call.abreast, call.last_direction - call.first_direction)


@inlined
def complete_layer(call, direction):
    """Whether the directions that are gone through at once from this one on are the last."""
    return direction + directions_abreast(call) == call.last_direction


@inlined
def tasks_of_stage(call):
    """Tasks that workers claim in one stage, of all directions that are gone through at once."""
    return directions_abreast(call) * call.tasks


@inlined
def cell_of_task(call, layer, direction, task):
    """Index of the cell that a task belongs to, and which of its tasks it is.

    The first tasks are of one direction, others of the next.
    """
    later = task // call.tasks
    return layer * call.directions + direction + later, task - later * call.tasks


@inlined
def look_again(looks):
    """Pass the time until the next look at what others have done, after so many."""
    pause()
    if looks % _LOOKS == 0:
        let_others_run()


@inlined
def wait_for(counter, value):
    """Wait until a counter has been raised to a value."""
    looks = 0
    while observed(counter) < value:
        looks += 1
        look_again(looks)
