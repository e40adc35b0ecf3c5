"""Weights to panels: the order in which the register tile reads them, padded with zeros.

A product's panels hold columns of a matrix, four vectors at a time (`gemm.product`). A cell's are
such for the matrix whose columns are, for W hidden units at a time, the four gates: row 0 the bias,
then a row for every input, then one for every hidden unit.
"""

from __future__ import annotations

from ..jit import device, inlined, kernel
from ..simd.pointer import address
from ..simd.vector import broadcast, store, width
from .gemm import copy_columns, panel_vectors
from .transposition import transpose


@inlined
def panels_of(cell, lanes):
    """Panels of a cell: one for every W units."""
    return (cell.hidden + lanes - 1) // lanes


@inlined
def vectors_of_panel(cell, panel, lanes):
    """Vectors in a row of a cell's panel: 4, of the last one 2 or 1 where these hold its units."""
    return panel_vectors(cell.gate_columns - panel * 4 * lanes, lanes)


@inlined
def gate_stride(cell, panel, lanes):
    """Numbers from one gate to the next in a row of a cell's panel."""
    return vectors_of_panel(cell, panel, lanes) * lanes // 4


@device
def _pack_gate(weights, columns, first_row, held, units, target, row_size):
    """Copy rows of a gate's weights, (4H, columns), into columns of a panel, zeros behind them."""
    source = weights + first_row * columns
    transpose(held, columns, source, columns, target, row_size, False)
    for column in range(columns):
        for unit in range(held, units):
            target[column * row_size + unit] = 0.0


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
            row_size = 4 * units
            held = min(units, H - first_unit)
            for gate in range(4):
                row = gate * H + first_unit
                bias, biases = (cell.bias, held) if cell.bias >= 0 else (0, 0)
                place = panel + gate * units
                _pack_gate(weights + bias, 1, row, biases, units, place, row_size)
                place = place + row_size
                _pack_gate(weights + cell.weight_ih, I, row, held, units, place, row_size)
                place = place + I * row_size
                _pack_gate(weights + cell.weight_hh, H, row, held, units, place, row_size)


@device
def _pack_gate_rows(weights, columns, cell, rows_of_panel, first_row, panels, worker, workers):
    """Copy (4H, columns) weights into product panels whose rows follow the order of the gates."""
    hidden = cell.hidden
    lanes = width(panels)
    for column in range(worker * 4 * lanes, columns, workers * 4 * lanes):
        panel_width = panel_vectors(columns - column, lanes) * lanes
        panel = panels + column * rows_of_panel
        if first_row == 1:
            for j in range(panel_width):
                panel[j] = 0.0
        wanted = min(panel_width, columns - column)
        target = panel + first_row * panel_width
        for first_unit in range(0, hidden, lanes):
            units = gate_stride(cell, first_unit // lanes, lanes)
            for gate in range(4):
                for lane in range(units):
                    unit = first_unit + lane
                    held = wanted if unit < hidden else 0
                    source = weights + ((gate * hidden + unit) * columns + column)
                    for j in range(held):
                        target[j] = source[j]
                    for j in range(held, panel_width):
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
        panel_width = panel_vectors(columns - column, lanes) * lanes
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
