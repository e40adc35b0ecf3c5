"""Back-propagation through time (Werbos 1990; Greff et al. 2017, section II.B).

Two parts. In the first a worker takes its rows of the batch back through all layers and steps:
gates become dgates in place, and dx follows from them. In the second the workers share out the
weight gradients, each of which is a sum over all steps and rows. Its terms (t, row) are summed in
blocks, each from zero, and the blocks are added from the last to the first; where a block begins
depends on T, B and t alone, so the bits do not depend on the number of workers.
"""

from __future__ import annotations

from numba import prange

from ..jit import device, inlined, kernel, parallel_kernel
from ..simd.pointer import address
from ..simd.vector import broadcast, load, load_first, store, store_first, width
from .cell import cell_backward
from .dropout import dropout
from .forward import load_state, save_state, slot_after, slot_before
from .gemm import Block, Terms, outer_products, product
from .tables import BLOCK_TERMS, TASK_FEATURES
from .workers import first_row


@inlined
def _store_units(vector, place, units):
    """Store the lanes that are units, and zeros behind them.

    An infinite input times the zeros of the padding leaves NaN there, which must not reach the
    products.
    """
    if units >= width(place):
        store(vector, place)
    else:
        store(broadcast(place, 0.0), place)
        store_first(vector, place, units)


@device
def _cell_step_back(cell, gates, c_before, c_after, dh, dc, dy, dy_row, has_dy, rows):
    """Gates to dgates for one step of the rows that the pointers stand at the first of."""
    lanes = width(gates)
    for row in range(rows):
        for unit in range(0, cell.hidden, lanes):
            place = gates + (row * cell.gates_row + 4 * unit)
            state = row * cell.state_row + unit
            units = cell.hidden - unit
            dh_after = load(dh + state)
            if has_dy:
                source = dy + (row * dy_row + unit)
                dh_after = dh_after + (
                    load(source) if units >= lanes else load_first(source, units)
                )
            da_i, da_f, da_g, da_o, dc_before = cell_backward(
                load(place),
                load(place + lanes),
                load(place + 2 * lanes),
                load(place + 3 * lanes),
                load(c_before + state),
                load(c_after + state),
                dh_after,
                load(dc + state),
            )
            _store_units(da_i, place, units)
            _store_units(da_f, place + lanes, units)
            _store_units(da_g, place + 2 * lanes, units)
            _store_units(da_o, place + 3 * lanes, units)
            _store_units(dc_before, dc + state, units)


@inlined
def _gate_columns(cell, lanes):
    """Gates of a cell, padded."""
    return 4 * lanes * ((cell.hidden + lanes - 1) // lanes)


@device
def _worker_backward(call, cells, packed, dy, dh_n, dc_n, dx, dh0, dc0, workspace, worker, workers):
    T, B, D = call.steps, call.batch, call.directions
    first = first_row(B, worker, workers)
    rows = first_row(B, worker + 1, workers) - first
    scratch = address(workspace, call.scratch + worker * call.scratch_size)
    lanes = width(scratch)
    for above in range(call.layers):
        layer = call.layers - 1 - above
        source = address(dy, 0)
        dy_step, dy_row = call.y_step, call.y_row
        has_dy = dy.size > 0
        if above > 0:
            source = address(workspace, call.doutputs)
            dy_row = D * cells[layer * D].hidden
            dy_step = B * dy_row
            has_dy = True
        for direction in range(D):
            index = layer * D + direction
            cell = cells[index]
            dh = address(workspace, cell.dh)
            dc = address(workspace, cell.dc)
            load_state(dh_n, index, cell, B, first, rows, dh)
            load_state(dc_n, index, cell, B, first, rows, dc)
            state = first * cell.state_row
            c = address(workspace, cell.c + state)
            slot = B * cell.state_row
            gates = address(workspace, cell.gates + first * cell.gates_row)
            none = Terms(0, gates, 0)
            for future in range(T):
                step = future if cell.reverse == 1 else T - 1 - future
                step_gates = gates + step * B * cell.gates_row
                _cell_step_back(
                    cell,
                    step_gates,
                    c + slot_before(cell, step, T + 1) * slot,
                    c + slot_after(cell, step, T + 1) * slot,
                    dh + state,
                    dc + state,
                    source + (step * dy_step + first * dy_row + direction * cell.hidden),
                    dy_row,
                    has_dy,
                    rows,
                )
                product(
                    rows,
                    Terms(_gate_columns(cell, lanes), step_gates, cell.gates_row),
                    none,
                    address(packed, cell.recurrent_panels),
                    (cell.hidden + lanes - 1) // lanes * lanes,
                    scratch,
                    dh + state,
                    cell.state_row,
                )
            save_state(dh, index, cell, B, first, rows, dh0)
            save_state(dc, index, cell, B, first, rows, dc0)

        cell = cells[layer * D]
        target = address(workspace, call.doutputs)
        dx_row = cell.inputs
        dx_step = B * dx_row
        if layer == 0:
            if call.input_gradient == 0:
                continue
            target = address(dx, 0)
            dx_step, dx_row = call.x_step, call.x_row
        # Terms of the second direction; none in a one-directional model.
        other = cells[layer * D + D - 1]
        other_terms = (D - 1) * _gate_columns(other, lanes)
        for step in range(T):
            gates = address(workspace, cell.gates + (step * B + first) * cell.gates_row)
            other_gates = address(workspace, other.gates + (step * B + first) * other.gates_row)
            product(
                rows,
                Terms(_gate_columns(cell, lanes), gates, cell.gates_row),
                Terms(other_terms, other_gates, other.gates_row),
                address(packed, cell.input_panels),
                cell.inputs,
                scratch,
                target + (step * dx_step + first * dx_row),
                dx_row,
            )
            if layer > 0 and call.dropped > 0:
                place = target + step * dx_step
                dropout(call, layer - 1, step, first, rows, cell.inputs, place, dx_row)


@inlined
def _features_between(first, last, segment_first, segment_last):
    """Start within a segment of features, and number, of those that lie in [first, last)."""
    start = max(first, segment_first)
    return start - segment_first, max(0, min(last, segment_last) - start)


@device
def _gradient_task(call, cells, index, unit, first, last, x, gradients, workspace, partial):
    """Gradients of W units with respect to the features [first, last) of (bias, x, h)."""
    T, B = call.steps, call.batch
    cell = cells[index]
    I, H = cell.inputs, cell.hidden
    lanes = width(partial)
    layer = index // call.directions
    source = address(x, 0)
    x_step, x_row = call.x_step, call.x_row
    if layer > 0:
        source = address(workspace, cells[index - call.directions].outputs)
        x_row = I
        x_step = B * I
    _bias, biases = _features_between(first, last, 0, 1)
    x_first, inputs = _features_between(first, last, 1, 1 + I)
    h_first, hiddens = _features_between(first, last, 1 + I, 1 + I + H)
    h_before = address(workspace, cell.h + slot_before(cell, 0, T + 1) * B * cell.state_row)

    one = partial + (last - first) * 4 * lanes
    one[0] = 1.0
    for k in range((last - first) * 4 * lanes):
        partial[k] = 0.0
    block_rows = max(1, min(B, BLOCK_TERMS))
    block_steps = BLOCK_TERMS // block_rows
    for later in range((T + block_steps - 1) // block_steps):
        step = ((T - 1) // block_steps - later) * block_steps
        steps = min(block_steps, T - step)
        for row in range(0, B, block_rows):
            rows = min(block_rows, B - row)
            place = (step * B + row) * cell.gates_row + 4 * unit
            dgates = address(workspace, cell.gates + place)
            gates_row = cell.gates_row
            gates_step = B * gates_row
            block = Block(steps, rows, 0, 0, gates_step, gates_row)
            outer_products(biases, block, one, 0, dgates, partial)
            block = Block(steps, rows, x_step, x_row, gates_step, gates_row)
            values = source + (step * x_step + row * x_row + x_first)
            outer_products(inputs, block, values, 1, dgates, partial + biases * 4 * lanes)
            state_row = cell.state_row
            block = Block(steps, rows, B * state_row, state_row, gates_step, gates_row)
            values = h_before + ((step * B + row) * state_row + h_first)
            target = partial + (biases + inputs) * 4 * lanes
            outer_products(hiddens, block, values, 1, dgates, target)

    for gate in range(4):
        for lane in range(min(lanes, H - unit)):
            row = gate * H + unit + lane
            column = partial + (gate * lanes + lane)
            if biases == 1 and cell.bias >= 0:
                gradients[cell.bias + row] += column[0]
            column = column + biases * 4 * lanes
            for k in range(inputs):
                gradients[cell.weight_ih + row * I + x_first + k] += column[k * 4 * lanes]
            column = column + inputs * 4 * lanes
            for k in range(hiddens):
                gradients[cell.weight_hh + row * H + h_first + k] += column[k * 4 * lanes]


@device
def _worker_gradients(call, cells, x, gradients, workspace, worker, workers):
    partial = address(workspace, call.scratch + worker * call.scratch_size)
    lanes = width(partial)
    task = 0
    for index in range(cells.size):
        features = 1 + cells[index].inputs + cells[index].hidden
        for unit in range(0, cells[index].hidden, lanes):
            for first in range(0, features, TASK_FEATURES):
                if task % workers == worker:
                    last = min(features, first + TASK_FEATURES)
                    _gradient_task(
                        call, cells, index, unit, first, last, x, gradients, workspace, partial
                    )
                task += 1


@kernel
def lstm_backward(calls, cells, packed, dy, dh_n, dc_n, dx, dh0, dc0, workspace, worker, workers):
    """One worker's rows back through the LSTM.

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
        c is read; gates become dgates; dh, dc and doutputs are assigned.
    worker, workers : int
        Which share of the rows, of how many.
    """
    _worker_backward(
        calls[0], cells, packed, dy, dh_n, dc_n, dx, dh0, dc0, workspace, worker, workers
    )


@kernel
def lstm_gradients(calls, cells, x, gradients, workspace, worker, workers):
    """One worker's share of the weight gradients, after every worker's `lstm_backward`.

    Parameters
    ----------
    calls : (1,) array of CALL
    cells : (L D,) array of CELL
    x : array
        Input of the forward pass, read.
    gradients : array
        Flat gradients, laid out like the parameters; accumulated into.
    workspace : array
        dgates, h and outputs are read; the worker's scratch is assigned.
    worker, workers : int
        Which share of the tasks, of how many.
    """
    _worker_gradients(calls[0], cells, x, gradients, workspace, worker, workers)


@parallel_kernel
def lstm_backward_parallel(calls, cells, packed, dy, dh_n, dc_n, dx, dh0, dc0, workspace, workers):
    """All workers' rows at once; see `lstm_backward`."""
    for worker in prange(workers):
        share = int(worker)
        _worker_backward(
            calls[0], cells, packed, dy, dh_n, dc_n, dx, dh0, dc0, workspace, share, workers
        )


@parallel_kernel
def lstm_gradients_parallel(calls, cells, x, gradients, workspace, workers):
    """All workers' shares at once; see `lstm_gradients`."""
    for worker in prange(workers):
        _worker_gradients(calls[0], cells, x, gradients, workspace, int(worker), workers)
