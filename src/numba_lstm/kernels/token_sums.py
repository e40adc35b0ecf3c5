"""Sums of dgates by tokens.

On the way back the dgates of all steps with a token add up first: what follows for the weights and
the table is then the business of as many rows as there are tokens.
"""

from __future__ import annotations

import numpy as np

from ..jit import device, inlined, kernel
from ..simd.pointer import address, integers_at
from ..simd.vector import broadcast, load_first, store, store_first, width
from .gradient_tasks import block_at, blocks_of_terms
from .tables import BLOCK_TERMS
from .term_numbers import number_terms


@kernel
def group_tokens(calls, tokens, vocabulary, order):
    """Bring the terms of every block of weight gradients into an order in which tokens meet.

    Parameters
    ----------
    calls : (1,) array of CALL
    tokens : array of int64
        (T B), read.
    vocabulary : int
    order : array of int64
        (T B, 2), assigned: token of each term of a block, and its number among those of the piece
        that are kept; those of the same token one behind another, and ascending.
    """
    call = calls[0]
    batch = call.batch
    steps = tokens.size // batch
    block_steps, beside = blocks_of_terms(call)
    numbers = np.empty(BLOCK_TERMS, np.int64)
    is_first = np.empty(BLOCK_TERMS, np.bool_)
    following = np.empty(BLOCK_TERMS, np.int64)
    newest = np.full(vocabulary, -1, np.int64)
    for step in range(0, steps, block_steps):
        for number in range(beside):
            block = block_at(call, step, steps, number)
            # Blocks of the whole batch are stretches of the terms.
            begin, terms = block.step * batch + block.row, block.steps * block.rows
            # Pieces begin where blocks do.
            number_terms(call, step - step % call.gate_steps, block, address(numbers, 0))
            for term in range(terms):
                token = tokens[begin + term]
                before = newest[token] - begin
                is_first[term] = before < 0
                following[term] = -1
                if before >= 0:
                    following[before] = term
                newest[token] = begin + term
            place = begin
            for leader in range(terms):
                if not is_first[leader]:
                    continue
                term = leader
                while term >= 0:
                    order[place, 0], order[place, 1] = tokens[begin + term], numbers[term]
                    place += 1
                    term = following[term]


@inlined
def _add_first(place, count, vector):
    """Add the first lanes of a vector to what stands somewhere."""
    store_first(load_first(place, count) + vector, place, count)


@device
def sum_by_tokens(call, begin, terms, dgates, added, sums):
    """Add the dgates of a block of terms, in a panel, to the sums of their tokens.

    The terms of a token are added up first, from the first of them. All sums are set to zero before
    unless something is to be added to.
    """
    order = integers_at(call.order)
    lanes = width(sums)
    start, row_size = dgates
    # Lanes of interest in four vectors.
    n0, n1 = min(lanes, row_size), max(0, min(lanes, row_size - lanes))
    n2, n3 = max(0, min(lanes, row_size - 2 * lanes)), max(0, row_size - 3 * lanes)
    if not added:
        for k in range(0, call.vocabulary * row_size, lanes):
            store(broadcast(sums, 0.0), sums + k)
    k, end = 2 * begin, 2 * (begin + terms)
    while k < end:
        token = order[k]
        four = start + order[k + 1] * row_size
        v0, v1 = load_first(four, n0), load_first(four + lanes, n1)
        v2, v3 = load_first(four + 2 * lanes, n2), load_first(four + 3 * lanes, n3)
        k += 2
        while k < end and order[k] == token:
            four = start + order[k + 1] * row_size
            v0, v1 = v0 + load_first(four, n0), v1 + load_first(four + lanes, n1)
            v2 = v2 + load_first(four + 2 * lanes, n2)
            v3 = v3 + load_first(four + 3 * lanes, n3)
            k += 2
        target = sums + token * row_size
        _add_first(target, n0, v0)
        _add_first(target + lanes, n1, v1)
        _add_first(target + 2 * lanes, n2, v2)
        _add_first(target + 3 * lanes, n3, v3)
