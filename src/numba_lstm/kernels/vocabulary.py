"""Inputs that are the rows of a table, as tokens name them: each row is projected once.

A sequence of tokens has a first layer project the same few rows over and over. The pre-activations
of a row do not depend on where it stands, so they are looked up instead, to the same bits. On the
way back the dgates of all steps with a token add up first, and what follows for the weights and the
table is the business of as many rows as there are tokens.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from ..jit import device, inlined, kernel
from ..simd.mode import enter_default_mode, restore_mode
from ..simd.pointer import address, memory_at
from ..simd.vector import broadcast, load, store, width
from .gemm import Place, Terms, no_terms, product
from .panels import vectors_of_panel
from .tables import BLOCK_TERMS
from .workers import first_of_share


@kernel
def lstm_vocabulary(calls, cells, packed, x, workspace, worker, workers):
    """One worker's share of the rows of a table, projected for every direction of the first layer.

    Parameters
    ----------
    calls : (1,) array of CALL
    cells : (L D,) array of CELL
    packed : array
        Panels, read.
    x : array
        (vocabulary, inputs) flat, read.
    workspace : array
        Projected rows are assigned.
    worker, workers : int
        Which share of the rows, of how many.
    """
    mode = enter_default_mode()
    call = calls[0]
    first = first_of_share(call.vocabulary, worker, workers)
    rows = first_of_share(call.vocabulary, worker + 1, workers) - first
    scratch = address(workspace, call.scratch + worker * call.scratch_apart)
    across = 4 * width(scratch)
    for direction in range(call.directions if rows > 0 else 0):
        cell = cells[direction]
        I = cell.inputs
        values = address(x, first * I)
        projected = address(workspace, cell.projected + first * across)
        product(
            1,
            rows,
            Terms(I, I, 0, values, 0, I),
            no_terms(values),
            address(packed, cell.panels),
            1 + I + cell.hidden,
            0,
            cell.gate_columns,
            False,
            call.cached,
            scratch,
            Place(projected, 0, across, call.vocabulary_panel),
        )
    restore_mode(mode)


@inlined
def is_looked_up(cell):
    """Whether tokens stand for the inputs of a cell."""
    return cell.projected >= 0


@inlined
def _for_every_term(call, place):
    """Integers for every step and row, from an address on."""
    return carray(memory_at(place), (call.steps * call.batch,), np.int64)


@device
def look_up_inputs(call, cell, projected, first_panel, last_panel, rows, steps, term, walk):
    """Copy the pre-activations of some steps' tokens into the place of the gates.

    The tokens of the first step's rows stand from `term` on.
    """
    tokens = _for_every_term(call, call.tokens)
    next_term = (1 - 2 * cell.reverse) * call.batch
    lanes = width(walk.gates)
    for panel in range(first_panel, last_panel):
        vectors = vectors_of_panel(cell, panel, lanes)
        table = projected + panel * call.vocabulary_panel
        for step in range(steps):
            gates = walk.gates + (panel * cell.gates_panel + step * walk.gates_step)
            for row in range(rows):
                source = table + tokens[term + step * next_term + row] * 4 * lanes
                target = gates + row * 4 * lanes
                for number in range(vectors):
                    store(load(source + number * lanes), target + number * lanes)


@inlined
def block_of_terms(batch):
    """Rows and steps of a block of weight gradients."""
    rows = max(1, min(batch, BLOCK_TERMS))
    return rows, BLOCK_TERMS // rows


@kernel
def group_tokens(tokens, batch, vocabulary, order):
    """Bring the terms of every block of weight gradients into an order in which tokens meet.

    Parameters
    ----------
    tokens : array of int64
        (T B), read.
    batch, vocabulary : int
    order : array of int64
        (T B), assigned: the terms of a block, by their numbers within it, those of the same token
        one behind another and ascending.
    """
    block_rows, block_steps = block_of_terms(batch)
    is_first = np.empty(BLOCK_TERMS, np.bool_)
    following = np.empty(BLOCK_TERMS, np.int64)
    newest = np.full(vocabulary, -1, np.int64)
    for step in range(0, tokens.size // batch, block_steps):
        steps = min(block_steps, tokens.size // batch - step)
        for row in range(0, batch, block_rows):
            begin = step * batch + row
            terms = steps * min(block_rows, batch - row)
            for term in range(terms):
                token = tokens[begin + term]
                before = newest[token] - begin
                is_first[term] = before < 0
                following[term] = 0
                if before >= 0:
                    following[before] = term
                newest[token] = begin + term
            place = begin
            for leader in range(terms):
                if is_first[leader]:
                    order[place] = leader
                    place += 1
                    term = following[leader]
                    while term > 0:
                        order[place] = term
                        place += 1
                        term = following[term]


@device
def sum_by_tokens(call, begin, terms, dgates, added, sums):
    """Add the dgates of a block of terms, in one panel, to the sums of their tokens.

    The terms of a token are added up first, from the first of them. All sums are set to zero before
    unless something is to be added to.
    """
    tokens, order = _for_every_term(call, call.tokens), _for_every_term(call, call.order)
    lanes = width(sums)
    row_size = 4 * lanes
    if not added:
        for k in range(0, call.vocabulary * row_size, lanes):
            store(broadcast(sums, 0.0), sums + k)
    k = begin
    while k < begin + terms:
        leader = order[k]
        token = tokens[begin + leader]
        four = dgates + leader * row_size
        v0, v1 = load(four), load(four + lanes)
        v2, v3 = load(four + 2 * lanes), load(four + 3 * lanes)
        k += 1
        while k < begin + terms and tokens[begin + order[k]] == token:
            four = dgates + order[k] * row_size
            v0, v1 = v0 + load(four), v1 + load(four + lanes)
            v2, v3 = v2 + load(four + 2 * lanes), v3 + load(four + 3 * lanes)
            k += 1
        target = sums + token * row_size
        store(load(target) + v0, target)
        store(load(target + lanes) + v1, target + lanes)
        store(load(target + 2 * lanes) + v2, target + 2 * lanes)
        store(load(target + 3 * lanes) + v3, target + 3 * lanes)
