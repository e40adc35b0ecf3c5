"""The parallel region, one for all kernels: it is told by address which of them to run.

Numba turns the body of a region into machine code several times over. With the kernels themselves
in there, the first inference of a process without a cache took 6.4 s on two threads instead of 4,
the first training step 13 instead of 7.
"""

from __future__ import annotations

from numba import prange

from ..jit import parallel_kernel
from ..simd.native import call_share, get_chunk, get_threads, set_chunk, set_threads


@parallel_kernel
def all_shares(entry, arguments, workers):
    """Run the shares of all workers of a kernel at once, each on a thread.

    How many threads Numba's regions use that this one enters, and in what chunks, is as before
    afterwards. (Set from Python, that took 4.7 us of 7.5 for an empty region.)

    Parameters
    ----------
    entry : int
        Where the machine code of a kernel ``k(*arguments, worker, workers)`` begins.
    arguments : tuple
        What its workers have in common.
    workers : int
    """
    threads_before = get_threads()
    chunk_before = get_chunk()
    set_chunk(0)
    set_threads(workers)
    for worker in prange(workers):
        call_share(entry, arguments, int(worker), workers)
    set_threads(threads_before)
    set_chunk(chunk_before)
