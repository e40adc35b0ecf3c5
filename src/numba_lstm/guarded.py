"""Attributes that are checked whenever they are assigned, and others that stay what they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar


class Guarded:
    """An object whose attributes kernels rely on: sizes and buffers go together.

    Reading an attribute takes no longer than of any other object.
    """

    # Assigned once, by the constructor.
    _fixed: ClassVar[frozenset[str]] = frozenset()
    # What takes a value as it was assigned, and returns it as it is kept, or raises.
    _checks: ClassVar[dict[str, Callable[[Any], Any]]] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._fixed and (name in self.__dict__ or hasattr(type(self), name)):
            kind = type(self).__name__
            raise AttributeError(f"{name} of this {kind} stays as it is; build another {kind}")
        check = self._checks.get(name)
        super().__setattr__(name, value if check is None else check(value))
