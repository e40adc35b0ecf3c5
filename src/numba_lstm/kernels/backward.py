"""Back-propagation through time (Werbos 1990; Greff et al. 2017, section II.B).

A worker takes its rows of the batch (or its units: `units_back`) back through layers and steps:
gates become dgates in place, and dx follows from them. Weight gradients are summed afterwards, in
`gradients`.
"""

from __future__ import annotations

from typing import NamedTuple

from ..jit import device, inlined, kernel
from ..simd.mode import enter_default_mode, restore_mode
from ..simd.pointer import Pointer, address, fetch, fetch_to_write
from ..simd.tile import keep_loop
from ..simd.vector import load, width
from .cell import cell_backward
from .dropout import dropout
from .gemm import Place, Terms, product
from .kept import keeps_gates, kept_cell_state, kept_term, outputs_row
from .lanes import load_up_to, store_up_to
from .order import Strided, at_begin, at_end, layer_and_direction, step_at
from .panels import gate_stride, gates_of_panel, panels_of, whole_panels
from .rooms import rows_in_room
from .states import load_state, save_state
from .tiling import ROWS
from .workers import scratch_of


@inlined
def _state_gradients(call, cell, workspace, first, room):
    """Where dh and dc of the rows from one on stand, apart from those in other rooms."""
    place = first * cell.state_row + room.number * call.rooms_apart
    return address(workspace, cell.dh + place), address(workspace, cell.dc + place)


@inlined
def _doutputs(call, cell, workspace):
    """Where the gradients of a layer's outputs stand.

    Of one direction there is room for those steps only that are gone through at once.
    """
    row = outputs_row(call, cell)
    step = call.batch * row
    first = call.start if call.directions == 1 else 0
    return Strided(address(workspace, cell.doutputs) - first * step, step, row)


class StepBack(NamedTuple):
    """Where a step back finds everything, for the rows from one on, and how far on the next does.

    Nowhere else if it is beyond what a room keeps: there another worker is at work. dh and dc stay
    where they are.
    """

    gates: Pointer  # of all terms (t, row)
    term: int  # of the first row
    term_next: int
    c_before: Pointer
    c_after: Pointer
    c_next: int
    dh: Pointer
    dc: Pointer
    dy: Pointer
    dy_row: int
    dy_next: int
    has_dy: bool


@device
def places_of_step_back(call, cells, index, dy, workspace, later, first, room):
    """Find what the step of a cell takes that comes so much later than the first one back."""
    cell = cells[index]
    layer, direction = layer_and_direction(call, index)
    step = step_at(call, cell, call.stop - call.start - 1 - later)
    dh, dc = _state_gradients(call, cell, workspace, first, room)
    c_after = kept_cell_state(call, cell, workspace, step, room, first)
    onwards = 2 * cell.reverse - 1
    c_before = c_after + onwards * room.rows * cell.c_row
    if not keeps_gates(call, step + onwards):
        onwards = 0
    c_next = onwards * room.rows * cell.c_row
    outputs, has_dy = Strided(address(dy, 0), call.y_step, call.y_row), dy.size > 0
    if layer < call.layers - 1:
        outputs, has_dy = _doutputs(call, cell, workspace), True
    place = outputs.start + (step * outputs.step + first * outputs.row + direction * cell.hidden)
    return StepBack(
        address(workspace, cell.gates),
        kept_term(call, step, room, first),
        onwards * room.rows,
        c_before,
        c_after,
        c_next,
        dh,
        dc,
        place,
        outputs.row,
        onwards * outputs.step,
        has_dy,
    )


@device
def cell_step_back(cell, first_panel, last_panel, rows, place):
    """Gates to dgates for one step of the units of some panels.

    What the next step finds elsewhere is asked for: the rows of a panel are too short a way for a
    prefetcher to learn (T1000 B50 I1 H32 went back at 83 GFLOP/s, and at 107 with this).
    """
    gates, term, term_next, c_before, c_after, c_next, dh, dc, dy, dy_row, dy_next, has_dy = place
    lanes = width(gates)
    for panel in range(first_panel, last_panel):
        unit = panel * lanes
        units = cell.hidden - unit
        gate = gate_stride(cell, panel, lanes)
        first_four = gates_of_panel(cell, gates, cell.gates_panel, panel, term)
        four_next = term_next * 4 * gate
        for row in range(rows):
            four = first_four + row * 4 * gate
            state = row * cell.state_row + unit
            c = row * cell.c_row + unit
            dh_after = load(dh + state)
            for k in range(4):
                fetch_to_write(four + (four_next + k * gate))
            fetch(c_before + (c_next + c))
            if has_dy:
                source = dy + (row * dy_row + unit)
                fetch(source + dy_next)
                dh_after = dh_after + load_up_to(source, units)
            da_i, da_f, da_g, da_o, dc_before = cell_backward(
                load(four),
                load(four + gate),
                load(four + 2 * gate),
                load(four + 3 * gate),
                load(c_before + c),
                load(c_after + c),
                dh_after,
                load(dc + state),
            )
            store_up_to(da_i, four, units)
            store_up_to(da_f, four + gate, units)
            store_up_to(da_g, four + 2 * gate, units)
            store_up_to(da_o, four + 3 * gate, units)
            store_up_to(dc_before, dc + state, units)


@inlined
def dgates_terms(cell, start, next_panel, term, block, row):
    """All dgates of a cell as the terms of a product: those of whole panels, and of what is left.

    `start` is where they begin, `next_panel` from one panel to the next. The blocks of the product
    are so many terms (t, row) apart, and its rows; the first one is `term`.
    """
    whole = whole_panels(cell, width(start))
    run = 4 * width(start)
    rest = cell.gate_columns - whole * run
    values = start + term * run
    last_values = start + (whole * next_panel + term * rest)
    return (
        Terms(whole * run, run, next_panel, values, block * run, row * run),
        Terms(rest, rest, 0, last_values, block * rest, row * rest),
    )


@device
def recurrent_step_back(call, cell, packed, first_panel, last_panel, rows, place, scratch):
    """All dgates of a step to the dh, before it, of the units of some panels.

    ``dh = dgates @ weight_hh``; `first_panel` is a multiple of 4, as units of a panel of weight_hh.
    """
    lanes = width(scratch)
    first_unit = first_panel * lanes
    panel_rows = 1 + cell.gate_columns
    first, second = dgates_terms(cell, place.gates, cell.gates_panel, place.term, 0, 1)
    product(
        1,
        rows,
        first,
        second,
        address(packed, cell.recurrent_panels) + first_unit * panel_rows,
        panel_rows,
        0,
        last_panel * lanes - first_unit,
        cell.widest,
        False,
        call.cached,
        call.asked == 1,
        scratch,
        Place(place.dh + first_unit, 0, cell.state_row, 4 * lanes),
    )


@device
def begin_back(call, cells, index, dh_n, dc_n, workspace, first, rows, room):
    """Put the gradients of the states behind the sequence in their places, or leave what is there.

    In the midst of the sequence that is what the steps behind these have left.
    """
    cell = cells[index]
    if at_end(call, cell):
        dh, dc = _state_gradients(call, cell, workspace, first, room)
        load_state(dh_n, index, call, cell, first, rows, dh)
        load_state(dc_n, index, call, cell, first, rows, dc)


@device
def end_back(call, cells, index, dh0, dc0, workspace, first, rows, room):
    """Give the gradients of the states before the sequence, once its begin is reached."""
    cell = cells[index]
    if at_begin(call, cell):
        dh, dc = _state_gradients(call, cell, workspace, first, room)
        save_state(dh, cell.state_row, index, call, cell, first, rows, dh0)
        save_state(dc, cell.state_row, index, call, cell, first, rows, dc0)


@device
def _steps_back(call, cells, index, packed, dy, workspace, scratch, first, rows, room):
    """Back through one cell for some rows."""
    cell = cells[index]
    panels = panels_of(cell, width(scratch))
    for later in range(call.stop - call.start):
        place = places_of_step_back(call, cells, index, dy, workspace, later, first, room)
        cell_step_back(cell, 0, panels, rows, place)
        recurrent_step_back(call, cell, packed, 0, panels, rows, place, scratch)


@device
def product_of_dgates(call, cell, packed, direction, blocks, rows, terms, scratch, out):
    """Blocks of rows of a direction's dgates to the gradients of inputs.

    What the second direction gives is added to what stands in `out`.
    """
    first, second = terms
    gates = cell.gate_columns
    product(
        blocks,
        rows,
        first,
        second,
        address(packed, cell.input_panels),
        1 + call.directions * gates,
        direction * gates,
        cell.inputs,
        cell.widest,
        direction > 0,
        call.cached,
        call.asked == 1,
        scratch,
        out,
    )


@device
def input_gradient(
    call, cells, layer, packed, dx, workspace, scratch, begin, end, first, rows, room
):
    """Gradient of a layer's input in the steps [begin, end), from the directions at hand.

    Of the first layer it may not be wanted.
    """
    if layer == 0 and call.input_gradient == 0:
        return
    D = call.directions
    lanes = width(scratch)
    slopes = Strided(address(dx, 0), call.x_step, call.x_row)
    if layer > 0:
        slopes = _doutputs(call, cells[(layer - 1) * D], workspace)
    for start in range(begin, end, call.dx_steps):
        steps = min(call.dx_steps, end - start)
        term = kept_term(call, start, room, first)
        place = slopes.start + (start * slopes.step + first * slopes.row)
        # Tiles are cut from the rows of a step; few rows are cut from the steps of a row instead.
        blocks, block, height, row = steps, room.rows, rows, 1
        out = Place(place, slopes.step, slopes.row, 4 * lanes)
        if rows < ROWS:
            blocks, block, height, row = height, row, blocks, block
            out = Place(place, slopes.row, slopes.step, 4 * lanes)
        for direction in range(call.first_direction, call.last_direction):
            cell = cells[layer * D + direction]
            gates = address(workspace, cell.gates)
            terms = dgates_terms(cell, gates, cell.gates_panel, term, block, row)
            product_of_dgates(call, cell, packed, direction, blocks, height, terms, scratch, out)
    if layer > 0 and call.dropped > 0 and call.last_direction == D:
        for step in range(begin, end):
            outputs = slopes.start + step * slopes.step
            dropout(call, layer - 1, step, first, rows, slopes.row, outputs)


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
    call = calls[0]
    begin, end = call.start, call.stop
    scratch = scratch_of(call, workspace, worker)
    for number in range(call.rooms):
        keep_loop()
        room, first, rows = rows_in_room(call, number, worker, workers)
        if rows == 0:
            continue
        for above in range(call.last_layer - call.first_layer):
            layer = call.last_layer - 1 - above
            for direction in range(call.first_direction, call.last_direction):
                index = layer * call.directions + direction
                begin_back(call, cells, index, dh_n, dc_n, workspace, first, rows, room)
                _steps_back(call, cells, index, packed, dy, workspace, scratch, first, rows, room)
                end_back(call, cells, index, dh0, dc0, workspace, first, rows, room)
            input_gradient(
                call, cells, layer, packed, dx, workspace, scratch, begin, end, first, rows, room
            )
    restore_mode(mode)
