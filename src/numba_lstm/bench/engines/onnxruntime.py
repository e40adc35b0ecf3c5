"""ONNX Runtime, its default execution provider for CPUs."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ...validation import FloatArray
from .engine import Engine, Task
from .onnx_model import onnx_model


class ONNXRuntime(Engine):
    """An `onnxruntime.InferenceSession`."""

    packages: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnx")
    modes: ClassVar[frozenset[str]] = frozenset({"inference", "stream"})

    def __init__(self, task: Task) -> None:
        import onnxruntime

        super().__init__(task)
        streaming = task.mode == "stream"
        model = onnx_model(
            task.weights, task.shape, T=1 if streaming else task.shape.T, with_state=streaming
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = task.threads
        options.inter_op_num_threads = 1
        self._version = str(onnxruntime.__version__)
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._reset()

    def _reset(self) -> None:
        """Begin with states of zero."""
        shape = self.task.shape
        self._h = np.zeros((shape.config.cells, shape.B, shape.H), np.float32)
        self._c = np.zeros_like(self._h)

    @property
    def version(self) -> str:
        """Version of ONNX Runtime."""
        return self._version

    def infer(self) -> Any:
        """Run the session."""
        return self._session.run(None, {"x": self.task.x})

    def step(self, x: Any) -> Any:
        """Run the session for one step."""
        inputs = {"x": x, "h0": self._h, "c0": self._c}
        y, self._h, self._c = self._session.run(None, inputs)
        return y

    def results(self) -> dict[str, FloatArray]:
        """Results as the session returns them."""
        if self.task.mode == "stream":
            self._reset()
            y = self.steps()
            return {"y": y, "h": self._h, "c": self._c}
        y, h, c = self.infer()
        return {"y": y, "h": h, "c": c}
