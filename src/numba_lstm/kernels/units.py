"""The sequence loop where workers share out directions, or the units of every step.

A step needs all of the step before. Workers claim the tasks of a stage (a share of the units of a
direction, or all of them), their own first and, after a while, what nobody took, and wait only for
those that others have claimed and not finished. So there is nothing to deadlock on: a worker that
is alone, or runs after the others, or is taken off its core, leaves its tasks to whoever comes by.
Each core keeps its share of the weights in its own cache, and the counter of what it claims.
"""

from __future__ import annotations

from ..jit import device, kernel
from ..simd.mode import enter_default_mode, restore_mode
from ..simd.pointer import address, fetch
from ..simd.tile import keep_loop
from ..simd.vector import width
from .forward import Surroundings, drop_outputs, prepare_inputs, run_steps, walk_from
from .order import source_of_layer
from .panels import panels_of
from .rooms import whole_batch
from .states import begin_states, end_states
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
    note_way,
    scratch_of,
    tasks_of_stage,
    wait_for_stage,
    way_of,
)


@device
def _fetch_hidden(cell, rows, walk):
    """Ask for the hidden states, of which others have written a part.

    Otherwise the tiles wait for one cache line after another, 0.2 us each on an Intel CPU: two
    workers went through T1875 B1 I128 H128 at 78 GFLOP/s, and go at 83.
    """
    for row in range(rows):
        for unit in range(0, cell.hidden, width(walk.scratch)):
            keep_loop()
            fetch(walk.h_before + (row * walk.h_row + unit))


@device
def _stage(own, layer, direction, stage, kind, past, some, helping):
    """Take part in a stage of a direction, or of both from it on.

    Before some steps their inputs are projected. Returns whether others' tasks were taken over;
    whoever is `helping` has done so in the stage before, and does not wait for them.
    """
    call, cells, packed, x, h0, c0, y, h_n, c_n, workspace, scratch, worker, workers, way = own
    B = call.batch
    panels = panels_of(cells[0], width(scratch))
    tasks = tasks_of_stage(call)
    source = source_of_layer(call, cells, layer, x, workspace)
    has_helped = False
    for number in range(tasks):
        task, claimed, helped = claim_next_task(
            call, workspace, stage, number, worker, workers, helping
        )
        if not claimed:
            continue
        has_helped = has_helped or helped
        index, part = cell_of_task(call, layer, direction, task)
        cell = cells[index]
        panel = first_of_share(panels, part, call.tasks)
        last = first_of_share(panels, part + 1, call.tasks)
        weights = address(packed, cell.panels)
        where = Surroundings(source, y, workspace, scratch, 0, whole_batch(call), way)
        walk = walk_from(call, cells, index, past, where)
        if kind == STEPS:
            if call.tasks > 1:
                _fetch_hidden(cell, B, walk)
            run_steps(call, cell, weights, panel, last, B, some, walk, past)
        elif kind == BEGIN:
            if past == 0 and part == 0:
                begin_states(call, cell, index, h0, c0, 0, B, walk, workspace)
            if call.ahead > 0:
                prepare_inputs(call, cell, weights, panel, last, B, some, walk, past, where)
        else:
            if part == 0:
                end_states(call, cell, index, h_n, c_n, 0, B, walk, workspace)
            if complete_layer(call, direction):
                row = first_of_share(B, task, tasks)
                drop_outputs(
                    call, cells, layer, row, first_of_share(B, task + 1, tasks) - row, workspace
                )
        finish_task(call, workspace, stage, task)
    wait_for_stage(call, workspace, stage)
    return has_helped


@kernel
def lstm_units(calls, cells, packed, x, h0, c0, y, h_n, c_n, workspace, worker, workers):
    """One worker's part in the LSTM, by directions or units; see `lstm_forward`.

    Parameters
    ----------
    calls : (1,) array of CALL
    cells : (L D,) array of CELL
    packed : array
        Panels, read.
    x : array
        Input at ``t * x_step + b * x_row``, read; or a table.
    h0, c0 : array
        (L D, B, H) states before, or empty for zeros; read.
    y : array
        Output at ``t * y_step + b * y_row``, assigned.
    h_n, c_n : array
        (L D, B, H) states after, assigned; may be h0 and c0.
    workspace : array
        The flags are zero before; they, h, c, outputs, gates and marks are assigned.
    worker, workers : int
        Which share of the units comes first, of how many.
    """
    mode = enter_default_mode()
    call = calls[0]
    scratch = scratch_of(call, workspace, worker)
    way = way_of(call, workspace, worker)
    own = (call, cells, packed, x, h0, c0, y, h_n, c_n, workspace, scratch, worker, workers, way)
    steps = call.stop - call.start
    chunk = call.ahead if call.ahead > 0 else max(1, steps)
    # Whoever has all units of a direction waits for nobody within a chunk.
    together = chunk if call.tasks == 1 else 1
    stage, helping = 0, False
    for layer in range(call.first_layer, call.last_layer):
        for direction in range(call.first_direction, call.last_direction, directions_abreast(call)):
            # The first chunk puts the states in their places as well.
            for past in range(0, max(1, steps), chunk):
                end = min(steps, past + chunk)
                helping = _stage(own, layer, direction, stage, BEGIN, past, end - past, helping)
                stage += 1
                for step in range(past, end, together):
                    some = min(together, end - step)
                    helping = _stage(own, layer, direction, stage, STEPS, step, some, helping)
                    stage += 1
            helping = _stage(own, layer, direction, stage, END, steps, 0, helping)
            stage += 1
    note_way(call, workspace, worker, way, steps)
    restore_mode(mode)
