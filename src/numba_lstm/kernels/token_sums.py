"""Sums of dgates by tokens.

On the way back the dgates of all steps with a token add up first: what follows for the weights and
the table is then the business of as many rows as there are tokens.
"""

from __future__ import annotations

import numpy as np

from ..jit import device, kernel
from ..simd.pointer import integers_at
from ..simd.vector import broadcast, load, store, width
from .gradient_tasks import block_of_terms
from .tables import BLOCK_TERMS


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
    tokens, order = integers_at(call.tokens), integers_at(call.order)
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
