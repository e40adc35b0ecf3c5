"""Every compilation option of the package, and its cache on disk, in one place.

``fastmath`` stays off everywhere: a kernel that may contract or reorder its sums differently from
its twin for another number of rows would lose the promise of the same bits. Where a fused
multiply-add is wanted it is written out.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import pickle
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import llvmlite
import numba
from numba._dispatcher import compute_fingerprint
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps
from numba.core.sigutils import normalize_signature
from numba.misc.appdirs import AppDirs

from .compiler import LinkedCompiler
from .garbage import without_collections

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


# The bytecode of a kernel is not that of its callees: by itself it would leave stale kernels behind
# after an edit in `simd`. Taken at import: what is edited later is not what this process
# compiles. Without sources (a zip archive) nothing tells a stale kernel, and none is kept.
_SOURCES = _digest_of_sources()


def _folders() -> list[Path]:
    """Folders for kernels, in the order of Numba's: asked for, beside the sources, the user's."""
    asked = [Path(numba.config.CACHE_DIR) / "numba_lstm"] if numba.config.CACHE_DIR else []
    user = Path(AppDirs(appname="numba", appauthor=False).user_cache_dir)
    users = [user / "numba_lstm"] if user.is_absolute() else []  # it is not without a home
    return [*asked, Path(__file__).parent / "__pycache__", *users]


class _KernelFiles:
    """Compiled code on disk, one file for each key.

    In the place of Numba's files, an index and numbered ones: two processes that fill those at once
    can give two keys the same number, what is damaged is believed or raises, and a folder that can
    only be read, like one in the image of a container, is passed over. Here a file's name is the
    digest of its key, its first bytes are the digest of the rest, and it appears whole.

    Parameters
    ----------
    name : str
        Of the kernel; begins the names of its files.
    """

    _DIGEST_BYTES = hashlib.sha256().digest_size

    def __init__(self, name: str) -> None:
        self._name = name

    def _file(self, key: tuple[Any, ...]) -> str:
        """Name of the file that belongs to a key."""
        digest = hashlib.sha256(repr(key).encode()).hexdigest()
        return f"{self._name}.{digest[:32]}.kernel"

    def load(self, key: tuple[Any, ...]) -> Any:
        """Return what was saved under a key, or None if that is missing, unreadable or damaged."""
        for folder in _folders():
            try:
                content = (folder / self._file(key)).read_bytes()
            except OSError:
                continue
            digest, payload = content[: self._DIGEST_BYTES], content[self._DIGEST_BYTES :]
            if hashlib.sha256(payload).digest() == digest:
                return pickle.loads(payload)
        return None

    def save(self, key: tuple[Any, ...], data: Any) -> bool:
        """Keep something under a key, in the first folder that takes it; tell whether one did."""
        payload = dumps(data)
        content = hashlib.sha256(payload).digest() + payload
        return any(_written(folder / self._file(key), content) for folder in _folders())


def _written(path: Path, content: bytes) -> bool:
    """Write a file that appears whole; tell whether that was possible."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(content)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class WarmKernel:
    """A kernel that has become ready to run for one dtype.

    Attributes
    ----------
    name : str
    dtype : str
        Of the numbers in its arrays: float32, float64, or int64 if they are all integers.
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
    """What Numba asks for the compiled code of one kernel; touches no files before that.

    Where no folder can be written, and where a disk is full, kernels compile in every process.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._files = _KernelFiles(_name(function))
        self._started = 0.0  # Numba compiles and loads under one lock

    def _key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        """All that a kernel's compiled code depends on, the CPU among them."""
        versions = (numba.__version__, llvmlite.__version__, sys.version)
        return (sig, codegen.magic_tuple(), *versions, _SOURCES)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        self._started = time.perf_counter()
        target_context.refresh()
        data = self._files.load(self._key(sig, target_context.codegen()))
        if data is None:
            return None
        result = CompileResult._rebuild(target_context, *data)
        self._report(sig, compiled=False, kept=True)
        return result

    def save_overload(self, sig: Any, data: Any) -> Any:
        kept = False
        if _SOURCES is not None:
            kept = self._files.save(self._key(sig, data.codegen), data._reduce())
        self._report(sig, compiled=True, kept=kept)

    def _report(self, sig: Any, *, compiled: bool, kept: bool) -> None:
        """Note that the kernel is ready for a signature."""
        arguments, _ = normalize_signature(sig)
        nested = [argument for argument in arguments if isinstance(argument, numba.types.BaseTuple)]
        arrays = itertools.chain(arguments, *nested)
        dtypes = {str(getattr(array, "dtype", "")) for array in arrays}
        dtype = next((name for name in ("float32", "float64") if name in dtypes), "int64")
        seconds = time.perf_counter() - self._started
        _warm.append(WarmKernel(_name(self._function), dtype, seconds, compiled, kept))


def _name(function: Callable[..., Any]) -> str:
    """Name of a kernel with that of its module."""
    return f"{function.__module__.rpartition('.')[2]}.{function.__name__}"


def _entry_point(function: Function, dispatcher: Any) -> Function:
    """Give a dispatcher the package's cache, and enter it in the list of kernels."""
    dispatcher._cache = _PackageCache(function)
    dispatcher.compile = without_collections()(dispatcher.compile)
    _kernels[_name(function)] = dispatcher
    return cast(Function, dispatcher)


def cache_folder() -> str | None:
    """Folder in which compiled kernels are kept, or None if none can be written."""
    for folder in _folders() if _SOURCES is not None else ():
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return str(folder)
    return None


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


def compile_alike(kernel: Callable[..., Any], model: Callable[..., Any]) -> None:
    """Compile or load a kernel for the types that another one with the same arguments is ready for.

    Parameters
    ----------
    kernel, model : callable
        Entry points.
    """
    for signature in cast(Any, model).signatures:
        cast(Any, kernel).compile(signature)


def compile_region(region: Callable[..., Any], *kernels: Callable[..., Any]) -> None:
    """Compile or load a parallel region for all types of arguments that kernels are ready for.

    Parameters
    ----------
    region : callable
        ``region(entry, arguments, workers)`` runs all shares of the kernel at an address.
    *kernels : callable
        Entry points ``k(*arguments, worker, workers)``.
    """
    for kernel in kernels:
        for *shared, _worker, workers in cast(Any, kernel).signatures:
            arguments = numba.types.BaseTuple.from_types(shared)
            cast(Any, region).compile((numba.int64, arguments, workers))


# Where the machine code begins, by the kernel and what Numba tells types of arguments by.
_entries: dict[tuple[Any, bytes], int] = {}


def entry_of(kernel: Callable[..., Any], arguments: tuple[Any, ...]) -> int:
    """Address of the machine code of a kernel, which is compiled or loaded if that is still to do.

    Parameters
    ----------
    kernel : callable
        An entry point ``k(*arguments, worker, workers)`` that returns nothing.
    arguments : tuple
        Like those that it is to be called with.

    Raises
    ------
    TypeError
        If the kernel returns something.
    """
    key = (kernel, compute_fingerprint(arguments))
    entry = _entries.get(key)
    if entry is None:
        dispatcher = cast(Any, kernel)
        types = (*map(numba.typeof, arguments), numba.int64, numba.int64)
        dispatcher.compile(types)
        compiled = dispatcher.overloads[types]
        if compiled.signature.return_type != numba.types.none:
            raise TypeError(f"{_name(kernel)} must return nothing; got {compiled.signature}")
        name = compiled.fndesc.llvm_func_name
        entry = _entries[key] = int(compiled.library.get_pointer_to_function(name))
    return entry


def _linked(function: Function, forceinline: bool) -> Function:
    """Compile a function that becomes part of kernels, and is cached within them.

    Where it is not said whether it is to be inlined, Numba takes that from whatever caller comes
    first. Tiles in the midst of the loops that use them were kept on the stack: 180 GFLOP/s at B96
    H1024 on two threads, and 320 where another kernel had been compiled before.
    """
    options = {"pipeline_class": LinkedCompiler, "forceinline": forceinline, **_INTERNAL}
    return cast(Function, _for_any_number(numba.njit(**options)(function)))


def inlined(function: Function) -> Function:
    """Compile a function that becomes part of every caller: its tiles must stay in registers."""
    return _linked(function, forceinline=True)


def device(function: Function) -> Function:
    """Compile a function that only kernels call, and that stays one."""
    return _linked(function, forceinline=False)


def spliced(function: Function) -> Function:
    """Put the text of a function in the place of its call, before the caller is compiled.

    That is sooner done, where a kernel has one such call.
    """
    return cast(Function, numba.njit(inline="always", **_INTERNAL)(function))


def kernel(function: Function) -> Function:
    """Compile a serial entry point: cached, without the interpreter lock while it runs."""
    return _entry_point(function, numba.njit(**_OPTIONS)(function))


def parallel_kernel(function: Function) -> Function:
    """Compile an entry point with ``prange``: loading it starts Numba's threading layer."""
    return _entry_point(function, numba.njit(parallel=True, **_OPTIONS)(function))
