"""numba-lstm itself."""

from __future__ import annotations

from typing import Any, ClassVar

from ... import __version__
from ...lstm import LSTM
from ...validation import FloatArray
from .engine import Engine, Task


class NumbaLSTM(Engine):
    """`numba_lstm.LSTM`, called as its users do."""

    modes: ClassVar[frozenset[str]] = frozenset({"inference", "training"})
    dtypes: ClassVar[frozenset[str]] = frozenset({"float32", "float64"})

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._lstm = LSTM.from_state_dict(task.weights, threads=task.threads)

    @property
    def version(self) -> str:
        """Version of this package."""
        return __version__

    def infer(self) -> Any:
        """Call the model."""
        return self._lstm(self.task.x)

    def train(self) -> Any:
        """Run `forward` and `backward`, the gradients overwritten."""
        lstm = self._lstm
        result = lstm.forward(self.task.x)
        lstm.gradients.zero()
        return result, lstm.backward(self.task.dy)

    def results(self) -> dict[str, FloatArray]:
        """Results under the names of `LSTM.parameters`."""
        if self.task.mode == "inference":
            y, (h, c) = self.infer()
            return {"y": y, "h": h, "c": c}
        (y, (h, c)), (dx, _) = self.train()
        gradients = {f"d{name}": array.copy() for name, array in self._lstm.gradients.items()}
        return {"y": y, "h": h, "c": c, "dx": dx, **gradients}
