"""Packed weights: a copy for every version that is read, or several alike."""

import threading

import numpy as np

import numba_lstm as nl
from numba_lstm.packing import PackedWeights


def doubled(flat, packed, workers):
    np.multiply(flat, 2, out=packed)


def weights():
    parameters = nl.Parameters({"weight": (3, 5)}, "float32")
    with parameters.edit() as flat:
        flat[:] = np.arange(15)
    return parameters, PackedWeights(parameters, 15, doubled)


def test_copies_alike_hold_the_present_weights():
    parameters, panels = weights()
    one = panels.lease()
    three = panels.lease(3)
    np.testing.assert_array_equal(one.buffer, 2 * np.arange(15))
    np.testing.assert_array_equal(three.buffer, np.tile(2 * np.arange(15), 3))
    assert panels.lease(2) is three, "more than are wanted will do"
    assert panels.lease() is three

    with parameters.edit() as flat:
        flat += 1
    seldom = panels.lease()
    np.testing.assert_array_equal(seldom.buffer[:15], 2 * np.arange(15) + 2)
    later = panels.lease(3)
    np.testing.assert_array_equal(later.buffer, np.tile(2 * np.arange(15) + 2, 3))
    np.testing.assert_array_equal(three.buffer[:15], 2 * np.arange(15), "it is still read")


def test_a_copy_that_nobody_reads_is_packed_again():
    parameters, panels = weights()
    with panels.borrow(1) as before:
        pass
    with parameters.edit() as flat:
        flat += 1
    with panels.borrow(1) as after:
        assert after is before
        np.testing.assert_array_equal(after, 2 * np.arange(15) + 2)


def test_a_copy_is_given_back_in_the_midst_of_a_lease():
    """The collector ends a stream that nobody has whenever it comes by, packing or not."""
    parameters, panels = weights()
    forgotten = panels.lease()
    with parameters.edit() as flat:
        flat += 1

    def interrupted(flat, packed, workers):
        panels.give_back(forgotten)
        doubled(flat, packed, workers)

    panels._pack = interrupted
    leased = []
    thread = threading.Thread(target=lambda: leased.append(panels.lease()), daemon=True)
    thread.start()
    thread.join(timeout=60)
    (present,) = leased
    np.testing.assert_array_equal(present.buffer, 2 * np.arange(15) + 2)
    assert (len(forgotten.readers), len(present.readers)) == (0, 1)
