"""Weight gradients, each a sum over all steps and rows, once all have gone back through the steps.

The terms (t, row) of a sum are added in blocks, each from zero, and the blocks are added up in the
order in which the way back comes by; where a block begins depends on T, B and t alone, so the bits
do not depend on the number of workers, nor on the spans in which the sequence is gone through.
"""

from __future__ import annotations

from typing import NamedTuple

from ..jit import device, inlined, kernel
from ..simd.mode import enter_default_mode, restore_mode
from ..simd.pointer import Pointer, address, as_integers
from ..simd.vector import width
from .forward import (
    at_begin,
    at_end,
    source_of_layer,
)
from .gemm import (
    Results,
    Rows,
    TermRows,
    columns_asked,
    copy_columns,
    outer_products,
)
from .gradient_tasks import (
    Task,
    block_at_hand,
    blocks_at_hand,
    room_of_task,
    rows_of_sums,
    share_of_panels,
    task_of_number,
    tasks_of_gradients,
)
from .kept import kept_hidden, outputs_row
from .panels import gate_stride, gates_of_panel, panels_of, vectors_of_panel
from .rooms import number_terms
from .tables import ROOM_FOR_TERMS
from .token_sums import sum_by_tokens
from .transposition import transpose
from .vocabulary import is_looked_up


@inlined
def _features_between(first, last, segment_first, segment_last):
    """Start within a segment of features, and number, of those that lie in [first, last)."""
    start = max(first, segment_first)
    return start - segment_first, max(0, min(last, segment_last) - start)


@device
def copy_features(first, last, inputs, hiddens, x, x_row, h, h_row, rows, target):
    """Copy the features [first, last) of (1, x, h) of some rows side by side."""
    _, ones = _features_between(first, last, 0, 1)
    x_first, x_count = _features_between(first, last, 1, 1 + inputs)
    h_first, h_count = _features_between(first, last, 1 + inputs, 1 + inputs + hiddens)
    row_size = last - first
    if ones == 1:
        for row in range(rows):
            target[row * row_size] = 1.0
    target = target + ones
    copy_columns(rows, x_count, x + x_first, x_row, target, row_size)
    copy_columns(rows, h_count, h + h_first, h_row, target + x_count, row_size)


@inlined
def _results_of(cell, inputs, unit, first, last, gradients, asked):
    """Rows of the gradients of some units with respect to the features [first, last).

    Before the hidden units there are so many inputs among them.
    """
    I, H = cell.inputs, cell.hidden
    x_first, x_count = _features_between(first, last, 1, 1 + inputs)
    h_first, h_count = _features_between(first, last, 1 + inputs, 1 + inputs + H)
    return Results(
        Rows(address(gradients, cell.weight_ih + unit * I + x_first), I, H * I, x_count),
        Rows(address(gradients, cell.weight_hh + unit * H + h_first), H, H * H, h_count),
        asked,
    )


@device
def _give_sums(cell, panel, first, last, sums, results, gradients, added):
    """Give the gradients what was summed of W units and the features [first, last), or add it."""
    H = cell.hidden
    lanes = width(sums)
    row_size = 4 * lanes
    _, biases = _features_between(first, last, 0, 1)
    unit = panel * lanes
    units = min(lanes, H - unit)
    for gate in range(4):
        of_gate = sums + gate * gate_stride(cell, panel, lanes)
        if biases == 1 and cell.bias >= 0:
            target = address(gradients, cell.bias + gate * H + unit)
            transpose(1, units, of_gate, 0, target, 1, added)
        of_gate = of_gate + biases * row_size
        for rows in (results.first, results.second):
            target = rows.start + gate * rows.gate
            transpose(rows.columns, units, of_gate, row_size, target, rows.row, added)
            of_gate = of_gate + rows.columns * row_size


class Block(NamedTuple):
    """A block of the terms of sums of outer products."""

    terms: int
    numbers: Pointer  # of the terms, among those that are kept
    dgates: Pointer  # of all of these
    next_panel: int  # from those of one panel to those of the next
    first: bool  # whether it is the first to be added up
    last: bool  # and whether the last


@inlined
def _dgates_of_panel(cell, block, panel):
    """Dgates of a panel's units, a row for every term that is kept."""
    place = gates_of_panel(cell, block.dgates, block.next_panel, panel, 0)
    return TermRows(place, 4 * gate_stride(cell, panel, width(place)))


@device
def outer_sums_of_block(
    cell, inputs, task, block, features, gradients, accumulate, first_sums, sums_panel
):
    """Add a block to the sums of a task, and give the gradients what is complete.

    Parameters
    ----------
    cell : CELL
    inputs : int
        Among the features of the cell.
    task : Task
    block : Block
    features : Pointer
        (terms, features of the task), read.
    gradients : array
        Flat gradients.
    accumulate : bool
        Whether they are added to.
    first_sums, sums_panel : Pointer, int
        Sums of the first panel, and how far on those of the next one are.
    """
    first_panel, last_panel, first, last = task
    lanes = width(features)
    for panel in range(first_panel, last_panel):
        dgates = _dgates_of_panel(cell, block, panel)
        following = _dgates_of_panel(cell, block, min(panel + 1, last_panel - 1))
        sums = first_sums + (panel - first_panel) * sums_panel
        asked = (panel - first_panel) * columns_asked(last - first) if block.last else -1
        results = _results_of(cell, inputs, panel * lanes, first, last, gradients, asked)
        outer_products(
            last - first,
            block.terms,
            vectors_of_panel(cell, panel, lanes),
            features,
            last - first,
            block.numbers,
            dgates,
            following,
            results,
            not block.first,
            sums,
        )
        if block.last:
            # The caches still have them: later on they would be waited for a second time.
            _give_sums(cell, panel, first, last, sums, results, gradients, accumulate)


@inlined
def _inputs_among_features(cell):
    """Inputs whose weights have gradients that are summed over the steps."""
    return 0 if is_looked_up(cell) else cell.inputs


@device
def _gradient_task(call, cells, index, task, x, gradients, workspace, sums, sums_panel, scratch):
    """Gradients of some units with respect to some features, summed in one place panel by panel.

    The features of a block are copied side by side first: their rows stand so far apart that they
    would drive one another out of the L1 cache, once for every panel.
    """
    D = call.directions
    _, _, first, last = task
    cell = cells[index]
    I, H = _inputs_among_features(cell), cell.hidden
    layer = index // D
    direction = index - layer * D
    source = source_of_layer(call, cells, layer, x, workspace)
    h_row = outputs_row(call, cell)
    onwards = 1 - 2 * cell.reverse
    numbers, features = as_integers(scratch), scratch + ROOM_FOR_TERMS
    blocks = blocks_at_hand(call)
    for later in range(blocks):
        step, steps, row, rows = terms = block_at_hand(call, cell, later)
        number_terms(call, call.kept, terms, numbers)
        block = Block(
            steps * rows,
            numbers,
            address(workspace, cell.gates),
            cell.gates_panel,
            at_end(call, cell) and later == 0,
            at_begin(call, cell) and later == blocks - 1,
        )
        for past in range(steps):
            copy_features(
                first,
                last,
                I,
                H,
                source.start + ((step + past) * source.step + row * source.row),
                source.row,
                kept_hidden(call, cell, direction, workspace, step + past - onwards) + row * h_row,
                h_row,
                rows,
                features + past * rows * (last - first),
            )
        added = call.accumulate == 1
        outer_sums_of_block(cell, I, task, block, features, gradients, added, sums, sums_panel)
        if is_looked_up(cell):
            first_own, last_own = share_of_panels(task, 1 + H)
            for panel in range(first_own, last_own):
                sum_by_tokens(
                    call,
                    step * call.batch + row,
                    block.terms,
                    _dgates_of_panel(cell, block, panel),
                    not block.first,
                    address(workspace, cell.token_sums) + panel * call.vocabulary_panel,
                )


@kernel
def lstm_gradients(calls, cells, x, gradients, workspace, worker, workers):
    """One worker's share of the weight gradients, after all have gone back through the steps.

    Parameters
    ----------
    calls : (1,) array of CALL
    cells : (L D,) array of CELL
    x : array
        Input of the forward pass, read; not where it is a table.
    gradients : array
        Flat gradients, laid out like the parameters; accumulated into, or assigned.
    workspace : array
        dgates and outputs are read; partial sums, and those of dgates by tokens, are assigned.
    worker, workers : int
        Which share of the tasks, of how many.
    """
    mode = enter_default_mode()
    call = calls[0]
    scratch = address(workspace, call.scratch + worker * call.scratch_apart)
    lanes = width(scratch)
    row_size = 4 * lanes
    D = call.directions
    whole = call.start == 0 and call.stop == call.steps
    before = 0
    for layer in range(call.first_layer, call.last_layer):
        for direction in range(call.first_direction, call.last_direction):
            index = layer * D + direction
            cell = cells[index]
            features = 1 + _inputs_among_features(cell) + cell.hidden
            panels = panels_of(cell, lanes)
            panel_tasks, feature_tasks = tasks_of_gradients(panels, features, workers)
            tasks = panel_tasks * feature_tasks
            first_task = (worker - before) % workers
            # Sums that need not wait for the next span: one task's after another's in the room of
            # this worker's largest task, where they stay in its L2 cache.
            largest = Task(0, 0, 0, 0)
            for number in range(first_task, tasks, workers):
                task = task_of_number(panels, panel_tasks, features, feature_tasks, number)
                if rows_of_sums(task) > rows_of_sums(largest):
                    largest = task
            for number in range(first_task, tasks, workers):
                task = task_of_number(panels, panel_tasks, features, feature_tasks, number)
                row, panel_rows = task.first_panel * features + task.first, features
                if whole:
                    row, panel_rows = room_of_task(largest, features), task.last - task.first
                sums = address(workspace, cell.partial + row * row_size)
                _gradient_task(
                    call,
                    cells,
                    index,
                    task,
                    x,
                    gradients,
                    workspace,
                    sums,
                    panel_rows * row_size,
                    scratch,
                )
            before += tasks
    restore_mode(mode)
