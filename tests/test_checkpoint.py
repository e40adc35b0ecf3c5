"""Sequences that are gone through in pieces: the same bits in less memory, or in less time."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import numba_lstm as nl
from numba_lstm.layout import layout
from numba_lstm.pieces import segment_steps
from schedules import laid_out_with


def results(checkpoint, T, B, sizes, **options):
    """Everything that one training call gives."""
    random = np.random.default_rng(T + B)
    lstm = nl.LSTM(*sizes, seed=1, **options)
    config = lstm.config
    x = random.standard_normal((B, T, config.input_size))
    if not config.batch_first:
        x = x.swapaxes(0, 1)
    h, c, dh, dc = random.standard_normal((4, config.cells, B, config.hidden_size))
    y, (h_n, c_n) = lstm.forward(x, (h, c), checkpoint=checkpoint)
    dx, (dh0, dc0) = lstm.backward(random.standard_normal(y.shape), (dh, dc))
    return [y, h_n, c_n, dx, dh0, dc0, lstm.gradients.flat]


@settings(max_examples=25)
@given(
    st.integers(0, 450),
    st.sampled_from([1, 2, 7, 100, 193, 200]),
    st.tuples(st.integers(1, 9), st.integers(1, 20), st.integers(1, 3)),
    st.booleans(),
    st.sampled_from([0.0, 0.4]),
    st.sampled_from([1, 2]),
    st.sampled_from([1, 2, 193, "auto"]),
)
def test_same_bits(T, B, sizes, bidirectional, dropout, threads, checkpoint):
    steps = T if B < 100 else min(T, 9)
    options = {"bidirectional": bidirectional, "dropout": dropout}
    whole = results(None, steps, B, sizes, **options, threads=1)
    pieces = results(checkpoint, steps, B, sizes, **options, threads=threads)
    for expected, found in zip(whole, pieces, strict=True):
        np.testing.assert_array_equal(found, expected)


def spans(lstm, T, B, checkpoint, threads):
    """Steps that backward goes through at once, in the order in which it does."""
    segment = segment_steps(checkpoint, T, B)
    plan = layout(lstm.config, T, B, True, threads, segment)
    return [span for piece in plan.pieces.back() for span in plan.spans_back(piece)]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("checkpoint", [None, 60])
@pytest.mark.parametrize(
    ("T", "B", "sizes", "options"),
    [
        (100, 7, (3, 20, 2), {"dtype": "float64"}),
        (130, 3, (5, 33, 1), {"batch_first": True}),
        (40, 70, (2, 16, 3), {"dropout": 0.3}),
        (9, 200, (1, 8, 1), {"bias": False}),
        (200, 2, (4, 12, 2), {"bidirectional": True}),
    ],
)
def test_spans_have_the_same_bits(T, B, sizes, options, checkpoint, threads):
    whole = results(None, T, B, sizes, **options, threads=1)
    with laid_out_with(_CACHES_OF_A_SPAN=0):
        cut = spans(nl.LSTM(*sizes, **options), T, B, checkpoint, threads)
        in_spans = results(checkpoint, T, B, sizes, **options, threads=threads)
    assert (len(cut) > 1) == (checkpoint is not None or not options.get("bidirectional"))
    for expected, found in zip(whole, in_spans, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_spans_are_whole_blocks_from_the_end():
    small, wide = nl.LSTM(6, 64, 2), nl.LSTM(6, 1000)
    cut = spans(small, 600, 80, None, 2)
    assert len(cut) > 2
    assert [start for start, _ in cut[:-1]] == [stop for _, stop in cut[1:]]
    assert (cut[0][1], cut[-1][0]) == (600, 0)
    # Sums that no cache holds are gone through once.
    assert spans(wide, 600, 80, None, 2) == [(0, 600)]


def test_a_changed_output_does_not_matter():
    lstm = nl.LSTM(3, 5, 2, seed=0)
    x = np.ones((400, 1, 3))
    gradients = []
    for spoilt in (False, True):
        y, _ = lstm.forward(x, checkpoint=1)
        dy = np.ones_like(y)
        if spoilt:
            y.fill(np.nan)
        lstm.gradients.zero()
        lstm.backward(dy)
        gradients.append(lstm.gradients.flat.copy())
    np.testing.assert_array_equal(*gradients)


def test_a_long_sequence_in_little_memory():
    lstm = nl.LSTM(1, 32)
    whole = lstm.workspace_nbytes(1_000_000, 1, training=True)
    assert lstm.workspace_nbytes(1_000_000, 1, training=True, checkpoint="auto") < 4_000_000 < whole


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("B", "I", "H", "L"),
    [(20, 64, 128, 1), (64, 4, 18, 1), (50, 4, 75, 1), (64, 2, 100, 1), (800, 6, 64, 2)],
)
def test_memory_of_training_is_what_backward_needs(B, I, H, L, threads):
    T = 100
    lstm = nl.LSTM(I, H, L, threads=threads)
    numbers = lstm.workspace_nbytes(T, B, training=True) / 4
    inputs = I + (L - 1) * H
    assert numbers <= (6 * L * H + inputs) * T * B + 3 * lstm.parameters.size


@pytest.mark.parametrize("checkpoint", [0, -3])
def test_too_small(checkpoint):
    lstm = nl.LSTM(2, 3)
    with pytest.raises(ValueError, match=f"checkpoint must be at least 1; got {checkpoint}"):
        lstm.forward(np.ones((4, 1, 2)), checkpoint=checkpoint)


def test_no_other_word():
    lstm = nl.LSTM(2, 3)
    with pytest.raises(ValueError, match='checkpoint must be an integer, "auto" or None; got'):
        lstm.forward(np.ones((4, 1, 2)), checkpoint="some")


# Whole models, and training steps.


def stack(**options):
    """A model of tokens with two stacks of LSTMs."""
    return nl.Sequential(
        nl.Embedding(6, 5, seed=0),
        nl.LSTM(5, 9, 2, dropout=0.3, seed=1, **options),
        nl.LSTM(9, 8, seed=2, **options),
        nl.Linear(8, 6, seed=3),
        threads=1,
    )


def numbers(**options):
    """A stack of LSTMs."""
    return nl.LSTM(5, 6, 2, dropout=0.3, seed=0, threads=1, **options)


# Blocks of gradients have 42 steps of three rows: some pieces and a rest.
STEPS, ROWS = 150, 3


def batch(model, seed):
    """What a model takes, and what it could have given."""
    random = np.random.default_rng(seed)
    lstm = model if isinstance(model, nl.LSTM) else model.layers[1]
    sizes = (ROWS, STEPS) if lstm.config.batch_first else (STEPS, ROWS)
    if lstm is model:
        return random.standard_normal((*sizes, 5)), random.standard_normal((*sizes, 6))
    return random.integers(0, 6, sizes), random.integers(0, 6, sizes)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("build", [stack, numbers])
@pytest.mark.parametrize("checkpoint", [1, 100, "auto"])
def test_training_steps_have_the_same_bits(checkpoint, build, batch_first):
    seen = []
    for wish in (None, checkpoint):
        model = build(batch_first=batch_first)
        loss = nl.mse if build is numbers else nl.softmax_cross_entropy
        trainer = nl.Trainer(model, loss, nl.Adam(model.parameters), clip=0.1, checkpoint=wish)
        hx, losses = None, []
        for seed in range(3):
            value, hx = trainer.step(*batch(model, seed), hx)
            losses.append(value)
        seen.append((losses, hx, trainer.state_dict()))
    np.testing.assert_equal(seen[1], seen[0])


@pytest.mark.parametrize("build", [stack, numbers])
def test_training_steps_take_less_memory(build):
    """As much less as the LSTMs say; the rest is the same."""
    kept, said = [], []
    for checkpoint in (None, 64):

        def step(checkpoint=checkpoint):
            model = build()
            loss = nl.mse if build is numbers else nl.softmax_cross_entropy
            trainer = nl.Trainer(model, loss, nl.SGD(model.parameters), checkpoint=checkpoint)
            trainer.step(*batch(model, 0))
            return model

        step()  # what is kept for all models, like tables of sizes, is there then
        domain = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
        tracemalloc.start()
        try:
            model = step()
            traces = tracemalloc.take_snapshot().filter_traces([domain]).traces
            kept.append(sum(trace.size for trace in traces))
        finally:
            tracemalloc.stop()
        lstms = [model] if build is numbers else model.layers[1:3]
        said.append(
            sum(
                lstm.workspace_nbytes(STEPS, ROWS, training=True, checkpoint=checkpoint)
                for lstm in lstms
            )
        )
    assert kept[0] - kept[1] == said[0] - said[1] > 0


def test_pieces_are_made_one_by_one():
    """However many they are, a call that is laid out keeps no list of them."""
    lstm = nl.LSTM(3, 4, 2, bidirectional=True)
    tracemalloc.start()
    try:
        lstm.workspace_nbytes(10**9, 1, training=True, checkpoint=1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("checkpoint", "error", "message"),
    [
        (0, ValueError, "checkpoint must be at least 1; got 0"),
        (-3, ValueError, "checkpoint must be at least 1; got -3"),
        ("some", ValueError, "checkpoint must be an integer, \"auto\" or None; got 'some'"),
        (1.5, TypeError, "checkpoint must be an integer; got 1.5"),
        (True, TypeError, "checkpoint must be an integer; got True"),
    ],
)
def test_a_refused_checkpoint_changes_nothing(checkpoint, error, message):
    """What the call before it kept is there in every layer, also below the first LSTM."""
    gradients = []
    for refused in (False, True):
        model = stack()
        x, other = batch(model, 0)
        y, _ = model.forward(x)
        if refused:
            state = model.dropout_state
            with pytest.raises(error, match=message):
                model.forward(other, checkpoint=checkpoint)
            assert model.dropout_state == state
        model.backward(np.ones_like(y))
        gradients.append(model.gradients.flat.copy())
    np.testing.assert_array_equal(*gradients)


def test_a_model_without_lstms_refuses_the_same():
    with pytest.raises(ValueError, match="checkpoint must be at least 1; got 0"):
        nl.Sequential(nl.Linear(2, 3)).forward(np.ones((4, 2)), checkpoint=0)
