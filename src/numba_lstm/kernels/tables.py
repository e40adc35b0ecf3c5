"""What a kernel knows of a call and of each cell, a cell being one direction of one layer.

Two tables of integers. Places are counted in numbers from the start of a buffer; strides are
counted in numbers as well.
"""

from __future__ import annotations

import numpy as np

_FIELDS_OF_CALL = (
    "steps",  # T
    "batch",  # B
    "layers",  # L
    "directions",  # D
    "training",  # 1 if what backward needs is kept
    "x_step",  # strides of x and dx over t
    "x_row",  # and over the rows of the batch
    "y_step",  # strides of y and dy
    "y_row",
    "input_gradient",  # 1 if dx of a sequence is wanted
    "accumulate",  # 1 if weight gradients are added to those that are there
    # what of it this call runs
    "first_layer",
    "last_layer",  # excluded
    "first_direction",
    "last_direction",  # excluded
    "start",  # first step
    "stop",  # step behind the last
    "segment",  # number of the segment at hand
    "first_kept",  # first step of which gates and cell states are kept
    "first_held",  # first step of which outputs are kept
    "recomputed",  # 1 if a forward pass only restores what backward needs
    # from where the weights come, and what the caches keep meanwhile
    "cached",  # numbers of a matrix that the L2 cache keeps from one use to the next
    "cached_in_part",  # and of the largest one of which the L3 cache keeps a good part
    "asked",  # 1 if a step's tiles ask for the weights that come next, which are distant
    "dx_steps",  # steps of one product for dx
    # in the workspace
    # steps whose inputs there is room for to be projected, or looked up, ahead of the
    # recurrence: a chunk of them, or two where workers share out stages; 0 for none
    "ahead",
    "gate_steps",  # steps whose gates are kept; 0: every tile passes through a scratch
    "scratch",  # place of the first worker's scratch
    "scratch_apart",  # from a worker's scratch to the next one's
    # in a scratch: 1 if the worker's next step goes through the panels from the end
    "way_place",
    # that the rows of states and gates are in: one for each worker with rows of its own (in
    # inference just that one has rows in it), or 1
    "rooms",
    "room_rows",  # rows that h and c of inference have in each, and a step of its gates
    # in inference from one room to the next, in training between the rows of two in dh and dc
    "rooms_apart",
    # of rows whose weight gradients are summed apart: 2 halves, or 1
    "groups",
    "partial_apart",  # from the partial sums of a group to those of the next
    "vocabulary",  # rows of the table that x is where tokens stand for inputs; else 0
    "tokens",  # address of these, (T, B) of int64
    "order",  # and of what `group_tokens` gave, (T, B, 2) of int64, for the way back
    "vocabulary_panel",  # stride over H / W of what is kept of them
    "packed_apart",  # from a worker's packed weights to the next one's; 0 if it is the same
    # into which the units of a direction are cut where workers share them out, or stages:
    # then for projecting the inputs; else 0
    "tasks",
    "abreast",  # directions that they go through at once then
    "wave",  # steps of a stage taken at once where workers share out stages; else 0
    "flags",  # place of what they tell one another: two for each task, or one for a stage
    # dropout
    "dropped",  # share dropped, in units of 2**-53
    "seed",
    "dropout_call",  # number of this call among those with dropout
)
CALL = np.dtype([(name, np.int64) for name in _FIELDS_OF_CALL])
# Those, in a row, that tell what of it is run.
PIECE = slice(_FIELDS_OF_CALL.index("first_layer"), _FIELDS_OF_CALL.index("first_held") + 1)

_FIELDS_OF_CELL = (
    "inputs",  # I, or D H of the layer below
    "hidden",  # H
    "reverse",  # 1 if it runs from the last step to the first
    "gate_columns",  # 4H, or more if there is room for W units in the last panel
    "widest",  # vectors in a row of what is packed: 4, or 2 for tall tiles
    # rows of a panel that have four all the same, ahead of the others: 1 + I of inputs that
    # are projected ahead, or none; or all
    "wide_rows",
    "state_row",  # stride of h, dh and dc over the rows of the batch: H padded
    "c_row",  # of c: H in training, where all steps are kept, else the same
    # in what is packed for the forward pass
    # (H / W, 1 + I + H, 4, W): bias, weight_ih, weight_hh; those rows that are not wide are
    # (2, rows, 2, W). The last one has the units that are left for W, and no parts then
    "panels",
    # (H / W, 4, W): what a state of zeros gives to the pre-activations, which is NaN unless the
    # recurrent weights are finite. The last one has the units that are left for W
    "zero_products",
    # in what is packed for the backward pass
    "recurrent_panels",  # weight_hh as the matrix that takes dgates to dh
    "input_panels",  # weight_ih of both directions as the matrix that takes dgates to dx
    # in the parameters and the gradients
    "weight_ih",
    "weight_hh",
    "bias",  # -1 if there is none
    # in the workspace; where workers infer rows of their own, h, c and gates in the first
    # room, which are the same for all cells
    "h",  # (2, room_rows, state_row), the newest two; inference only
    # (room_rows, c_row); in training (rooms; gate_steps + 1, rows of the room, c_row)
    "c",
    # (H / W; gate_steps, room_rows, 4, W), the last one with the units that are left for W;
    # in training (H / W; rooms; gate_steps, rows of the room, 4, W), dgates after backward
    "gates",
    "gates_panel",  # stride of the gates over H / W
    # (steps, B, D H), shared by the directions; for training also the step before, and the
    # one behind where there are two
    "outputs",
    "source",  # the same of the layer below, with dropout
    # where tokens stand for the inputs of a cell; else -1
    # (H / W, vocabulary, 4, W) like gates: bias and inputs' part of the pre-activations
    "projected",
    "token_sums",  # sums of dgates, in the same room unless checkpoints need both
    # gradients of the outputs, of one direction for the steps gone through at once; unused
    # in the last layer
    "doutputs",
    # (segments, 2, B, state_row): h and c before each; training only. A single one has the
    # room of dh and dc
    "marks",
    "dh",  # (B, state_row), the rows of rooms apart
    "dc",  # the same
    # (groups; H / W, 1 + I + H, 4, W): sums of weight gradients by groups or between spans;
    # with one of each, room for those of a task for each worker
    "partial",
)
CELL = np.dtype([(name, np.int64) for name in _FIELDS_OF_CELL])

# A block of weight gradients is summed over so many (step, row) terms: one chain of float32 over a
# million terms has an error of 1.5e-4, blocks of 128 one of 8e-7. Blocks of 64 and 256 are as fast.
BLOCK_TERMS = 128
# Numbers of a scratch that hold an integer for every term of a block: all of them of float32.
ROOM_FOR_TERMS = 2 * BLOCK_TERMS
# Panels and features of one task of weight gradients. dgates come from memory once for so many
# features (72 to 98 GFLOP/s at T365 B256 I32 H64, where 48 features gave 86), and features of a
# block are copied once for so many panels (88 to 103 at T200 B32 I640 H320, where 4 gave 98). More
# of both would not leave the sums in L2.
TASK_FEATURES = 192
TASK_PANELS = 16
# Numbers of float32 in the room of a flag: two cache lines, which some CPUs fetch together.
FLOATS_OF_FLAG = 32
