"""What a call says that it will run."""

import numpy as np
import pytest

import numba_lstm as nl
from numba_lstm.layout import layout
from numba_lstm.packed_layout import PanelForm
from numba_lstm.simd import cpu
from schedules import laid_out_with


@pytest.fixture
def two_threads(monkeypatch):
    monkeypatch.setattr("numba_lstm.threadpool.available", lambda: 2)


@pytest.mark.parametrize(
    ("T", "B", "H", "split", "threads"),
    [
        (1, 1, 128, "none", 1),
        (200, 1, 256, "units", 2),
        (200, 32, 96, "rows", 2),
        (0, 4, 96, "none", 1),
        (4000, 1, 18, "none", 1),
    ],
)
def test_split(two_threads, T, B, H, split, threads):
    plan = nl.LSTM(16, H).plan(T, B)
    assert (plan.split, plan.threads) == (split, threads)
    assert nl.LSTM(16, H, threads=1).plan(T, B).split == "none"


@pytest.mark.parametrize(
    ("T", "B", "layers", "split"),
    [(1, 1, 1, "none"), (1, 1, 3, "units"), (1, 0, 3, "none"), (0, 1, 3, "none")],
)
def test_one_step_is_shared_out_where_its_weights_are_not_in_level2(
    two_threads, monkeypatch, T, B, layers, split
):
    monkeypatch.setattr(cpu, "cached_numbers", lambda itemsize: (1 << 20) // itemsize)
    assert nl.LSTM(192, 192, layers).plan(T, B).split == split


def test_small_layers_are_not_shared_out_however_many_they_are(two_threads, monkeypatch):
    monkeypatch.setattr(cpu, "cached_numbers", lambda itemsize: (1 << 18) // itemsize)
    plan = nl.LSTM(32, 32, 40).plan(1, 3)
    assert (plan.split, plan.reason) == ("none", "a second worker would cost more than it saves")


def test_two_workers_take_a_direction_each_and_more_take_units(monkeypatch):
    lstm = nl.LSTM(16, 256, bidirectional=True)
    for available, split in ((1, "none"), (2, "directions"), (8, "units")):
        monkeypatch.setattr("numba_lstm.threadpool.available", lambda bound=available: bound)
        plan = lstm.plan(500, 1)
        assert (plan.split, plan.threads) == (split, available)
    monkeypatch.setattr("numba_lstm.threadpool.available", lambda: 2)
    for training in (False, True):
        assert lstm.plan(500, 40, training=training).split == "directions"
    monkeypatch.setattr("numba_lstm.threadpool.available", lambda: 8)
    assert nl.LSTM(16, 32, bidirectional=True).plan(2000, 3).split == "directions"
    assert nl.LSTM(16, 32, bidirectional=True).plan(2000, 6).split == "rows"


def test_workers_have_one_share_of_the_units_each(monkeypatch):
    for available, bidirectional, workers in (
        *((2, False, 2), (3, False, 3), (8, True, 8)),
        *((2, True, 2), (3, True, 2), (5, True, 4)),
    ):
        monkeypatch.setattr("numba_lstm.threadpool.available", lambda bound=available: bound)
        config = nl.LSTM(320, 320, bidirectional=bidirectional).config
        split = layout(config, 50, 1, False, available).split
        assert (split.workers, split.tasks * config.directions) == (workers, workers)


@pytest.mark.parametrize("training", [False, True])
def test_a_small_batch_of_distant_weights_is_shared_by_units(two_threads, training):
    H = 640
    lstm = nl.LSTM(H, H)
    for numbers, B, split in ((H * H, 20, "units"), (H * H, 80, "rows"), (H**3, 20, "rows")):
        with laid_out_with("simd.cpu", cached_numbers=lambda itemsize, kept=numbers: kept):
            assert lstm.plan(50, B, training=training).split == split


def test_the_reason_is_that_of_what_runs(two_threads):
    tiny = nl.LSTM(4, 8, bidirectional=True).plan(3, 2, training=True)
    assert (tiny.split, tiny.threads) == ("none", 1)
    assert tiny.reason.startswith("a second worker would cost more")
    assert "directions" in nl.LSTM(4, 80, bidirectional=True).plan(99, 9, training=True).reason
    assert "rows" in nl.LSTM(4, 80).plan(99, 9, training=True).reason


def test_bytes_are_those_of_the_workspace():
    lstm = nl.LSTM(16, 40, threads=1)
    for training in (False, True):
        plan = lstm.plan(7, 9, training=training)
        assert plan.workspace_nbytes == lstm.workspace_nbytes(7, 9, training=training)
    lstm(np.zeros((7, 9, 16)))
    checkpointed = lstm.plan(1000, 9, training=True, checkpoint="auto").workspace_nbytes
    assert checkpointed == lstm.workspace_nbytes(1000, 9, training=True, checkpoint="auto")
    assert checkpointed < lstm.plan(1000, 9, training=True).workspace_nbytes
    assert lstm._pool.borrow(0).nbytes == lstm.plan(7, 9).workspace_nbytes


@pytest.mark.skipif(cpu.vector_bits() != 512, reason="tiles of 32 registers")
def test_tiles_are_full():
    lstm = nl.LSTM(16, 128, threads=1)
    assert [lstm.plan(50, B).tile for B in (1, 2, 7, 8, 9, 13, 16, 20, 100)] == [
        *((1, 16), (2, 4), (7, 2), (8, 2)),
        *((5, 4), (7, 2), (8, 2), (5, 4), (6, 4)),
    ]
    assert lstm.plan(50, 16, training=True).tile == (8, 2)


@pytest.mark.skipif(cpu.vector_bits() != 512, reason="six panels, three for each worker")
def test_tiles_are_those_of_a_workers_units(two_threads):
    plan = nl.LSTM(32, 96).plan(100, 1)
    assert (plan.split, plan.tile) == ("units", (1, 8))


def test_what_one_worker_trains_says_why(two_threads):
    """Weight gradients are shared out also where the steps of one row are not."""
    assert nl.LSTM(64, 64, threads=1).plan(10_000, 1, training=True).reason == (
        "one thread is allowed"
    )
    assert nl.LSTM(3, 4).plan(2, 1, training=True).reason == (
        "a second worker would cost more than it saves"
    )
    plan = nl.LSTM(64, 64).plan(10_000, 1, training=True)
    assert (plan.split, plan.threads) == ("none", 2)
    assert plan.reason == "one row is one worker's; 2 sum up the weight gradients"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_row_alone_takes_two_whole_panels_at_once(dtype):
    lanes = cpu.lanes(np.dtype(dtype).itemsize)
    lstm = nl.LSTM(3, lanes + 1, 2, dtype=dtype, threads=1, seed=0)

    def whole(B, *, training=False, config=lstm.config):
        return layout(config, 9, B, training, 1).form is PanelForm.WHOLE

    assert whole(1)
    assert not whole(1, training=True)
    assert not whole(2)
    assert not whole(1, config=nl.LSTM(3, 2 * lanes, dtype=dtype).config)
    assert whole(1, config=nl.LSTM(200, lanes + 1, dtype=dtype).config)
    many = nl.LSTM(201, lanes + 1, dtype=dtype).config
    assert not whole(1, config=many)
    assert layout(many, 1, 1, False, 1).form is PanelForm.WHOLE  # one step is not projected ahead
    x = np.random.default_rng(0).standard_normal((9, 2, 3))
    stream = lstm.stream()
    y, states = lstm(x)
    alone, states_alone = lstm(x[:, :1])
    np.testing.assert_array_equal(alone, y[:, :1])
    np.testing.assert_array_equal(np.stack([stream.step(step) for step in x[:, :1]]), alone)
    np.testing.assert_array_equal(np.stack(states_alone), np.stack(states)[:, :, :1])
    assert lstm.plan(9, 1).packed_nbytes > lstm.plan(9, 2).packed_nbytes


def test_it_prints_a_table():
    text = str(nl.LSTM(16, 128, threads=1).plan(50, 1))
    assert [line.split()[0] for line in text.splitlines()] == [
        *("tile", "threads", "split", "inputs", "workspace", "weights")
    ]


def test_errors():
    lstm = nl.LSTM(2, 3)
    with pytest.raises(ValueError, match="T must be at least 0; got -1"):
        lstm.plan(-1, 1)
    with pytest.raises(TypeError, match="B must be an integer"):
        lstm.plan(1, None)
    with pytest.raises(TypeError, match="training must be True or False"):
        lstm.plan(1, 1, training=1)


@pytest.mark.skipif(cpu.vector_bits() != 512, reason="tiles of 32 registers")
@pytest.mark.parametrize(
    ("near", "B", "H", "split"),
    [
        (True, 24, 384, "rows"),
        (False, 24, 384, "units"),
        (True, 16, 384, "rows"),
        (True, 18, 384, "units"),
        (True, 24, 1024, "units"),
        (True, 5, 384, "units"),
    ],
)
def test_full_tiles_share_out_rows_where_weights_are_near(
    two_threads, monkeypatch, near, B, H, split
):
    monkeypatch.setattr(cpu, "level3_is_near", lambda: near)
    with laid_out_with("simd.cpu", cached_numbers=lambda itemsize: (1 << 19) // itemsize):
        assert nl.LSTM(H, H).plan(30, B).split == split


@pytest.mark.parametrize(("T", "steps"), [(1, 0), (2, 2), (96, 96), (97, 49), (200, 67)])
def test_chunks_of_steps_are_nearly_equal(T, steps):
    assert nl.LSTM(4, 8, threads=1).plan(T, 1).steps_ahead == steps


@pytest.mark.skipif(cpu.vector_bits() != 512, reason="tiles of 32 registers")
@pytest.mark.parametrize(
    ("near", "T", "B", "I", "training", "ahead"),
    [
        (True, 50, 6, 64, False, False),
        (True, 50, 8, 64, True, False),
        (False, 50, 6, 64, False, True),
        (False, 2, 6, 64, False, True),
        (False, 1, 6, 64, False, False),
        (False, 50, 32, 8, True, True),
        (False, 50, 33, 64, True, False),
        (False, 50, 20, 64, False, True),
        (False, 50, 20, 32, False, False),
        (False, 50, 21, 64, False, False),
    ],
)
def test_inputs_are_projected_ahead_where_weights_are_distant(
    monkeypatch, near, T, B, I, training, ahead
):
    lstm = nl.LSTM(I, 64, threads=1)
    assert not lstm.plan(T, B, training=training).steps_ahead
    monkeypatch.setattr(cpu, "level3_is_near", lambda: near)
    with laid_out_with("simd.cpu", cached_numbers=lambda itemsize: 1000):
        assert bool(lstm.plan(T, B, training=training).steps_ahead) is ahead


def test_weights_beyond_half_of_level3_are_distant(monkeypatch):
    monkeypatch.setattr(cpu, "level3_is_near", lambda: True)
    lstm = nl.LSTM(64, 64, threads=1)
    weights = 4 * 64 * 128 * 4
    for level3, ahead in ((2 * weights, False), (2 * weights - 1, True)):
        monkeypatch.setattr(cpu, "cache_sizes", lambda size=level3: (1 << 15, 1 << 20, size))
        with laid_out_with("simd.cpu", cached_numbers=lambda itemsize: 1000):
            assert bool(lstm.plan(50, 20).steps_ahead) is ahead


@pytest.mark.parametrize("training", [False, True])
def test_directions_that_l3_does_not_hold_together_take_turns(two_threads, training):
    lstm = nl.LSTM(64, 256, bidirectional=True)
    assert lstm.plan(20, 5, training=training).split == "directions"
    with laid_out_with("simd.cpu", cache_sizes=lambda: (32 << 10, 64 << 10, 2 << 20)):
        assert lstm.plan(20, 5, training=training).split == "units"
        assert lstm.plan(20, 100, training=training).split == "rows"
