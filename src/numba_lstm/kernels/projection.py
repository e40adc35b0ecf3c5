"""What inputs give to the pre-activations of many terms (t, row) at once."""

from __future__ import annotations

from typing import NamedTuple

from ..jit import device
from ..simd.pointer import Pointer
from ..simd.vector import width
from .gemm import Place, no_terms, product
from .panels import gate_stride, gates_of_panel, whole_panels
from .tiling import WIDE


class GateRows(NamedTuple):
    """Where the gates of blocks of rows stand: all gates, and which terms (t, row) they are of.

    `term` is the first one; on to the next block it is `block` terms, and to the next row `row`.
    """

    start: Pointer
    next_panel: int
    term: int
    block: int
    row: int


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
        Blocks, and rows in each.
    inputs : Terms
        Read.
    scratch : Pointer
        `TILE_VECTORS` vectors.
    out : GateRows
        Assigned.
    """
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
