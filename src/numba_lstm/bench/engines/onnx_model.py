"""The LSTM as an ONNX model, from which two engines run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...validation import FloatArray
from ..shapes import Shape

_OPSET = 17
# Of the format's versions, one that runtimes of several years read.
_IR_VERSION = 8
# ONNX has the gates in the order i, o, f, c; c is our g.
_GATE_ORDER = (0, 3, 1, 2)


def _reordered(weight: FloatArray) -> FloatArray:
    """Gates of a (4H, ·) array in ONNX's order."""
    return weight.reshape(4, -1, *weight.shape[1:])[list(_GATE_ORDER)].reshape(weight.shape)


def onnx_model(weights: Mapping[str, FloatArray], shape: Shape, *, T: int, with_state: bool) -> Any:
    """Build the model.

    Parameters
    ----------
    weights : mapping of str to ndarray
        Under PyTorch's names.
    shape : Shape
    T : int
        Steps of a call.
    with_state : bool
        Whether h0 and c0, (L D, B, H), are inputs beside x; they are zero otherwise.

    Returns
    -------
    onnx.ModelProto
        Its outputs are y, (T, B, D H), and h and c, (L D, B, H).
    """
    from onnx import TensorProto, helper, numpy_helper

    config, D = shape.config, shape.config.directions
    state_shape = [config.cells, shape.B, shape.H]
    nodes, constants = [], []

    def constant(name: str, array: FloatArray) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        nodes.append(helper.make_node(kind, inputs, outputs, **attributes))

    def concatenated(names: list[str], result: str) -> None:
        if len(names) == 1:
            node("Identity", names, [result])
        else:
            node("Concat", names, [result], axis=0)

    if with_state and config.num_layers > 1:
        for state in ("h0", "c0"):
            parts = [f"{state}_l{layer}" for layer in range(config.num_layers)]
            node("Split", [state, "cells_per_layer"], parts, axis=0)
        constant("cells_per_layer", np.full(config.num_layers, D, np.int64))
    constant("joined", np.array([0, 0, -1], np.int64))
    below = "x"
    for layer in range(config.num_layers):
        suffixes = [config.suffix(layer * D + direction) for direction in range(D)]
        stacked = {
            name: np.stack([_reordered(weights[f"{name}_{suffix}"]) for suffix in suffixes])
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        }
        inputs = [
            below,
            constant(f"W_l{layer}", stacked["weight_ih"]),
            constant(f"R_l{layer}", stacked["weight_hh"]),
            constant(f"B_l{layer}", np.hstack((stacked["bias_ih"], stacked["bias_hh"]))),
        ]
        if with_state:
            own = f"_l{layer}" if config.num_layers > 1 else ""
            inputs += ["", f"h0{own}", f"c0{own}"]
        above = "y" if layer == config.num_layers - 1 else f"y_l{layer}"
        node(
            "LSTM",
            inputs,
            [f"{above}_apart", f"h_l{layer}", f"c_l{layer}"],
            hidden_size=shape.H,
            direction="bidirectional" if D == 2 else "forward",
        )
        # (T, D, B, H) -> (T, B, D, H) -> (T, B, D H)
        node("Transpose", [f"{above}_apart"], [f"{above}_beside"], perm=[0, 2, 1, 3])
        node("Reshape", [f"{above}_beside", "joined"], [above])
        below = above
    for state in ("h", "c"):
        concatenated([f"{state}_l{layer}" for layer in range(config.num_layers)], state)

    def described(name: str, sizes: list[int]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)

    states = [described(name, state_shape) for name in ("h0", "c0")] if with_state else []
    graph = helper.make_graph(
        nodes,
        "lstm",
        [described("x", [T, shape.B, shape.I]), *states],
        [
            described("y", [T, shape.B, config.output_size]),
            described("h", state_shape),
            described("c", state_shape),
        ],
        constants,
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION
    )
