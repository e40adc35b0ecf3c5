"""Back-propagation through time where workers share out directions, or the units of every step.

The dgates of all units lead to the dh of each, so a step needs all of the step behind it. Workers
claim tasks as in `units`, and each keeps its columns of the recurrent weights in its own cache.
"""

from __future__ import annotations

from ..jit import device, inlined, kernel
from ..simd.mode import enter_default_mode, restore_mode
from ..simd.vector import width
from .backward import (
    begin_back,
    cell_step_back,
    end_back,
    input_gradient,
    places_of_step_back,
    recurrent_step_back,
)
from .panels import panels_of
from .rooms import whole_batch
from .workers import (
    BEGIN,
    END,
    STEPS,
    cell_of_task,
    claim_next_task,
    complete_layer,
    directions_abreast,
    finish_task,
    first_of_share,
    scratch_of,
    tasks_of_stage,
    wait_for_stage,
)

# Panels of units whose dh are the columns of one panel of the recurrent weights.
_GRAIN = 4


@inlined
def _first_panel(task, tasks, panels):
    """Panel where a task begins."""
    grains = (panels + _GRAIN - 1) // _GRAIN
    return min(panels, first_of_share(grains, task, tasks) * _GRAIN)


@device
def _take_steps(call, cells, index, packed, dy, workspace, scratch, panel, last, later, some):
    """Take some steps back with the units of some panels.

    A step's dh first, from the dgates of the step behind it, which then everyone has finished. So
    there is one stage more than there are steps: the last gives the dh before them.
    """
    B, steps = call.batch, call.stop - call.start
    room = whole_batch(call)
    cell = cells[index]
    for number in range(later, later + some):
        if number > 0:
            behind = places_of_step_back(call, cells, index, dy, workspace, number - 1, 0, room)
            recurrent_step_back(call, cell, packed, panel, last, B, behind, scratch)
        if number < steps:
            place = places_of_step_back(call, cells, index, dy, workspace, number, 0, room)
            cell_step_back(cell, panel, last, B, place)


@device
def _stage(own, layer, direction, stage, kind, later, some, helping):
    """Take part in a stage of a direction, or of both from it on.

    The last one gives dx, once all are through. Returns whether others' tasks were taken over.
    """
    call, cells, packed, dy, dh_n, dc_n, dx, dh0, dc0, workspace, scratch, worker, workers = own
    B, steps = call.batch, call.stop - call.start
    room = whole_batch(call)
    panels = panels_of(cells[0], width(scratch))
    tasks = tasks_of_stage(call)
    has_helped = False
    for number in range(tasks):
        task, claimed, helped = claim_next_task(
            call, workspace, stage, number, worker, workers, helping
        )
        if not claimed:
            continue
        has_helped = has_helped or helped
        index, part = cell_of_task(call, layer, direction, task)
        if kind == STEPS:
            panel = _first_panel(part, call.tasks, panels)
            last = _first_panel(part + 1, call.tasks, panels)
            _take_steps(
                call, cells, index, packed, dy, workspace, scratch, panel, last, later, some
            )
        elif kind == BEGIN:
            if part == 0:
                begin_back(call, cells, index, dh_n, dc_n, workspace, 0, B, room)
        else:
            if part == 0:
                end_back(call, cells, index, dh0, dc0, workspace, 0, B, room)
            if complete_layer(call, direction):
                begin = call.start + first_of_share(steps, task, tasks)
                end = call.start + first_of_share(steps, task + 1, tasks)
                input_gradient(
                    call, cells, layer, packed, dx, workspace, scratch, begin, end, 0, B, room
                )
        finish_task(call, workspace, stage, task)
    wait_for_stage(call, workspace, stage)
    return has_helped


@kernel
def lstm_units_back(calls, cells, packed, dy, dh_n, dc_n, dx, dh0, dc0, workspace, worker, workers):
    """One worker's part in going back, by directions or units; see `backward.lstm_backward`.

    Parameters
    ----------
    calls : (1,) array of CALL
    cells : (L D,) array of CELL
    packed : array
        Recurrent and input panels, read.
    dy : array
        Gradient of the output, laid out like y, or empty for zeros; read.
    dh_n, dc_n : array
        (L D, B, H) gradients of the states after, or empty for zeros; read.
    dx : array
        Gradient of the input, laid out like x; assigned if it is wanted.
    dh0, dc0 : array
        (L D, B, H) gradients of the states before, assigned; may be dh_n and dc_n.
    workspace : array
        The flags are zero before; c is read; gates become dgates; flags, dh, dc and doutputs are
        assigned.
    worker, workers : int
        Which share of the units comes first, of how many.
    """
    mode = enter_default_mode()
    call = calls[0]
    scratch = scratch_of(call, workspace, worker)
    own = (call, cells, packed, dy, dh_n, dc_n, dx, dh0, dc0, workspace, scratch, worker, workers)
    stages = call.stop - call.start + 1
    # Whoever has all units of a direction waits for nobody.
    together = stages if call.tasks == 1 else 1
    stage, helping = 0, False
    for above in range(call.last_layer - call.first_layer):
        layer = call.last_layer - 1 - above
        for direction in range(call.first_direction, call.last_direction, directions_abreast(call)):
            helping = _stage(own, layer, direction, stage, BEGIN, 0, 0, helping)
            stage += 1
            for later in range(0, stages, together):
                helping = _stage(own, layer, direction, stage, STEPS, later, together, helping)
                stage += 1
            helping = _stage(own, layer, direction, stage, END, 0, 0, helping)
            stage += 1
    restore_mode(mode)
