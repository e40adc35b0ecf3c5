"""Weights to panels: the order in which the register tile reads them, padded with zeros.

A cell's panels hold, for W hidden units at a time, the four gates side by side: row 0 the bias,
then a row for every input, then a row for every hidden unit. A product's panels hold columns of a
matrix, four vectors at a time, then two, then one (`gemm.product`).
"""

from __future__ import annotations

from ..jit import device, kernel
from ..simd.pointer import address
from ..simd.vector import width
from .gemm import panel_vectors


@device
def _pack_rows(weights, inputs, hidden, first_unit, panel):
    """Copy (4H, inputs) weights of W units into panel rows of one input each."""
    lanes = width(panel)
    for gate in range(4):
        for lane in range(lanes):
            unit = first_unit + lane
            target = panel + (gate * lanes + lane)
            if unit < hidden:
                source = weights + (gate * hidden + unit) * inputs
                for k in range(inputs):
                    target[k * 4 * lanes] = source[k]
            else:
                for k in range(inputs):
                    target[k * 4 * lanes] = 0.0


@kernel
def pack_cells(cells, parameters, packed):
    """Pack what the forward pass reads.

    Parameters
    ----------
    cells : array of CELL
    parameters : array
        Flat parameters, read.
    packed : array
        Panels of every cell, assigned.
    """
    lanes = width(address(packed, 0))
    for index in range(cells.size):
        cell = cells[index]
        I, H = cell.inputs, cell.hidden
        panel = address(packed, cell.panels)
        weight_ih = address(parameters, cell.weight_ih)
        weight_hh = address(parameters, cell.weight_hh)
        for first_unit in range(0, H, lanes):
            for gate in range(4):
                for lane in range(lanes):
                    unit = first_unit + lane
                    bias = 0.0
                    if cell.bias >= 0 and unit < H:
                        bias = parameters[cell.bias + gate * H + unit]
                    panel[gate * lanes + lane] = bias
            _pack_rows(weight_ih, I, H, first_unit, panel + 4 * lanes)
            _pack_rows(weight_hh, H, H, first_unit, panel + (1 + I) * 4 * lanes)
            panel = panel + (1 + I + H) * 4 * lanes


@device
def _pack_gate_rows(weights, columns, hidden, rows_of_panel, first_row, panels):
    """Copy (4H, columns) weights into product panels whose rows follow the order of the gates."""
    lanes = width(panels)
    column = 0
    while column < columns:
        panel_width = panel_vectors(columns - column, lanes) * lanes
        panel = panels + column * rows_of_panel
        if first_row == 1:
            for j in range(panel_width):
                panel[j] = 0.0
        wanted = min(panel_width, columns - column)
        target = panel + first_row * panel_width
        for first_unit in range(0, hidden, lanes):
            for gate in range(4):
                for lane in range(lanes):
                    unit = first_unit + lane
                    held = wanted if unit < hidden else 0
                    source = weights + ((gate * hidden + unit) * columns + column)
                    for j in range(held):
                        target[j] = source[j]
                    for j in range(held, panel_width):
                        target[j] = 0.0
                    target = target + panel_width
        column += panel_width


@kernel
def pack_products(cells, directions, parameters, packed):
    """Pack what the backward pass reads: dgates to dh, and dgates of both directions to dx.

    Parameters
    ----------
    cells : array of CELL
    directions : int
    parameters : array
        Flat parameters, read.
    packed : array
        Recurrent and input panels of every cell, assigned.
    """
    lanes = width(address(packed, 0))
    for index in range(cells.size):
        cell = cells[index]
        I, H = cell.inputs, cell.hidden
        gates = 4 * ((H + lanes - 1) // lanes) * lanes
        recurrent = address(packed, cell.recurrent_panels)
        _pack_gate_rows(address(parameters, cell.weight_hh), H, H, 1 + gates, 1, recurrent)
        weight_ih = address(parameters, cell.weight_ih)
        rows_of_panel = 1 + directions * gates
        first_row = 1 + (index % directions) * gates
        input_panels = address(packed, cell.input_panels)
        _pack_gate_rows(weight_ih, I, H, rows_of_panel, first_row, input_panels)


@kernel
def pack_matrix(matrix, rows, columns, row_stride, column_stride, start, packed):
    """Pack any matrix for `gemm.product`.

    Parameters
    ----------
    matrix : array
        Flat; element (k, n) at ``k * row_stride + n * column_stride``; read.
    rows, columns : int
    row_stride, column_stride : int
    start : array
        (columns,) start of every column's sum, or empty for zeros; read.
    packed : array
        Panels, assigned.
    """
    lanes = width(address(packed, 0))
    column = 0
    place = 0
    while column < columns:
        panel_width = panel_vectors(columns - column, lanes) * lanes
        for j in range(panel_width):
            inside = column + j < columns
            packed[place + j] = start[column + j] if inside and start.size > 0 else 0.0
            for k in range(rows):
                value = 0.0
                if inside:
                    value = matrix[k * row_stride + (column + j) * column_stride]
                packed[place + (1 + k) * panel_width + j] = value
        place += (1 + rows) * panel_width
        column += panel_width
