"""numba-lstm itself."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ... import __version__
from ...lstm import LSTM
from ...validation import FloatArray
from .engine import Engine, Task


class NumbaLSTM(Engine):
    """`numba_lstm.LSTM`, called as its users do."""

    modes: ClassVar[frozenset[str]] = frozenset({"inference", "stream", "training"})
    dtypes: ClassVar[frozenset[str]] = frozenset({"float32", "float64"})

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._lstm = LSTM.from_state_dict(task.weights, threads=task.threads)
        if task.mode == "stream":
            self._stream = self._lstm.stream(task.shape.B)
            self._out = np.empty((task.shape.B, task.shape.H), task.x.dtype)

    @property
    def version(self) -> str:
        """Version of this package."""
        return __version__

    def infer(self) -> Any:
        """Call the model."""
        return self._lstm(self.task.x)

    def step(self, x: Any) -> Any:
        """Take one step, its output written over the one before."""
        return self._stream.step(x[0], out=self._out)

    def train(self) -> Any:
        """Run `forward` and `backward`, the gradients written over those before."""
        lstm = self._lstm
        result = lstm.forward(self.task.x)
        return result, lstm.backward(self.task.dy, accumulate=False)

    def results(self) -> dict[str, FloatArray]:
        """Results under the names of `LSTM.parameters`."""
        if self.task.mode == "stream":
            self._stream.reset()
            y = np.stack([self.step(x[np.newaxis]).copy() for x in self.task.x])
            h, c = self._stream.state
            return {"y": y, "h": h, "c": c}
        if self.task.mode == "inference":
            y, (h, c) = self.infer()
            return {"y": y, "h": h, "c": c}
        (y, (h, c)), (dx, _) = self.train()
        gradients = {f"d{name}": array.copy() for name, array in self._lstm.gradients.items()}
        return {"y": y, "h": h, "c": c, "dx": dx, **gradients}
