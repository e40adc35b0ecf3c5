"""Files: what is written comes back, what is damaged is refused."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

import numba_lstm as nl
from numba_lstm import storage
from numba_lstm.files import discard_parts
from numba_lstm.language_model import CharLanguageModel
from numba_lstm.storage import read_tensors, write_tensors

MODELS = [
    nl.LSTM(3, 4, 2, bidirectional=True, bias=False, batch_first=True, dtype="float64", seed=0),
    nl.Linear(3, 4, bias=False, seed=0),
    nl.Embedding(3, 4, seed=0),
    nl.Sequential(nl.Embedding(6, 3, seed=2), nl.LSTM(3, 4, dropout=0.2, seed=0), nl.Linear(4, 2)),
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_round_trip(model, tmp_path):
    path = tmp_path / "model.safetensors"
    model.save(path)
    twin = nl.load(path, threads=1)
    assert type(twin) is type(model)
    assert twin.configuration() == model.configuration()
    assert twin.parameters.shapes == model.parameters.shapes
    assert np.array_equal(twin.parameters.flat, model.parameters.flat)
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_tensors_and_texts_come_back_as_they_were(tmp_path):
    path = tmp_path / "some.safetensors"
    tensors = {
        "scalar": np.array(3),
        "empty": np.zeros((0, 4), np.float32),
        "transposed": np.arange(6.0).reshape(2, 3).T,
    }
    write_tensors(path, tensors, {"text": 'ä\n\0"\\😀'})
    read, metadata = read_tensors(path)
    assert metadata["text"] == 'ä\n\0"\\😀'
    assert set(read) == set(tensors)
    for name, array in tensors.items():
        assert read[name].shape == array.shape
        assert read[name].dtype == array.dtype
        assert np.array_equal(read[name], array)


def test_parts_of_killed_processes_are_discarded(tmp_path):
    path = tmp_path / "mo[d]el"
    others = {".mo[d]el2.12.part", ".mod.12.part", "mo[d]el", ".mo[d]el"}
    for name in {".mo[d]el.12.part", ".mo[d]el.34.part", *others}:
        (tmp_path / name).write_bytes(b"")
    discard_parts(path)
    assert {p.name for p in tmp_path.iterdir()} == others


def test_a_file_is_plain_safetensors(tmp_path):
    path = tmp_path / "model.safetensors"
    lstm = nl.LSTM(3, 4, seed=0)
    lstm.save(path)
    tensors = safetensors.numpy.load_file(path)
    assert set(tensors) == set(lstm.parameters)
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    assert metadata["format"] == "numba-lstm"
    assert json.loads(metadata["configuration"])["hidden_size"] == 4


def test_an_existing_file_survives_a_failure(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    lstm = nl.LSTM(3, 4, seed=0)
    lstm.save(path)
    before = path.read_bytes()

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        nl.LSTM(3, 4, seed=1).save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_permissions_are_those_of_new_files(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    nl.LSTM(3, 4).save(tmp_path / "model")
    assert (tmp_path / "model").stat().st_mode == (tmp_path / "plain").stat().st_mode


def damaged(tmp_path, change):
    path = tmp_path / "model.safetensors"
    nl.LSTM(3, 4, seed=0).save(path)
    tensors, metadata = read_tensors(path)
    change(tensors, metadata)
    version = metadata.pop("format_version")
    write_tensors(path, tensors, {**metadata, "format_version": version})
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, m: m.update(format="other"), "must be written by numba-lstm"),
        (lambda t, m: m.update(format_version="2"), "must have format version 1 or older; got 2"),
        (lambda t, m: m.update(format_version="2"), "got 2: a newer numba-lstm reads it"),
        (lambda t, m: m.update(format_version="x"), "must have format version 1 or older; got x$"),
        (
            lambda t, m: m.update(model="Transformer"),
            "a model of a known class, .*LSTM.*; got Transformer",
        ),
        (lambda t, m: m.pop("model"), "a model of a known class, .*; got no model"),
        (lambda t, m: m.update(configuration="{"), "holds no configuration of a LSTM"),
        (lambda t, m: m.update(configuration='{"input_size": 3}'), "holds no configuration"),
        (lambda t, m: t.pop("bias_l0"), r"must hold float32 \(16,\) for bias_l0; got nothing"),
        (lambda t, m: t.update(extra=np.zeros(3)), r"hold nothing for extra; got float64 \(3,\)"),
        (lambda t, m: t.update(bias_l0=np.zeros(3)), r"for bias_l0; got float64 \(3,\)"),
        (lambda t, m: t.update(bias_l0=np.zeros(16, int)), r"for bias_l0; got int64 \(16,\)"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path, change, message):
    path = damaged(tmp_path, change)
    with pytest.raises(nl.FormatError, match=message) as caught:
        nl.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_cut_file_is_refused(tmp_path, keep):
    path = tmp_path / "model.safetensors"
    nl.LSTM(3, 4).save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(nl.FormatError, match="must be a safetensors file"):
        nl.load(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("hello " * 100)
    with pytest.raises(nl.FormatError, match=r"notes\.txt must be a safetensors file"):
        nl.load(path)
    safetensors.numpy.save_file({"x": np.zeros(2)}, path)
    with pytest.raises(nl.FormatError, match="got a file of another program"):
        nl.load(path)
    with pytest.raises(FileNotFoundError, match="missing"):
        nl.load(tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        nl.LSTM(3, 4).save(tmp_path / "nowhere" / "model")
    with pytest.raises(OSError, match=r"/notes\.txt/model'$"):
        nl.LSTM(3, 4).save(path / "model")


def test_other_dtypes_and_bad_thread_counts(tmp_path):
    path = tmp_path / "model.safetensors"
    header = {
        "__metadata__": {"format": "numba-lstm", "format_version": "1"},
        "x": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]},
    }
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + b"ab")
    with pytest.raises(nl.FormatError, match=r"model\.safetensors must be"):
        nl.load(path)
    nl.LSTM(3, 4).save(path)
    with pytest.raises(ValueError, match="threads must be at least 1; got 0"):
        nl.load(path, threads=0)


def test_a_new_process_loads_every_model(tmp_path):
    """Whatever it has imported so far."""
    lstm = nl.LSTM(2, 3, seed=0)
    models = {
        "lstm": lstm,
        "sequential": nl.Sequential(lstm, nl.Linear(3, 1, seed=0)),
        "language": CharLanguageModel("ab", hidden_size=3, embedding_dim=2, seed=0),
    }
    for name, model in models.items():
        model.save(tmp_path / name)
    script = f"""
import numba_lstm as nl
for name in {list(models)}:
    print(type(nl.load({str(tmp_path)!r} + "/" + name)).__name__)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [type(model).__name__ for model in models.values()]


def test_classes_that_nobody_can_have_saved_are_not_named(tmp_path):
    write_tensors(tmp_path / "file", {"a": np.ones(1)}, {"model": "Layer"})
    with pytest.raises(nl.FormatError, match=r"known class, Embedding, .*; got Layer"):
        nl.load(tmp_path / "file")


def test_a_link_still_leads_to_the_file_that_is_replaced(tmp_path):
    folder, link = tmp_path / "models", tmp_path / "link"
    folder.mkdir()
    link.symlink_to(folder / "model")
    for seed in (0, 1):
        model = nl.LSTM(3, 4, seed=seed)
        model.save(link)
        assert link.is_symlink()
        for path in (link, folder / "model"):
            assert np.array_equal(nl.load(path).parameters.flat, model.parameters.flat)
    assert [path.name for path in folder.iterdir()] == ["model"]


def test_a_file_keeps_its_mode(tmp_path):
    path = tmp_path / "model"
    path.touch(mode=0o600)
    nl.LSTM(3, 4).save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert isinstance(nl.load(path), nl.LSTM)


def test_what_is_no_file_is_written_to_as_it_is(tmp_path):
    pipe, copy = tmp_path / "pipe", tmp_path / "copy"
    os.mkfifo(pipe)
    model = nl.LSTM(3, 4, seed=0)
    reader = subprocess.Popen(["cp", pipe, copy])
    model.save(pipe)
    assert reader.wait(60) == 0
    assert pipe.is_fifo()
    assert np.array_equal(nl.load(copy).parameters.flat, model.parameters.flat)
    with pytest.raises(IsADirectoryError):
        model.save(tmp_path)


def test_a_name_may_be_as_long_as_the_system_takes(tmp_path):
    path = tmp_path / ("\N{OGHAM LETTER BEITH}" * 85)  # of three bytes each, and 255 at most
    nl.LSTM(3, 4).save(path)
    assert isinstance(nl.load(path), nl.LSTM)
    (tmp_path / f".{path.name[:50]}.0123.part").touch()
    discard_parts(path)
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_a_users_class_takes_no_name_of_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(storage.StoredModel, "_classes", dict(storage.StoredModel._classes))
    path = tmp_path / "model.safetensors"
    nl.LSTM(3, 4, seed=0).save(path)
    type("LSTM", (nl.LSTM,), {"__module__": __name__})
    assert type(nl.load(path)) is nl.LSTM
    first, second = (type("Mine", (nl.LSTM,), {"__module__": __name__}) for _ in range(2))
    second(3, 4).save(path)
    assert first is not second
    assert type(nl.load(path)) is second
