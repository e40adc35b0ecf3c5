"""What a kernel knows of a call and of each cell, a cell being one direction of one layer.

Two tables of integers. Places are counted in numbers from the start of a buffer; strides are
counted in numbers as well.
"""

from __future__ import annotations

import numpy as np

CALL = np.dtype(
    [
        (name, np.int64)
        for name in (
            "steps",  # T
            "batch",  # B
            "layers",  # L
            "directions",  # D
            "training",  # 1 if what backward needs is kept
            "x_step",  # strides of x and dx over t
            "x_row",  # and over the rows of the batch
            "y_step",  # strides of y and dy
            "y_row",
            "input_gradient",  # 1 if dx is wanted
            # in the workspace
            "h_slots",  # hidden states kept: T + 1 for training, or 2
            "c_slots",  # cell states kept: T + 1 for training, or 1
            "scratch",  # place of the first worker's scratch
            "scratch_size",
            "doutputs",  # place of the gradients of a layer's outputs, (T, B, D H)
            # dropout
            "dropped",  # share dropped, in units of 2**-53
            "seed",
            "number",  # of this call
        )
    ]
)

CELL = np.dtype(
    [
        (name, np.int64)
        for name in (
            "inputs",  # I, or D H of the layer below
            "hidden",  # H
            "reverse",  # 1 if it runs from the last step to the first
            "state_row",  # stride of h, c, dh and dc over the rows of the batch: H padded
            "gates_row",  # the same of the gates
            # in what is packed for the forward pass
            "panels",  # (H / W, 1 + I + H, 4, W): bias, weight_ih, weight_hh
            # in what is packed for the backward pass
            "recurrent_panels",  # weight_hh as the matrix that takes dgates to dh
            "input_panels",  # weight_ih of both directions as the matrix that takes dgates to dx
            # in the parameters and the gradients
            "weight_ih",
            "weight_hh",
            "bias",  # -1 if there is none
            # in the workspace
            "h",  # (h_slots, B, state_row)
            "c",  # (c_slots, B, state_row)
            "gates",  # (T, B, gates_row) for training; dgates afterwards
            "dh",  # (B, state_row)
            "dc",  # (B, state_row)
            "outputs",  # (T, B, D H), shared by the directions; unused in the last layer
        )
    ]
)

# A block of weight gradients is summed over so many (step, row) terms: one chain of float32 over a
# million terms has an error of 3e-5, blocks of 192 one of 2e-6, and 192 x 64 numbers fit in L2.
BLOCK_TERMS = 192
# Features of one task of weight gradients: with four vectors each they stay in L1.
TASK_FEATURES = 48
