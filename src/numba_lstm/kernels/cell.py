"""The equations of the LSTM cell and their derivatives, each written once.

Hochreiter & Schmidhuber 1997 with the forget gate of Gers, Schmidhuber & Cummins 2000, in the
notation of Greff et al. 2017 (there without peepholes)::

    i = sigmoid(a_i)    f = sigmoid(a_f)    g = tanh(a_g)    o = sigmoid(a_o)
    c' = f c + i g      h' = o tanh(c')
"""

from __future__ import annotations

from ..jit import inlined
from ..simd.vector import fma
from .activations import sigmoid, sigmoid_slope, tanh, tanh_slope


@inlined
def cell_gates(a_i, a_f, a_g, a_o, c):
    """Gates and new cell state from pre-activations and cell state.

    Parameters
    ----------
    a_i, a_f, a_g, a_o : Vector
        Pre-activations of input gate, forget gate, cell candidate and output gate.
    c : Vector
        Cell state before the step.

    Returns
    -------
    i, f, g, o, c : Vector
        Activated gates; cell state after the step.
    """
    i = sigmoid(a_i)
    f = sigmoid(a_f)
    g = tanh(a_g)
    o = sigmoid(a_o)
    return i, f, g, o, fma(f, c, i * g)


@inlined
def cell_output(o, c):
    """Hidden state after a step, from the output gate and the cell state after it."""
    return o * tanh(c)


@inlined
def cell_backward(i, f, g, o, c_before, c, dh, dc):
    """Derivatives of one step (Greff et al. 2017, section II.B).

    Parameters
    ----------
    i, f, g, o : Vector
        Activated gates.
    c_before, c : Vector
        Cell state before and after the step.
    dh, dc : Vector
        Derivatives of the loss with respect to the hidden and cell state after the step; dc without
        the part that runs through h.

    Returns
    -------
    da_i, da_f, da_g, da_o, dc_before : Vector
        Derivatives with respect to the pre-activations and to the cell state before the step.
    """
    tanh_c = tanh(c)
    dc = fma(dh * o, tanh_slope(tanh_c), dc)
    da_i = dc * g * sigmoid_slope(i)
    da_f = dc * c_before * sigmoid_slope(f)
    da_g = dc * i * tanh_slope(g)
    da_o = dh * tanh_c * sigmoid_slope(o)
    return da_i, da_f, da_g, da_o, dc * f
