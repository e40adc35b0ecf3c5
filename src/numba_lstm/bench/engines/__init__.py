"""The engines that are compared; each imports its package only when it is given a task."""

from .engine import Engine, Task
from .jax import JAX
from .onnxruntime import ONNXRuntime
from .openvino import OpenVINO
from .own import NumbaLSTM
from .pytorch import PyTorch

OWN = "numba-lstm"
PEERS: dict[str, type[Engine]] = {
    "torch": PyTorch,
    "onnxruntime": ONNXRuntime,
    "openvino": OpenVINO,
    "jax": JAX,
}

__all__ = ["OWN", "PEERS", "Engine", "NumbaLSTM", "Task"]
