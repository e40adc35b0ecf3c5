"""Every compilation option of the package, and its cache on disk, in one place.

``fastmath`` stays off everywhere: a kernel that may contract or reorder its sums differently from
its twin for another number of rows would lose the promise of the same bits. Where a fused
multiply-add is wanted it is written out.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core.caching import FunctionCache, NullCache
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


class _KeyedCache(FunctionCache):
    """Numba's cache of one function, with the digest of the whole package in its key."""

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return (*super()._index_key(sig, codegen), source_digest())


class _PackageCache(NullCache):
    """The same, opened when a kernel is first compiled.

    Opening it looks for a folder and writes to it: at import that would take a millisecond for
    every kernel, and raise where no folder can be written. There kernels compile in every process.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    @functools.cached_property
    def _opened(self) -> Any:
        try:
            return _KeyedCache(self._function)
        except RuntimeError:  # numba: "cannot cache function ...: no locator available"
            return NullCache()

    @property
    def cache_path(self) -> Any:
        return self._opened.cache_path

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        return self._opened.load_overload(sig, target_context)

    def save_overload(self, sig: Any, data: Any) -> Any:
        return self._opened.save_overload(sig, data)


def _cached(function: Function, dispatcher: Any) -> Function:
    """Give a dispatcher the package's cache."""
    dispatcher._cache = _PackageCache(function)
    return cast(Function, dispatcher)


def cache_folder() -> str | None:
    """Folder in which compiled kernels are kept, or None if none can be written."""
    folder = _PackageCache(source_digest.__wrapped__).cache_path
    return None if folder is None else str(folder)


def _for_any_number(dispatcher: Any) -> Any:
    """Compile a function once for int64, not again for every number that a caller writes out."""
    template = dispatcher.get_call_template

    def without_literals(arguments: Any, keywords: Any) -> Any:
        named = {name: numba.types.unliteral(kind) for name, kind in keywords.items()}
        return template(tuple(map(numba.types.unliteral, arguments)), named)

    dispatcher.get_call_template = without_literals
    return dispatcher


def inlined(function: Function) -> Function:
    """Compile a function that becomes part of every caller: its tiles must stay in registers."""
    compiled = numba.njit(forceinline=True, **_INTERNAL)(function)
    return cast(Function, _for_any_number(compiled))


def variants(function: Callable[..., Any]) -> Callable[[Function], Function]:
    """Choose an implementation of `function` by its arguments' types; inlined like `inlined`."""
    options = {"forceinline": True, **_INTERNAL}
    return cast(Callable[[Function], Function], overload(function, jit_options=options))


def device(function: Function) -> Function:
    """Compile a function that only kernels call; it is cached within them."""
    return cast(Function, _for_any_number(numba.njit(**_INTERNAL)(function)))


def spliced(function: Function) -> Function:
    """Compile a function as text of its one caller, which saves compiling it by itself as well."""
    return cast(Function, numba.njit(inline="always", **_INTERNAL)(function))


def kernel(function: Function) -> Function:
    """Compile a serial entry point: cached, without the interpreter lock while it runs."""
    return _cached(function, numba.njit(**_OPTIONS)(function))


def parallel_kernel(function: Function) -> Function:
    """Compile an entry point with ``prange``.

    Kept apart from its serial twin because loading it starts Numba's threading layer.
    """
    return _cached(function, numba.njit(parallel=True, **_OPTIONS)(function))
