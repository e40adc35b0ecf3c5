"""The sequence loop: a worker takes its rows of the batch through all layers and steps.

Rows of the batch are independent, so workers never wait for one another. The states of every step
(training) or of the last two (inference) stand in slots: forward in time, step t reads slot t and
writes slot t + 1; backward in time it reads t + 1 and writes t.
"""

from __future__ import annotations

from numba import prange

from ..jit import device, inlined, kernel, parallel_kernel
from ..simd.pointer import address
from ..simd.tile import keep_loop, tile_repeat
from ..simd.vector import load, store, store_first, width
from .cell import cell_forward
from .dropout import dropout
from .gemm import ROWS, Terms, next_rows, product_rows
from .workers import first_row


@inlined
def slot_before(cell, step, slots):
    """Slot of a state before a step."""
    return (step + cell.reverse) % slots


@inlined
def slot_after(cell, step, slots):
    """Slot of a state after a step."""
    return (step + 1 - cell.reverse) % slots


@inlined
def load_state(states, index, cell, batch, first, rows, target):
    """Copy rows of a user's (L D, B, H) state, or zeros where it is empty, and pad with zeros."""
    for row in range(first, first + rows):
        place = target + row * cell.state_row
        for unit in range(cell.state_row):
            place[unit] = 0.0
        if states.size > 0:
            for unit in range(cell.hidden):
                place[unit] = states[(index * batch + row) * cell.hidden + unit]


@inlined
def save_state(source, index, cell, batch, first, rows, states):
    """Copy rows of a state into a user's (L D, B, H) array."""
    for row in range(first, first + rows):
        place = source + row * cell.state_row
        for unit in range(cell.hidden):
            states[(index * batch + row) * cell.hidden + unit] = place[unit]


@inlined
def _activate(rows, gates, gates_row, c_before, c_after, h_after, state_row, y, y_row, units):
    """Gates and states of W units of a few rows; the pre-activations are still in L1.

    One loop for tiles of every height: unrolled in registers it is no faster, and compiles three
    times as long.
    """
    lanes = width(gates)
    for row in range(rows):
        keep_loop()
        place = gates + row * gates_row
        state = row * state_row
        i, f, g, o, c, h = cell_forward(
            load(place),
            load(place + lanes),
            load(place + 2 * lanes),
            load(place + 3 * lanes),
            load(c_before + state),
        )
        store(i, place)
        store(f, place + lanes)
        store(g, place + 2 * lanes)
        store(o, place + 3 * lanes)
        store(c, c_after + state)
        store(h, h_after + state)
        if units >= lanes:
            store(h, y + row * y_row)
        else:
            store_first(h, y + row * y_row, units)


@device
def _cell_step(
    cell,
    gates,
    gates_row,
    gates_stay,
    panel,
    x,
    x_row,
    h_before,
    h_after,
    c_before,
    c_after,
    y,
    y_row,
    rows,
):
    """One step of one cell for the rows that the pointers stand at the first of."""
    lanes = width(gates)
    I, H = cell.inputs, cell.hidden
    state_row = cell.state_row
    for unit in range(0, H, lanes):
        row = 0
        while row < rows:
            keep_loop()
            height = next_rows(rows - row, ROWS)
            place = gates + (row * gates_row + unit * 4) * gates_stay
            product_rows(
                tile_repeat(ROWS, 4, panel),
                height,
                Terms(I, x + row * x_row, x_row),
                Terms(H, h_before + row * state_row, state_row),
                panel + 4 * lanes,
                place,
                gates_row,
            )
            state = row * state_row + unit
            _activate(
                height,
                place,
                gates_row,
                c_before + state,
                c_after + state,
                h_after + state,
                state_row,
                y + (row * y_row + unit),
                y_row,
                H - unit,
            )
            row += height
        panel = panel + (1 + I + H) * 4 * lanes


@device
def _worker_forward(call, cells, packed, x, h0, c0, y, h_n, c_n, workspace, worker, workers):
    T, B = call.steps, call.batch
    first = first_row(B, worker, workers)
    rows = first_row(B, worker + 1, workers) - first
    scratch = address(workspace, call.scratch + worker * call.scratch_size)
    lanes = width(scratch)
    for layer in range(call.layers):
        source = address(x, 0)
        x_step, x_row = call.x_step, call.x_row
        if layer > 0:
            below = cells[(layer - 1) * call.directions]
            source = address(workspace, below.outputs)
            x_row = call.directions * below.hidden
            x_step = B * x_row
        for direction in range(call.directions):
            index = layer * call.directions + direction
            cell = cells[index]
            target = address(y, 0)
            y_step, y_row = call.y_step, call.y_row
            if layer < call.layers - 1:
                target = address(workspace, cell.outputs)
                y_row = call.directions * cell.hidden
                y_step = B * y_row
            target = target + direction * cell.hidden
            panel = address(packed, cell.panels)
            h = address(workspace, cell.h)
            c = address(workspace, cell.c)
            slot = B * cell.state_row
            # Inference keeps no gates: every tile passes through the same scratch.
            gates, gates_row, gates_step = scratch, 4 * lanes, 0
            if call.training == 1:
                gates_row = cell.gates_row
                gates_step = B * gates_row
                gates = address(workspace, cell.gates + first * gates_row)

            start = T * cell.reverse
            load_state(h0, index, cell, B, first, rows, h + (start % call.h_slots) * slot)
            load_state(c0, index, cell, B, first, rows, c + (start % call.c_slots) * slot)
            state = first * cell.state_row
            for past in range(T):
                step = T - 1 - past if cell.reverse == 1 else past
                _cell_step(
                    cell,
                    gates + step * gates_step,
                    gates_row,
                    call.training,
                    panel,
                    source + (step * x_step + first * x_row),
                    x_row,
                    h + (slot_before(cell, step, call.h_slots) * slot + state),
                    h + (slot_after(cell, step, call.h_slots) * slot + state),
                    c + (slot_before(cell, step, call.c_slots) * slot + state),
                    c + (slot_after(cell, step, call.c_slots) * slot + state),
                    target + (step * y_step + first * y_row),
                    y_row,
                    rows,
                )
            end = T - start
            save_state(h + (end % call.h_slots) * slot, index, cell, B, first, rows, h_n)
            save_state(c + (end % call.c_slots) * slot, index, cell, B, first, rows, c_n)
        if layer < call.layers - 1 and call.dropped > 0:
            cell = cells[layer * call.directions]
            units = call.directions * cell.hidden
            outputs = address(workspace, cell.outputs)
            for step in range(T):
                place = outputs + step * B * units
                dropout(call, layer, step, first, rows, units, place, units)


@kernel
def lstm_forward(calls, cells, packed, x, h0, c0, y, h_n, c_n, workspace, worker, workers):
    """One worker's rows of the LSTM (Greff et al. 2017, section II.A).

    Parameters
    ----------
    calls : (1,) array of CALL
    cells : (L D,) array of CELL
    packed : array
        Panels, read.
    x : array
        Input at ``t * x_step + b * x_row``, read.
    h0, c0 : array
        (L D, B, H) states before, or empty for zeros; read.
    y : array
        Output at ``t * y_step + b * y_row``, assigned.
    h_n, c_n : array
        (L D, B, H) states after, assigned; may be h0 and c0.
    workspace : array
        h, c, outputs and, for training, gates are assigned.
    worker, workers : int
        Which share of the rows, of how many.
    """
    _worker_forward(calls[0], cells, packed, x, h0, c0, y, h_n, c_n, workspace, worker, workers)


@parallel_kernel
def lstm_forward_parallel(calls, cells, packed, x, h0, c0, y, h_n, c_n, workspace, workers):
    """All workers' rows at once; see `lstm_forward`."""
    for worker in prange(workers):
        share = int(worker)
        _worker_forward(calls[0], cells, packed, x, h0, c0, y, h_n, c_n, workspace, share, workers)
