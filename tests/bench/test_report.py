"""Reports of comparisons whose figures are known."""

import io
import json
import xml.etree.ElementTree
from dataclasses import replace

import pytest
from rich.console import Console

from numba_lstm.bench import (
    Comparison,
    Limits,
    Measurement,
    TrainingComparison,
    chart,
    parse,
    report,
)
from numba_lstm.bench.language_model import Training
from numba_lstm.language_model import Settings

RATES = {"L1": 200e9, "L2": 100e9, "L3": 70e9, "memory": 20e9}
SHAPES = ("diarisation", "5,3,7,4,bi")


def comparison(name, threads=1, **gflops):
    """A comparison in which engines reach so many GFLOP/s."""
    shape = parse(name)
    operations = shape.operations(training=False) / 1e9
    measurements = {
        engine.replace("own", "numba-lstm"): Measurement(
            "1.2", operations / rate, (operations / rate / 2, operations / rate * 2), 9, 1e-7
        )
        for engine, rate in gflops.items()
    }
    limits = Limits(threads, "float32", threads * 100e9, RATES)
    skipped = {"jax": "not installed"}
    return Comparison(shape, "inference", limits, measurements, skipped, share_of_limit=0.83)


@pytest.fixture
def comparisons():
    return [
        comparison("diarisation", own=90.0, torch=60.0, onnxruntime=75.0),
        comparison("5,3,7,4,bi", own=1.0, torch=2.0),
    ]


def shown(table, width=140):
    screen = io.StringIO()
    Console(file=screen, width=width).print(table)
    return screen.getvalue()


def test_the_table(comparisons):
    lines = shown(report.table(comparisons)).splitlines()
    assert lines[0].strip() == "GFLOP/s on 1 thread, float32"
    words = [line.split() for line in lines]
    assert [
        *["inference", "sizes", "numba-lstm", "torch", "onnxruntime", "ratio", "of", "limit"]
    ] in words
    share = f"{comparisons[0].share_of_limit:.0%}"
    sizes = ["293", "x", "32", "x", "60", "x", "128,", "2,", "both", "ways"]
    assert ["diarisation", *sizes, "90.0", "60.0", "75.0", "1.20", share] in words
    assert any(line[-5:-1] == ["1.0", "2.0", "-", "0.50"] for line in words)  # a losing row


def test_a_narrow_terminal_shows_every_digit():
    speeds = dict.fromkeys(("own", "torch", "onnxruntime", "openvino", "jax"), 1234.5)
    narrow = shown(report.table([comparison("diarisation", **speeds)]), 80)
    assert narrow.count("1234.5") == 5


def test_markdown(comparisons):
    lines = report.markdown(comparisons).splitlines()
    assert lines[0] == "GFLOP/s on 1 thread, float32."
    assert lines[2].startswith("| inference | T | B | I | H | layers | numba-lstm | torch |")
    assert lines[3] == "|---" * lines[2].count(" | ") + "|---|"
    share = f"{comparisons[0].share_of_limit:.0%}"
    start = "| diarisation | 293 | 32 | 60 | 128 | 2, both ways "
    assert lines[4] == f"{start}| **90.0** | 60.0 | 75.0 | 1.20 | {share} |"
    assert "| 1.0 | **2.0** | - | 0.50 |" in lines[5]


def test_streams_show_what_a_step_takes(comparisons):
    stream = replace(comparisons[1], mode="stream")
    lines = report.markdown([stream]).splitlines()
    assert lines[0] == "Microseconds a step on 1 thread, float32."
    step = stream.shape.operations(training=False) / 5 / 1e9 * 1e6
    assert f"| {step:.1f} | **{step / 2:.1f}** | 0.50 |" in lines[4]


def test_what_was_skipped_and_where(comparisons):
    assert report.skipped_lines(comparisons) == ["skipped jax: not installed"]
    comparisons[1].skipped["onnxruntime"] = "failed"
    assert report.skipped_lines(comparisons)[1] == "skipped onnxruntime at 5,3,7,4,bi: failed"


def test_limits():
    reads = "reads in GB/s: L1 200, L2 100, L3 70, memory 20"
    once = [Limits(2, "float64", 50e9, RATES)]
    assert report.limit_line(once) == (
        f"limits on 2 threads: 50.0 GFLOP/s of float64 multiply-adds; {reads}"
    )
    often = [Limits(1, "float32", rate, RATES) for rate in (60e9, 52e9, 75.5e9)]
    assert report.limit_line(often) == (
        f"limits on 1 thread: 52.0 to 75.5 GFLOP/s of float32 multiply-adds; {reads}"
    )


def test_the_language_model():
    trainings = {
        "numba-lstm": Training("1", 0.05, (6.0, 5.0, 4.0, 3.0)),
        "torch": Training("2", 0.1, (6.0, 5.0, 4.0, 3.5)),
    }
    outcome = TrainingComparison(Settings(steps=50, batch=20), 2, trainings, {"x": "not installed"})
    assert [line.split() for line in report.training_lines(outcome)] == [
        ["numba-lstm", "20,000", "characters/s,", "3.000", "bits/char", "after", "4", "steps"],
        ["torch", "10,000", "characters/s,", "3.500", "bits/char", "after", "4", "steps"],
        ["ratio", "2.00"],
        ["skipped", "x:", "not", "installed"],
    ]
    (data,) = report.as_data([], [outcome])["language_model"]
    assert data["threads"] == 2
    assert data["ratio"] == 2.0
    assert data["engines"]["torch"]["characters_per_second"] == 10_000
    assert data["engines"]["torch"]["loss"] == 3.5


def test_data(comparisons):
    other = comparison("vad-step", 2, own=3.0)
    data = json.loads(json.dumps(report.as_data([*comparisons, other], []), allow_nan=False))
    assert list(data) == ["machine", "versions", "limits", "comparisons", "language_model"]
    assert [limit["threads"] for limit in data["limits"]] == [1, 2]
    assert [one["multiply_add_gflops"] for one in data["comparisons"]] == [100.0, 100.0, 200.0]
    assert data["limits"][0]["gigabytes_per_second"]["L2"] == 100.0
    first = data["comparisons"][0]
    assert first["shape"] == {
        **{"name": "diarisation", "T": 293, "B": 32, "I": 60, "H": 128},
        **{"layers": 2, "bidirectional": True},
    }
    assert (first["mode"], first["dtype"], first["threads"]) == ("inference", "float32", 1)
    assert first["best_peer"] == "onnxruntime"
    assert first["ratio"] == pytest.approx(1.2)
    assert first["engines"]["torch"]["gflops"] == pytest.approx(60)
    assert first["operations"] == first["engines"]["torch"]["seconds"] * 60e9
    assert first["share_of_limit"] == 0.83
    assert first["skipped"] == {"jax": "not installed"}
    assert data["comparisons"][2]["ratio"] is None


def test_the_picture(comparisons):
    comparisons.append(comparison("vad-step", 2, own=3.0))
    drawn = xml.etree.ElementTree.fromstring(chart.picture(comparisons, "svg"))
    assert drawn.tag.endswith("svg")
    text = chart.picture(comparisons, "svg").decode()
    for part in ("diarisation", "5,3,7,4,bi", "vad-step", "onnxruntime", "in reach"):
        assert f"<!-- {part} -->" in text
    for title in ("inference, float32, 1 thread", "inference, float32, 2 threads"):
        assert f"<!-- {title} -->" in text
    assert chart.picture(comparisons, "png").startswith(b"\x89PNG")
