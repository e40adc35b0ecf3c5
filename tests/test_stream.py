"""Step-by-step inference: the bits of whole runs, and errors that change nothing."""

import re
import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import numba_lstm as nl
from numba_lstm import stream as stream_module


def model_and_input(T=9, B=3, I=5, H=18, L=2, **options):
    lstm = nl.LSTM(I, H, L, seed=0, **options)
    x = np.random.default_rng(0).standard_normal((T, B, I)).astype(lstm.config.dtype)
    return lstm, x


@settings(max_examples=20)
@given(
    st.integers(1, 7),
    st.tuples(st.integers(1, 40), st.integers(1, 70), st.integers(1, 3)),
    st.sampled_from(["float32", "float64"]),
    st.sampled_from([1, 2]),
    st.lists(st.integers(0, 9), min_size=1, max_size=5),
)
def test_steps_and_chunks_have_the_bits_of_the_whole(B, sizes, dtype, threads, pieces):
    T = sum(pieces) + len(pieces)
    lstm, x = model_and_input(T, B, *sizes, dtype=dtype, threads=threads)
    whole, states = lstm(x)
    stream = lstm.stream(B)
    first, parts = 0, []
    for piece in pieces:
        parts += [stream.process(x[first : first + piece]), stream.step(x[first + piece])[None]]
        first += piece + 1
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    for kept, expected in zip(stream.state, states, strict=True):
        np.testing.assert_array_equal(kept, expected)


def test_chunks_batch_first():
    lstm, x = model_and_input(batch_first=True)
    chunk = np.ascontiguousarray(x.swapaxes(0, 1))
    stream = lstm.stream(3)
    parts = [stream.process(chunk[:, :4]), stream.process(chunk[:, 4:])]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), lstm(chunk)[0])


def test_rows_that_sit_out_a_step():
    lstm, x = model_and_input(T=4)
    stream = lstm.stream(3)
    stream.step(x[0])
    h, c = stream.state
    spoilt = x[1].copy()
    spoilt[1] = np.nan
    y = stream.step(spoilt, active=[True, False, True])
    np.testing.assert_array_equal(y[1], 0)
    np.testing.assert_array_equal(stream.state[0][:, 1], h[:, 1])
    np.testing.assert_array_equal(stream.state[1][:, 1], c[:, 1])
    late = stream.step(x[2])
    whole = lstm(x[:3])[0]
    np.testing.assert_array_equal(late[[0, 2]], whole[2][[0, 2]])
    np.testing.assert_array_equal(late[1], lstm(x[[0, 2]])[0][1, 1])


def test_reset_of_all_and_of_some():
    lstm, x = model_and_input()
    stream = lstm.stream(3)
    first = stream.step(x[0])
    second = stream.step(x[1])
    stream.reset()
    np.testing.assert_array_equal(stream.step(x[0]), first)
    for rows in ([True, False, False], [0], 0, np.array([0], np.uint8)):
        before = stream.state
        stream.reset(rows)
        for part, old in zip(stream.state, before, strict=True):
            np.testing.assert_array_equal(part[:, 0], 0)
            np.testing.assert_array_equal(part[:, 1:], old[:, 1:])
        stream.state = before
    np.testing.assert_array_equal(stream.step(x[1]), second)
    stream.reset([])
    assert np.abs(stream.state[0]).min() > 0


def test_the_state_is_a_copy():
    lstm, x = model_and_input()
    stream = lstm.stream(3)
    stream.step(x[0])
    h, c = stream.state
    h.fill(9)
    assert np.abs(stream.state[0]).max() < 1
    stream.state = (h, c)
    c.fill(9)
    np.testing.assert_array_equal(stream.state[0], 9)
    assert np.abs(stream.state[1]).max() < 9


def test_new_weights_are_used_from_the_next_step_on():
    lstm, x = model_and_input()
    stream, other = lstm.stream(3), lstm.stream(3)
    stream.step(x[0])
    other.step(x[0])
    lstm.parameters["weight_hh_l0"] = np.zeros((72, 18))
    state = stream.state
    expected, _ = lstm(x[1:2], state)
    np.testing.assert_array_equal(stream.step(x[1]), expected[0])
    np.testing.assert_array_equal(other.step(x[1]), expected[0])


@pytest.mark.parametrize("steps_before", [0, 1])
def test_a_step_that_was_interrupted_as_it_found_new_weights(monkeypatch, steps_before):
    lstm, x = model_and_input(threads=1)
    stream, other = lstm.stream(3), lstm.stream(3)
    other.step(x[0])  # it keeps the old weights, so that the new ones have another place
    for step in x[:steps_before]:
        stream.step(step)
    lstm.parameters["weight_hh_l0"] = np.zeros((72, 18))
    state = stream.state

    def interrupted(**arrays):
        raise KeyboardInterrupt

    monkeypatch.setattr(stream, "_enter", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stream.step(x[1])
    monkeypatch.undo()
    np.testing.assert_array_equal(stream.step(x[1]), lstm(x[1:2], state)[0][0])


def test_nothing_is_allocated_with_out():
    lstm, x = model_and_input(threads=1)
    stream = lstm.stream(3)
    out, chunk_out = np.empty((3, 18), np.float32), np.empty((9, 3, 18), np.float32)
    active = np.array([True, False, True])

    def steps():
        stream.step(x[0], out=out)
        stream.step(x[1], active=active, out=out)
        stream.process(x, out=chunk_out)

    steps()
    domain = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
    tracemalloc.start()
    try:
        before = tracemalloc.take_snapshot().filter_traces([domain])
        steps()
        after = tracemalloc.take_snapshot().filter_traces([domain])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [str(line) for line in after.compare_to(before, "lineno") if line.size_diff] == []
    assert peak < 100_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": np.ones((3, 4))}, r"x must have shape \(3, 5\), 3 = batch_size, 5 = input_size"),
        ({"x": np.ones((2, 5))}, r"x must have shape \(3, 5\)"),
        ({"x": np.ones((1, 3, 5))}, r"x must have shape \(3, 5\)"),
        ({"x": [[None] * 5] * 3}, "x must be an array of real numbers"),
        ({"active": [1, 0, 1]}, "active must be an array of bool"),
        ({"active": [True, False]}, r"active must have shape \(3,\)"),
        ({"out": np.empty((3, 17), np.float32)}, r"out must have shape \(3, 18\)"),
        ({"out": np.empty((3, 18))}, "out must have dtype float32; got float64"),
        ({"out": np.empty((18, 3), np.float32).T}, "out must be C-contiguous and writable"),
        ({"out": [0.0]}, "out must be an array"),
    ],
)
def test_a_wrong_step_leaves_the_state(arguments, message):
    lstm, x = model_and_input()
    stream = lstm.stream(3)
    stream.step(x[0])
    before = stream.state
    given = {"x": x[1], **arguments}
    with pytest.raises((TypeError, ValueError), match=message):
        stream.step(given.pop("x"), **given)
    for part, old in zip(stream.state, before, strict=True):
        np.testing.assert_array_equal(part, old)


def side_by_side(size, apart):
    """Two (3, size) arrays in one memory, the second so many numbers behind the first."""
    count = 3 * size
    memory = np.zeros(3 * count, np.float32)
    return [memory[start:][:count].reshape(3, size) for start in (count, count + apart)]


# The larger model's steps are shared among threads.
@pytest.mark.parametrize(("size", "threads"), [(18, 1), (300, 2)])
@pytest.mark.parametrize("apart", [0, 1, 53, -1, -53])
def test_out_may_not_overlap(size, threads, apart):
    lstm = nl.LSTM(size, size, seed=0, threads=threads)
    stream = lstm.stream(3)
    stream.step(np.ones((3, size)))
    before = stream.state
    x, out = side_by_side(size, apart)
    for active in (None, [True, False, True]):
        with pytest.raises(ValueError, match="out must not overlap x"):
            stream.step(x, active=active, out=out)
    with pytest.raises(ValueError, match="out must not overlap chunk"):
        stream.process(x[None], out=out[None])
    for part, old in zip(stream.state, before, strict=True):
        np.testing.assert_array_equal(part, old)
    assert not x.any()
    assert not out.any()


@pytest.mark.parametrize("apart", [54, -54])
def test_out_may_stand_beside_x(apart):
    lstm = nl.LSTM(18, 18, seed=0)
    x, out = side_by_side(18, apart)
    x[...] = 1
    expected = lstm(x[None])[0][0]
    lstm.stream(3).step(x, out=out)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("rows", [[3], [-1], [0.5], [[0]], [True, False], ["a"]])
def test_wrong_rows(rows):
    lstm, x = model_and_input()
    stream = lstm.stream(3)
    stream.step(x[0])
    before = stream.state
    with pytest.raises((TypeError, ValueError), match="rows must"):
        stream.reset(rows)
    np.testing.assert_array_equal(stream.state[0], before[0])


def test_wrong_streams():
    lstm, _ = model_and_input()
    with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
        lstm.stream(0)
    with pytest.raises(TypeError, match="batch_size must be an integer"):
        lstm.stream(1.5)
    with pytest.raises(ValueError, match="threads must be at least 1; got 0"):
        lstm.stream(1, threads=0)
    with pytest.raises(ValueError, match="a stream must have one direction"):
        nl.LSTM(2, 3, bidirectional=True).stream()
    with pytest.raises(ValueError, match=r"h of state must have shape \(2, 3, 18\)"):
        lstm.stream(3).state = (np.ones((2, 2, 18)), np.ones((2, 3, 18)))


IN_TURN = {
    "step": lambda stream, x: stream.step(x[0]),
    "process": lambda stream, x: stream.process(x),
    "read the state": lambda stream, x: stream.state,
    "reset": lambda stream, x: stream.reset(),
}


@pytest.mark.parametrize("intrusion", [*IN_TURN, "assign the state"])
@pytest.mark.parametrize("model", ["LSTM", "Sequential"])
def test_one_thread_at_a_time(model, intrusion):
    lstm, x = model_and_input()
    model = lstm if model == "LSTM" else nl.Sequential(lstm, nl.LSTM(18, 7, seed=1))
    stream = model.stream(3)
    stream.step(x[0])
    before = stream.state
    errors = []

    def intrude():
        try:
            if intrusion in IN_TURN:
                IN_TURN[intrusion](stream, x)
            else:
                stream.state = before
        except RuntimeError as error:
            errors.append(str(error))

    with stream._turn:
        thread = threading.Thread(target=intrude)
        thread.start()
        thread.join()
    assert errors == ["another call of this stream is under way: give each thread its own"]
    np.testing.assert_equal(stream.state, before)


def test_a_sequential_model():
    model = nl.Sequential(
        nl.Embedding(11, 6, seed=0), nl.LSTM(6, 20, 2, seed=1), nl.Linear(20, 11, seed=2)
    )
    tokens = np.random.default_rng(0).integers(0, 11, (8, 3))
    whole, states = model(tokens)
    stream = model.stream(3)
    out = np.empty((3, 11), np.float32)
    steps = [stream.step(tokens[t]) for t in range(3)]
    assert stream.step(tokens[3], out=out) is out
    rest = np.empty((4, 3, 11), np.float32)
    assert stream.process(tokens[4:], out=rest) is rest
    np.testing.assert_array_equal(np.concatenate([np.stack([*steps, out]), rest]), whole)
    np.testing.assert_array_equal(stream.state[0][0], states[0][0])
    stream.reset()
    np.testing.assert_array_equal(stream.step(tokens[0]), whole[0])
    stream.state = states
    np.testing.assert_array_equal(stream.state[0][1], states[0][1])


@pytest.mark.parametrize("threads", [1, 2])
def test_an_interrupted_step_leaves_rows_that_sit_out(monkeypatch, threads):
    """A signal that comes during a step is served when the kernel is through."""
    lstm, x = model_and_input(B=64, H=64, I=64, threads=threads)
    stream = lstm.stream(64)
    active = np.arange(64) % 2 == 0
    stream.step(x[0])
    before = stream.state
    for name in ("lstm_step", "run_forward"):
        kernel = getattr(stream_module, name)

        def interrupted(*arguments, kernel=kernel):
            kernel(*arguments)
            raise KeyboardInterrupt

        monkeypatch.setattr(stream_module, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        stream.step(x[1], active=active)
    for array, expected in zip(stream.state, before, strict=True):
        np.testing.assert_array_equal(array[:, ~active], expected[:, ~active])
        assert (array[:, active] != expected[:, active]).any()


def test_tokens_count_in_active_rows_only():
    model = nl.Sequential(nl.Embedding(5, 3, seed=0), nl.LSTM(3, 4, seed=0))
    padded, whole = model.stream(2), model.stream(2)
    y = padded.step([4, -1], active=[True, False])
    np.testing.assert_array_equal(y[0], whole.step([4, 0])[0])
    with pytest.raises(ValueError, match="tokens must lie in"):
        padded.step([4, -1], active=[True, True])
    both = np.zeros((2, 4), np.float32)
    tokens = both.reshape(-1)[:4].view(np.int64)
    with pytest.raises(ValueError, match="out must not overlap x"):
        padded.step(tokens, active=[True, False], out=both)


def test_wrong_steps_of_a_sequential_model():
    model = nl.Sequential(nl.Embedding(4, 2), nl.LSTM(2, 3), nl.Linear(3, 4))
    stream = model.stream(2)
    stream.step([0, 1])
    before = stream.state
    for x in ([0, 4], [0], 0, [0.5, 1.0], [[0], [1]]):
        with pytest.raises((TypeError, ValueError)):
            stream.step(x)
    with pytest.raises(TypeError, match="state must be a tuple of 1 states"):
        stream.state = ()
    with pytest.raises(
        ValueError, match=r"^x must have shape \(2,\), 2 = batch_size; got \(3, 2\)"
    ):
        stream.step(np.zeros((3, 2), int))
    with pytest.raises(ValueError, match=r"^chunk must have shape \(T, 2\), 2 = .*; got \(2, 3\)"):
        stream.process(np.zeros((2, 3), int))
    with pytest.raises(ValueError, match=r"^out must have shape \(5, 2, 4\); got \(5, 2, 3\)"):
        stream.process(np.zeros((5, 2), int), out=np.zeros((5, 2, 3), np.float32))
    np.testing.assert_array_equal(stream.state[0][0], before[0][0])


def test_wrong_chunks_of_a_sequential_model_with_the_batch_first():
    model = nl.Sequential(nl.Linear(5, 5), nl.LSTM(5, 5, batch_first=True))
    stream = model.stream(3)
    x = np.ones((3, 4, 5), np.float32)
    np.testing.assert_array_equal(stream.process(x), model(x)[0])
    before = stream.state
    meaning = "3 = batch_size, 5 = features of the first layer"
    for chunk in (x[:2], x[:, :, :4], x[0], x[None]):
        shape = rf"\(3, T, 5\), {meaning}; got {re.escape(str(chunk.shape))}"
        with pytest.raises(ValueError, match=f"^chunk must have shape {shape}"):
            stream.process(chunk)
    with pytest.raises(ValueError, match=rf"^x must have shape \(3, 5\), {meaning}; got"):
        stream.step(x)
    with pytest.raises(ValueError, match="out must not overlap chunk"):
        stream.process(x, out=x)
    np.testing.assert_equal(stream.state, before)
