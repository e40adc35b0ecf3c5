"""Compiled functions over arrays: they know no objects and no files.

Words that they share:

lanes, W
    Numbers in a vector.
panel
    W hidden units of a cell, or four vectors of columns of a matrix, with all their weights side by
    side (`panels`).
tile
    Rows times vectors of a product that are summed up in registers (`gemm`).
stretch
    Terms of a sum whose weights L2 keeps for all tiles (`tiling`).
term
    Of a sum: a number times a row of weights. Of what is kept: a row of the batch at a step, which
    is a term of the sums of weight gradients (`kept`).
block
    Terms whose weight gradients are one chain of sums (`gradients`).
group
    Panels side by side (`forward`); rows of the batch whose weight gradients are summed apart, in
    the fields and places of a call.
way
    Through the panels, to or fro (`workers`).
chunk
    Steps whose inputs are projected ahead of the recurrence at once.
segment
    Steps between two states that training keeps, where it does not keep all.
piece
    Layers, directions and steps that training goes through at once: a segment, of one direction and
    layer where there are two directions; without segments all of it.
span
    Steps of a piece that training goes back through before it sums up their weight gradients.
room
    Where rows of the batch stand that one worker goes through (`rooms`).
stage
    What all workers finish before anyone begins the next (`units`); or what a layer does with its
    input, its projection or its recurrence (`wavefront`).
task
    What one worker claims of a stage (`workers`), or of the weight gradients (`gradient_tasks`).

A function that Python asks as well is written plainly; its twin for kernels has the same name, with
`_compiled` behind it.
"""
