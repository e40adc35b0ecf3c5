"""What inputs give to the pre-activations of many terms (t, row) at once."""

from __future__ import annotations

from typing import NamedTuple

from ..jit import device, inlined
from ..simd.pointer import Pointer
from ..simd.vector import width
from .gemm import Place, Terms, no_terms, product
from .panels import gate_stride, gates_of_panel, whole_panels
from .tiling import WIDE, tiles_for_rows_compiled


class GateRows(NamedTuple):
    """Where the gates of blocks of rows stand: all gates, and which terms (t, row) they are of.

    `term` is the first one; on to the next block it is `block` terms, and to the next row `row`.
    """

    start: Pointer
    next_panel: int
    term: int
    block: int
    row: int


@inlined
def _in_few_tiles(blocks, rows, inputs, out):
    """Cut blocks of rows so that tiles are full: as one block, or the other way round.

    A tile takes its rows from one block, at one distance from one another, and short blocks make
    low tiles. (One thread on an Intel CPU, GFLOP/s where the steps of every row are a block, and
    cut so: T2 B5 I128 H128 50 and 55, T2 B4 I161 H256 45 and 49, T3 33 and 38; T2 B8 I512 H256 83
    step by step, and 94 projected so, T3 87 and 111.)
    """
    if inputs.block == rows * inputs.row and out.block == rows * out.row:
        return 1, blocks * rows, inputs, out
    if rows * tiles_for_rows_compiled(blocks, WIDE) < blocks * tiles_for_rows_compiled(rows, WIDE):
        count, run, next_run, values, block, row = inputs
        start, next_panel, term, block_of_out, row_of_out = out
        inputs = Terms(count, run, next_run, values, row, block)
        out = GateRows(start, next_panel, term, row_of_out, block_of_out)
        return rows, blocks, inputs, out
    return blocks, rows, inputs, out


@device
def project(call, cell, panels, first_panel, last_panel, blocks, rows, inputs, scratch, out):
    """Write bias and inputs' part of the pre-activations of some panels to where their gates stand.

    The many tiles ask for weights from anywhere beyond L2 (a row of 512 inputs and 256 units in
    three layers, both ways: 139 GFLOP/s, and 144 asked for).

    Parameters
    ----------
    call : CALL
    cell : CELL
    panels : Pointer
        Of the cell, read.
    first_panel, last_panel : int
    blocks, rows : int
        Blocks, and rows in each; which may change places.
    inputs : Terms
        Read.
    scratch : Pointer
        `TILE_VECTORS` vectors.
    out : GateRows
        Assigned.
    """
    blocks, rows, inputs, out = _in_few_tiles(blocks, rows, inputs, out)
    lanes = width(scratch)
    panel_rows = 1 + cell.inputs + cell.hidden
    first = first_panel
    while first < last_panel:
        # Whole panels at once, then a last one of fewer units.
        last = min(last_panel, max(first + 1, whole_panels(cell, lanes)))
        column = first * 4 * lanes
        four = 4 * gate_stride(cell, first, lanes)
        place = gates_of_panel(cell, out.start, out.next_panel, first, out.term)
        product(
            blocks,
            rows,
            inputs,
            no_terms(inputs.values),
            panels + column * panel_rows,
            panel_rows,
            0,
            min(cell.gate_columns, last * 4 * lanes) - column,
            WIDE,
            False,
            call.cached,
            cell.inputs * cell.gate_columns > call.cached,
            scratch,
            Place(place, out.block * four, out.row * four, out.next_panel),
        )
        first = last
