"""Training runs: they stop at any moment and go on to the same bits."""

import json
import math
import signal
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy

import numba_lstm as nl
from numba_lstm import storage
from numba_lstm.language_model import (
    CharLanguageModel,
    Corpus,
    Settings,
    TrainingRun,
    Watcher,
    text_file,
)
from numba_lstm.language_model import run as module
from numba_lstm.language_model.settings import _LARGEST_RATE

TEXT = "".join(f"{k} times {k + 1} is {k * (k + 1)}\n" for k in range(60))
# 25 windows and a rest.
CORPUS = Corpus("products", TEXT[: 25 * 40 + 9], TEXT[-90:])
# Two layers with dropout: its state must come back too.
SETTINGS = Settings(
    hidden=6, layers=2, embedding=4, steps=8, batch=5, epochs=3, dropout=0.3, seed=11
)


class Killed(Exception):
    """The process ends here, without a last checkpoint."""


class KillAfter(Watcher):
    """Ends a run after so many windows."""

    def __init__(self, windows):
        self.left = windows

    def stepped(self, run):
        self.left -= 1
        if self.left == 0:
            self.end()

    def end(self):
        raise Killed


class InterruptAfter(KillAfter):
    """Presses Ctrl-C after so many windows."""

    def end(self):
        signal.raise_signal(signal.SIGINT)


def create(folder, **options):
    return TrainingRun.create(folder, CORPUS, SETTINGS, threads=1, **options)


def outcome(run):
    """All that a run leads to."""
    progress = run.progress
    return (
        run.model.parameters.flat.tobytes(),
        progress.losses,
        progress.training,
        progress.held_out,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Outcome of a run that nothing interrupts."""
    run = create(tmp_path_factory.mktemp("whole"))
    run.train(Watcher())
    return outcome(run)


@pytest.fixture
def listening():
    """Ctrl-C as in a terminal; processes in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_run_learns_and_leaves_a_model(tmp_path, whole):
    _, losses, training, held_out = whole
    run = create(tmp_path / "deep" / "folder")
    windows = run.streams.windows
    assert len(losses) == 3 * windows
    assert training == pytest.approx([np.mean(losses[k * windows :][:windows]) for k in range(3)])
    assert held_out[2] < held_out[0] < np.log2(len(CORPUS.vocabulary))
    run.train(Watcher())
    assert outcome(run) == whole
    model = nl.load(tmp_path / "deep" / "folder" / "model.safetensors", threads=1)
    assert isinstance(model, CharLanguageModel)
    assert model.parameters.flat.tobytes() == whole[0]
    assert model.evaluate(CORPUS.held_out) == held_out[-1]


def test_the_state_is_carried_from_window_to_window_and_not_between_epochs(tmp_path, monkeypatch):
    run = create(tmp_path)
    step = run._trainer.step
    states = []

    def recorded(x, target, hx):
        loss, after = step(x, target, hx)
        states.append((hx, after))
        return loss, after

    monkeypatch.setattr(run._trainer, "step", recorded)
    run.train(Watcher())
    for index, (before, _) in enumerate(states):
        if index % run.streams.windows == 0:
            assert before is None
        else:
            assert before is states[index - 1][1]


@pytest.mark.parametrize("seconds", [0.0, np.inf], ids=["every window", "every epoch"])
@pytest.mark.parametrize("windows", [1, 20, 25, 26, 49, 60, 75])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, whole, monkeypatch, windows, seconds):
    monkeypatch.setattr(module, "_CHECKPOINT_SECONDS", seconds)
    with pytest.raises(Killed):
        create(tmp_path).train(KillAfter(windows))
    run = TrainingRun.resume(tmp_path, CORPUS, threads=1)
    run.train(Watcher())
    assert outcome(run) == whole


@pytest.mark.parametrize("which", range(1, 8))
def test_a_kill_while_files_are_written(tmp_path, whole, monkeypatch, which):
    """Files: a checkpoint at the start, then model and checkpoint of every epoch."""
    count = 0

    def dying(path, content):
        nonlocal count
        count += 1
        if count == which:
            path.with_name(f".{path.name}.0123.part").write_bytes(content[:100])
            raise Killed
        original(path, content)

    original = storage.write_file
    monkeypatch.setattr(storage, "write_file", dying)
    with pytest.raises(Killed):
        create(tmp_path).train(Watcher())
    monkeypatch.setattr(storage, "write_file", original)
    begun = TrainingRun.exists(tmp_path)
    assert begun == (which > 1)
    run = TrainingRun.resume(tmp_path, CORPUS, threads=1) if begun else create(tmp_path)
    run.train(Watcher())
    assert outcome(run) == whole
    assert nl.load(tmp_path / "model.safetensors").parameters.flat.tobytes() == whole[0]
    assert {p.name for p in tmp_path.iterdir()} == {"checkpoint.safetensors", "model.safetensors"}


@pytest.mark.usefixtures("listening")
def test_ctrl_c_leaves_a_checkpoint_of_the_last_window(tmp_path, whole):
    run = create(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run.train(InterruptAfter(40))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = TrainingRun.resume(tmp_path, CORPUS, threads=1)
    assert len(resumed.progress.losses) == 40
    resumed.train(Watcher())
    assert outcome(resumed) == whole
    run.train(Watcher())  # the interrupted object itself goes on as well
    assert outcome(run) == whole


@pytest.mark.usefixtures("listening")
def test_a_second_ctrl_c_waits_for_the_checkpoint(tmp_path, monkeypatch):
    write_file, watcher = storage.write_file, InterruptAfter(10)

    def impatient(*arguments):
        if watcher.left == 0:
            signal.raise_signal(signal.SIGINT)
        write_file(*arguments)

    monkeypatch.setattr(storage, "write_file", impatient)
    with pytest.raises(KeyboardInterrupt):
        create(tmp_path).train(watcher)
    assert watcher.left == 0
    assert len(TrainingRun.resume(tmp_path, CORPUS, threads=1).progress.losses) == 10


@pytest.mark.usefixtures("listening")
def test_ctrl_c_waits_for_the_end_of_a_step(tmp_path, whole, monkeypatch):
    run = create(tmp_path)
    step = run._trainer.step

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGINT)
        return step(*arguments)

    monkeypatch.setattr(run._trainer, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.train(Watcher())
    resumed = TrainingRun.resume(tmp_path, CORPUS, threads=1)
    assert len(resumed.progress.losses) == 1
    resumed.train(Watcher())
    assert outcome(resumed) == whole


def learning_rates(run):
    """Learning rate of every window that a run has still to do."""
    rates = []

    class Recorder(Watcher):
        def stepped(self, run):
            rates.append(run._trainer.optimizer.lr)

    run.train(Recorder())
    return rates


def test_the_learning_rate_falls_over_the_last_quarter(tmp_path):
    rates = np.array(learning_rates(create(tmp_path)))
    shares = np.arange(rates.size, 0, -1) / rates.size
    expected = SETTINGS.learning_rate * np.minimum(1, shares / 0.25)
    assert np.allclose(rates, expected, rtol=1e-12)
    assert 0 < rates[-1] < rates[0] == SETTINGS.learning_rate


def test_epochs_may_be_added(tmp_path):
    short = TrainingRun.create(tmp_path, CORPUS, module.replace(SETTINGS, epochs=1), threads=1)
    short.train(Watcher())
    longer = TrainingRun.resume(tmp_path, CORPUS, threads=1, epochs=3)
    assert learning_rates(longer)[0] == SETTINGS.learning_rate
    windows = short.streams.windows
    assert longer.progress.losses[:windows] == short.progress.losses
    assert len(longer.progress.losses) == 3 * windows
    assert longer.progress.held_out[:1] == short.progress.held_out
    assert len(longer.progress.held_out) == 3


def test_a_run_finds_its_text_again(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    folder = tmp_path / "run"
    TrainingRun.create(folder, text_file(path), SETTINGS, threads=1)
    assert TrainingRun.resume(folder, threads=1).corpus == text_file(path)
    path.write_text(TEXT + "more")
    with pytest.raises(ValueError, match=r"text\.txt is another"):
        TrainingRun.resume(folder)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"text\.txt"):
        TrainingRun.resume(folder)


def test_a_run_is_neither_overwritten_nor_mixed(tmp_path):
    create(tmp_path).train(Watcher())
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(FileExistsError, match="must hold no run yet"):
        create(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    create(tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def test_only_the_same_settings_go_on(tmp_path):
    create(tmp_path)
    assert TrainingRun.resume(tmp_path, CORPUS, hidden=6, epochs=9).settings.epochs == 9
    with pytest.raises(ValueError, match=r"hidden must be 6 as in the run in .*; got 7"):
        TrainingRun.resume(tmp_path, CORPUS, hidden=7)
    with pytest.raises(ValueError, match="epochs must be at least 1; got 0"):
        TrainingRun.resume(tmp_path, CORPUS, epochs=0)
    with pytest.raises(TypeError, match="width"):
        TrainingRun.resume(tmp_path, CORPUS, width=7)


def test_completed_epochs_cannot_be_taken_back(tmp_path):
    create(tmp_path).train(Watcher())
    with pytest.raises(ValueError, match="epochs must be at least 3, completed by the run"):
        TrainingRun.resume(tmp_path, CORPUS, epochs=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": "x"}, "window must be an integer; got 'x'"),
        ({"window": -5}, "window must be at least 0; got -5"),
        ({"window": 10**6}, "window must be at most 25; got 1000000"),
        ({"epoch": 1.5}, "epoch must be an integer; got 1.5"),
        ({"epoch": 2}, "losses must have"),
        ({"smoothed": None}, "smoothed must be a number; got None"),
        ({"seconds": math.inf}, "seconds must be finite and >= 0; got inf"),
        ({"held_out": []}, "held_out must have 3 numbers after 3 epochs and 0 windows; got 0"),
    ],
)
def test_a_progress_that_no_run_comes_to_is_refused(tmp_path, changes, message):
    create(tmp_path).train(Watcher())
    path = tmp_path / "checkpoint.safetensors"
    tensors, metadata = module.read_tensors(path)
    for name in changes.keys() & tensors.keys():
        tensors[name] = np.array(changes.pop(name))
    metadata["progress"] = json.dumps({**json.loads(metadata["progress"]), **changes})
    module.write_tensors(path, tensors, metadata)
    with pytest.raises(nl.FormatError, match=f"is no whole checkpoint: {message}"):
        TrainingRun.resume(tmp_path, CORPUS)


def test_the_largest_learning_rate_is_one_that_float32_takes():
    settings = replace(SETTINGS, learning_rate=_LARGEST_RATE)
    optimizer = settings.trainer(settings.model("ab")).optimizer
    optimizer._cast(optimizer._coefficients(1))


def test_what_is_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must hold a run to resume; it has no checkpoint"):
        TrainingRun.resume(tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    nl.LSTM(3, 4).save(path)
    with pytest.raises(nl.FormatError, match="must be the checkpoint of a training run"):
        TrainingRun.resume(tmp_path)
    create(tmp_path, overwrite=True)
    with pytest.raises(nl.FormatError, match=r"known class.*; got training run"):
        nl.load(path)
    content = path.read_bytes()
    for length in (0, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(nl.FormatError, match=r"checkpoint\.safetensors must be a safetensors"):
            TrainingRun.resume(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, metadata: metadata.pop("progress"),
        lambda tensors, metadata: metadata.update(progress='{"future": 1}'),
        lambda tensors, metadata: metadata.update(settings='{"hidden": 0}'),
        lambda tensors, metadata: metadata.update(text_digest=""),
        lambda tensors, metadata: tensors.pop("losses"),
        lambda tensors, metadata: tensors.pop("dropout"),
        lambda tensors, metadata: tensors.pop("optimizer.mean"),
        lambda tensors, metadata: tensors.pop("parameters.2.bias"),
        lambda tensors, metadata: tensors.update(h=np.zeros(3)),
        lambda tensors, metadata: tensors.update(h=np.zeros((2, 5, 7)), c=np.zeros((2, 5, 7))),
        lambda tensors, metadata: tensors["optimizer.mean"].fill(np.nan),
        lambda tensors, metadata: tensors["parameters.2.bias"].fill(np.inf),
    ],
)
def test_incomplete_checkpoints(tmp_path, change):
    create(tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    tensors, metadata = module.read_tensors(path)
    change(tensors, metadata)
    module.write_tensors(path, tensors, metadata)
    with pytest.raises(ValueError, match=r"no whole checkpoint|is another"):
        TrainingRun.resume(tmp_path, CORPUS)


def test_folders_that_cannot_be_written(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(NotADirectoryError, match="file must be a folder; it is a file"):
        create(file)
    with pytest.raises(OSError, match="file"):
        create(file / "run")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"hidden": 0}, ValueError, "hidden must be at least 1; got 0"),
        ({"layers": -1}, ValueError, "layers must be at least 1; got -1"),
        ({"batch": 2.5}, TypeError, "batch must be an integer; got 2.5"),
        ({"learning_rate": float("nan")}, ValueError, "learning_rate must be finite and > 0"),
        ({"learning_rate": 1e38}, ValueError, "learning_rate must be .* <= 1e\\+37; got 1e\\+38"),
        ({"dropout": 1.0}, ValueError, "dropout must be finite and >= 0 and < 1; got 1.0"),
        ({"clip": 0.0}, ValueError, "clip must be finite and > 0; got 0.0"),
        ({"seed": -1}, ValueError, "seed must be at least 0; got -1"),
    ],
)
def test_bad_settings(changes, error, message):
    with pytest.raises(error, match=message):
        Settings(**changes)


@pytest.mark.parametrize(
    ("training", "held_out", "message"),
    [
        ("ab" * 20, "ab", "training text must have at least 41 characters"),
        ("", "ab", "training text must have at least 41 characters"),
        ("ab" * 30, "a", "held-out text must have at least 2 characters; got 1"),
    ],
)
def test_short_texts(tmp_path, training, held_out, message):
    folder = tmp_path / "run"
    with pytest.raises(ValueError, match=message):
        TrainingRun.create(folder, Corpus("short", training, held_out), SETTINGS)
    assert not folder.exists()


def test_files_hold_tensors_and_text_only(tmp_path):
    create(tmp_path).train(KillAfter(10**9))
    for path in tmp_path.iterdir():
        tensors = safetensors.numpy.load_file(path)
        assert all(array.dtype.kind in "fiu" for array in tensors.values())
