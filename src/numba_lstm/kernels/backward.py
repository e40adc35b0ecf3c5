"""Back-propagation through time (Werbos 1990; Greff et al. 2017, section II.B).

Two parts. In the first a worker takes its rows of the batch back through layers and steps: gates
become dgates in place, and dx follows from them. In the second the workers share out the weight
gradients, each of which is a sum over all steps and rows. Its terms (t, row) are summed in blocks,
each from zero, and the blocks are added up in the order in which the first part comes by; where a
block begins depends on T, B and t alone, so the bits do not depend on the number of workers, nor on
the pieces in which the sequence is gone through.
"""

from __future__ import annotations

from numba import prange

from ..jit import device, inlined, kernel, parallel_kernel, spliced
from ..simd.mode import enter_default_mode, restore_mode
from ..simd.pointer import address, prefetch
from ..simd.tile import keep_loop
from ..simd.vector import broadcast, load, load_first, store, store_first, width
from .cell import cell_backward
from .dropout import dropout
from .forward import (
    kept_cell_state,
    kept_gates,
    kept_hidden,
    load_state,
    outputs_row,
    panels_of,
    save_state,
    source_of_layer,
    step_at,
)
from .gemm import ROWS, Block, Place, Terms, no_terms, outer_products, product
from .panels import gate_stride
from .tables import BLOCK_TERMS, FLOATS_OF_LINE, TASK_FEATURES
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
    for panel in range(panels_of(cell, lanes)):
        unit = panel * lanes
        units = cell.hidden - unit
        gate = gate_stride(cell, panel, lanes)
        for row in range(rows):
            place = gates + (panel * cell.gates_panel + row * 4 * lanes)
            state = row * cell.state_row + unit
            dh_after = load(dh + state)
            if has_dy:
                source = dy + (row * dy_row + unit)
                dh_after = dh_after + (
                    load(source) if units >= lanes else load_first(source, units)
                )
            da_i, da_f, da_g, da_o, dc_before = cell_backward(
                load(place),
                load(place + gate),
                load(place + 2 * gate),
                load(place + 3 * gate),
                load(c_before + state),
                load(c_after + state),
                dh_after,
                load(dc + state),
            )
            _store_units(da_i, place, units)
            _store_units(da_f, place + gate, units)
            _store_units(da_g, place + 2 * gate, units)
            _store_units(da_o, place + 3 * gate, units)
            _store_units(dc_before, dc + state, units)


@inlined
def _dgates_terms(cell, gates, block, row):
    """All dgates of a cell as the terms of a product."""
    return Terms(cell.gate_columns, 4 * width(gates), cell.gates_panel, gates, block, row)


@device
def _steps_back(call, cells, index, packed, dy, dh_n, dc_n, dh0, dc0, workspace, scratch, rows):
    """Back through one cell for the rows [rows[0], rows[1])."""
    cell = cells[index]
    B, D = call.batch, call.directions
    layer = index // D
    direction = index - layer * D
    first, count = rows
    lanes = width(scratch)
    state_row = cell.state_row
    dh = address(workspace, cell.dh + first * state_row)
    dc = address(workspace, cell.dc + first * state_row)
    if step_at(call, cell, call.stop - call.start - 1) == (1 - cell.reverse) * (call.steps - 1):
        load_state(dh_n, index, call, cell, first, count, dh)
        load_state(dc_n, index, call, cell, first, count, dc)
    source, dy_step, dy_row, has_dy = address(dy, 0), call.y_step, call.y_row, dy.size > 0
    if layer < call.layers - 1:
        dy_row = outputs_row(call, cell)
        dy_step = B * dy_row
        source = address(workspace, cell.doutputs) + -call.held * dy_step
        has_dy = True
    source = source + (first * dy_row + direction * cell.hidden)
    slot = B * state_row
    for later in range(call.stop - call.start):
        step = step_at(call, cell, call.stop - call.start - 1 - later)
        gates = kept_gates(call, cell, workspace, step) + first * 4 * lanes
        c_after = kept_cell_state(call, cell, workspace, step) + first * state_row
        _cell_step_back(
            cell,
            gates,
            c_after + (2 * cell.reverse - 1) * slot,
            c_after,
            dh,
            dc,
            source + step * dy_step,
            dy_row,
            has_dy,
            count,
        )
        product(
            1,
            count,
            _dgates_terms(cell, gates, 0, 4 * lanes),
            no_terms(gates),
            address(packed, cell.recurrent_panels),
            1 + cell.gate_columns,
            0,
            panels_of(cell, lanes) * lanes,
            False,
            scratch,
            Place(dh, 0, state_row, 4 * lanes),
        )
    if step_at(call, cell, 0) == cell.reverse * (call.steps - 1):
        save_state(dh, state_row, index, call, cell, first, count, dh0)
        save_state(dc, state_row, index, call, cell, first, count, dc0)


@device
def _input_gradient(call, cells, layer, packed, dx, workspace, scratch, first, rows):
    """Gradient with respect to a layer's input, from the dgates of the directions at hand."""
    D, B = call.directions, call.batch
    lanes = width(scratch)
    cell = cells[layer * D + call.first_direction]
    # The second direction, where both are at hand.
    other_cell = cells[layer * D + call.last_direction - 1]
    both = call.last_direction - call.first_direction == 2
    target, dx_step, dx_row = address(dx, 0), call.x_step, call.x_row
    if layer > 0:
        dx_row = cell.inputs
        dx_step = B * dx_row
        target = address(workspace, cells[(layer - 1) * D].doutputs) + -call.held * dx_step
    gates = cell.gate_columns
    for start in range(call.start, call.stop, call.dx_steps):
        steps = min(call.dx_steps, call.stop - start)
        one = kept_gates(call, cell, workspace, start) + first * 4 * lanes
        other = kept_gates(call, other_cell, workspace, start) + first * 4 * lanes
        place = target + (start * dx_step + first * dx_row)
        # Tiles are cut from the rows of a step; few rows are cut from the steps of a row instead.
        blocks, block, height, row = steps, B * 4 * lanes, rows, 4 * lanes
        out = Place(place, dx_step, dx_row, 4 * lanes)
        if rows < ROWS:
            blocks, block, height, row = height, row, blocks, block
            out = Place(place, dx_row, dx_step, 4 * lanes)
        second = _dgates_terms(other_cell, other, block, row)
        if not both:
            second = no_terms(other)
        product(
            blocks,
            height,
            _dgates_terms(cell, one, block, row),
            second,
            address(packed, cell.input_panels),
            1 + D * gates,
            call.first_direction * gates,
            cell.inputs,
            call.first_direction > 0,
            scratch,
            out,
        )
    if layer > 0 and call.dropped > 0 and call.last_direction == D:
        for step in range(call.start, call.stop):
            dropout(
                call, layer - 1, step, first, rows, cell.inputs, target + step * dx_step, dx_row
            )


@spliced
def _worker_backward(call, cells, packed, dy, dh_n, dc_n, dx, dh0, dc0, workspace, worker, workers):
    first = first_row(call.batch, worker, workers)
    rows = first_row(call.batch, worker + 1, workers) - first
    scratch = address(workspace, call.scratch + worker * call.scratch_size)
    for above in range(call.last_layer - call.first_layer):
        layer = call.last_layer - 1 - above
        for direction in range(call.first_direction, call.last_direction):
            index = layer * call.directions + direction
            _steps_back(
                call,
                cells,
                index,
                packed,
                dy,
                dh_n,
                dc_n,
                dh0,
                dc0,
                workspace,
                scratch,
                (first, rows),
            )
        if layer > 0 or call.input_gradient == 1:
            _input_gradient(call, cells, layer, packed, dx, workspace, scratch, first, rows)


@inlined
def _features_between(first, last, segment_first, segment_last):
    """Start within a segment of features, and number, of those that lie in [first, last)."""
    start = max(first, segment_first)
    return start - segment_first, max(0, min(last, segment_last) - start)


@device
def _prefetch_values(block, values, features):
    """Ask for some features of the terms of a block.

    Rows lie pages apart, where no prefetcher of the CPU follows. Copying them side by side instead
    was slower: 82 for 97 GFLOP/s at T200 B32 I640 H320, 89 for 97 at T35 B20 I650 H650.
    """
    lines = features // FLOATS_OF_LINE + 1
    for step in range(block.steps):
        for row in range(block.rows):
            place = values + (step * block.value_step + row * block.value_row)
            for line in range(lines):
                keep_loop()
                prefetch(place + line * FLOATS_OF_LINE)


@device
def _add_column(column, stride, count, target):
    """Add every so-many-th number to those side by side."""
    for k in range(count):
        keep_loop()
        target[k] = target[k] + column[k * stride]


@device
def _gradient_task(call, cells, index, panel, first, last, x, gradients, workspace, scratch):
    """Gradients of W units with respect to the features [first, last) of (bias, x, h)."""
    T, B, D = call.steps, call.batch, call.directions
    cell = cells[index]
    I, H = cell.inputs, cell.hidden
    layer = index // D
    direction = index - layer * D
    lanes = width(scratch)
    row_size = 4 * lanes
    source = source_of_layer(call, cells, layer, x, workspace)
    _bias, biases = _features_between(first, last, 0, 1)
    x_first, inputs = _features_between(first, last, 1, 1 + I)
    h_first, hiddens = _features_between(first, last, 1 + I, 1 + I + H)
    h_row = outputs_row(call, cell)
    onwards = 1 - 2 * cell.reverse
    partial = address(workspace, cell.partial) + (panel * (1 + I + H) + first) * row_size

    one = scratch
    one[0] = 1.0
    final = step_at(call, cell, call.stop - call.start - 1)
    if final == (1 - cell.reverse) * (T - 1):
        for k in range((last - first) * row_size):
            partial[k] = 0.0
    block_rows = max(1, min(B, BLOCK_TERMS))
    block_steps = BLOCK_TERMS // block_rows
    blocks = (call.stop - call.start + block_steps - 1) // block_steps
    for later in range(blocks):
        number = later if cell.reverse == 1 else blocks - 1 - later
        step = call.start + number * block_steps
        steps = min(block_steps, call.stop - step)
        # Where the following block stands from this one; none follows the last.
        next_step = 0 if later == blocks - 1 else -onwards * block_steps
        for row in range(0, B, block_rows):
            rows = min(block_rows, B - row)
            dgates = kept_gates(call, cell, workspace, step)
            dgates = dgates + (panel * cell.gates_panel + row * row_size)
            dgates_step = B * row_size
            block = Block(steps, rows, 0, 0, dgates_step, row_size)
            outer_products(biases, block, one, 0, dgates, partial)
            block = Block(steps, rows, source.step, source.row, dgates_step, row_size)
            values = source.start + (step * source.step + row * source.row + x_first)
            _prefetch_values(block, values + next_step * source.step, inputs)
            outer_products(inputs, block, values, 1, dgates, partial + biases * row_size)
            block = Block(steps, rows, B * h_row, h_row, dgates_step, row_size)
            values = kept_hidden(call, cell, direction, workspace, step - onwards)
            values = values + (row * h_row + h_first)
            _prefetch_values(block, values + next_step * B * h_row, hiddens)
            target = partial + (biases + inputs) * row_size
            outer_products(hiddens, block, values, 1, dgates, target)

    if step_at(call, cell, 0) != cell.reverse * (T - 1):
        return
    unit = panel * lanes
    for gate in range(4):
        for lane in range(min(lanes, H - unit)):
            row = gate * H + unit + lane
            column = partial + (gate * gate_stride(cell, panel, lanes) + lane)
            if biases == 1 and cell.bias >= 0:
                gradients[cell.bias + row] += column[0]
            column = column + biases * row_size
            target = address(gradients, cell.weight_ih + row * I + x_first)
            _add_column(column, row_size, inputs, target)
            column = column + inputs * row_size
            target = address(gradients, cell.weight_hh + row * H + h_first)
            _add_column(column, row_size, hiddens, target)


@spliced
def _worker_gradients(call, cells, x, gradients, workspace, worker, workers):
    scratch = address(workspace, call.scratch + worker * call.scratch_size)
    lanes = width(scratch)
    D = call.directions
    task = 0
    for layer in range(call.first_layer, call.last_layer):
        for direction in range(call.first_direction, call.last_direction):
            index = layer * D + direction
            features = 1 + cells[index].inputs + cells[index].hidden
            for panel in range(panels_of(cells[index], lanes)):
                for first in range(0, features, TASK_FEATURES):
                    if task % workers == worker:
                        last = min(features, first + TASK_FEATURES)
                        _gradient_task(
                            call, cells, index, panel, first, last, x, gradients, workspace, scratch
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
    mode = enter_default_mode()
    _worker_backward(
        calls[0], cells, packed, dy, dh_n, dc_n, dx, dh0, dc0, workspace, worker, workers
    )
    restore_mode(mode)


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
        dgates and outputs are read; partial sums are assigned.
    worker, workers : int
        Which share of the tasks, of how many.
    """
    mode = enter_default_mode()
    _worker_gradients(calls[0], cells, x, gradients, workspace, worker, workers)
    restore_mode(mode)


@parallel_kernel
def lstm_backward_parallel(calls, cells, packed, dy, dh_n, dc_n, dx, dh0, dc0, workspace, workers):
    """All workers' rows at once; see `lstm_backward`."""
    for worker in prange(workers):
        mode = enter_default_mode()
        share = int(worker)
        _worker_backward(
            calls[0], cells, packed, dy, dh_n, dc_n, dx, dh0, dc0, workspace, share, workers
        )
        restore_mode(mode)


@parallel_kernel
def lstm_gradients_parallel(calls, cells, x, gradients, workspace, workers):
    """All workers' shares at once; see `lstm_gradients`."""
    for worker in prange(workers):
        mode = enter_default_mode()
        _worker_gradients(calls[0], cells, x, gradients, workspace, int(worker), workers)
        restore_mode(mode)
