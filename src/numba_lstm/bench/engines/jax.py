"""JAX: the LSTM as its users write it, compiled by XLA."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ...validation import FloatArray
from .engine import Engine, Task


class JAX(Engine):
    """The inputs of all steps in one product, then `jax.lax.scan` over the steps."""

    packages: ClassVar[tuple[str, ...]] = ("jax", "jaxlib")
    modes: ClassVar[frozenset[str]] = frozenset({"inference", "stream", "training"})
    dtypes: ClassVar[frozenset[str]] = frozenset({"float32", "float64"})

    @staticmethod
    def environment(threads: int) -> dict[str, str]:
        """XLA takes the size of its pool from one variable, and from another whether to use it."""
        spread = str(threads > 1).lower()
        return {
            "NPROC": str(threads),
            "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={spread}",
            "JAX_PLATFORMS": "cpu",
        }

    def __init__(self, task: Task) -> None:
        import jax
        import jax.numpy as jnp

        super().__init__(task)
        self._jax = jax
        jax.config.update("jax_enable_x64", task.x.dtype == np.float64)
        config, H = task.shape.config, task.shape.H
        self._parameters = {
            name.replace("bias_ih", "bias"): jnp.asarray(array)
            for name, array in task.weights.items()
            if not name.startswith("bias_hh")  # zeros in the state dictionary
        }
        self._x = jnp.asarray(task.x)

        def step(weight: Any, carry: Any, projected: Any) -> Any:
            h, c = carry
            i, f, g, o = jnp.split(projected + h @ weight.T, 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        def lstm(parameters: Any, x: Any, h0: Any, c0: Any) -> Any:
            last_h, last_c = [], []
            for layer in range(config.num_layers):
                outputs = []
                for direction in range(config.directions):
                    cell = layer * config.directions + direction
                    suffix = config.suffix(cell)
                    projected = x @ parameters[f"weight_ih_{suffix}"].T
                    (h, c), y = jax.lax.scan(
                        lambda carry, p, w=parameters[f"weight_hh_{suffix}"]: step(w, carry, p),
                        (h0[cell], c0[cell]),
                        projected + parameters[f"bias_{suffix}"],
                        reverse=direction == 1,
                    )
                    outputs.append(y)
                    last_h.append(h)
                    last_c.append(c)
                x = jnp.concatenate(outputs, axis=-1)
            return x, jnp.stack(last_h), jnp.stack(last_c)

        zeros = jnp.zeros((config.cells, task.shape.B, H), task.x.dtype)
        dy = jnp.asarray(task.dy)

        def loss(parameters: Any, x: Any) -> Any:
            results = lstm(parameters, x, zeros, zeros)
            return jnp.vdot(results[0], dy), results

        self._zeros = zeros
        self._state = [zeros, zeros]
        self._lstm = jax.jit(lstm)
        self._gradients = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))

    @property
    def version(self) -> str:
        """Version of JAX."""
        return str(self._jax.__version__)

    def infer(self) -> Any:
        """Call the compiled function."""
        results = self._lstm(self._parameters, self._x, self._zeros, self._zeros)
        return self._jax.block_until_ready(results)

    def step(self, x: Any) -> Any:
        """Call the compiled function for one step."""
        y, *self._state = self._lstm(self._parameters, x, *self._state)
        return np.asarray(y)

    def train(self) -> Any:
        """Call the compiled gradient of a loss whose gradient with respect to y is dy."""
        return self._jax.block_until_ready(self._gradients(self._parameters, self._x))

    def results(self) -> dict[str, FloatArray]:
        """Results as NumPy arrays."""
        if self.task.mode == "training":
            (gradients, dx), (y, h, c) = self.train()
            gradients = {f"d{name}": gradient for name, gradient in gradients.items()}
            found = {"y": y, "h": h, "c": c, "dx": dx, **gradients}
        elif self.task.mode == "stream":
            self._state = [self._zeros, self._zeros]
            y = self.steps()
            h, c = self._state
            found = {"y": y, "h": h, "c": c}
        else:
            y, h, c = self.infer()
            found = {"y": y, "h": h, "c": c}
        return {name: np.asarray(array) for name, array in found.items()}
