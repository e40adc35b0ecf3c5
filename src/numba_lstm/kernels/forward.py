"""The sequence loop: from inputs to outputs, layer by layer and step by step.

Rows of the batch are independent, so workers that share them out never wait for one another.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..jit import device, inlined, kernel, spliced
from ..simd.mode import enter_default_mode, restore_mode
from ..simd.pointer import Pointer, address, fetch_to_write
from ..simd.tile import keep_loop
from ..simd.vector import load, store, width
from .cell import cell_gates, cell_output
from .dropout import dropout
from .gemm import Place, Terms, Upcoming, rows_of, tile_product
from .kept import keeps_gates, kept_cell_state, kept_hidden, kept_term, outputs_row
from .lanes import copy_columns, store_up_to
from .order import Strided, layer_and_direction, outputs_below, source_of_layer, step_at
from .panels import (
    gate_stride,
    gates_of_panel,
    narrow_rows,
    panels_of,
    parts_of_panel,
    row_of_panel,
    vectors_of_panel,
    whole_panels,
)
from .projection import GateRows, project
from .rooms import Room, rows_in_room
from .states import are_zeros, begin_states, end_states
from .tiling import (
    NARROW,
    WIDE,
    asking_tiles,
    height_of,
    panels_for_rows_compiled,
    stretch_of,
    stretches_for_terms_compiled,
    tiles_for_rows_compiled,
    tiling,
)
from .vocabulary import is_looked_up, look_up_inputs
from .workers import note_way, scratch_of, way_of


class Walk(NamedTuple):
    """Where a step of a cell finds everything, for some rows, and how far on the next step does."""

    x: Pointer
    x_row: int
    x_step: int
    h_before: Pointer
    h_after: Pointer
    h_row: int
    h_step: int  # 0 where two places take turns
    c_before: Pointer
    c_after: Pointer
    c_row: int
    c_step: int
    state_units: int  # that h and c have room for: H, or more where rows are padded
    y: Pointer
    y_row: int
    y_step: int
    gates: Pointer  # of all terms (t, row) that there is room for, if they are kept
    term: int  # of the first row
    term_step: int
    way: int  # through the panels: 1 if from the end
    scratch: Pointer


class Surroundings(NamedTuple):
    """What a worker walks among."""

    source: Strided
    y: Any
    workspace: Any
    scratch: Pointer
    first: int  # of its rows
    room: Room  # in which their states and gates stand
    way: int  # that it goes through the panels in the first step


@device
def walk_from(call, cells, index, past, surroundings):
    """Begin to walk `past` steps into those at hand, with some rows."""
    source, y, workspace, scratch, first, room, way = surroundings
    B = call.batch
    room_rows = call.room_rows
    cell = cells[index]
    H = cell.hidden
    layer, direction = layer_and_direction(call, index)
    step = step_at(call, cell, past)
    onwards = 1 - 2 * cell.reverse
    apart = room.number * call.rooms_apart if call.training == 0 else 0
    row = outputs_row(call, cell)

    h_row, h_step, state_units = cell.state_row, 0, cell.state_row
    h, slot = address(workspace, cell.h + apart), room_rows * h_row
    h_before, h_after = h + past % 2 * slot, h + (past + 1) % 2 * slot
    c_before = address(workspace, cell.c + apart)
    c_after, c_step = c_before, 0
    if call.training == 1:
        h_row, h_step, state_units = row, onwards * B * row, H
        h_after = kept_hidden(call, cell, direction, workspace, step) + first * row
        h_before = h_after - h_step
        c_step = onwards * room.rows * cell.c_row
        c_after = kept_cell_state(call, cell, workspace, step, room, first)
        c_before = c_after - c_step

    if layer == call.layers - 1:
        target = address(y, 0) + (step * call.y_step + first * call.y_row + direction * H)
        y_row, y_step = call.y_row, onwards * call.y_step
    else:
        # What the layer above reads, which with dropout is a copy of the hidden states.
        above = outputs_below(call, cells, layer + 1, workspace)
        target = above.start + (step * above.step + first * above.row + direction * H)
        y_row, y_step = above.row, onwards * above.step
    if call.recomputed == 1 and (layer == call.layers - 1 or call.directions == 2):
        # It is there already, and the user may have changed y since: h is written twice.
        target, y_row, y_step = h_after, row, h_step

    term, term_step = 0, 0
    if call.training == 1:
        term, term_step = kept_term(call, step, room, first), onwards * room.rows
    elif call.ahead > 0:
        term, term_step = past % call.ahead * room_rows, room_rows
    return Walk(
        source.start + (step * source.step + first * source.row),
        source.row,
        onwards * source.step,
        h_before,
        h_after,
        h_row,
        h_step,
        c_before,
        c_after,
        cell.c_row,
        c_step,
        state_units,
        target,
        y_row,
        y_step,
        address(workspace, cell.gates + apart),
        term,
        term_step,
        (way + past) % 2,
        scratch,
    )


class Along(NamedTuple):
    """Vectors of several rows or panels: the first, how far apart they are, and the next step's."""

    start: Pointer
    next: int
    onwards: int


@inlined
def _at(along, k):
    """One of the vectors."""
    return along.start + k * along.next


@inlined
def _activate(
    count, apart, gates, gate, kept, c_before, c_after, h, units, y, y_units, next_elsewhere
):
    """Gates and states of W units of several rows, or of several panels of W units of one row.

    From one to the next it is `apart` units. The pre-activations are still in L1, and the gates
    take their place: where they are `kept`, or in a scratch. h and c have room for so many `units`.
    One loop for tiles of every height: unrolled in registers it is no faster, and compiles three
    times as long. But two loops, since a CPU looks ahead over some 300 instructions: what follows
    from c would wait for it, and the next rows' gates could not begin (a seventh more time). The
    gates of a narrow panel stand so close that a vector of one reaches into the next: they are
    written in ascending order, and what is beyond the units has no meaning.

    Where the next step writes elsewhere, to memory, its places are asked for: too short a
    way for a prefetcher to learn (T1000 B50 I1 H32 in training 118 GFLOP/s, and 131 with this). And
    asked for as what is to be written: the other workers have read it for the weight gradients of
    the step before (two cores with an L3 each went forward there at 90 GFLOP/s, at 122 so).
    """
    for k in range(count):
        keep_loop()
        place = _at(gates, k)
        i, f, g, o, c = cell_gates(
            load(place),
            load(place + gate),
            load(place + 2 * gate),
            load(place + 3 * gate),
            load(_at(c_before, k)),
        )
        store(i, place)
        store(f, place + gate)
        store(g, place + 2 * gate)
        store(o, place + 3 * gate)
        store_up_to(c, _at(c_after, k), units - k * apart)
    for k in range(count):
        keep_loop()
        if next_elsewhere:
            for number in range(4):
                fetch_to_write(_at(kept, k) + (kept.onwards + number * gate))
            for along in (c_after, h, y):
                fetch_to_write(_at(along, k) + along.onwards)
        h_new = cell_output(load(_at(gates, k) + 3 * gate), load(_at(c_after, k)))
        store_up_to(h_new, _at(h, k), units - k * apart)
        store_up_to(h_new, _at(y, k), y_units - k * apart)


class PanelGroups(NamedTuple):
    """Groups of panels side by side, a tile across each, that the panels of a cell are cut into."""

    widest: int  # panels of a group
    wide: int  # groups of so many
    pairs: int
    ones: int
    last_vectors: int  # in a row of the last panel, where that has fewer units than others; or 0


@inlined
def _groups_of_panels(cell, rows, first_panel, last_panel, lanes):
    """Cut panels into groups."""
    whole = min(last_panel, whole_panels(cell, lanes)) - first_panel
    last_vectors = 0
    if whole < last_panel - first_panel:
        last_vectors = vectors_of_panel(cell, last_panel - 1, lanes)
    widest = panels_for_rows_compiled(rows, 4) if cell.widest == WIDE else 1
    wide = whole // widest
    rest = whole - wide * widest
    return PanelGroups(widest, wide, rest // 2, rest % 2, last_vectors)


@inlined
def _panels_in_turn(groups, number):
    """Panel where the group of this number begins, its panels, and vectors in a row of a tile."""
    widest, wide, pairs, ones, last_vectors = groups
    if number < wide:
        return number * widest, widest, 4 * widest
    if number < wide + pairs:
        return wide * widest + (number - wide) * 2, 2, 8
    before = wide * widest + 2 * pairs
    if number < wide + pairs + ones:
        return before, 1, 4
    return before + ones, 1, last_vectors


@inlined
def _next_step(walk):
    """The same walk, a step further."""
    h_before, h_after = walk.h_after, walk.h_before
    if walk.h_step != 0:
        h_before, h_after = walk.h_before + walk.h_step, walk.h_after + walk.h_step
    return Walk(
        walk.x + walk.x_step,
        walk.x_row,
        walk.x_step,
        h_before,
        h_after,
        walk.h_row,
        walk.h_step,
        walk.c_before + walk.c_step,
        walk.c_after + walk.c_step,
        walk.c_row,
        walk.c_step,
        walk.state_units,
        walk.y + walk.y_step,
        walk.y_row,
        walk.y_step,
        walk.gates,
        walk.term + walk.term_step,
        walk.term_step,
        1 - walk.way,
        walk.scratch,
    )


@inlined
def _weights_behind(first_weights, row, terms, stretch, onwards):
    """Where the weights that follow a stretch begin, and whether there are any.

    They are those of the next stretch; or, behind the last one, of the panel so many numbers
    onwards: none if that is 0. Rows of weights are `row` numbers apart.
    """
    behind = stretch.before + stretch.count
    if behind < terms:
        return first_weights + behind * row, True
    return first_weights + onwards, onwards != 0


@inlined
def _step_of_panels(
    call,
    cell,
    panels,
    panel,
    together,
    vectors,
    onwards,
    stretches,
    rows,
    walk,
    from_zeros,
    next_elsewhere,
):
    """One step of the units of some panels side by side, for all rows.

    `onwards` tells the panel that comes next: so many further on, or 0 for none; `from_zeros`
    whether what h gives is known ahead; `next_elsewhere` whether the next step writes elsewhere.
    """
    lanes = width(walk.gates)
    I, H = cell.inputs, cell.hidden
    projected = call.ahead > 0
    kept = call.training == 1 or projected
    panel_size = (1 + I + H) * 4 * lanes
    tile_row = 4 * lanes
    gate = gate_stride(cell, panel, lanes)
    kept_row = 4 * gate
    # Rows of tiles reach beyond those of a last panel, where gates stand close together.
    direct = kept and gate == lanes
    first_four = gates_of_panel(cell, walk.gates, cell.gates_panel, panel, walk.term)
    parts = parts_of_panel(cell, gate, lanes)
    unit = panel * lanes
    wide = together > 1
    inputs = Terms(0 if projected else I, I, 0, walk.x, 0, walk.x_row)
    hidden = Terms(0 if from_zeros else H, H, 0, walk.h_before, 0, walk.h_row)
    terms = inputs.count + hidden.count
    across = vectors if parts == 1 else NARROW
    heights = tiling(across, rows)
    asking = asking_tiles(heights.count, cell.widest) if call.asked == 1 else 0
    start = panels + panel * panel_size
    skipped = 1 + I - inputs.count
    weights_row = min(vectors, WIDE) * lanes
    first_weights = start + skipped * weights_row
    apart = 0
    if parts > 1:
        place_of_rows, weights_row = row_of_panel(cell, panel, skipped, 0, lanes)
        first_weights = start + place_of_rows
        apart = narrow_rows(cell) * weights_row
    for number in range(stretches):
        stretch = stretch_of(terms, number, stretches)
        begun = projected or number > 0
        weights = first_weights + stretch.before * weights_row
        following, follows = _weights_behind(
            first_weights, weights_row, terms, stretch, onwards * panel_size
        )
        row = 0
        for tile in range(heights.count):
            keep_loop()
            height = height_of(heights, tile)
            four = first_four + row * kept_row
            place, next_panel = walk.scratch, height * tile_row
            if direct:
                place, next_panel = four, cell.gates_panel
            elif kept:
                if begun:
                    copy_columns(height, kept_row, four, kept_row, place, tile_row)
            elif stretches > 1:
                place = place + row * tile_row
            for part in range(parts):
                keep_loop()
                aside = part * apart
                tile_product(
                    across,
                    height,
                    start + aside,
                    begun,
                    rows_of(inputs, 0, row),
                    rows_of(hidden, 0, row),
                    stretch,
                    weights + aside,
                    panel_size,
                    Upcoming(following + aside, tile, asking if follows else 0),
                    Place(place + part * weights_row, 0, tile_row, next_panel),
                )
            if number == stretches - 1:
                if from_zeros:
                    _add_zero_products(
                        together if wide else height,
                        min(vectors, WIDE),
                        place,
                        next_panel if wide else tile_row,
                        _zero_products(cell, panels, panel),
                        tile_row if wide else 0,
                    )
                c = row * walk.c_row + unit
                c_next = lanes if wide else walk.c_row
                h_next = lanes if wide else walk.h_row
                y_next = lanes if wide else walk.y_row
                _activate(
                    together if wide else height,
                    lanes if wide else 0,
                    Along(place, next_panel if wide else tile_row, 0),
                    gate,
                    Along(four, cell.gates_panel if wide else kept_row, walk.term_step * kept_row),
                    Along(walk.c_before + c, c_next, walk.c_step),
                    Along(walk.c_after + c, c_next, walk.c_step),
                    Along(walk.h_after + (row * walk.h_row + unit), h_next, walk.h_step),
                    walk.state_units - unit,
                    Along(walk.y + (row * walk.y_row + unit), y_next, walk.y_step),
                    H - unit,
                    next_elsewhere,
                )
            if kept and not direct and (call.training == 1 or number < stretches - 1):
                copy_columns(height, kept_row, place, tile_row, four, kept_row)
            row += height


@inlined
def _zero_products(cell, panels, panel):
    """What a state of zeros gives to the pre-activations of a panel: a row of zeros, or NaN."""
    return panels + (cell.zero_products - cell.panels + panel * 4 * width(panels))


@inlined
def _begins_with_zeros(cell, panels, rows, walk):
    """Whether h is zeros and its weights are finite: then the recurrent product is known ahead.

    A sequence mostly begins so, and is spared reading these weights once: sixteen steps of a row of
    2048 units take as long as fifteen.
    """
    row_size = 4 * width(panels)
    products = _zero_products(cell, panels, 0)
    return are_zeros(rows, cell.hidden, walk.h_before, walk.h_row, True) and are_zeros(
        panels_of(cell, width(panels)), row_size, products, row_size, False
    )


@inlined
def _add_zero_products(count, vectors, place, next_row, products, next_products):
    """Add what a state of zeros gives to the pre-activations of some rows, or panels of a row.

    That is not nothing: a sum of -0 becomes 0 by a product of 0.
    """
    for k in range(count):
        for vector in range(vectors):
            keep_loop()
            number = vector * width(place)
            target = place + (k * next_row + number)
            store(load(target) + load(products + (k * next_products + number)), target)


@device
def run_steps(call, cell, panels, first_panel, last_panel, rows, steps, walk, past):
    """Some steps of one cell for some rows and the units of some panels, nobody waited for.

    Every other step goes through the panels from the end, unless they are too many by far: what a
    cache could not hold of the weights it has at least of the last ones.
    """
    lanes = width(walk.gates)
    terms = cell.hidden if call.ahead > 0 else cell.inputs + cell.hidden
    tiles = tiles_for_rows_compiled(rows, cell.widest)
    # A tile goes through all parts of a panel before the next one does.
    asked = call.asked == 1
    stretches = stretches_for_terms_compiled(terms, WIDE, tiles, call.cached, asked, lanes)
    groups = _groups_of_panels(cell, rows, first_panel, last_panel, lanes)
    count = groups.wide + groups.pairs + groups.ones + (1 if groups.last_vectors > 0 else 0)
    to_and_fro = terms * cell.gate_columns <= call.cached_in_part
    for step in range(past, past + steps):
        back = to_and_fro and walk.way == 1
        # Behind the last step of a room the first one of the next begins: another worker's.
        next_elsewhere = call.training == 1 and keeps_gates(call, step_at(call, cell, step + 1))
        from_zeros = step == 0 and _begins_with_zeros(cell, panels, rows, walk)
        for group in range(count):
            keep_loop()
            number = count - 1 - group if back else group
            before, together, vectors = _panels_in_turn(groups, number)
            onwards = 0
            if group + 1 < count:
                onwards = -1 if back else 1
            _step_of_panels(
                call,
                cell,
                panels,
                first_panel + before,
                together,
                vectors,
                onwards,
                stretches,
                rows,
                walk,
                from_zeros,
                next_elsewhere,
            )
        walk = _next_step(walk)


@spliced
def prepare_inputs(call, cell, panels, first_panel, last_panel, rows, steps, walk, past, where):
    """Bias and input's part of the pre-activations of some steps, into the place of the gates."""
    if is_looked_up(cell):
        term = step_at(call, cell, past) * call.batch + where.first
        projected = address(where.workspace, cell.projected)
        look_up_inputs(call, cell, projected, first_panel, last_panel, rows, steps, term, walk)
    else:
        _project_inputs(call, cell, panels, first_panel, last_panel, rows, steps, walk, where)


@spliced
def _project_inputs(call, cell, panels, first_panel, last_panel, rows, steps, walk, where):
    """The same, where the inputs stand in a sequence."""
    project(
        call,
        cell,
        panels,
        first_panel,
        last_panel,
        steps,
        rows,
        Terms(cell.inputs, cell.inputs, 0, walk.x, walk.x_step, walk.x_row),
        where.scratch,
        GateRows(walk.gates, cell.gates_panel, walk.term, walk.term_step, 1),
    )


@device
def _run_chunk(call, cell, panels, rows, steps, walk, past, where):
    """Some steps of all units of a cell; their inputs ahead of the recurrence, if that is done."""
    count = panels_of(cell, width(where.scratch))
    if call.ahead > 0:
        prepare_inputs(call, cell, panels, 0, count, rows, steps, walk, past, where)
    run_steps(call, cell, panels, 0, count, rows, steps, walk, past)


@spliced
def forward_rows(call, cells, packed, x, h0, c0, y, h_n, c_n, workspace, worker, workers):
    """One worker's rows; see `lstm_forward`."""
    D = call.directions
    steps = call.stop - call.start
    scratch = scratch_of(call, workspace, worker)
    way = way_of(call, workspace, worker)
    chunk = call.ahead if call.ahead > 0 else max(1, steps)
    for number in range(call.rooms):
        keep_loop()
        room, first, rows = rows_in_room(call, number, worker, workers)
        if rows == 0:
            continue
        for layer in range(call.first_layer, call.last_layer):
            source = source_of_layer(call, cells, layer, x, workspace)
            for direction in range(call.first_direction, call.last_direction):
                index = layer * D + direction
                cell = cells[index]
                panels = address(packed, cell.panels + worker * call.packed_apart)
                where = Surroundings(source, y, workspace, scratch, first, room, way)
                walk = walk_from(call, cells, index, 0, where)
                begin_states(call, cell, index, h0, c0, first, rows, walk, workspace)
                for past in range(0, steps, chunk):
                    walk = walk_from(call, cells, index, past, where)
                    some = min(chunk, steps - past)
                    _run_chunk(call, cell, panels, rows, some, walk, past, where)
                walk = walk_from(call, cells, index, steps, where)
                end_states(call, cell, index, h_n, c_n, first, rows, walk, workspace)
            drop_outputs(call, cells, layer, first, rows, workspace)
    note_way(call, workspace, worker, way, steps)


@device
def drop_outputs(call, cells, layer, first, rows, workspace):
    """Drop some of what the layer above reads, once all directions have written it."""
    D = call.directions
    complete = call.last_direction == D and (call.recomputed == 0 or D == 1)
    if layer == call.layers - 1 or call.dropped == 0 or not complete:
        return
    above = outputs_below(call, cells, layer + 1, workspace)
    for step in range(call.start, call.stop):
        dropout(call, layer, step, first, rows, above.row, above.start + step * above.step)


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
        Input at ``t * x_step + b * x_row``, read; or a table, from which `lstm_vocabulary` has made
        what is read in its place.
    h0, c0 : array
        (L D, B, H) states before, or empty for zeros; read.
    y : array
        Output at ``t * y_step + b * y_row``, assigned.
    h_n, c_n : array
        (L D, B, H) states after, assigned; may be h0 and c0.
    workspace : array
        h, c, outputs, gates where there is room for them and, for training, marks are assigned.
    worker, workers : int
        Which share of the rows, of how many.
    """
    mode = enter_default_mode()
    forward_rows(calls[0], cells, packed, x, h0, c0, y, h_n, c_n, workspace, worker, workers)
    restore_mode(mode)
