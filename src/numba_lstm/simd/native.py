"""Calls of machine code: of a kernel by its address, of Numba's threading layer by name."""

from __future__ import annotations

from typing import Any

from numba.core import types
from numba.extending import intrinsic

# Threads of the next regions of this thread, and iterations that each takes at once. Numba's own
# functions call these by an address, which no cache may keep; its regions so, for these types.
get_threads = types.ExternalFunction("get_num_threads", types.intp())
set_threads = types.ExternalFunction("set_num_threads", types.void(types.intp))
get_chunk = types.ExternalFunction("get_parallel_chunksize", types.uintp())
set_chunk = types.ExternalFunction("set_parallel_chunksize", types.void(types.uintp))


@intrinsic
def call_share(typing_context: Any, entry: Any, arguments: Any, worker: Any, workers: Any) -> Any:
    """Call what begins at an address: a kernel ``k(*arguments, worker, workers)`` for these types.

    Nothing tells whether it is one, or whether it raised: kernels raise nothing.
    """
    if not (isinstance(entry, types.Integer) and isinstance(arguments, types.containers.BaseTuple)):
        return None

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        place, shared, *share = values
        kinds = (*arguments, types.int64, types.int64)
        convention = context.call_conv
        native = convention.get_function_type(types.none, kinds).as_pointer()
        parts = [builder.extract_value(shared, k) for k in range(len(arguments))]
        kernel = builder.inttoptr(place, native)
        convention.call_function(builder, kernel, types.none, kinds, [*parts, *share])
        return context.get_dummy_value()

    return types.void(types.int64, arguments, types.int64, types.int64), generate
