"""The file format: a safetensors file with the parameters, and the configuration as metadata.

Nothing in it is executed when it is read.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from .files import write_file
from .guarded import Guarded
from .parameters import Parameters
from .validation import describe_shape, integer

if TYPE_CHECKING:
    from typing_extensions import Self

FORMAT = "numba-lstm"
FORMAT_VERSION = 1

# Models of modules that are imported when they are wanted.
_MODULES = {"CharLanguageModel": "numba_lstm.language_model"}


class FormatError(ValueError):
    """A file is no model, is damaged, or was written by a newer version."""


def write_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, str],
) -> None:
    """Write named arrays and named texts.

    Parameters
    ----------
    path : path-like
    tensors : mapping of str to ndarray
    metadata : mapping of str to str

    Raises
    ------
    OSError
        If the file cannot be written; a file that was there before still is.
    """
    contiguous = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    versioned = {"format": FORMAT, "format_version": str(FORMAT_VERSION), **metadata}
    write_file(path, safetensors.numpy.save(contiguous, versioned))


def read_tensors(
    path: str | os.PathLike[str],
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read what `write_tensors` wrote.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    tensors : dict of str to ndarray
    metadata : dict of str to str

    Raises
    ------
    OSError
        If the file cannot be read.
    FormatError
        If it was not written by this package, is damaged, or comes from a newer version.
    """
    path = Path(path)
    with path.open("rb"):
        pass  # a missing or forbidden file is an OSError that names it
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            _require_readable(path, metadata)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FormatError:
        raise
    except Exception as error:  # the library has no common base for what damaged files raise
        raise FormatError(
            f"{path} must be a safetensors file; it is another file or cut off ({error})"
        ) from None
    return tensors, metadata


def _require_readable(path: Path, metadata: Mapping[str, str]) -> None:
    """Refuse files of other programs and of newer versions of this one."""
    if metadata.get("format") != FORMAT:
        raise FormatError(f"{path} must be written by {FORMAT}; got a file of another program")
    version = metadata.get("format_version", "none")
    if version.isdecimal() and int(version) <= FORMAT_VERSION:
        return
    reads = ": a newer numba-lstm reads it" if version.isdecimal() else ""
    raise FormatError(
        f"{path} must have format version {FORMAT_VERSION} or older; got {version}{reads}"
    )


class StoredModel(Guarded, ABC):
    """What models share that can be saved and loaded again.

    A subclass has `parameters`, tells its `configuration`, and can be built from one.
    """

    parameters: Parameters
    _fixed = frozenset({"parameters", "gradients"})
    _classes: ClassVar[dict[str, type[StoredModel]]] = {}

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        known = StoredModel._classes.get(cls.__name__)
        # A user's class may be defined again, but takes no name of this package's.
        if known is None or not known.__module__.startswith(f"{__package__}."):
            StoredModel._classes[cls.__name__] = cls

    @abstractmethod
    def configuration(self) -> dict[str, Any]:
        """Return what `from_configuration` needs, as JSON can hold it.

        Returns
        -------
        dict
        """

    @classmethod
    def from_configuration(
        cls, configuration: Mapping[str, Any], *, threads: int | None = None
    ) -> Self:
        """Build a model.

        Parameters
        ----------
        configuration : mapping
            What `configuration` of a model of this class returned.
        threads : int, optional
            Upper bound of threads; all by default.

        Returns
        -------
        StoredModel

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind or out of range.
        MemoryError
            If there is no room for the parameters.
        """
        built: Self = cast(Any, cls)(**configuration, threads=threads)
        return built

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write configuration and parameters to a file.

        Parameters
        ----------
        path : path-like
            A safetensors file; an existing one is replaced once the new one is whole.

        Raises
        ------
        OSError
            If it cannot be written.
        TypeError, ValueError
            If it is no path.
        """
        described = {
            "model": type(self).__name__,
            "configuration": json.dumps(self.configuration(), ensure_ascii=False),
        }
        write_tensors(path, self.parameters, described)

    def _adjustments(self) -> dict[str, Any]:
        """What may be assigned, and a copy has as well: threads, and the state of dropout."""
        names = ("threads", "dropout_state")
        return {name: getattr(self, name) for name in names if hasattr(self, name)}

    def _adjust(self, adjustments: dict[str, Any]) -> None:
        """Take over what `_adjustments` of a model of the same configuration returned."""
        for name, value in adjustments.items():
            setattr(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        flat = np.array(self.parameters.flat)
        return _rebuilt, (type(self), self.configuration(), flat, self._adjustments())


def _rebuilt(
    model: type[StoredModel],
    configuration: dict[str, Any],
    flat: NDArray[Any],
    adjustments: dict[str, Any],
) -> StoredModel:
    """Build a model from what a pickle holds."""
    built = model.from_configuration(configuration)
    with built.parameters.edit() as target:
        target[:] = flat
    built._adjust(adjustments)
    return built


def _concrete_classes() -> dict[str, type[StoredModel]]:
    """Classes of models by their names, of all modules that have been imported."""
    known = StoredModel._classes.items()
    return {name: stored for name, stored in known if not inspect.isabstract(stored)}


def _class_of(name: str | None) -> type[StoredModel] | None:
    """Class of models of this name, or None if there is none."""
    if name in _MODULES:
        importlib.import_module(_MODULES[name])
    return _concrete_classes().get(name or "")


def load(path: str | os.PathLike[str], *, threads: int | None = None) -> StoredModel:
    """Read a model that `save` wrote.

    Parameters
    ----------
    path : path-like
    threads : int, optional
        Upper bound of threads; all by default.

    Returns
    -------
    StoredModel
        Of the class that was saved.

    Raises
    ------
    OSError
        If the file cannot be read.
    FormatError
        If it is no model, is damaged, or comes from a newer version.
    TypeError, ValueError
        If `path` is no path, or `threads` no integer of at least 1.
    MemoryError
        If there is no room for the parameters.
    """
    if threads is not None:
        integer("threads", threads, least=1)
    tensors, metadata = read_tensors(path)
    name = metadata.get("model")
    stored = _class_of(name)
    if stored is None:
        known = dict.fromkeys((*_concrete_classes(), *_MODULES))
        raise FormatError(
            f"{path} must hold a model of a known class, {', '.join(known)}; "
            f"got {name or metadata.get('kind', 'no model')}"
        )
    try:
        configuration = json.loads(metadata["configuration"])
        model = stored.from_configuration(configuration, threads=threads)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"{path} holds no configuration of a {name}: {error}") from None
    expected = {key: _described(array) for key, array in model.parameters.items()}
    found = {key: _described(array) for key, array in tensors.items()}
    for key in (*expected, *found):
        if expected.get(key) != found.get(key):
            raise FormatError(
                f"{path} must hold {expected.get(key, 'nothing')} for {key}; "
                f"got {found.get(key, 'nothing')}"
            )
    for key, tensor in tensors.items():
        model.parameters[key] = tensor
    return model


def _described(array: NDArray[Any]) -> str:
    """Dtype and shape of an array in words."""
    return f"{array.dtype} {describe_shape(array.shape)}"
