"""The parallel region, one for all kernels: it is told by address which of them to run.

Numba turns the body of a region into machine code several times over. With the kernels themselves
in there, the first inference of a process without a cache took 6.4 s on two threads instead of 4,
the first training step 13 instead of 7.
"""

from __future__ import annotations

from numba import prange

from ..jit import parallel_kernel
from ..simd.native import call_share


@parallel_kernel
def all_shares(entry, arguments, workers):
    """Run the shares of all workers of a kernel at once.

    Parameters
    ----------
    entry : int
        Where the machine code of a kernel ``k(*arguments, worker, workers)`` begins.
    arguments : tuple
        What its workers have in common.
    workers : int
    """
    for worker in prange(workers):
        call_share(entry, arguments, int(worker), workers)
