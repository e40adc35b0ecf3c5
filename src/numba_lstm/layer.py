"""What layers share: parameters, and gradients that are made when they are first needed."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

from . import threadpool
from .parameters import Parameters
from .storage import StoredModel


class Layer(StoredModel):
    """A model with gradients of its own."""

    @functools.cached_property
    def gradients(self) -> Parameters:
        """Gradients of the parameters, by the same names; `backward` adds to them."""
        made = Parameters(self.parameters.shapes, self.parameters.dtype)
        # Of several threads that want them first, one makes them for all.
        first: Parameters = vars(self).setdefault("gradients", made)
        return first


class ThreadedLayer(Layer):
    """A layer whose calls several threads may share out, so many at most: `threads`."""

    threads: int | None
    _checks: ClassVar[dict[str, Any]] = {"threads": threadpool.check}

    def _threads(self, threads: int | None) -> int:
        """Upper bound of threads of a call."""
        return threadpool.resolve(self.threads if threads is None else threads)
