"""Whatever ends a run, `--resume` goes on to the bits of one that nothing interrupted.

The command runs in processes that a server forks: they find all modules imported, and die as any
other.
"""

import errno
import io
import json
import multiprocessing
import os
import random
import secrets
import shutil
import signal
import stat
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from numba_lstm import cli
from numba_lstm.language_model import run
from numba_lstm.storage import read_tensors

pytestmark = pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(), reason="has no fork"
)

TEXT = "".join(f"{k} less {k // 2} is {k - k // 2}.\n" for k in range(40))
SIZES = ["--hidden=6", "--layers=2", "--embedding=4", "--steps=8", "--batch=4", "--dropout=0.3"]
EPOCHS = 3
CHECKPOINT, MODEL, PICTURE = (
    *("checkpoint.safetensors", "model.safetensors"),
    "training.png",
)


@dataclass
class Fault:
    """What happens when a file reaches a step of being written for the `number`-th time.

    Steps: open, write (half of it is), fsync (all is), replace (all is on the disk), replaced,
    folder (the name is about to be on the disk).
    """

    step: str
    number: int
    kills: bool

    def reach(self, step):
        self.number -= step == self.step
        if step == self.step and self.number <= 0:
            if self.kills:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def install(self):
        """Take the place of what writes files; this process does not outlive it."""
        open_path, replace, fsync = Path.open, Path.replace, os.fsync
        fault = self

        class Halved(io.FileIO):
            def write(self, content):
                super().write(content[: len(content) // 2])
                fault.reach("write")
                return super().write(content[len(content) // 2 :])

        def opened(path, mode="r", *arguments, **options):
            if mode != "xb":
                return open_path(path, mode, *arguments, **options)
            fault.reach("open")
            return Halved(path, mode)

        def synchronised(descriptor):
            folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            fault.reach("folder" if folder else "fsync")
            fsync(descriptor)

        def replaced(path, target):
            fault.reach("replace")
            replace(path, target)
            fault.reach("replaced")

        Path.open, Path.replace, os.fsync = opened, replaced, synchronised


@dataclass
class Limit:
    """No file may grow beyond so many bytes."""

    nbytes: int

    def install(self):
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (self.nbytes, self.nbytes))


def command(arguments, error, fault, begun, done):
    """Run the command with a checkpoint after every window; tell when windows begin and end."""
    sys.stdout = io.StringIO()
    sys.stderr = error.open("w", buffering=1)
    run._CHECKPOINT_SECONDS = 0.0
    train, step = run.TrainingRun.train, run.TrainingRun._step

    def trained(self, watcher):
        train(self, watcher)
        done.set()

    def stepped(self):
        step(self)
        begun.set()  # kernels are loaded

    run.TrainingRun.train, run.TrainingRun._step = trained, stepped
    if fault is not None:
        fault.install()
    cli.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def server():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["numba_lstm.cli", "matplotlib.figure", "matplotlib.backends.backend_agg"]
    )
    return context


def bits(tensors):
    return {name: (array.shape, array.tobytes()) for name, array in tensors.items()}


class Folder:
    """A folder with a text, and a run of which each part is a process of its own."""

    def __init__(self, server, place):
        self.server = server
        self.place = place
        self.text = place / "text.txt"
        self.text.write_text(TEXT)
        self.run = place / "run"

    def start(self, fault=None, epochs=EPOCHS):
        """Begin the run, or go on with it: the process, and events of its first and last window."""
        options = [f"--epochs={epochs}", "--threads=1", f"--out={self.run}"]
        if (self.run / CHECKPOINT).exists():
            options.append("--resume")
        else:
            options += [self.text, *SIZES]
        begun, done = self.server.Event(), self.server.Event()
        process = self.server.Process(
            target=command, args=(["train", *options], self.place / "error", fault, begun, done)
        )
        process.start()
        return process, begun, done

    def ended(self, fault=None, epochs=EPOCHS):
        """Run until the end, whatever that is: exit code and what is on standard error."""
        process, *_ = self.start(fault, epochs)
        process.join()
        return process.exitcode, (self.place / "error").read_text()

    def names(self):
        return {path.name for path in self.run.iterdir()}

    def outcome(self):
        """The model, and all that a checkpoint holds but for the time it took."""
        (model, described), (tensors, metadata) = (
            read_tensors(self.run / name) for name in (MODEL, CHECKPOINT)
        )
        progress = json.loads(metadata.pop("progress"))
        del progress["seconds"], progress["characters"], metadata["text_path"]
        return bits(model), described, bits(tensors), metadata, progress

    def finish(self):
        """Go on until the end, and return what it led to."""
        assert self.ended() == (0, "")
        assert self.names() == {CHECKPOINT, MODEL, PICTURE}
        return self.outcome()


@pytest.fixture
def folder(server, tmp_path):
    return Folder(server, tmp_path)


@pytest.fixture(scope="module")
def whole(server, tmp_path_factory):
    """Outcome of a run that nothing interrupts, and the seconds that its windows take."""
    folder = Folder(server, tmp_path_factory.mktemp("whole"))
    process, begun, done = folder.start()
    assert begun.wait(60)
    started = time.monotonic()
    assert done.wait(60)
    seconds = time.monotonic() - started
    process.join()
    outcome = folder.finish()
    assert outcome[2]["losses"][0] == (EPOCHS * WINDOWS,)
    return outcome, seconds


WINDOWS = 19
# Files in the order in which they are written: a checkpoint, then in every epoch one after each
# window, the model, and a checkpoint; the picture at the end.
FILES = 1 + EPOCHS * (WINDOWS + 2) + 1
MODEL_FILE = 1 + WINDOWS + 1


STEPS = ("open", "write", "fsync", "replace", "replaced", "folder")


def drawn():
    """A source of moments: another one every time, but for a seed that is given."""
    seed = int(os.environ.get("NUMBA_LSTM_SEED", secrets.randbelow(2**32)))
    print(f"NUMBA_LSTM_SEED={seed}")
    return random.Random(seed)


@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=pytest.mark.exhaustive)])
def test_kills_at_random_moments(folder, whole, kills):
    moments = drawn()
    outcome, seconds = whole
    for _ in range(kills):
        process, begun, done = folder.start()
        while not begun.wait(0.01) and process.is_alive():
            pass
        time.sleep(moments.uniform(0, seconds / 2))
        process.kill()
        process.join()
        if done.is_set():  # begin anew
            assert folder.finish() == outcome
            shutil.rmtree(folder.run)
        else:
            assert process.exitcode == -signal.SIGKILL
    assert folder.finish() == outcome


def killed_while_a_file_is_written(folder, expected, step, number):
    code, _ = folder.ended(Fault(step, number, kills=True))
    assert code == -signal.SIGKILL
    parts = folder.names() - {CHECKPOINT, MODEL, PICTURE}
    assert len(parts) == (step in ("write", "fsync", "replace"))
    assert folder.finish() == expected


@pytest.mark.parametrize(
    ("step", "number"),
    [("open", 1), ("write", 6), ("fsync", MODEL_FILE), ("replaced", MODEL_FILE + 1)],
)
def test_kills_while_a_file_is_written(folder, whole, step, number):
    killed_while_a_file_is_written(folder, whole[0], step, number)


@pytest.mark.exhaustive
def test_kills_while_any_file_is_written(folder, whole):
    moments = drawn()
    for _ in range(15):
        step, number = moments.choice(STEPS), moments.randint(1, FILES)
        print(step, number)
        killed_while_a_file_is_written(folder, whole[0], step, number)
        shutil.rmtree(folder.run)


def full_while_a_file_is_written(folder, expected, step, number):
    code, error = folder.ended(Fault(step, number, kills=False))
    epochs, files = divmod(number - 2, WINDOWS + 2)
    name = MODEL if files == WINDOWS else CHECKPOINT
    path = folder.run / (PICTURE if number == FILES else name)
    assert (code, error) == (2, f"numba-lstm: {path}: No space left on device\n")
    assert folder.names() <= {CHECKPOINT, MODEL, PICTURE}
    if step not in ("replaced", "folder") and 1 < number < FILES:
        losses = read_tensors(folder.run / CHECKPOINT)[0]["losses"]
        assert losses.size == epochs * WINDOWS + min(files, WINDOWS)
    assert folder.finish() == expected


@pytest.mark.parametrize(("step", "number"), [("write", 7), ("fsync", MODEL_FILE)])
def test_a_full_disk_loses_no_checkpoint(folder, whole, step, number):
    full_while_a_file_is_written(folder, whole[0], step, number)


@pytest.mark.exhaustive
def test_a_disk_full_at_any_moment_loses_no_checkpoint(folder, whole):
    moments = drawn()
    for _ in range(15):
        step, number = moments.choice(STEPS), moments.randint(1, FILES)
        print(step, number)
        full_while_a_file_is_written(folder, whole[0], step, number)
        shutil.rmtree(folder.run)


def test_a_checkpoint_that_may_not_grow(folder, whole):
    assert folder.ended(epochs=1)[0] == 0
    before = (folder.run / CHECKPOINT).read_bytes()
    code, error = folder.ended(Limit(len(before)))
    assert (code, error) == (2, f"numba-lstm: {folder.run / CHECKPOINT}: File too large\n")
    assert (folder.run / CHECKPOINT).read_bytes() == before
    assert folder.names() == {CHECKPOINT, MODEL, PICTURE}
