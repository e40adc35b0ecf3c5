"""The parallel region, one for all kernels: it is told by address which of them to run.

Numba turns the body of a region into machine code several times over. With the kernels themselves
in there, the first inference of a process without a cache took 6.4 s on two threads instead of 4,
the first training step 13 instead of 7.
"""

from __future__ import annotations

from numba import prange
from numba.core import types

from ..jit import parallel_kernel
from ..simd.native import call_share

# What Numba's own functions call by an address, which no cache may keep, and its regions by these
# names, for these types.
_get_threads = types.ExternalFunction("get_num_threads", types.intp())
_set_threads = types.ExternalFunction("set_num_threads", types.void(types.intp))
_get_chunk = types.ExternalFunction("get_parallel_chunksize", types.uintp())
_set_chunk = types.ExternalFunction("set_parallel_chunksize", types.void(types.uintp))


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
    threads_before = _get_threads()
    chunk_before = _get_chunk()
    _set_chunk(0)
    _set_threads(workers)
    for worker in prange(workers):
        call_share(entry, arguments, int(worker), workers)
    _set_threads(threads_before)
    _set_chunk(chunk_before)
