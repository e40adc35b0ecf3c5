"""The command line: what it prints, how it fails, and that a run survives whatever ends it."""

import io
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from rich.console import Console

import numba_lstm as nl
from numba_lstm import cli
from numba_lstm.__main__ import main
from numba_lstm.language_model import CharLanguageModel, Settings, TrainingRun, Watcher, text_file
from numba_lstm.language_model import command as train_command
from numba_lstm.language_model.watchers import Bar
from numba_lstm.storage import read_tensors

LINES = "".join(f"{k} plus {k} makes {2 * k}, and again {3 * k}.\n" for k in range(60))
SIZES = ["--hidden=8", "--layers=1", "--embedding=4", "--steps=8", "--batch=4", "--threads=1"]

# The command as it is installed, with Ctrl-C as in a terminal (processes in the background ignore
# it) and a checkpoint after every window.
DRIVER = """
import signal, sys, time
from numba_lstm import cli, trainer
from numba_lstm.language_model import run
signal.signal(signal.SIGINT, signal.default_int_handler)
run._CHECKPOINT_SECONDS = 0.0
"""


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "sums.txt"
    path.write_text(LINES)
    return path


@pytest.fixture
def command(capsys):
    """Run the command in this process: exit status, standard output, standard error."""

    def run(*arguments):
        status = 0
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def fails(command):
    """Run a command that must fail: one line on standard error, and exit status 2."""

    def run(*arguments):
        status, out, error = command(*arguments)
        assert status == 2
        assert out == ""
        assert error.startswith("numba-lstm: ")
        assert error.count("\n") == 1
        return error

    return run


@pytest.fixture
def start():
    """Start the command in a process of its own."""
    processes = []

    def run(*arguments, change=""):
        process = subprocess.Popen(
            [sys.executable, "-c", f"{DRIVER}\n{change}\ncli.main()", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def wait_for_a_window(folder, process):
    """Wait until the checkpoint of a run tells of one."""
    checkpoint = folder / "checkpoint.safetensors"
    while not checkpoint.exists() or read_tensors(checkpoint)[0]["losses"].size == 0:
        if process.poll() is not None:
            raise AssertionError(process.communicate()[1])
        time.sleep(0.005)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Weights and curves of a run of 12 epochs that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    path = folder / "sums.txt"
    path.write_text(LINES)
    settings = Settings(hidden=8, layers=1, embedding=4, steps=8, batch=4, epochs=12)
    run = TrainingRun.create(folder / "run", text_file(path), settings, threads=1)
    run.train(Watcher())
    return outcome(run)


def outcome(run):
    progress = run.progress
    return run.model.parameters.flat.tobytes(), progress.losses, progress.held_out


def finished(folder):
    """Outcome of a run once it is resumed and has come to its end."""
    run = TrainingRun.resume(folder, threads=1)
    run.train(Watcher())
    return outcome(run)


def test_train_generate_evaluate(command, text, tmp_path):
    folder = tmp_path / "run"
    status, out, error = command("train", text, *SIZES, "--epochs=2", "--out", folder)
    assert (status, error) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("sums.txt: ")
    (first,) = (line for line in lines if line.startswith("epoch 1/2: "))
    assert "bits/char in training" in first
    assert "held out" in first
    names = ("model.safetensors", "training.png", "checkpoint.safetensors")
    assert [line.split()[-1] for line in lines[-3:]] == [str(folder / name) for name in names]
    assert {path.name for path in folder.iterdir()} == set(names)
    assert any("GFLOP/s" in line for line in lines)
    reported = next(float(line.split()[2]) for line in lines if line.startswith("held out"))

    model = folder / "model.safetensors"
    held_out = tmp_path / "held_out.txt"
    held_out.write_text(text_file(text).held_out)
    status, out, _ = command("evaluate", model, held_out, "--threads=1")
    assert (status, float(out.split()[0])) == (0, reported)

    arguments = ("generate", model, "--prompt=3 plus", "--length=30", "--threads=1")
    texts = [command(*arguments, f"--seed={seed}")[1] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert texts[0].startswith("3 plus")
    assert len(texts[0]) == len("3 plus") + 30 + 1
    assert len(command("generate", model, "--length=9", "--threads=1")[1]) == 10


def test_resuming_goes_on_with_the_stored_settings(command, text, tmp_path):
    folder = tmp_path / "run"
    command("train", text, *SIZES, "--epochs=1", "--out", folder)
    once = read_tensors(folder / "checkpoint.safetensors")[0]
    status, out, _ = command(
        "train", "--resume", "--epochs=2", "--hidden=8", "--threads=1", "--out", folder
    )
    assert status == 0
    assert "epoch 2/2: " in out
    assert "epoch 1/2: " not in out
    twice = read_tensors(folder / "checkpoint.safetensors")[0]
    assert np.array_equal(twice["losses"][: once["losses"].size], once["losses"])
    assert twice["losses"].size == 2 * once["losses"].size


def test_without_a_text_it_takes_the_python_reference(command, tmp_path):
    folder = tmp_path / "run"
    sizes = ["--hidden=4", "--layers=1", "--embedding=2", "--steps=256", "--batch=128"]
    status, out, _ = command("train", *sizes, "--epochs=1", "--threads=1", "--out", folder)
    assert status == 0
    assert out.startswith("Python language reference: ")
    assert command("train", "--resume", "--threads=1", "--out", folder)[0] == 0


def test_a_terminal_shows_a_live_bar(text, tmp_path):
    settings = Settings(hidden=8, layers=1, embedding=4, steps=8, batch=4, epochs=2)
    run = TrainingRun.create(tmp_path / "run", text_file(text), settings, threads=1)
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=140)
    with Bar(console, run) as bar:
        run.train(bar)
    shown = screen.getvalue()
    for part in ("epoch 2/2", "training", "held out", "bits/char", "chars/s", "0:00:"):
        assert part in shown
    assert f"{run.progress.held_out[-1]:.3f}" in shown
    assert shown.rstrip().endswith("\x1b[?25h")  # the cursor is back


def test_info(command):
    status, out, error = command("info")
    assert (status, error) == (0, "")
    names = ("CPU", "vector", "tile", "caches", "threads", "kernel cache", "versions")
    assert [line[:13].strip() for line in out.splitlines()] == list(names)
    assert f"numba-lstm {nl.__version__}" in out


def test_help(command):
    for arguments in ((), ("--help",), ("-h",)):
        status, out, _ = command(*arguments)
        assert status == 0
        commands = ("train", "generate", "evaluate", "warmup", "bench", "info")
        assert all(name in out for name in commands)
    assert "[default: 256]" in command("train", "--help")[1].replace("  ", " ")
    assert command("--version")[1] == f"numba-lstm, version {nl.__version__}\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--hidden=0"], "hidden must be at least 1; got 0"),
        (["--layers=-1"], "layers must be at least 1; got -1"),
        (["--embedding=0"], "embedding must be at least 1; got 0"),
        (["--epochs=0"], "epochs must be at least 1; got 0"),
        (["--learning-rate=nan"], "learning_rate must be finite and > 0 and <= 1e+37; got nan"),
        (["--dropout=1"], "dropout must be finite and >= 0 and < 1; got 1.0"),
        (["--clip=-1"], "clip must be finite and > 0; got -1.0"),
        (["--seed=-1"], "seed must be at least 0; got -1"),
        (["--threads=0"], "threads must be at least 1; got 0"),
        (["--batch=2.5"], "'2.5' is not a valid integer"),
        (["--width=3"], "No such option"),
        (["--steps=100000"], "the training text must have at least"),
        (["--resume"], "must hold a run to resume; it has no checkpoint.safetensors"),
        (["--resume", "--overwrite"], "--resume and --overwrite exclude each other"),
    ],
)
def test_bad_options_change_nothing(fails, text, tmp_path, options, message):
    folder = tmp_path / "run"
    assert message in fails("train", text, *SIZES, *options, "--out", folder)
    assert not folder.exists()


def test_bad_texts(fails, tmp_path):
    folder = tmp_path / "run"
    path = tmp_path / "text"
    assert f"{path}: No such file or directory" in fails("train", path, "--out", folder)
    path.write_text("")
    assert "it is empty" in fails("train", path, "--out", folder)
    path.write_text("too short")
    assert "training text must have at least 2049" in fails("train", path, "--out", folder)
    path.write_bytes(b"\xff" * 10_000)
    assert "must be a UTF-8 text" in fails("train", path, "--out", folder)
    assert not folder.exists()


def test_a_run_is_kept_unless_told_otherwise(fails, command, text, tmp_path):
    folder = tmp_path / "run"
    arguments = ("train", text, *SIZES, "--epochs=1", "--out", folder)
    assert command(*arguments)[0] == 0
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert "must hold no run yet" in fails(*arguments)
    assert "hidden must be 8 as in the run" in fails(
        "train", *arguments[4:], "--resume", "--hidden=9"
    )
    other = tmp_path / "other.txt"
    other.write_text(LINES + "?")
    assert "other.txt is another" in fails("train", other, "--resume", "--out", folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert command(*arguments, "--overwrite")[0] == 0


def test_folders_that_cannot_be_written(fails, text, tmp_path, monkeypatch):
    assert f"{text} must be a folder" in fails("train", text, *SIZES, "--out", text)
    assert str(text) in fails("train", text, *SIZES, "--out", text / "run")

    def refused(path, content):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("numba_lstm.storage.write_file", refused)
    message = fails("train", text, *SIZES, "--out", tmp_path / "run")
    assert message.endswith("checkpoint.safetensors: Permission denied\n")


def test_files_that_are_no_model(fails, text, tmp_path):
    missing = tmp_path / "missing"
    path = tmp_path / "model.safetensors"
    for name, *rest in (("generate",), ("evaluate", text)):
        assert f"{missing}: No such file" in fails(name, missing, *rest)
        assert f"{text} must be a safetensors file" in fails(name, text, *rest)
        nl.LSTM(3, 4).save(path)
        assert f"{path} must hold a CharLanguageModel; got LSTM" in fails(name, path, *rest)
        path.write_bytes(path.read_bytes()[:-7])
        assert f"{path} must be a safetensors file" in fails(name, path, *rest)


def test_bad_input_of_a_model(fails, text, tmp_path):
    path = tmp_path / "model.safetensors"
    CharLanguageModel("\n ab", hidden_size=4, embedding_dim=3, seed=0).save(path)
    generate = ("generate", path, "--threads=1")
    assert "prompt must be written in" in fails(*generate, "--prompt=ä")
    assert "prompt must have at least one" in fails(*generate, "--prompt=")
    assert "length must be at least 0" in fails(*generate, "--length=-1")
    assert "temperature must be finite" in fails(*generate, "--temperature=nan")
    assert "seed must be at least 0" in fails(*generate, "--seed=-1")
    assert "threads must be at least 1" in fails("generate", path, "--threads=0")
    assert "got '0' at position 0" in fails("evaluate", path, text)
    text.write_text("a")
    assert "text must have at least 2 characters; got 1" in fails("evaluate", path, text)


def test_a_terminal_that_lacks_characters(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    CharLanguageModel("→", hidden_size=4, embedding_dim=3, seed=0).save(path)
    screen = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", screen)
    cli.main(["generate", str(path), "--length=3", "--threads=1"])
    screen.flush()
    assert screen.buffer.getvalue() == b"???\n"


@pytest.mark.parametrize("package", ["click", "rich"])
def test_missing_packages_are_named(monkeypatch, capsys, package):
    for name in list(sys.modules):
        if name.startswith(("numba_lstm.cli", "numba_lstm.bench.command", f"{package}.")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    needed = f'numba-lstm: the command line needs {package}: pip install "numba-lstm[cli]"\n'
    assert capsys.readouterr() == ("", needed)


def test_the_package_is_the_command():
    shown = subprocess.run(
        [sys.executable, "-m", "numba_lstm", "--version"], capture_output=True, text=True
    )
    outcome = shown.returncode, shown.stdout, shown.stderr
    assert outcome == (0, f"numba-lstm, version {nl.__version__}\n", "")


def test_matplotlib_is_needed_before_training(fails, text, tmp_path, monkeypatch):
    monkeypatch.setattr(train_command, "find_spec", lambda name: None)
    assert 'pip install "numba-lstm[cli]"' in fails("train", text, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_ctrl_c_leaves_a_run_that_resumes(start, text, tmp_path, whole):
    folder = tmp_path / "run"
    process = start("train", text, *SIZES, "--epochs=12", "--out", folder)
    wait_for_a_window(folder, process)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert process.returncode == 130
    assert error.strip() == f"interrupted; numba-lstm train --resume --out {folder} goes on"
    assert finished(folder) == whole


def test_ctrl_c_does_not_wait_for_a_long_step(start, text, tmp_path, whole):
    folder = tmp_path / "run"
    process = start(
        *("train", text, *SIZES, "--epochs=12", "--out", folder),
        change="trainer.Trainer.step = lambda *x: print('stepping', flush=True) or time.sleep(999)",
    )
    assert any(line == "stepping\n" for line in process.stdout)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.strip() == f"interrupted; numba-lstm train --resume --out {folder} goes on"
    assert finished(folder) == whole


def test_checkpoints_are_json_and_tensors(command, text, tmp_path):
    folder = tmp_path / "run"
    command("train", text, *SIZES, "--epochs=1", "--out", folder)
    tensors, metadata = read_tensors(folder / "checkpoint.safetensors")
    assert all(array.dtype.kind in "fi" for array in tensors.values())
    assert json.loads(metadata["settings"])["hidden"] == 8


def test_ctrl_c_while_the_picture_is_drawn_says_how_it_is_had(command, text, tmp_path, monkeypatch):
    folder = tmp_path / "run"

    def interrupted(run):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train_command, "draw", interrupted)
        status, _, error = command("train", text, *SIZES, "--epochs=1", "--out", folder)
    goes_on = f"train --resume --out {folder}"
    assert (status, error.strip()) == (130, f"interrupted; numba-lstm {goes_on} goes on")
    assert not (folder / "training.png").exists()
    assert command(*goes_on.split())[0] == 0
    assert (folder / "training.png").exists()
