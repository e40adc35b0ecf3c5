"""Texts: what is held out, how characters become tokens, how a text becomes windows."""

import pydoc_data.topics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numba_lstm.language_model.corpus import (
    Corpus,
    Streams,
    Vocabulary,
    python_reference,
    text_file,
)


def test_every_tenth_topic_is_held_out_and_no_line_comes_twice(monkeypatch):
    # Names in no order; every topic repeats the line of the topic before it.
    topics = {f"t{k:02}": f"line {k - 1}\nline {k}\nshared" for k in reversed(range(25))}
    monkeypatch.setattr(pydoc_data.topics, "topics", topics)
    corpus = python_reference()
    assert corpus.held_out == "line 9\nline 19\n"
    lines = ["line -1", "line 0", "shared", *(f"line {k}" for k in range(1, 25))]
    expected = [line for line in lines if line not in ("line 9", "line 19")]
    assert corpus.training == "".join(line + "\n" for line in expected)


def test_the_python_reference_is_the_one_that_this_python_carries():
    corpus = python_reference()
    lines = (corpus.training + corpus.held_out).splitlines()
    assert len(lines) == len(set(lines))
    assert set(lines) == {
        line for topic in pydoc_data.topics.topics.values() for line in topic.splitlines()
    }
    assert len(corpus.training) > 10 * len(corpus.held_out) > 50_000
    assert corpus.path is None


def test_the_last_twentieth_of_a_file_is_held_out(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes("äb\r\nc".encode() * 20)
    corpus = text_file(path)
    assert len(corpus.training) == 95
    assert corpus.training + corpus.held_out == "äb\r\nc" * 20
    assert corpus.name == "text.txt"
    assert corpus.path == str(path)


def test_files_that_are_no_text(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        text_file(tmp_path / "missing")
    path = tmp_path / "bytes"
    path.write_bytes(b"abc\xff")
    with pytest.raises(ValueError, match="bytes must be a UTF-8 text; byte 3 is none"):
        text_file(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="bytes must be a text of at least one character"):
        text_file(path)


def test_the_digest_tells_texts_and_cuts_apart():
    digests = {Corpus("", *parts).digest for parts in (("ab", "c"), ("a", "bc"), ("ab", "d"))}
    assert len(digests) == 3
    assert Corpus("another name", "ab", "c", "path").digest in digests


@given(st.text(min_size=1))
def test_decoding_undoes_encoding(text):
    vocabulary = Corpus("", text[::2], text[1::2]).vocabulary
    tokens = vocabulary.encode(text)
    assert tokens.dtype == np.int64
    assert tokens.max() == len(vocabulary) - 1 == len(set(text)) - 1
    assert vocabulary.decode(tokens) == text


@pytest.mark.parametrize("character", ["a", "c", "e", "\U0001f600", "\udcff"])
def test_a_character_that_the_vocabulary_lacks_is_named(character):
    vocabulary = Vocabulary("bd")
    with pytest.raises(ValueError, match="prompt must be written in the 2 characters") as caught:
        vocabulary.encode("bd" + character + "x", name="prompt")
    assert str(caught.value).endswith(f"got {character!r} at position 2")


@pytest.mark.parametrize("characters", ["", "ba", "aa"])
def test_vocabularies_are_distinct_and_ascending(characters):
    with pytest.raises(ValueError, match="characters must be distinct, ascending"):
        Vocabulary(characters)


def test_vocabularies_can_be_saved():
    with pytest.raises(ValueError, match="characters must be such as UTF-8 can hold"):
        Vocabulary("ab\ud800")


@given(batch=st.integers(1, 4), steps=st.integers(1, 5), extra=st.integers(0, 50))
def test_windows_follow_each_other_within_a_stream(batch, steps, extra):
    tokens = np.arange(batch * steps + 1 + extra)
    streams = Streams(tokens, batch, steps)
    windows = [streams.window(index) for index in range(streams.windows)]
    inputs = np.concatenate([x for x, _ in windows])
    targets = np.concatenate([target for _, target in windows])
    assert inputs.shape == (streams.windows * steps, batch)
    assert np.array_equal(inputs.T.ravel(), np.arange(inputs.size))
    assert np.array_equal(targets, inputs + 1)
    # What is left over is too short for another window.
    assert tokens.size - 1 - inputs.size < batch * steps


def test_a_text_shorter_than_a_window():
    message = r"at least 13 characters, batch 3 x steps 4 \+ 1; got 12"
    with pytest.raises(ValueError, match=message):
        Streams(np.arange(12), 3, 4)
