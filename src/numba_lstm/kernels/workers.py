"""Which rows of a batch belong to which worker."""

from __future__ import annotations

from ..jit import inlined


@inlined
def first_row(batch, worker, workers):
    """First row of the batch that belongs to a worker; its last is the next worker's first."""
    return batch * worker // workers
