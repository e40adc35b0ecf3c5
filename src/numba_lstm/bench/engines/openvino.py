"""OpenVINO, its plug-in for CPUs."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ...validation import FloatArray
from .engine import Engine, Task
from .onnx_model import onnx_model


class OpenVINO(Engine):
    """One inference request of a compiled model, all in float32."""

    packages: ClassVar[tuple[str, ...]] = ("openvino", "onnx")
    modes: ClassVar[frozenset[str]] = frozenset({"inference", "stream"})

    def __init__(self, task: Task) -> None:
        import openvino

        super().__init__(task)
        streaming = task.mode == "stream"
        model = onnx_model(
            task.weights, task.shape, T=1 if streaming else task.shape.T, with_state=streaming
        )
        core = openvino.Core()
        options = {
            "INFERENCE_NUM_THREADS": task.threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",  # bfloat16 where the CPU has it, otherwise
        }
        read = core.read_model(model.SerializeToString())
        self._version = str(openvino.__version__).partition("-")[0]
        self._request = core.compile_model(read, "CPU", options).create_infer_request()
        self._reset()

    def _reset(self) -> None:
        """Begin with states of zero."""
        shape = self.task.shape
        self._h = np.zeros((shape.config.cells, shape.B, shape.H), np.float32)
        self._c = np.zeros_like(self._h)

    @property
    def version(self) -> str:
        """Version of OpenVINO, without the commit."""
        return self._version

    def infer(self) -> Any:
        """Run the request; its results are views of what it owns."""
        results = self._request.infer({"x": self.task.x}, share_inputs=True, share_outputs=True)
        return results["y"], results["h"], results["c"]

    def step(self, x: Any) -> Any:
        """Run the request for one step."""
        # Copies come back: the next states are written where shared results would stand.
        results = self._request.infer({"x": x, "h0": self._h, "c0": self._c}, share_inputs=True)
        self._h, self._c = results["h"], results["c"]
        return results["y"]

    def results(self) -> dict[str, FloatArray]:
        """Copies of the results."""
        if self.task.mode == "stream":
            self._reset()
            y = self.steps()
            return {"y": y, "h": self._h, "c": self._c}
        y, h, c = self.infer()
        return {"y": y.copy(), "h": h.copy(), "c": c.copy()}
