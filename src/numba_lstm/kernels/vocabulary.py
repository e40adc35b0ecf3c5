"""Inputs that are the rows of a table, as tokens name them: each row is projected once.

A sequence of tokens has a first layer project the same few rows over and over. The pre-activations
of a row do not depend on where it stands, so they are looked up instead, to the same bits.
"""

from __future__ import annotations

from ..jit import device, inlined, kernel
from ..simd.mode import enter_default_mode, restore_mode
from ..simd.pointer import address, integers_at
from ..simd.vector import load, store, width
from .gemm import Terms
from .lanes import copy_columns
from .panels import gate_stride, gates_of_panel, panels_of
from .projection import GateRows, project
from .workers import first_of_share, scratch_of


@kernel
def lstm_vocabulary(calls, cells, packed, x, workspace, worker, workers):
    """One worker's share of the rows of a table, projected for every direction of the first layer.

    Parameters
    ----------
    calls : (1,) array of CALL
    cells : (L D,) array of CELL
    packed : array
        Panels, read.
    x : array
        (vocabulary, inputs) flat, read.
    workspace : array
        Projected rows are assigned.
    worker, workers : int
        Which share of the rows, of how many.
    """
    mode = enter_default_mode()
    call = calls[0]
    first = first_of_share(call.vocabulary, worker, workers)
    rows = first_of_share(call.vocabulary, worker + 1, workers) - first
    scratch = scratch_of(call, workspace, worker)
    for direction in range(call.directions if rows > 0 else 0):
        cell = cells[direction]
        I = cell.inputs
        values = address(x, first * I)
        projected = address(workspace, cell.projected)
        project(
            call,
            cell,
            address(packed, cell.panels),
            0,
            panels_of(cell, width(scratch)),
            1,
            rows,
            Terms(I, I, 0, values, 0, I),
            scratch,
            GateRows(projected, call.vocabulary_panel, first, 0, 1),
        )
    restore_mode(mode)


@inlined
def is_looked_up(cell):
    """Whether tokens stand for the inputs of a cell."""
    return cell.projected >= 0


@device
def look_up_inputs(call, cell, projected, first_panel, last_panel, rows, steps, term, walk):
    """Copy the pre-activations of some steps' tokens into the place of the gates.

    The tokens of the first step's rows stand from `term` on.
    """
    tokens = integers_at(call.tokens)
    next_term = (1 - 2 * cell.reverse) * call.batch
    lanes = width(walk.gates)
    for panel in range(first_panel, last_panel):
        four = 4 * gate_stride(cell, panel, lanes)
        table = projected + panel * call.vocabulary_panel
        for step in range(steps):
            step_term = walk.term + step * walk.term_step
            gates = gates_of_panel(cell, walk.gates, cell.gates_panel, panel, step_term)
            for row in range(rows):
                source = table + tokens[term + step * next_term + row] * four
                target = gates + row * four
                if four < 4 * lanes:
                    copy_columns(1, four, source, four, target, four)
                else:
                    for number in range(4):
                        store(load(source + number * lanes), target + number * lanes)
