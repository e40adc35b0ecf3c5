"""What belongs to which worker, and how workers wait for one another."""

from __future__ import annotations

from ..jit import inlined
from ..simd.atomic import claim, let_others_run, observed, pause, publish
from ..simd.pointer import address
from .tables import FLOATS_OF_FLAG

# Kinds of stages: what comes before some steps, the steps, and what comes behind all of them.
BEGIN, STEPS, END = 0, 1, 2
# Looks at a counter before the core is offered to others.
_LOOKS = 2000
# Looks at what another worker has to do before it is taken over, if nobody has begun: some 3 us on
# Intel's CPUs, less where a pause is shorter.
_PATIENCE = 64


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
def scratch_of(call, workspace, worker):
    """Where a worker's scratch begins."""
    return address(workspace, call.scratch + worker * call.scratch_apart)


@inlined
def _place_of_way(call, worker):
    """Where a worker notes which way it goes next."""
    return call.scratch + worker * call.scratch_apart + call.way_place


@inlined
def way_of(call, workspace, worker):
    """1 if a worker's first step goes through the panels from the end, else 0.

    It begins where its last call has ended: single steps, too, find in L2 what that read last. (T1
    on an Intel CPU, time with L2 of 2 MiB, from the front every time and to and fro: B1 I256 H256
    73 and 52 us, B4 I320 H320 160 and 125 us, B1 I512 H512 399 and 354 us.)
    """
    return 1 if workspace[_place_of_way(call, worker)] == 1 else 0


@inlined
def note_way(call, workspace, worker, way, steps):
    """Note which way a worker goes first in the next call, after so many steps to and fro."""
    workspace[_place_of_way(call, worker)] = (way + steps) % 2


@inlined
def flag_at(call, workspace, number):
    """One of the counters by which the workers of a call tell one another how far they are."""
    return address(workspace, call.flags + number * FLOATS_OF_FLAG)


@inlined
def _finished(call, workspace, task):
    """Counter of the stages in which a task is finished."""
    return flag_at(call, workspace, 2 * task + 1)


@inlined
def _is_finished_soon(call, workspace, stage, task):
    """Whether a task of a stage is finished by the time that one waits for another worker."""
    for _ in range(_PATIENCE):
        if observed(_finished(call, workspace, task)) > stage:
            return True
        pause()
    return False


@inlined
def claim_next_task(call, workspace, stage, number, worker, workers, helping):
    """Claim the next task that a worker comes to in a stage, after so many.

    Its own come first. To look at once whether another worker has begun would take the counter of
    what is claimed from its cache, into which it then had to come back: so that one has a while to
    finish, unless the worker is `helping`.

    Returns
    -------
    task : int
    claimed : bool
        Whether it is this worker's to do.
    helped : bool
        Whether it would have been another one's.
    """
    tasks = tasks_of_stage(call)
    first = first_of_share(tasks, worker, workers)
    task = (first + number) % tasks
    others = number >= first_of_share(tasks, worker + 1, workers) - first
    if others and not helping and _is_finished_soon(call, workspace, stage, task):
        return task, False, False
    claimed = claim(flag_at(call, workspace, 2 * task), stage)
    return task, claimed, claimed and others


@inlined
def finish_task(call, workspace, stage, task):
    """Tell others that a task of a stage is finished."""
    publish(_finished(call, workspace, task), stage + 1)


@inlined
def wait_for_stage(call, workspace, stage):
    """Wait until all tasks of a stage are finished."""
    for task in range(tasks_of_stage(call)):
        _wait_for(_finished(call, workspace, task), stage + 1)


@inlined
def look_again(looks):
    """Pass the time until the next look at what others have done, after so many."""
    pause()
    if looks % _LOOKS == 0:
        let_others_run()


@inlined
def _wait_for(counter, value):
    """Wait until a counter has been raised to a value."""
    looks = 0
    while observed(counter) < value:
        looks += 1
        look_again(looks)
