"""Comparisons: who takes part, that one runs at a time, and that wrong results are found."""

import importlib.util

import fakes
import numpy as np
import pytest

from numba_lstm.bench import EngineError, MismatchError, compare, comparison, parse
from numba_lstm.bench.engines import OWN, PEERS
from numba_lstm.bench.process import Field
from numba_lstm.simd import cpu

SMALL = parse("5,3,7,4")
BRIEF = {"rounds": 2, "seconds": 0.05}


def compared(shape=SMALL, against=(), **options):
    peers = against if isinstance(against, dict) else {kind.__name__: kind for kind in against}
    (outcome,) = compare([shape], against=peers, **{**BRIEF, **options})
    return outcome


def test_a_slow_engine_and_some_that_drop_out():
    engines = (fakes.Slow, fakes.Chatty, fakes.Raising, fakes.Crashing, fakes.Absent)
    outcome = compared(against=engines)
    assert list(outcome.measurements) == [OWN, "Slow", "Chatty"]
    assert outcome.skipped == {
        "Raising": "failed: RuntimeError: this engine lacks something",
        "Crashing": "failed: its process ended with status 3",
        "Absent": "no_such_package and nor_this_one not installed",
    }
    assert outcome.best_peer == "Chatty"
    slow = outcome.measurements["Slow"]
    assert slow.seconds >= 0.1
    assert slow.quartiles[0] <= slow.seconds <= slow.quartiles[1]
    assert slow.samples == 2
    assert slow.difference == 0.0
    assert outcome.rate("Slow") == SMALL.operations(training=False) / slow.seconds
    assert outcome.ratio == outcome.rate(OWN) / outcome.rate("Chatty")


def test_the_share_of_a_single_round_is_that_of_the_whole():
    outcome = compared(rounds=1)
    assert outcome.share_of_limit == pytest.approx(outcome.rate(OWN) / outcome.highest_rate)


def test_the_share_of_the_limit_is_the_median_of_rounds(monkeypatch):
    """What is in reach of a machine that is half as fast for a while is half as much there."""
    calm, busy = 4e9, 2e9
    rates = iter([calm, calm, busy])
    monkeypatch.setattr(comparison, "measure_multiply_adds", lambda *_: next(rates))
    monkeypatch.setattr(comparison, "measure_reads", lambda *_: 1e15)
    # Of batches that multiply-adds bind, K / (K + 32) of these are in reach, in five steps of which
    # the first has no product of H.
    shape = parse("5,30,7,4")
    least = shape.operations(training=False) / (calm * 5 * 11 / (5 * 43 - 4))
    seconds = iter([2 * least, 4 * least, 2 * 2 * least])
    monkeypatch.setattr(Field, "ask", lambda *_: [next(seconds)])
    outcome = compared(shape, rounds=3)
    assert outcome.limits.operations == calm
    assert outcome.share_of_limit == pytest.approx(1 / 2)
    assert outcome.rate(OWN) / outcome.highest_rate == pytest.approx(1 / 4)


def test_without_others_there_is_no_ratio():
    outcome = compared()
    assert (outcome.best_peer, outcome.ratio, outcome.skipped) == (None, None, {})


def test_what_an_engine_cannot_do_is_named():
    outcome = compared(against=(fakes.SinglePrecision,), dtype="float64")
    assert outcome.skipped == {"SinglePrecision": "no float64"}
    outcome = compared(against=(fakes.InferenceOnly,), mode="training")
    assert outcome.skipped == {"InferenceOnly": "no training"}
    assert list(outcome.measurements) == [OWN]


def test_one_runs_at_a_time_with_its_threads(tmp_path, monkeypatch):
    log = tmp_path / "turns"
    monkeypatch.setenv("TURNS_FILE", str(log))
    compared(against=(fakes.Turns, fakes.OtherTurns), rounds=3)
    lines = log.read_text().splitlines()
    assert len(lines) == 12
    for begins, ends in zip(lines[::2], lines[1::2], strict=True):
        label, event, threads = begins.split()
        assert (event, threads) == ("begins", "1")
        assert ends == f"{label} ends 1"
    # numba-lstm has its turns too, and another engine is first in every round
    assert [line.split()[0] for line in lines[::2]] == [
        *("turns", "other"),
        *("turns", "other"),
        *("other", "turns"),
    ]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (fakes.Wrong, {"mode": "training"}, "the dweight_hh_l0 of 5,3,7,4 .* by 0.001 of"),
        (fakes.NaN, {}, "the c of 5,3,7,4 that numba-lstm gives; it differs by nan of"),
    ],
)
def test_wrong_results_are_an_error(kind, options, message):
    with pytest.raises(MismatchError, match=f"{kind.__name__} must give {message}"):
        compared(against=(kind,), **options)


def test_a_stream_reads_forward():
    with pytest.raises(ValueError, match="a stream must read forward; got 5,3,7,4,bi, which"):
        compare([SMALL, parse("5,3,7,4,bi")], mode="stream")


def test_missing_results_are_an_error():
    own = {"y": np.ones((2, 3), np.float32)}
    for other, got in (
        ({}, "none"),
        ({"y": np.ones((2, 1), np.float32)}, r"float32 \(2, 1\)"),
        ({"y": np.ones((2, 3))}, r"float64 \(2, 3\)"),
    ):
        with pytest.raises(MismatchError, match=rf"as float32 \(2, 3\); got {got}"):
            comparison.largest_difference("it", own, other, SMALL)


def test_differences_are_shares_of_the_largest_number():
    own = {"y": np.array([0.0, -8.0]), "h": np.zeros(2)}
    other = {"y": np.array([4e-9, -8.0]), "h": np.zeros(2)}
    assert comparison.largest_difference("it", own, other, SMALL) == 5e-10
    other["y"][0] = 1e-8
    with pytest.raises(MismatchError):
        comparison.largest_difference("it", own, other, SMALL)


def test_without_numba_lstm_there_is_no_comparison(monkeypatch):
    monkeypatch.setattr(comparison, "NumbaLSTM", fakes.Raising)
    with pytest.raises(EngineError, match="numba-lstm failed: RuntimeError: this engine lacks"):
        compared()


@pytest.mark.parametrize("peer", list(PEERS))
@pytest.mark.parametrize("mode", comparison.MODES)
def test_other_engines_compute_the_same(peer, mode):
    for package in PEERS[peer].packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    if mode not in PEERS[peer].modes:
        pytest.skip(f"{peer} has no {mode}")
    shapes = [parse("1,1,3,9"), parse("4,2,3,5,3")]
    if mode != "stream":
        shapes.append(parse("5,3,7,4,2,bi"))
    for dtype in sorted(PEERS[peer].dtypes):
        for outcome in compare(
            shapes, mode=mode, dtype=dtype, against={peer: PEERS[peer]}, **BRIEF
        ):
            assert list(outcome.measurements) == [OWN, peer], outcome.skipped
            assert outcome.measurements[peer].version


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "guess"}, "mode must be one of inference, stream, training; got 'guess'"),
        ({"threads": 0}, "threads must be at least 1; got 0"),
        ({"threads": cpu.cores() + 1}, f"threads must be at most {cpu.cores()}, .*; got"),
        ({"dtype": "int8"}, "dtype must be float32 or float64; got 'int8'"),
        ({"rounds": 0}, "rounds must be at least 1; got 0"),
        ({"seconds": 0.0}, "seconds must be finite and > 0; got 0.0"),
    ],
)
def test_bad_arguments_raise_before_anything_runs(change, message, monkeypatch):
    def nothing(*arguments):
        raise AssertionError("measured before the arguments were checked")

    monkeypatch.setattr(comparison, "measure_limits", nothing)
    with pytest.raises(ValueError, match=message):
        compare([SMALL], **change)
