"""Weights to panels: the order in which the register tile reads them, padded with zeros.

A product's panels hold columns of a matrix, four vectors at a time (`gemm.product`). A cell's are
such for the matrix whose columns are, for W hidden units at a time, the four gates: row 0 the bias,
then a row for every input, then one for every hidden unit. For tall tiles panels hold two vectors
at a time: those of W units are in two parts then, of two gates each. (A tile across half of a row
would have its weights in pieces: 8 rows from L3, on Zen 5, went at 230 GFLOP/s in pieces of 128
bytes, and go at 255 where they stand side by side.) Inputs that are projected ahead make full tiles
whatever the batch: their rows stay wide. A last panel of fewer units has their gates side by side,
in as many vectors as that takes.
"""

from __future__ import annotations

from ..jit import device, inlined, kernel
from ..simd.pointer import address
from ..simd.vector import broadcast, fma, store, width
from .lanes import copy_columns, load_up_to, store_up_to
from .tiling import NARROW, WIDE, panel_vectors
from .transposition import transpose


@inlined
def panels_of(cell, lanes):
    """Panels of a cell: one for every W units."""
    return (cell.hidden + lanes - 1) // lanes


@inlined
def whole_panels(cell, lanes):
    """Panels of a cell that have room for W units."""
    return cell.gate_columns // (4 * lanes)


@inlined
def vectors_of_panel(cell, panel, lanes):
    """Vectors in a row of a cell's panel: 4, of the last one as many as hold the gates left."""
    return panel_vectors(cell.gate_columns - panel * 4 * lanes, lanes, WIDE)


@inlined
def parts_of_panel(cell, units, lanes):
    """Parts that a cell's panel of so many units has: 2 where half of the gates are one, or 1."""
    return 2 if cell.widest == NARROW and units == lanes else 1


@inlined
def narrow_rows(cell):
    """Rows of a cell's panel that are in parts, where it has some."""
    return 1 + cell.inputs + cell.hidden - cell.wide_rows


@inlined
def gate_stride(cell, panel, lanes):
    """Numbers from one gate to the next in a row of a cell's panel, or of gates.

    That is W, or the units that are left for the last panel.
    """
    return min(lanes, cell.gate_columns // 4 - panel * lanes)


@inlined
def gates_of_panel(cell, start, next_panel, panel, term):
    """Where the four gates of a term (t, row) stand in a panel, of those that `start` begins with.

    A term has 4 W numbers in a panel; in the last one four times the units that are left.
    """
    return start + (panel * next_panel + term * 4 * gate_stride(cell, panel, width(start)))


@inlined
def row_of_panel(cell, panel, row, gate, lanes):
    """Where a gate's units stand in a row of a cell's panel, and how far on the next row is."""
    units = gate_stride(cell, panel, lanes)
    vectors = vectors_of_panel(cell, panel, lanes)
    parts = parts_of_panel(cell, units, lanes)
    if parts == 1 or row < cell.wide_rows:
        return row * vectors * lanes + gate * units, vectors * lanes
    part = gate // 2
    rows = part * narrow_rows(cell) + row - cell.wide_rows
    return cell.wide_rows * 4 * units + rows * 2 * units + (gate - 2 * part) * units, 2 * units


@device
def _pack_gate(weights, columns, first_row, held, units, target, row_size):
    """Copy rows of a gate's weights, (4H, columns), into columns of a panel, zeros behind them."""
    source = weights + first_row * columns
    transpose(held, columns, source, columns, target, row_size, False)
    for column in range(columns):
        for unit in range(held, units):
            target[column * row_size + unit] = 0.0


@device
def _product_with_zeros(rows, weights, row_size, units, target):
    """Zeros times the weights of some units, added up: -0 if all are negative, NaN if not finite.

    So a sum goes on with this product as it would with those of zeros one by one, to the same bits.
    """
    zeros = broadcast(weights, 0.0)
    total = -zeros
    for row in range(rows):
        total = fma(zeros, load_up_to(weights + row * row_size, units), total)
    store_up_to(total, target, units)


@kernel
def pack_cells(cells, parameters, packed, worker, workers):
    """Pack one worker's share of what the forward pass reads.

    Parameters
    ----------
    cells : array of CELL
    parameters : array
        Flat parameters, read.
    packed : array
        Panels of every cell, assigned.
    worker, workers : int
        Which share of the panels of each cell, of how many.
    """
    lanes = width(address(packed, 0))
    for index in range(cells.size):
        cell = cells[index]
        I, H = cell.inputs, cell.hidden
        weights = address(parameters, 0)
        panels = panels_of(cell, lanes)
        for number in range(worker, panels, workers):
            panel = address(packed, cell.panels + number * (1 + I + H) * 4 * lanes)
            first_unit = number * lanes
            units = gate_stride(cell, number, lanes)
            held = min(units, H - first_unit)
            products = address(packed, cell.zero_products + number * 4 * lanes)
            for k in range(4 * lanes):
                products[k] = 0.0
            behind = vectors_of_panel(cell, number, lanes) * lanes - 4 * units
            for gate in range(4):
                room = units + (behind if gate == 3 else 0)
                row = gate * H + first_unit
                bias, biases = (cell.bias, held) if cell.bias >= 0 else (0, 0)
                place, row_size = row_of_panel(cell, number, 0, gate, lanes)
                target = panel + place
                _pack_gate(weights + bias, 1, row, biases, room, target, row_size)
                target = target + row_size
                _pack_gate(weights + cell.weight_ih, I, row, held, room, target, row_size)
                place, row_size = row_of_panel(cell, number, 1 + I, gate, lanes)
                target = panel + place
                _pack_gate(weights + cell.weight_hh, H, row, held, room, target, row_size)
                _product_with_zeros(H, target, row_size, units, products + gate * units)


@device
def _pack_gate_rows(weights, columns, cell, rows_of_panel, first_row, panels, worker, workers):
    """Copy (4H, columns) weights into product panels whose rows follow the order of the gates."""
    hidden = cell.hidden
    lanes = width(panels)
    across = cell.widest * lanes
    for column in range(worker * across, columns, workers * across):
        panel_width = panel_vectors(columns - column, lanes, cell.widest) * lanes
        panel = panels + column * rows_of_panel
        if first_row == 1:
            for j in range(panel_width):
                panel[j] = 0.0
        wanted = min(panel_width, columns - column)
        target = panel + first_row * panel_width
        for first_unit in range(0, hidden, lanes):
            units = gate_stride(cell, first_unit // lanes, lanes)
            for gate in range(4):
                for unit in range(first_unit, first_unit + units):
                    source = weights + ((gate * hidden + unit) * columns + column)
                    for j in range(wanted):
                        target[j] = source[j]
                    for j in range(wanted, panel_width):
                        target[j] = 0.0
                    target = target + panel_width


@kernel
def pack_products(cells, directions, parameters, packed, worker, workers):
    """Pack one worker's share of what the backward pass reads.

    It takes dgates to dh, and dgates of both directions to dx.

    Parameters
    ----------
    cells : array of CELL
    directions : int
    parameters : array
        Flat parameters, read.
    packed : array
        Recurrent and input panels of every cell, assigned.
    worker, workers : int
        Which share of the panels of each matrix, of how many.
    """
    for index in range(cells.size):
        cell = cells[index]
        I, H, gates = cell.inputs, cell.hidden, cell.gate_columns
        recurrent = address(packed, cell.recurrent_panels)
        weight_hh = address(parameters, cell.weight_hh)
        _pack_gate_rows(weight_hh, H, cell, 1 + gates, 1, recurrent, worker, workers)
        weight_ih = address(parameters, cell.weight_ih)
        rows_of_panel = 1 + directions * gates
        first_row = 1 + (index % directions) * gates
        input_panels = address(packed, cell.input_panels)
        _pack_gate_rows(weight_ih, I, cell, rows_of_panel, first_row, input_panels, worker, workers)


@kernel
def pack_matrix(matrix, rows, columns, transposed, start, packed, worker, workers):
    """Pack one worker's share of any matrix for `gemm.product`.

    Parameters
    ----------
    matrix : array
        (rows, columns) flat, or its transpose; read.
    rows, columns : int
    transposed : bool
    start : array
        (columns,) start of every column's sum, or empty for zeros; read.
    packed : array
        Panels, assigned.
    worker, workers : int
        Which share of the panels, of how many.
    """
    lanes = width(address(packed, 0))
    for column in range(worker * 4 * lanes, columns, workers * 4 * lanes):
        panel_width = panel_vectors(columns - column, lanes, WIDE) * lanes
        held = min(panel_width, columns - column)
        panel = address(packed, column * (1 + rows))
        target = panel + panel_width
        for k in range(0, panel_width, lanes):
            store(broadcast(panel, 0.0), panel + k)
            for row in range(rows if held - k < lanes else 0):
                store(broadcast(panel, 0.0), target + (row * panel_width + k))
        if start.size > 0:
            copy_columns(1, held, address(start, column), 0, panel, 0)
        if transposed:
            source = address(matrix, column * rows)
            transpose(held, rows, source, rows, target, panel_width, False)
        else:
            copy_columns(rows, held, address(matrix, column), columns, target, panel_width)
