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

    def stream(self) -> Any:
        """Run the request for one step after the other."""
        infer, x = self._request.infer, self.task.x
        steps = []
        for t in range(self.task.shape.T):
            inputs = {"x": x[t : t + 1], "h0": self._h, "c0": self._c}
            # Copies come back: the next states are written where shared results would stand.
            results = infer(inputs, share_inputs=True)
            self._h, self._c = results["h"], results["c"]
            steps.append(results["y"])
        return steps, self._h, self._c

    def results(self) -> dict[str, FloatArray]:
        """Copies of the results."""
        self._reset()
        y, h, c = self.work()
        y = np.concatenate(y) if self.task.mode == "stream" else y
        return {"y": y.copy(), "h": h.copy(), "c": c.copy()}
