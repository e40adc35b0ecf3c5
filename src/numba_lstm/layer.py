"""What layers share: parameters, and gradients that are made when they are first needed."""

from __future__ import annotations

import functools

from .parameters import Parameters
from .storage import StoredModel


class Layer(StoredModel):
    """A model with gradients of its own."""

    @functools.cached_property
    def gradients(self) -> Parameters:
        """Gradients of the parameters, by the same names; `backward` adds to them."""
        return Parameters(self.parameters.shapes, self.parameters.dtype)
