"""Inputs that are the rows of a table, as tokens name them: each row is projected once.

A sequence of tokens has a first layer project the same few rows over and over. The pre-activations
of a row do not depend on where it stands, so they are looked up instead, to the same bits.
"""

from __future__ import annotations

from ..jit import device, inlined, kernel
from ..simd.mode import enter_default_mode, restore_mode
from ..simd.pointer import address, integers_at
from ..simd.vector import load, store, width
from .gemm import WIDE, Place, Terms, no_terms, product
from .panels import vectors_of_panel
from .workers import first_of_share


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
    scratch = address(workspace, call.scratch + worker * call.scratch_apart)
    across = 4 * width(scratch)
    for direction in range(call.directions if rows > 0 else 0):
        cell = cells[direction]
        I = cell.inputs
        values = address(x, first * I)
        projected = address(workspace, cell.projected + first * across)
        product(
            1,
            rows,
            Terms(I, I, 0, values, 0, I),
            no_terms(values),
            address(packed, cell.panels),
            1 + I + cell.hidden,
            0,
            cell.gate_columns,
            WIDE,
            False,
            call.cached,
            I * cell.gate_columns > call.cached,
            scratch,
            Place(projected, 0, across, call.vocabulary_panel),
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
        vectors = vectors_of_panel(cell, panel, lanes)
        table = projected + panel * call.vocabulary_panel
        for step in range(steps):
            gates = walk.gates + (panel * cell.gates_panel + step * walk.gates_step)
            for row in range(rows):
                source = table + tokens[term + step * next_term + row] * 4 * lanes
                target = gates + row * 4 * lanes
                for number in range(vectors):
                    store(load(source + number * lanes), target + number * lanes)
