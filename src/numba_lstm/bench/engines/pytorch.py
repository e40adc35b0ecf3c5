"""PyTorch, with oneDNN as it comes."""

from __future__ import annotations

from typing import Any, ClassVar

from ...validation import FloatArray
from .engine import Engine, Task


class PyTorch(Engine):
    """`torch.nn.LSTM`: in `inference_mode`, or with autograd."""

    packages: ClassVar[tuple[str, ...]] = ("torch",)
    modes: ClassVar[frozenset[str]] = frozenset({"inference", "stream", "training"})
    dtypes: ClassVar[frozenset[str]] = frozenset({"float32", "float64"})

    def __init__(self, task: Task) -> None:
        import torch

        super().__init__(task)
        self._torch = torch
        torch.set_num_threads(task.threads)
        shape = task.shape
        self._lstm = torch.nn.LSTM(
            shape.I,
            shape.H,
            shape.layers,
            bidirectional=shape.bidirectional,
            dtype=getattr(torch, task.x.dtype.name),
        )
        weights = {name: torch.from_numpy(array) for name, array in task.weights.items()}
        self._lstm.load_state_dict(weights)
        self._x = torch.from_numpy(task.x)
        self._dy = torch.from_numpy(task.dy)
        if task.mode == "training":
            self._x.requires_grad_()
        else:
            self._lstm.eval()
        self._state: Any = None

    @property
    def version(self) -> str:
        """Version of PyTorch."""
        return str(self._torch.__version__)

    def infer(self) -> Any:
        """Call the module in `inference_mode`."""
        with self._torch.inference_mode():
            return self._lstm(self._x)

    def step(self, x: Any) -> Any:
        """Call the module for one step."""
        with self._torch.inference_mode():
            y, self._state = self._lstm(self._torch.from_numpy(x), self._state)
        return y.numpy()

    def train(self) -> Any:
        """Call the module, and `backward` through autograd."""
        self._lstm.zero_grad(set_to_none=True)
        self._x.grad = None
        result = self._lstm(self._x)
        result[0].backward(self._dy)
        return result

    def results(self) -> dict[str, FloatArray]:
        """Results; of the two biases, whose gradients are the same, one."""
        if self.task.mode == "stream":
            self._state = None
            y = self.steps()
            h, c = self._state
            return {"y": y, "h": h.numpy(), "c": c.numpy()}
        y, (h, c) = self.work()
        found = {"y": y, "h": h, "c": c}
        if self.task.mode == "training":
            found["dx"] = self._x.grad
            for name, parameter in self._lstm.named_parameters():
                if not name.startswith("bias_hh"):  # both biases have the same gradient
                    found["d" + name.replace("bias_ih", "bias")] = parameter.grad
        return {name: tensor.detach().numpy() for name, tensor in found.items()}
