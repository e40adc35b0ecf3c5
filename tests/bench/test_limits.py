"""Limits of the machine: plausible, and in the order that physics gives them."""

import pytest

from numba_lstm.bench import Limits, highest_rate, limits, measure_limits, parse
from numba_lstm.bench.roofline import level_of_recurrence
from numba_lstm.simd import cpu


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("threads", sorted({1, cpu.cores()}))
def test_measured_limits_are_plausible(threads, dtype):
    measured = measure_limits(threads, dtype)
    assert (measured.threads, measured.dtype) == (threads, dtype)
    # From a tenth of a unit at 1 GHz to four units at 8 GHz, per core.
    lanes = cpu.lanes(4 if dtype == "float32" else 8)
    assert 0.2e9 * lanes < measured.operations / threads < 64e9 * lanes
    assert tuple(measured.bandwidths) == limits.LEVELS
    assert all(1e7 < rate < 1e12 * threads for rate in measured.bandwidths.values())
    assert measured.bandwidths["L1"] > measured.bandwidths["memory"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, "float32"), "threads must be at least 1; got 0"),
        ((1, "int8"), "dtype must be float32 or float64; got 'int8'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        measure_limits(*arguments)


@pytest.fixture
def machine(monkeypatch):
    """Caches of 1, 10 and 100 kB, and the limits of two threads."""
    monkeypatch.setattr(cpu, "cache_sizes", lambda: (1_000, 10_000, 100_000))
    rates = {"L1": 400.0, "L2": 200.0, "L3": 100.0, "memory": 10.0}
    return Limits(2, "float32", 1000.0, rates)


def test_which_level_holds_what_two_threads_share(machine):
    sizes = (1, 2_000, 2_001, 20_000, 20_001, 100_000, 100_001)
    expected = [400.0, 400.0, 200.0, 200.0, 100.0, 100.0, 10.0]
    assert [machine.bandwidth(size) for size in sizes] == expected


def test_sizes_to_read_lie_within_their_levels(monkeypatch):
    level1, level2, level3 = 32 << 10, 1 << 20, 8 << 20
    monkeypatch.setattr(cpu, "cache_sizes", lambda: (level1, level2, level3))
    for threads in (1, 2, 64):
        first, second, third, beyond = limits._read_sizes(threads)
        assert first <= level1 < second <= level2 < third < beyond
        assert threads * beyond >= 4 * level3
    assert limits._read_sizes(2)[2] <= level3 // 2
    monkeypatch.setattr(cpu, "cache_sizes", lambda: (level1, level2, 480 << 20))
    assert limits._read_sizes(1)[2] == 8 * level2, "of a huge cache only a guest's part is read"


def test_batched_shapes_are_bound_by_multiply_adds(machine):
    # K / (K + 32) of the peak, with K = I + H; weights in L1, read once a step for 100 rows
    shape = parse("50,100,10,8")
    assert highest_rate(shape, "stream", machine) == pytest.approx(1000 * 18 / 50)
    # The first state of a sequence is zeros: one product of H less, of 50, and of 3 times as many.
    assert highest_rate(shape, "inference", machine) == pytest.approx(
        1000 * 50 * 18 / (50 * 50 - 8)
    )
    assert highest_rate(shape, "training", machine) == pytest.approx(
        1000 * 150 * 18 / (150 * 50 - 8)
    )


def test_single_rows_are_bound_by_reading_weights(machine):
    # 4 H H floats are 9216 bytes: L2 for two threads. 4 H I floats: 36864 bytes more, L3 together.
    shape = parse("10,1,96,24")
    per_input = 8 * 10 * 24 / 1000
    recurrence = 9 * 9216 / 200
    whole = per_input * 96 + recurrence + per_input * 32
    assert highest_rate(shape, "inference", machine) == pytest.approx(
        shape.operations(training=False) / max(whole, 36864 / 100 + recurrence + per_input * 32)
    )
    # Step by step, the weights of the inputs are read as often as the recurrent ones.
    stepwise = 10 * (36864 + 9216) / 100 + per_input * 32
    assert highest_rate(shape, "stream", machine) == pytest.approx(
        shape.operations(training=False) / stepwise
    )
    assert level_of_recurrence(shape, "inference", machine) == "L2"
    assert level_of_recurrence(shape, "stream", machine) == "L3"
    # Back again reads the recurrent weights once more, and costs twice the multiply-adds.
    recurrence = 19 * 9216 / 200
    trained = 3 * per_input * 96 + recurrence + 3 * per_input * 32
    trained = max(trained, 2 * 36864 / 100 + recurrence + 3 * per_input * 32)
    assert highest_rate(shape, "training", machine) == pytest.approx(
        shape.operations(training=True) / trained
    )
