"""Weight gradients, each a sum over all steps and rows, once all have gone back through the steps.

The terms (t, row) of a sum are added in blocks, each from zero, and the blocks are added up in the
order in which the way back comes by; where a block begins depends on the sizes of the call and on t
alone, so the bits do not depend on the number of workers, nor on the spans in which the sequence is
gone through. The halves of a batch may have sums of their own, added up at last: then each of two
workers reads only what it has written itself (on two cores with an L3 each T1000 B50 I1 H32 went at
153 GFLOP/s without, at 185 with this, T60 B800 I6 H64 in two layers at 323 and 352).
"""

from __future__ import annotations

from typing import NamedTuple

from ..jit import device, inlined, kernel
from ..simd.mode import enter_default_mode, restore_mode
from ..simd.pointer import Pointer, address, as_integers
from ..simd.tile import keep_loop
from ..simd.vector import load, store, width
from .gradient_tasks import (
    Task,
    block_at_hand,
    blocks_at_hand,
    first_row_of_task,
    rows_of_sums,
    share_of_panels,
    task_of_groups,
    tasks_of_gradients,
    workers_of_group,
)
from .kept import kept_hidden, kept_term, outputs_row
from .lanes import copy_columns
from .order import Strided, at_begin, at_end, layer_and_direction, source_of_layer
from .outer_products import (
    Ahead,
    Results,
    Rows,
    RowsOfSteps,
    TermRows,
    columns_asked,
    outer_products,
    share_ahead,
)
from .panels import gate_stride, gates_of_panel, panels_of, vectors_of_panel
from .rooms import room_with
from .tables import ROOM_FOR_TERMS
from .term_numbers import number_terms
from .token_sums import sum_by_tokens
from .transposition import transpose
from .vocabulary import is_looked_up
from .workers import first_of_share, scratch_of


@inlined
def _features_between(first, last, segment_first, segment_last):
    """Start within a segment of features, and number, of those that lie in [first, last)."""
    start = max(first, segment_first)
    return start - segment_first, max(0, min(last, segment_last) - start)


@inlined
def _inputs_and_units_between(first, last, inputs, units):
    """The same of both segments behind the 1 that takes the biases."""
    x_first, x_count = _features_between(first, last, 1, 1 + inputs)
    h_first, h_count = _features_between(first, last, 1 + inputs, 1 + inputs + units)
    return x_first, x_count, h_first, h_count


@device
def copy_features(first, last, inputs, hiddens, x, x_row, h, h_row, rows, target):
    """Copy the features [first, last) of (1, x, h) of some rows side by side."""
    _, ones = _features_between(first, last, 0, 1)
    x_first, x_count, h_first, h_count = _inputs_and_units_between(first, last, inputs, hiddens)
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
    x_first, x_count, h_first, h_count = _inputs_and_units_between(first, last, inputs, H)
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
    complete: bool  # and whether the gradients get the sums behind it


class NextBlock(NamedTuple):
    """What is summed behind a block: a panel first, how far on its terms are, and features."""

    panel: int
    onwards: int
    features: Ahead


@inlined
def _dgates_of_panel(cell, block, panel):
    """Dgates of a panel's units, a row for every term that is kept."""
    place = gates_of_panel(cell, block.dgates, block.next_panel, panel, 0)
    return TermRows(place, 4 * gate_stride(cell, panel, width(place)))


@device
def outer_sums_of_block(
    cell, inputs, task, block, features, gradients, accumulate, first_sums, sums_panel, next_block
):
    """Add a block to the sums of a task, and give the gradients what is complete.

    Meanwhile what comes next is asked for, the features of the next block and the dgates of its
    first panel too: all of it may stand in the cache of another core, or in memory.

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
    next_block : NextBlock
    """
    first_panel, last_panel, first, last = task
    lanes = width(features)
    for panel in range(first_panel, last_panel):
        dgates = _dgates_of_panel(cell, block, panel)
        following, onwards = panel + 1, 0
        if following == last_panel:
            following, onwards = next_block.panel, next_block.onwards
        place, row = _dgates_of_panel(cell, block, following)
        sums = first_sums + (panel - first_panel) * sums_panel
        asked = (panel - first_panel) * columns_asked(last - first) if block.complete else -1
        results = _results_of(cell, inputs, panel * lanes, first, last, gradients, asked)
        outer_products(
            last - first,
            block.terms,
            vectors_of_panel(cell, panel, lanes),
            features,
            last - first,
            block.numbers,
            dgates,
            TermRows(place + onwards * row, row),
            results,
            share_ahead(next_block.features, panel - first_panel, last_panel - first_panel),
            not block.first,
            sums,
        )
        if block.complete:
            # The caches still have them: later on they would be waited for a second time.
            _give_sums(cell, panel, first, last, sums, results, gradients, accumulate)


@inlined
def _inputs_among_features(cell):
    """Inputs whose weights have gradients that are summed over the steps."""
    return 0 if is_looked_up(cell) else cell.inputs


@inlined
def _features_of_block(call, cells, index, terms, x, workspace):
    """Where x and h stand that the terms of a block go with, from its first step and row on."""
    cell = cells[index]
    layer, direction = layer_and_direction(call, index)
    x_start, x_step, x_row = source_of_layer(call, cells, layer, x, workspace)
    before = terms.step - 1 + 2 * cell.reverse
    h = kept_hidden(call, cell, direction, workspace, before)
    h_row = outputs_row(call, cell)
    return (
        Strided(x_start + (terms.step * x_step + terms.row * x_row), x_step, x_row),
        Strided(h + terms.row * h_row, call.batch * h_row, h_row),
    )


@inlined
def _first_term(call, block):
    """Number of a block's first term among those whose gates training keeps."""
    return kept_term(call, block.step, room_with(call, block.row), block.row)


@inlined
def _next_block(call, cells, index, terms, next_task, next_terms, x, workspace):
    """What a worker sums behind a block: the next one of its task, or the first of another task."""
    cell = cells[index]
    I = _inputs_among_features(cell)
    first, last = next_task.first, next_task.last
    x_first, x_count, h_first, h_count = _inputs_and_units_between(first, last, I, cell.hidden)
    x, h = _features_of_block(call, cells, index, next_terms, x, workspace)
    return NextBlock(
        next_task.first_panel,
        _first_term(call, next_terms) - _first_term(call, terms),
        Ahead(
            0,
            next_terms.steps * next_terms.rows,
            next_terms.rows,
            RowsOfSteps(x.start + x_first, x.step, x.row, x_count),
            RowsOfSteps(h.start + h_first, h.step, h.row, h_count),
        ),
    )


@device
def _gradient_task(
    call, cells, index, of_group, next_task, x, gradients, workspace, sums, sums_panel, scratch
):
    """Gradients of some units with respect to some features, summed in one place panel by panel.

    There they stay where groups of rows have sums of their own. The features of a block are copied
    side by side first: their rows stand so far apart that they would drive one another out of the
    L1 cache, once for every panel.
    """
    group, task = of_group
    _, _, first, last = task
    cell = cells[index]
    I, H = _inputs_among_features(cell), cell.hidden
    numbers, features = as_integers(scratch), scratch + ROOM_FOR_TERMS
    blocks = blocks_at_hand(call)
    for later in range(blocks):
        terms = block_at_hand(call, cell, group, later)
        following, next_number = (of_group, later + 1) if later + 1 < blocks else (next_task, 0)
        next_terms = block_at_hand(call, cell, following.group, next_number)
        number_terms(call, call.first_kept, terms, numbers)
        block = Block(
            terms.steps * terms.rows,
            numbers,
            address(workspace, cell.gates),
            cell.gates_panel,
            at_end(call, cell) and later == 0,
            at_begin(call, cell) and later == blocks - 1 and call.groups == 1,
        )
        of_x, of_h = _features_of_block(call, cells, index, terms, x, workspace)
        for past in range(terms.steps):
            copy_features(
                first,
                last,
                I,
                H,
                of_x.start + past * of_x.step,
                of_x.row,
                of_h.start + past * of_h.step,
                of_h.row,
                terms.rows,
                features + past * terms.rows * (last - first),
            )
        outer_sums_of_block(
            cell,
            I,
            task,
            block,
            features,
            gradients,
            call.accumulate == 1,
            sums,
            sums_panel,
            _next_block(call, cells, index, terms, following.task, next_terms, x, workspace),
        )
        if is_looked_up(cell):
            first_own, last_own = share_of_panels(task, 1 + H)
            for panel in range(first_own, last_own):
                sum_by_tokens(
                    call,
                    terms.step * call.batch + terms.row,
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
        Flat gradients, laid out like the parameters; accumulated into, or assigned. Where groups of
        rows have sums of their own, `lstm_sums_of_groups` gives them.
    workspace : array
        dgates and outputs are read; partial sums, and those of dgates by tokens, are assigned.
    worker, workers : int
        Which share of the tasks, of how many.
    """
    mode = enter_default_mode()
    call = calls[0]
    scratch = scratch_of(call, workspace, worker)
    lanes = width(scratch)
    row_size = 4 * lanes
    D = call.directions
    whole = call.groups == 1 and call.start == 0 and call.stop == call.steps
    before = 0
    for layer in range(call.first_layer, call.last_layer):
        for direction in range(call.first_direction, call.last_direction):
            index = layer * D + direction
            cell = cells[index]
            features = 1 + _inputs_among_features(cell) + cell.hidden
            panels = panels_of(cell, lanes)
            panel_tasks, feature_tasks = tasks_of_gradients(
                panels, features, workers_of_group(call, workers)
            )
            tasks = panel_tasks * feature_tasks * call.groups
            first_task = (worker - before) % workers
            # Sums that need not wait for the next span, or for another group's: one task's after
            # another's in the room of this worker's largest task, where they stay in its L2 cache.
            largest = Task(0, 0, 0, 0)
            for number in range(first_task, tasks, workers):
                _, task = task_of_groups(call, panels, panel_tasks, features, feature_tasks, number)
                if rows_of_sums(task) > rows_of_sums(largest):
                    largest = task
            for number in range(first_task, tasks, workers):
                of_group = task_of_groups(
                    call, panels, panel_tasks, features, feature_tasks, number
                )
                next_task = task_of_groups(
                    call, panels, panel_tasks, features, feature_tasks, number + workers
                )
                group, task = of_group
                row, panel_rows = task.first_panel * features + task.first, features
                if whole:
                    row, panel_rows = first_row_of_task(largest, features), task.last - task.first
                partial = cell.partial + group * call.partial_apart
                sums = address(workspace, partial + row * row_size)
                _gradient_task(
                    call,
                    cells,
                    index,
                    of_group,
                    next_task,
                    x,
                    gradients,
                    workspace,
                    sums,
                    panel_rows * row_size,
                    scratch,
                )
            before += tasks
    restore_mode(mode)


@device
def _add_numbers(count, source, target):
    """Add so many numbers, whole vectors of them, to others."""
    for k in range(0, count, width(source)):
        keep_loop()
        store(load(target + k) + load(source + k), target + k)


@kernel
def lstm_sums_of_groups(calls, cells, x, gradients, workspace, worker, workers):
    """One worker's share of the weight gradients that are sums over two groups of rows.

    Parameters
    ----------
    calls : (1,) array of CALL
    cells : (L D,) array of CELL
    x : array
        Not read: so the arguments are those of `lstm_gradients`, as `jit.compile_alike` needs them.
    gradients : array
        Flat gradients, accumulated into, or assigned.
    workspace : array
        Partial sums, those of the first group accumulated into.
    worker, workers : int
        Which share of the tasks, of how many.
    """
    mode = enter_default_mode()
    call = calls[0]
    for index in range(call.layers * call.directions):
        cell = cells[index]
        sums = address(workspace, cell.partial)
        row_size = 4 * width(sums)
        features = 1 + cell.inputs + cell.hidden
        panels = panels_of(cell, width(sums))
        first_panel = first_of_share(panels, worker, workers)
        for panel in range(first_panel, first_of_share(panels, worker + 1, workers)):
            place = sums + panel * features * row_size
            _add_numbers(features * row_size, place + call.partial_apart, place)
            unit = panel * width(sums)
            results = _results_of(cell, cell.inputs, unit, 0, features, gradients, -1)
            added = call.accumulate == 1
            _give_sums(cell, panel, 0, features, place, results, gradients, added)
    restore_mode(mode)
