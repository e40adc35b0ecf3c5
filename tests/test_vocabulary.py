"""Tables that are projected for the tokens that name their rows: bits, and gradients."""

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import numba_lstm as nl
import reference
from numba_lstm import schedule
from numba_lstm.kernels.embedding import distinct_tokens
from numba_lstm.kernels.gradient_tasks import blocks_of_terms, steps_for_batch
from numba_lstm.kernels.kept import kept_term
from numba_lstm.kernels.rooms import room_with
from numba_lstm.kernels.tables import BLOCK_TERMS, CALL
from numba_lstm.kernels.token_sums import group_tokens
from numba_lstm.simd import cpu
from schedules import SCHEDULES, SMALL_WORK_IS_SHARED, laid_out_with

# Tokens, features, H, layers, directions, axes of the tokens, and whether the first is the batch.
CASES = [
    (20, 6, 18, 2, 1, (30, 5), False),
    (11, 5, 33, 2, 2, (40, 3), False),
    (50, 16, 40, 1, 1, (150, 3), True),
    (130, 20, 100, 1, 1, (20, 20), False),
    (7, 3, 4, 1, 2, (300,), False),
    (1, 1, 1, 1, 1, (2, 1), False),
]
SIZES = pytest.mark.parametrize("case", CASES, ids=str)


def model_and_tokens(case, dtype):
    vocabulary, features, hidden, layers, directions, axes, batch_first = case
    options = {"bidirectional": directions == 2, "batch_first": batch_first, "dtype": dtype}
    lstm = nl.LSTM(features, hidden, layers, **options, seed=1)
    model = nl.Sequential(nl.Embedding(vocabulary, features, dtype=dtype, seed=0), lstm)
    # Some tokens are frequent, and some do not occur.
    tokens = np.random.default_rng(2).integers(0, vocabulary, axes) // 2 * 2 % max(1, vocabulary)
    return model, tokens


def gradients(model, tokens, dy, **options):
    model.forward(tokens, checkpoint=options.pop("checkpoint", None), **options)
    model.backward(dy, accumulate=False, **options)
    return model.gradients.flat.copy()


def cotangent(model, tokens):
    y, _ = model(tokens)
    return np.random.default_rng(3).standard_normal(y.shape).astype(y.dtype)


@pytest.fixture
def kernels(monkeypatch):
    """Names of the kernels that calls have run."""
    names = set()
    share_out = nl.threadpool.share_out

    def noting(kernel, arguments, workers):
        names.add(kernel.__name__)
        share_out(kernel, arguments, workers)

    monkeypatch.setattr("numba_lstm.threadpool.share_out", noting)
    return names


PROJECTION = {"lstm_vocabulary", "lstm_vocabulary_back"}


def test_tables_are_projected_where_tokens_are_many(kernels):
    model = nl.Sequential(nl.Embedding(30, 50, seed=0), nl.LSTM(50, 5, seed=1))
    few, some, many = (np.arange(steps)[:, None] % 30 for steps in (30, 60, 300))
    for tokens, trained, inferred in (
        (few, set(), set()),
        (some, PROJECTION, set()),
        (many, PROJECTION, {"lstm_vocabulary"}),
    ):
        kernels.clear()
        gradients(model, tokens, np.ones((len(tokens), 1, 5)))
        assert kernels & PROJECTION == trained
        kernels.clear()
        model(tokens)
        assert kernels & PROJECTION == inferred


@pytest.mark.parametrize(
    ("rows", "features", "hidden", "training", "projected"),
    [
        (100, 64, 256, True, True),
        (700, 300, 300, True, True),  # 840,000 in the place of 614,400, and 307,200 more
        (800, 300, 300, True, False),
        (100, 64, 256, False, False),  # 102,400 numbers in the place of 65,536
        (100, 64, 128, False, True),
        (900, 64, 30, True, False),  # nearly all tokens differ
        (4, 10, 30, True, False),  # a look-up takes longer than that
        (0, 64, 256, True, False),
    ],
)
def test_rows_are_projected_for_time_and_not_for_memory(
    rows, features, hidden, training, projected, monkeypatch
):
    config = nl.LSTM(features, hidden).config
    for cached, found in ((0, projected), (1 << 40, projected or rows in (100, 800))):
        monkeypatch.setattr(cpu, "cached_numbers", lambda itemsize, numbers=cached: numbers)
        decision = schedule.projects_vocabulary(
            config,
            rows,
            1024 if rows else 0,
            training=training,
        )
        assert decision is found


def projecting(monkeypatch, *, always):
    """Projecting a table whatever that saves, or never."""
    monkeypatch.setattr(
        "numba_lstm.sequential.projects_vocabulary", lambda *sizes, **options: always
    )


@pytest.fixture
def always_projected(monkeypatch):
    projecting(monkeypatch, always=True)


@SIZES
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.usefixtures("always_projected")
def test_the_bits_of_rows_that_are_looked_up(case, dtype, kernels):
    model, tokens = model_and_tokens(case, dtype)
    embedding, lstm = model.layers
    y, (h, c) = lstm(embedding(tokens))
    for run in (model, model.forward):
        kernels.clear()
        projected, ((h_n, c_n),) = run(tokens)
        assert "lstm_vocabulary" in kernels
        np.testing.assert_array_equal(projected, y)
        np.testing.assert_array_equal(h_n, h)
        np.testing.assert_array_equal(c_n, c)


@SIZES
@pytest.mark.usefixtures("always_projected")
def test_the_gradients_of_rows_that_are_looked_up(case, monkeypatch):
    model, tokens = model_and_tokens(case, "float64")
    dy = cotangent(model, tokens)
    projected = gradients(model, tokens, dy)
    projecting(monkeypatch, always=False)
    looked_up = gradients(model, tokens, dy)
    assert reference.relative_error(projected, looked_up) < 1e-13
    table = model.gradients["0.weight"]
    absent = np.setdiff1d(np.arange(len(table)), tokens)
    assert not table[absent].any()


@SIZES
@pytest.mark.parametrize("schedule_of_workers", list(SCHEDULES))
@pytest.mark.parametrize("near", [True, False])
@pytest.mark.usefixtures("always_projected")
def test_workers_and_checkpoints_change_no_bit(case, schedule_of_workers, near, monkeypatch):
    model, tokens = model_and_tokens(case, "float32")
    dy = cotangent(model, tokens)
    outputs, whole = model(tokens, threads=1)[0], gradients(model, tokens, dy, threads=1)
    if not near:  # workers share out units of larger batches as well, and spans are short
        monkeypatch.setattr("numba_lstm.simd.cpu.cached_numbers", lambda itemsize: 1000)
    monkeypatch.setattr("numba_lstm.threadpool.available", lambda: 5)
    monkeypatch.setattr("numba_lstm.threadpool.share_out", SCHEDULES[schedule_of_workers])
    with laid_out_with("schedule", **SMALL_WORK_IS_SHARED):
        np.testing.assert_array_equal(model(tokens, threads=5)[0], outputs)
        for options in ({}, {"checkpoint": 1}, {"checkpoint": "auto"}):
            with model.parameters.edit():  # to pack the weights again
                pass
            shared = gradients(model, tokens, dy, threads=5, **options)
            np.testing.assert_array_equal(shared, whole)


@pytest.mark.usefixtures("always_projected")
def test_gradients_are_added_or_set():
    model, tokens = model_and_tokens(CASES[0], "float32")
    dy = cotangent(model, tokens)
    once = gradients(model, tokens, dy)
    model.forward(tokens)
    model.backward(dy, accumulate=True)
    assert reference.relative_error(model.gradients.flat, 2 * once.astype("f8")) < 1e-6


@pytest.mark.usefixtures("always_projected")
def test_rows_that_no_token_names_are_never_used():
    model, tokens = model_and_tokens(CASES[0], "float32")
    dy = cotangent(model, tokens)
    clean = model(tokens)[0], gradients(model, tokens, dy)
    absent = np.setdiff1d(np.arange(CASES[0][0]), tokens)
    table = model.parameters["0.weight"].copy()
    table[absent] = np.nan
    model.parameters["0.weight"] = table
    np.testing.assert_array_equal(model(tokens)[0], clean[0])
    np.testing.assert_array_equal(gradients(model, tokens, dy), clean[1])


@pytest.mark.usefixtures("always_projected")
def test_tokens_may_change_after_forward():
    model, tokens = model_and_tokens(CASES[0], "float32")
    dy = cotangent(model, tokens)
    clean = gradients(model, tokens, dy)
    model.forward(tokens)
    tokens[:] = 0
    model.backward(dy, accumulate=False)
    np.testing.assert_array_equal(model.gradients.flat, clean)


@numba.njit
def blocks_of_call(calls):
    return blocks_of_terms(calls[0])


@numba.njit
def numbers_of_terms(calls, steps, batch):
    call = calls[0]
    return np.array(
        [
            kept_term(call, call.first_kept + t % call.gate_steps, room_with(call, b), b)
            for t in range(steps)
            for b in range(batch)
        ]
    )


@given(
    st.integers(1, 40),
    st.integers(1, 300),
    st.integers(1, 7),
    st.integers(1, 3),
    st.integers(1, 200),
    st.integers(0, 2**32),
)
def test_terms_of_a_token_meet(steps, batch, rooms, blocks, vocabulary, seed):
    tokens = np.random.default_rng(seed).integers(0, vocabulary, (steps, batch))
    call = np.zeros(1, CALL)
    call["batch"], call["rooms"], call["groups"] = batch, min(batch, rooms), 1
    call["gate_steps"] = blocks * steps_for_batch(batch)
    numbers = numbers_of_terms(call, steps, batch).reshape(steps, batch)
    order = np.empty((tokens.size, 2), np.int64)
    group_tokens(call, tokens.reshape(-1), vocabulary, order)
    block_steps, beside = blocks_of_call(call)
    assert steps_for_batch(batch) % block_steps == 0
    begin = 0
    for step in range(0, steps, block_steps):
        for block in range(beside):
            rows = slice(block * batch // beside, (block + 1) * batch // beside)
            some = tokens[step : step + block_steps, rows].reshape(-1)
            numbered = numbers[step : step + block_steps, rows].reshape(-1)
            assert 0 < some.size <= BLOCK_TERMS
            _, first = np.unique(some, return_index=True)
            meeting = np.concatenate([np.flatnonzero(some == some[k]) for k in sorted(first)])
            found = order[begin : begin + some.size]
            np.testing.assert_array_equal(found[:, 0], some[meeting])
            np.testing.assert_array_equal(found[:, 1], numbered[meeting])
            begin += some.size


@given(st.integers(0, 300), st.sampled_from([1, 2, 30, 400, 2**40]), st.integers(0, 2**32))
def test_distinct_tokens_are_numbered_as_they_come(count, most, seed):
    tokens = np.random.default_rng(seed).integers(0, most, count)
    distinct, places = np.full(count, -1), np.full(count, -1)
    slots = np.empty(2 << count.bit_length(), np.int64)
    found = distinct_tokens(tokens, slots, distinct, places)
    expected, first = np.unique(tokens, return_index=True)
    np.testing.assert_array_equal(distinct[:found], expected[np.argsort(first)])
    np.testing.assert_array_equal(distinct[places], tokens)
