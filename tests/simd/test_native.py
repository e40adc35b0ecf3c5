import numpy as np
import pytest

from numba_lstm import jit
from numba_lstm.kernels.region import all_shares


def note_share(notes, factor, worker, workers):
    for k in range(worker, notes.size, workers):
        notes[k] = factor * k + 100 * worker


@pytest.fixture
def note(tmp_path, monkeypatch):
    """A kernel of our own, whose cache and list of kernels nobody else sees."""
    monkeypatch.setattr(jit, "_folders", lambda: [tmp_path])
    monkeypatch.setattr(jit, "_kernels", {})
    return jit.kernel(note_share)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_region_runs_all_shares_of_the_kernel_at_an_address(note, dtype):
    entry = jit.entry_of(note, (np.zeros(1, dtype), 3))
    for workers in (1, 2, 3):
        notes = np.zeros(10, dtype)
        all_shares(entry, (notes, 3), workers)
        k = np.arange(10)
        np.testing.assert_array_equal(notes, 3 * k + 100 * (k % workers))


def test_a_kernel_has_an_entry_for_all_types_of_arguments(note):
    single, double = np.zeros(3, np.float32), np.zeros(3)
    entries = [jit.entry_of(note, (array, 1)) for array in (single, double, single[:1], double)]
    assert entries[0] == entries[2] != entries[1] == entries[3]
    assert len(note.signatures) == 2


def test_a_kernel_that_returns_something_has_none(note):
    def count(notes, worker, workers):
        return notes.size

    with pytest.raises(TypeError, match=r"count must return nothing; got .*int64"):
        jit.entry_of(jit.kernel(count), (np.zeros(2),))
