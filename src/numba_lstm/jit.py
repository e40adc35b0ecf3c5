"""Every compilation option of the package, and its cache on disk, in one place.

``fastmath`` stays off everywhere: a kernel that may contract or reorder its sums differently from
its twin for another number of rows would lose the promise of the same bits. Where a fused
multiply-add is wanted it is written out.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import pickle
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import llvmlite
import numba
from numba.core.caching import FunctionCache, NullCache
from numba.core.serialize import dumps
from numba.core.sigutils import normalize_signature
from numba.extending import overload

Function = TypeVar("Function", bound=Callable[..., Any])

_OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True}
# Wrappers for calls from Python and C take as long to compile as a small function itself.
_INTERNAL: dict[str, Any] = {**_OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def _digest_of_sources() -> str | None:
    """Digest of every source file of the package, or None where there are none to be read."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    paths = sorted(package.rglob("*.py"))
    for path in paths:
        digest.update(path.relative_to(package).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest() if paths else None


# Numba's own key holds a function's bytecode but not that of its callees, so an edit in `simd`
# would leave stale kernels behind. Taken at import: what is edited later is not what this process
# compiles. Without sources (a zip archive) nothing tells a stale kernel, and none is kept.
_SOURCES = _digest_of_sources()


class _KernelFiles:
    """Compiled code on disk, one file for each key.

    In the place of Numba's files, an index and numbered ones: two processes that fill those at once
    can give two keys the same number, and what is damaged is believed or raises. Here a file's name
    is the digest of its key, its first bytes are the digest of the rest, and it appears whole.

    Parameters
    ----------
    folder : Path
    name : str
        Of the kernel; begins the names of its files.
    """

    _DIGEST_BYTES = hashlib.sha256().digest_size

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name

    def _path(self, key: tuple[Any, ...]) -> Path:
        """Place of what belongs to a key."""
        digest = hashlib.sha256(repr(key).encode()).hexdigest()
        return self._folder / f"{self._name}.{digest[:32]}.kernel"

    def load(self, key: tuple[Any, ...]) -> Any:
        """Return what was saved under a key, or None if that is missing, unreadable or damaged."""
        try:
            content = self._path(key).read_bytes()
        except OSError:
            return None
        digest, payload = content[: self._DIGEST_BYTES], content[self._DIGEST_BYTES :]
        return pickle.loads(payload) if hashlib.sha256(payload).digest() == digest else None

    def save(self, key: tuple[Any, ...], data: Any) -> None:
        """Keep something under a key."""
        path = self._path(key)
        payload = dumps(data)
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        try:
            part.write_bytes(hashlib.sha256(payload).digest() + payload)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


class _KeyedCache(FunctionCache):
    """Numba's cache of one function, in files of our own and under all that its code depends on."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = _KernelFiles(Path(self._cache_path), self._impl.filename_base)

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        versions = (numba.__version__, llvmlite.__version__, sys.version)
        return (*super()._index_key(sig, codegen), *versions, _SOURCES)


@dataclass(frozen=True)
class WarmKernel:
    """A kernel that has become ready to run for one dtype.

    Attributes
    ----------
    name : str
    dtype : str
        Of its arrays.
    seconds : float
        That compiling or loading took.
    compiled : bool
        Whether it was compiled; otherwise it came from the cache.
    kept : bool
        Whether the cache holds it now.
    """

    name: str
    dtype: str
    seconds: float
    compiled: bool
    kept: bool


# Every entry point by its name, and what has become ready in this process, in order.
_kernels: dict[str, Any] = {}
_warm: list[WarmKernel] = []


class _PackageCache(NullCache):
    """A `_KeyedCache` that is opened when its kernel is first compiled, and never raises.

    Opening it looks for a folder and writes to it: at import that would take a millisecond for
    every kernel, and raise where no folder can be written. There, and where a disk is full, kernels
    compile in every process.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._started = 0.0  # Numba compiles and loads under one lock

    @functools.cached_property
    def _opened(self) -> Any:
        if _SOURCES is None:
            return NullCache()
        try:
            return _KeyedCache(self._function)
        except RuntimeError:  # numba: "cannot cache function ...: no locator available"
            return NullCache()

    @property
    def cache_path(self) -> Any:
        return self._opened.cache_path

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        self._started = time.perf_counter()
        found = self._opened.load_overload(sig, target_context)
        if found is not None:
            self._report(sig, compiled=False, kept=True)
        return found

    def save_overload(self, sig: Any, data: Any) -> Any:
        kept = self.cache_path is not None
        try:
            self._opened.save_overload(sig, data)
        except OSError:
            kept = False
        self._report(sig, compiled=True, kept=kept)

    def _report(self, sig: Any, *, compiled: bool, kept: bool) -> None:
        """Note that the kernel is ready for a signature."""
        arguments, _ = normalize_signature(sig)
        dtypes = {str(getattr(argument, "dtype", "")) for argument in arguments}
        dtype = "float32" if "float32" in dtypes else "float64"
        seconds = time.perf_counter() - self._started
        _warm.append(WarmKernel(_name(self._function), dtype, seconds, compiled, kept))


def _name(function: Callable[..., Any]) -> str:
    """Name of a kernel with that of its module."""
    return f"{function.__module__.rpartition('.')[2]}.{function.__name__}"


def _entry_point(function: Function, dispatcher: Any) -> Function:
    """Give a dispatcher the package's cache, and enter it in the list of kernels."""
    dispatcher._cache = _PackageCache(function)
    _kernels[_name(function)] = dispatcher
    return cast(Function, dispatcher)


def cache_folder() -> str | None:
    """Folder in which compiled kernels are kept, or None if none can be written."""
    folder = next(iter(_kernels.values()))._cache.cache_path
    return None if folder is None else str(folder)


def _for_any_number(dispatcher: Any) -> Any:
    """Compile a function once for int64, not again for every number that a caller writes out."""
    template = dispatcher.get_call_template

    def without_literals(arguments: Any, keywords: Any) -> Any:
        named = {name: numba.types.unliteral(kind) for name, kind in keywords.items()}
        return template(tuple(map(numba.types.unliteral, arguments)), named)

    dispatcher.get_call_template = without_literals
    return dispatcher


@contextlib.contextmanager
def warming() -> Iterator[list[WarmKernel]]:
    """Watch kernels become ready.

    Yields
    ------
    list of WarmKernel
        Filled at the end with what was compiled or loaded within.
    """
    before = len(_warm)
    within: list[WarmKernel] = []
    try:
        yield within
    finally:
        within.extend(_warm[before:])


def compile_parallel_twins(*kernels: Callable[..., Any]) -> None:
    """Compile or load parallel kernels for the types that their serial twins are ready for.

    Parameters
    ----------
    *kernels : callable
        Serial entry points, ``k(..., worker, workers)``; the twin is ``k_parallel(..., workers)``.
        All that have one by default.
    """
    names = {_name(cast(Any, kernel).py_func) for kernel in kernels} or _kernels.keys()
    for name in names:
        twin = _kernels.get(f"{name}_parallel")
        if twin is not None:
            for *shared, _worker, workers in _kernels[name].signatures:
                twin.compile((*shared, workers))


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
    return _entry_point(function, numba.njit(**_OPTIONS)(function))


def parallel_kernel(function: Function) -> Function:
    """Compile an entry point with ``prange``.

    Kept apart from its serial twin because loading it starts Numba's threading layer.
    """
    return _entry_point(function, numba.njit(parallel=True, **_OPTIONS)(function))
