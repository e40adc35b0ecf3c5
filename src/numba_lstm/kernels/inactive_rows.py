"""Rows of a batch that sit out a step."""

from __future__ import annotations

from ..jit import kernel


@kernel
def restore_inactive_rows(active, cells, before, h, c, y):
    """Give rows that took no part their states back, and an output of 0.

    Parameters
    ----------
    active : array of bool
        (B,), read.
    cells : int
        L.
    before : array
        (2, L, B, H) flat, h and c before the step; read.
    h, c : array
        (L, B, H) flat; assigned in those rows.
    y : array
        (B, features) flat, assigned in those rows.
    """
    batch = active.size
    units = h.size // (cells * batch)
    features = y.size // batch
    for row in range(batch):
        if active[row]:
            continue
        for cell in range(cells):
            first = (cell * batch + row) * units
            for k in range(first, first + units):
                h[k] = before[k]
                c[k] = before[h.size + k]
        for k in range(row * features, (row + 1) * features):
            y[k] = 0.0
