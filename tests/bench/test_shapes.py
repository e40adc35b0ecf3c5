"""Shapes: the tables, what a user may write, and how operations are counted."""

import pytest

from numba_lstm.bench import INFERENCE, NAMED, TRAINING, Shape, parse


def test_the_tables():
    assert len(INFERENCE) == 10
    assert len(TRAINING) == 8
    assert len(NAMED) == 18
    assert all(name == shape.name for name, shape in NAMED.items())
    assert parse("music-separation") == Shape("music-separation", 255, 1, 512, 256, 3, True)
    assert parse("awd-layer") == Shape("awd-layer", 70, 20, 400, 1150)


@pytest.mark.parametrize(
    ("text", "layers", "bidirectional"),
    [
        ("5,3,7,4", 1, False),
        ("5,3,7,4,2", 2, False),
        ("5,3,7,4,bi", 1, True),
        (" 5, 3,7 ,4,2, bi", 2, True),
    ],
)
def test_numbers(text, layers, bidirectional):
    shape = parse(text)
    assert shape == Shape(text.replace(" ", ""), 5, 3, 7, 4, layers, bidirectional)


@pytest.mark.parametrize(
    "text", ["", "vad", "5,3,7", "5,3,7,4,2,1", "5,3,7,4,b", "5,3,7,bi", "5,3,7,-4", "5,3,7,4.5"]
)
def test_what_is_no_shape(text):
    with pytest.raises(ValueError, match=r"T,B,I,H\[,L\]\[,bi\] or one of vad-step, .*; got '"):
        parse(text)


def test_sizes_of_zero():
    with pytest.raises(ValueError, match="H of shape 5,3,7,0 must be at least 1; got 0"):
        parse("5,3,7,0")


def test_operations():
    # T B 8 H D (inputs + H) for each layer, as the tables count them
    assert parse("5,3,7,4").operations(training=False) == 5 * 3 * 8 * 4 * (7 + 4)
    whole = 5 * 3 * 8 * 4 * 2 * ((7 + 4) + (8 + 4))
    assert parse("5,3,7,4,2,bi").operations(training=False) == whole
    assert parse("5,3,7,4,2,bi").operations(training=True) == 3 * whole
