"""Forms of packed weights: whichever a call reads, outputs and gradients have the same bits."""

import itertools
from contextlib import ExitStack

import numpy as np
import pytest

import numba_lstm as nl
from numba_lstm.kernels.tiling import NARROW, ROWS, WIDE, widest_for_rows
from numba_lstm.layout import layout
from numba_lstm.packed_layout import PanelForm
from numba_lstm.simd import cpu
from schedules import laid_out_with

# What a call takes for its rows, and whether it projects inputs ahead.
CHOICES = list(itertools.product((WIDE, NARROW), (False, True)))
# An L2 cache beyond which all weights are.
SMALL = 1_000


@pytest.fixture
def choose():
    """Set what the next calls take, and how many numbers an L2 cache keeps."""
    with ExitStack() as chosen:

        def set_choice(widest, ahead, cached):
            chosen.enter_context(
                laid_out_with("packed_layout", widest_for_rows=lambda rows: widest)
            )
            chosen.enter_context(
                laid_out_with(
                    projects_ahead=lambda *arguments: ahead,
                    are_distant=lambda *arguments: cached == SMALL,
                )
            )
            chosen.enter_context(laid_out_with("simd.cpu", cached_numbers=lambda itemsize: cached))

        yield set_choice


def results(lstm, x, dy):
    y, states = lstm(x, threads=1)
    lstm.gradients.zero()
    trained, _ = lstm.forward(x, threads=1)
    np.testing.assert_array_equal(trained, y)
    dx, dstates = lstm.backward(dy, threads=1)
    return [y, *states, dx, *dstates, lstm.gradients.flat.copy()]


@pytest.mark.parametrize("cached", [SMALL, 1 << 20])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("B", "I", "H", "L", "bidirectional"),
    [
        (8, 5, 50, 2, False),
        (7, 70, 33, 1, True),
        (16, 3, 100, 2, True),
        (3, 40, 20, 1, False),
        (8, 6, 47, 2, False),
        (15, 4, 26, 1, True),
    ],
)
def test_same_bits(choose, B, I, H, L, bidirectional, dtype, cached):
    random = np.random.default_rng(0)
    lstm = nl.LSTM(I, H, L, bidirectional=bidirectional, dtype=dtype, seed=0)
    x = random.standard_normal((9, B, I))
    dy = random.standard_normal((9, B, lstm.config.output_size))
    forms, every = [], []
    for widest, ahead in CHOICES:
        choose(widest, ahead, cached)
        forms.append(layout(lstm.config, 9, B, False, 1).form)
        every.append(results(lstm, x, dy))
    assert forms == [PanelForm.WIDE, PanelForm.WIDE, PanelForm.NARROW, PanelForm.NARROW_AHEAD]
    for other in every[1:]:
        for array, expected in zip(other, every[0], strict=True):
            np.testing.assert_array_equal(array, expected)


def test_tall_tiles_are_for_rows_that_need_fewer_of_them():
    tallest = cpu.tile_rows(NARROW)
    assert widest_for_rows(0) == widest_for_rows(1) == widest_for_rows(ROWS) == WIDE
    assert widest_for_rows(ROWS + 1) == widest_for_rows(tallest) == NARROW
    assert widest_for_rows(4 * tallest) == WIDE
