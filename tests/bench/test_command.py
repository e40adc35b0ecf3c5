"""`numba-lstm bench`: what it prints and writes, and how it fails."""

import json

import fakes
import pytest

from numba_lstm import cli
from numba_lstm.bench import Shape, TrainingComparison
from numba_lstm.bench import command as bench_command
from numba_lstm.bench.language_model import Training
from numba_lstm.language_model import Settings
from numba_lstm.simd import cpu

BRIEF = ("--shape=5,3,7,4", "--rounds=1", "--seconds=0.02")


@pytest.fixture
def command(capsys):
    """Run the command in this process: exit status, standard output, standard error."""

    def run(*arguments):
        status = 0
        try:
            cli.main(["bench", *map(str, arguments)])
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def untouched(monkeypatch):
    """Nothing may be measured."""

    def measured(*arguments, **options):
        raise AssertionError("measured before the arguments were checked")

    monkeypatch.setattr("numba_lstm.bench.comparison.measure_limits", measured)
    monkeypatch.setattr(bench_command, "compare_training", measured)


def test_it_measures_prints_and_writes(command, tmp_path, monkeypatch):
    peers = {"torch": fakes.Chatty, "jax": fakes.Absent}
    monkeypatch.setattr(bench_command, "PEERS", peers)
    json_file, plot = tmp_path / "figures.json", tmp_path / "figures.png"
    arguments = (*BRIEF, "--shape=1,1,2,3,2,bi", "--against=jax,torch")
    status, out, error = command(*arguments, f"--json={json_file}", f"--plot={plot}")
    assert (status, error) == (0, "")
    assert "GFLOP/s on 1 thread, float32" in out
    assert "limits on 1 thread: " in out
    assert "skipped jax: no_such_package and nor_this_one not installed" in out
    assert all(name in out for name in ("numba-lstm", "torch", "5,3,7,4", "1,1,2,3,2,bi"))
    assert "1 x 1 x 2 x 3, 2, both ways" in out  # a pipe is wide
    data = json.loads(json_file.read_text())
    names = [one["shape"]["name"] for one in data["comparisons"]]
    assert names == ["5,3,7,4", "1,1,2,3,2,bi"]
    assert list(data["comparisons"][0]["engines"]) == ["numba-lstm", "torch"]
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_markdown_for_several_numbers_of_threads(command):
    counts = sorted({1, cpu.cores()})
    threads = ",".join(map(str, counts))
    status, out, _ = command(*BRIEF, "--against=", "--markdown", f"--threads={threads}")
    assert status == 0
    assert out.count("| inference | T | B |") == len(counts)
    assert out.count("| 5,3,7,4 | 5 | 3 | 7 | 4 | 1 | **") == len(counts)


def test_a_wrong_engine_is_a_failure(command, monkeypatch):
    monkeypatch.setattr(bench_command, "PEERS", {"torch": fakes.NaN})
    status, out, error = command(*BRIEF, "--against=torch")
    assert (status, out) == (1, "")
    assert error.startswith("numba-lstm: torch must give the c of 5,3,7,4")
    assert error.count("\n") == 1


def test_a_failure_keeps_what_was_measured(command, tmp_path, monkeypatch):
    compare = bench_command.compare

    def failing(shapes, **options):
        yield from compare(shapes[:1], **options)
        raise bench_command.MismatchError("torch must give another y")

    monkeypatch.setattr(bench_command, "compare", failing)
    json_file, plot = tmp_path / "figures.json", tmp_path / "figures.png"
    files = (f"--json={json_file}", f"--plot={plot}")
    status, out, error = command(*BRIEF, "--shape=1,1,2,3", "--against=", *files)
    assert (status, error) == (1, "numba-lstm: torch must give another y\n")
    assert "5,3,7,4" in out
    done = json.loads(json_file.read_text())["comparisons"]
    assert [one["shape"]["name"] for one in done] == ["5,3,7,4"]
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_nothing_measured_leaves_a_file_alone(command, tmp_path):
    json_file = tmp_path / "figures.json"
    json_file.write_text("an hour's figures")
    assert command("--shape=basecall-fas", f"--json={json_file}")[0] == 2
    assert json_file.read_text() == "an hour's figures"


def test_which_shapes_are_meant():
    three = [shape.name for shape in bench_command._shapes((), "inference")]
    assert three == ["vad-minute", "diarisation", "basecall-fast"]
    assert len(bench_command._shapes(("all",), "inference")) == 10
    assert len(bench_command._shapes(("all",), "training")) == 8
    assert len(bench_command._shapes(("vad-step", "all", "9,1,2,3"), "inference")) == 11
    streams = bench_command._shapes(("all",), "stream")
    assert len(streams) == 7
    assert not any(shape.bidirectional for shape in streams)
    named = bench_command._shapes(("vad-step", "1,2,3,4"), "training")
    assert named == [Shape("vad-step", 1, 1, 128, 128), Shape("1,2,3,4", 1, 2, 3, 4)]


def test_the_language_model(command, tmp_path, monkeypatch):
    asked = []

    def compared(**options):
        asked.append(options)
        trainings = {"numba-lstm": Training("1", 0.1, (3.0,))}
        return TrainingComparison(Settings(), options["threads"], trainings, {"torch": "gone"})

    monkeypatch.setattr(bench_command, "compare_training", compared)
    json_file = tmp_path / "figures.json"
    status, out, _ = command("--mode=language-model", "--rounds=3", f"--json={json_file}")
    assert "skipped jax: no language-model" in out
    assert status == 0
    assert [(options["threads"], options["rounds"]) for options in asked] == [(1, 3)]
    assert list(asked[0]["against"]) == ["torch"]
    assert "20,480 characters/s" in out
    assert "skipped torch: gone" in out
    assert json.loads(json_file.read_text())["language_model"][0]["threads"] == 1


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shape=vad"], "a shape must be T,B,I,H[,L][,bi] or one of vad-step"),
        (["--shape=1,2,3,0"], "H of shape 1,2,3,0 must be at least 1; got 0"),
        (["--mode=guess"], "'guess' is not one of"),
        (["--dtype=int8"], "'int8' is not one of"),
        (["--threads=0"], "threads must be at least 1; got 0"),
        (["--threads=1,x"], "--threads must be numbers, like 1,2; got 1,x"),
        ([f"--threads={cpu.cores() + 1}"], "threads must be at most"),
        (["--against=torch,tensorflow"], "--against must name some of torch, onnxruntime"),
        (["--rounds=0"], "rounds must be at least 1; got 0"),
        (["--seconds=-1"], "seconds must be finite and > 0; got -1.0"),
        (["--json=/no/such/folder/x.json"], "/no/such/folder/x.json must be a file in a folder"),
        (["--json=/"], "/ must be a file in a folder that exists"),
        (["--plot=x.doc"], "--plot must end in one of pdf, png, svg; got x.doc"),
        (["--mode=language-model", "--shape=vad-step"], "takes neither --shape, --dtype"),
        (["--mode=language-model", "--seconds=1"], "takes neither --shape, --dtype"),
    ],
)
def test_bad_options(command, options, message):
    status, out, error = command(*options)
    assert (status, out) == (2, "")
    assert message in error
    assert error.startswith("numba-lstm: ")
    assert error.count("\n") == 1
