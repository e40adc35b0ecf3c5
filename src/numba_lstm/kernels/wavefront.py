"""The sequence loop of one direction: workers go through the stages of its layers as a wavefront.

The stages of a layer are shares of its units, for which inputs are projected, and its recurrence,
the steps of all units. A few steps of a stage need the same steps of the stages below, and those
before them of their own: while a layer is at some steps, the one above is at those before. Workers
claim the next steps of a stage that are ready, of their own stages first, so that each core keeps
the weights of few stages in its cache. Nobody holds what it has claimed for longer than that takes,
and a worker that is alone goes through all of it: there is nothing to deadlock on.
"""

from __future__ import annotations

from ..jit import device, inlined, kernel
from ..simd.atomic import claim, observed, publish
from ..simd.mode import enter_default_mode, restore_mode
from ..simd.pointer import address
from ..simd.vector import width
from .forward import Surroundings, prepare_inputs, run_steps, walk_from
from .order import source_of_layer
from .panels import panels_of
from .rooms import whole_batch
from .states import begin_states, end_states
from .workers import first_of_share, flag_at, look_again, scratch_of


@inlined
def _progress(call, workspace, stage):
    """Counter of a stage: twice the chunks that are finished, odd while one is under way."""
    return flag_at(call, workspace, stage)


@inlined
def _has_finished(call, workspace, stage, chunks):
    """Whether so many chunks have gone through a stage."""
    return observed(_progress(call, workspace, stage)) >= 2 * chunks


@inlined
def _place_of_stage(call, stage):
    """Layer that a stage belongs to, and its number there; the last one is the recurrence."""
    layer = stage // (call.tasks + 1)
    return layer, stage - layer * (call.tasks + 1)


@inlined
def _is_ready(call, workspace, stage, number):
    """Whether the stages below have finished a chunk, and there is room for what comes of it.

    Projected inputs have room for two chunks: one that is read, and one that is written.
    """
    _, share = _place_of_stage(call, stage)
    first = stage - share
    if share == call.tasks:
        for projection in range(first, stage):
            if not _has_finished(call, workspace, projection, number + 1):
                return False
        return True
    if not _has_finished(call, workspace, first + call.tasks, number - 1):
        return False
    return first == 0 or _has_finished(call, workspace, first - 1, number + 1)


@device
def _take_chunk(own, stage, past, some):
    """Take some steps of a stage, with all rows."""
    call, cells, packed, x, h0, c0, y, h_n, c_n, workspace, scratch = own
    B, steps = call.batch, call.stop - call.start
    layer, share = _place_of_stage(call, stage)
    cell = cells[layer]
    panels = address(packed, cell.panels)
    count = panels_of(cell, width(scratch))
    source = source_of_layer(call, cells, layer, x, workspace)
    where = Surroundings(source, y, workspace, scratch, 0, whole_batch(call), 0)
    walk = walk_from(call, cells, layer, past, where)
    if share < call.tasks:
        first = first_of_share(count, share, call.tasks)
        last = first_of_share(count, share + 1, call.tasks)
        prepare_inputs(call, cell, panels, first, last, B, some, walk, past, where)
        return
    if past == 0:
        begin_states(call, cell, layer, h0, c0, 0, B, walk, workspace)
    run_steps(call, cell, panels, 0, count, B, some, walk, past)
    if past + some == steps:
        walk = walk_from(call, cells, layer, steps, where)
        end_states(call, cell, layer, h_n, c_n, 0, B, walk, workspace)


@kernel
def lstm_wavefront(calls, cells, packed, x, h0, c0, y, h_n, c_n, workspace, worker, workers):
    """One worker's part in inference, by stages; see `lstm_forward`.

    Parameters
    ----------
    calls : (1,) array of CALL
    cells : (L,) array of CELL
    packed : array
        Panels, read.
    x : array
        Input at ``t * x_step + b * x_row``, read; or a table.
    h0, c0 : array
        (L, B, H) states before, or empty for zeros; read.
    y : array
        Output at ``t * y_step + b * y_row``, assigned.
    h_n, c_n : array
        (L, B, H) states after, assigned; may be h0 and c0.
    workspace : array
        The flags are zero before; they, h, c, gates and outputs are assigned.
    worker, workers : int
        Whose stages come first, of how many.
    """
    mode = enter_default_mode()
    call = calls[0]
    scratch = scratch_of(call, workspace, worker)
    own = (call, cells, packed, x, h0, c0, y, h_n, c_n, workspace, scratch)
    steps, stages, chunk = call.stop - call.start, call.layers * (call.tasks + 1), call.wave
    chunks = (steps + chunk - 1) // chunk
    highest = first_of_share(stages, worker + 1, workers) - 1
    looks = 0
    while not _has_finished(call, workspace, stages - 1, chunks):
        # Its own stages from above, then the others': what is begun goes on before what waits.
        stage = (highest - looks) % stages
        progress = _progress(call, workspace, stage)
        seen = observed(progress)
        number = seen // 2
        free = seen % 2 == 0 and number < chunks
        if free and _is_ready(call, workspace, stage, number) and claim(progress, seen):
            past = number * chunk
            _take_chunk(own, stage, past, min(chunk, steps - past))
            publish(progress, seen + 2)
            looks = 0
        else:
            looks += 1
            look_again(looks)
    restore_mode(mode)
