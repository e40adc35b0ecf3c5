"""The picture of a run."""

import numpy as np
import pytest
from matplotlib.image import imread

from numba_lstm.language_model import Corpus, Settings, TrainingRun, Watcher
from numba_lstm.language_model.plot import draw


def drawn(tmp_path, **settings):
    """The picture of a small run, as an array."""
    corpus = Corpus("$\\letters 文$", "abcdefgh" * 40, "hgfedcba" * 4)
    sizes = {"hidden": 5, "layers": 1, "embedding": 3, "steps": 8, "batch": 4}
    run = TrainingRun.create(tmp_path, corpus, Settings(**sizes, **settings), threads=1)
    run.train(Watcher())
    draw(run)
    return imread(tmp_path / "training.png")


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_picture_shows_both_curves(tmp_path, epochs):
    picture = drawn(tmp_path, epochs=epochs)
    height, width, _ = picture.shape
    assert (width, height) == (1350, 750)
    colours = {
        tuple(colour) for colour in np.rint(picture[..., :3] * 255).astype(int).reshape(-1, 3)
    }
    assert (0xD1, 0x49, 0x5B) in colours  # held out
    assert (0xB9, 0xCF, 0xE8) in colours or (0x1F, 0x5F, 0xA8) in colours  # training


def test_an_unfinished_run_has_a_picture_too(tmp_path):
    class Stop(Watcher):
        def stepped(self, run):
            raise KeyboardInterrupt

    corpus = Corpus("letters", "abcdefgh" * 40, "hgfedcba" * 4)
    settings = Settings(hidden=5, layers=1, embedding=3, steps=8, batch=4)
    run = TrainingRun.create(tmp_path, corpus, settings, threads=1)
    with pytest.raises(KeyboardInterrupt):
        run.train(Stop())
    draw(run)
    assert imread(tmp_path / "training.png").shape[:2] == (750, 1350)
