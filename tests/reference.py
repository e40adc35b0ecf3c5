"""The LSTM in plain NumPy and float64, written from the equations and independent of the kernels.

Parameters carry the names of `numba_lstm.LSTM.parameters`; sequences are (T, B, I).
"""

import numpy as np


def sigmoid(a):
    return np.where(a < 0, np.exp(-np.abs(a)), 1.0) / (1.0 + np.exp(-np.abs(a)))


def cell_forward(x, h, c, W, U, b):
    """One step: new states, and the gates."""
    a_i, a_f, a_g, a_o = np.split(x @ W.T + h @ U.T + b, 4, axis=-1)
    i, f, g, o = sigmoid(a_i), sigmoid(a_f), np.tanh(a_g), sigmoid(a_o)
    c_new = f * c + i * g
    return o * np.tanh(c_new), c_new, (i, f, g, o)


def direction_forward(x, h, c, W, U, b):
    """All steps of one direction: outputs, last states, and what backward needs."""
    outputs, saved = [], []
    for x_t in x:
        h_new, c_new, gates = cell_forward(x_t, h, c, W, U, b)
        saved.append((x_t, h, c, c_new, gates))
        h, c = h_new, c_new
        outputs.append(h)
    y = np.array(outputs) if outputs else np.zeros((0, *h.shape))
    return y, h, c, saved


def direction_backward(saved, dy, dh, dc, W, U):
    """Gradients of one direction: input, first states, W, U, b."""
    dW, dU, db = np.zeros_like(W), np.zeros_like(U), np.zeros(len(W))
    dx = []
    for (x_t, h, c, c_new, (i, f, g, o)), dy_t in zip(saved[::-1], dy[::-1], strict=True):
        dh = dh + dy_t
        tanh_c = np.tanh(c_new)
        dc = dc + dh * o * (1 - tanh_c**2)
        da = np.concatenate(
            [
                dc * g * i * (1 - i),
                dc * c * f * (1 - f),
                dc * i * (1 - g**2),
                dh * tanh_c * o * (1 - o),
            ],
            axis=-1,
        )
        dW += da.T @ x_t
        dU += da.T @ h
        db += da.sum(axis=0)
        dx.append(da @ W)
        dh = da @ U
        dc = dc * f
    return np.array(dx[::-1]), dh, dc, dW, dU, db


def suffixes(layers, directions):
    """Endings of the names, cell by cell."""
    return [
        [f"l{layer}" + "_reverse" * direction for direction in range(directions)]
        for layer in range(layers)
    ]


def weights(parameters, suffix):
    """W, U and b of one cell in float64; zeros where there is no bias."""
    W = np.asarray(parameters[f"weight_ih_{suffix}"], np.float64)
    U = np.asarray(parameters[f"weight_hh_{suffix}"], np.float64)
    b = np.asarray(parameters.get(f"bias_{suffix}", np.zeros(len(W))), np.float64)
    return W, U, b


def lstm_forward(x, hx, parameters, layers=1, directions=1, masks=None):
    """Stack of layers: y, (h, c) and what `lstm_backward` needs.

    `masks` are factors on the outputs of every layer but the last.
    """
    h0, c0 = (np.asarray(state, np.float64) for state in hx)
    y = np.asarray(x, np.float64)
    h_n, c_n, tape = np.empty_like(h0), np.empty_like(c0), []
    for layer, names in enumerate(suffixes(layers, directions)):
        outputs = []
        for direction, suffix in enumerate(names):
            cell = layer * directions + direction
            source = y[::-1] if direction else y
            out, h_n[cell], c_n[cell], saved = direction_forward(
                source, h0[cell], c0[cell], *weights(parameters, suffix)
            )
            outputs.append(out[::-1] if direction else out)
            tape.append(saved)
        y = np.concatenate(outputs, axis=-1)
        if masks is not None and layer < layers - 1:
            y = y * masks[layer]
    return y, (h_n, c_n), tape


def lstm_backward(tape, dy, dhx, parameters, layers=1, directions=1, masks=None):
    """Gradients: dx, (dh0, dc0) and a dictionary for the parameters."""
    dh_n, dc_n = (np.asarray(state, np.float64) for state in dhx)
    dh0, dc0, gradients = np.empty_like(dh_n), np.empty_like(dc_n), {}
    dx = np.asarray(dy, np.float64)
    for layer in reversed(range(layers)):
        if masks is not None and layer < layers - 1:
            dx = dx * masks[layer]
        parts = np.split(dx, directions, axis=-1)
        dx = 0.0
        for direction, suffix in enumerate(suffixes(layers, directions)[layer]):
            cell = layer * directions + direction
            W, U, _ = weights(parameters, suffix)
            part = parts[direction][::-1] if direction else parts[direction]
            step, dh0[cell], dc0[cell], dW, dU, db = direction_backward(
                tape[cell], part, dh_n[cell], dc_n[cell], W, U
            )
            dx = dx + (step[::-1] if direction else step)
            gradients[f"weight_ih_{suffix}"] = dW
            gradients[f"weight_hh_{suffix}"] = dU
            if f"bias_{suffix}" in parameters:
                gradients[f"bias_{suffix}"] = db
    return dx, (dh0, dc0), gradients


def softmax_cross_entropy(y, target, weights=None):
    """Weighted mean over the rows, and its gradient."""
    y = np.asarray(y, np.float64)
    shares = np.ones(target.shape) if weights is None else np.asarray(weights, np.float64)
    shares = shares / shares.sum()
    shifted = y - y.max(axis=-1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    onehot = np.eye(y.shape[-1])[target]
    loss = -(shares * (logs * onehot).sum(axis=-1)).sum()
    return loss, shares[..., None] * (np.exp(logs) - onehot)


def central_difference(function, array, step=1e-3):
    """Gradient of a scalar function, by a stencil of sixth order; `array` is varied in place."""
    gradient = np.empty_like(array)
    weights = {1: 45 / 60, 2: -9 / 60, 3: 1 / 60}
    for index in np.ndindex(array.shape):
        here = array[index]
        total = 0.0
        for distance, weight in weights.items():
            array[index] = here + distance * step
            above = function()
            array[index] = here - distance * step
            total += weight * (above - function())
        array[index] = here
        gradient[index] = total / step
    return gradient


def relative_error(actual, expected):
    """Largest difference, relative to the largest magnitude that is expected."""
    expected = np.asarray(expected)
    assert np.shape(actual) == expected.shape
    if expected.size == 0:
        return 0.0
    return np.abs(actual - expected).max() / max(np.abs(expected).max(), 1e-300)
