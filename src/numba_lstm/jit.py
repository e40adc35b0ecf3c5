"""Every compilation option of the package, and its cache on disk, in one place.

``fastmath`` stays off everywhere: a kernel that may contract or reorder its sums differently from
its twin for another number of rows would lose the promise of the same bits. Where a fused
multiply-add is wanted it is written out.
"""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core.caching import FunctionCache
from numba.extending import overload

Function = TypeVar("Function", bound=Callable[..., Any])

_OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True}
# Wrappers for calls from Python and C take as long to compile as a small function itself.
_INTERNAL: dict[str, Any] = {**_OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


@functools.cache
def source_digest() -> str:
    """Digest of every source file of the package.

    Numba's own key holds a function's bytecode but not that of its callees, so an edit in
    ``simd`` would leave stale kernels behind.
    """
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


class _PackageCache(FunctionCache):
    """Numba's cache of one function, with the digest of the whole package in its key."""

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return (*super()._index_key(sig, codegen), source_digest())


def _cached(function: Function, dispatcher: Any) -> Function:
    """Give a dispatcher the package's cache, or none where no folder can be written."""
    try:
        dispatcher._cache = _PackageCache(function)
    except RuntimeError as error:  # numba: "cannot cache function ...: no locator available"
        warnings.warn(f"kernels are compiled anew in every process: {error}", stacklevel=3)
    return cast(Function, dispatcher)


def cache_folder() -> str | None:
    """Folder in which compiled kernels are kept, or None if none can be written."""
    try:
        return str(_PackageCache(source_digest.__wrapped__).cache_path)
    except RuntimeError:
        return None


def inlined(function: Function) -> Function:
    """Compile a function that becomes part of every caller: its tiles must stay in registers."""
    return cast(Function, numba.njit(forceinline=True, **_INTERNAL)(function))


def variants(function: Callable[..., Any]) -> Callable[[Function], Function]:
    """Choose an implementation of `function` by its arguments' types; inlined like `inlined`."""
    options = {"forceinline": True, **_INTERNAL}
    return cast(Callable[[Function], Function], overload(function, jit_options=options))


def device(function: Function) -> Function:
    """Compile a function that only kernels call; it is cached within them."""
    return cast(Function, numba.njit(**_INTERNAL)(function))


def kernel(function: Function) -> Function:
    """Compile a serial entry point: cached, without the interpreter lock while it runs."""
    return _cached(function, numba.njit(**_OPTIONS)(function))


def parallel_kernel(function: Function) -> Function:
    """Compile an entry point with ``prange``.

    Kept apart from its serial twin because loading it starts Numba's threading layer.
    """
    return _cached(function, numba.njit(parallel=True, **_OPTIONS)(function))
