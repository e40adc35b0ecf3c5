"""From the dgates of tokens to the gradients of a table, and of the weights that take its rows."""

from __future__ import annotations

from ..jit import device, kernel
from ..simd.mode import enter_default_mode, restore_mode
from ..simd.pointer import address, as_integers
from ..simd.vector import width
from .backward import dgates_terms, product_of_dgates
from .gemm import Place
from .gradient_tasks import Task, first_row_of_task, task_of_number, tasks_of_gradients
from .gradients import Block, NextBlock, copy_features, outer_sums_of_block
from .outer_products import nothing_ahead
from .panels import panels_of
from .tables import BLOCK_TERMS, ROOM_FOR_TERMS
from .term_numbers import number_in_a_row
from .workers import first_of_share, scratch_of


@device
def _weights_task(call, cell, task, x, gradients, workspace, scratch):
    """Gradients of some units with respect to some inputs, over the tokens in blocks."""
    I, V = cell.inputs, call.vocabulary
    row_size = 4 * width(scratch)
    count = task.last - task.first
    numbers, features = as_integers(scratch), scratch + ROOM_FOR_TERMS
    sums = address(workspace, cell.partial + first_row_of_task(task, 1 + I) * row_size)
    for token in range(0, V, BLOCK_TERMS):
        rows = min(BLOCK_TERMS, V - token)
        values = address(x, token * I)
        number_in_a_row(token, rows, numbers)
        copy_features(task.first, task.last, I, 0, values, I, values, 0, rows, features)
        outer_sums_of_block(
            cell,
            I,
            task,
            Block(
                rows,
                numbers,
                address(workspace, cell.token_sums),
                call.vocabulary_panel,
                token == 0,
                token + rows == V,
            ),
            features,
            gradients,
            call.accumulate == 1,
            sums,
            count * row_size,
            NextBlock(task.first_panel, BLOCK_TERMS, nothing_ahead(features)),
        )


@kernel
def lstm_vocabulary_back(calls, cells, packed, x, dx, gradients, workspace, worker, workers):
    """One worker's share of what follows from the sums of dgates by tokens, which are complete.

    Parameters
    ----------
    calls : (1,) array of CALL
    cells : (L D,) array of CELL
    packed : array
        Input panels, read.
    x : array
        (vocabulary, inputs) flat, read.
    dx : array
        Gradient of x, assigned; empty if it is not wanted.
    gradients : array
        Flat gradients, laid out like the parameters; input weights are accumulated into, or
        assigned.
    workspace : array
        Sums by tokens are read; partial sums are assigned.
    worker, workers : int
        Which share, of how many.
    """
    mode = enter_default_mode()
    call = calls[0]
    scratch = scratch_of(call, workspace, worker)
    lanes = width(scratch)
    D, V = call.directions, call.vocabulary
    I = cells[0].inputs
    first = first_of_share(V, worker, workers)
    rows = first_of_share(V, worker + 1, workers) - first
    if rows > 0 and dx.size > 0:
        out = Place(address(dx, first * I), 0, I, 4 * lanes)
        for direction in range(D):
            cell = cells[direction]
            sums = address(workspace, cell.token_sums)
            terms = dgates_terms(cell, sums, call.vocabulary_panel, first, 0, 1)
            product_of_dgates(call, cell, packed, direction, 1, rows, terms, scratch, out)
    before = 0
    for direction in range(D):
        cell = cells[direction]
        panels = panels_of(cell, lanes)
        panel_tasks, input_tasks = tasks_of_gradients(panels, I, workers)
        tasks = panel_tasks * input_tasks
        for number in range((worker - before) % workers, tasks, workers):
            task = task_of_number(panels, panel_tasks, I, input_tasks, number)
            # The first feature is the 1 that takes the biases.
            task = Task(task.first_panel, task.last_panel, 1 + task.first, 1 + task.last)
            _weights_task(call, cell, task, x, gradients, workspace, scratch)
        before += tasks
    restore_mode(mode)
