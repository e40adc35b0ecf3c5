"""CharLanguageModel: bits, draws, files."""

import json

import numpy as np
import pytest
import safetensors

import numba_lstm as nl
from numba_lstm.language_model import CharLanguageModel
from numba_lstm.language_model import model as module

SMALL = {"hidden_size": 7, "num_layers": 2, "embedding_dim": 5, "threads": 1, "seed": 3}
TEXT = "abba caddab cad\n" * 9


def small_model(**changes):
    return CharLanguageModel("\n abcd", **{**SMALL, **changes})


def constant_model(logits):
    """A model whose logits are always the same."""
    model = small_model()
    model.parameters["2.weight"] = np.zeros_like(model.parameters["2.weight"])
    model.parameters["2.bias"] = logits
    return model


def test_bits_per_character_are_those_of_one_run_over_the_text(monkeypatch):
    model = small_model()
    tokens = model.vocabulary.encode(TEXT)
    logits = model(tokens[:-1])[0].astype(np.float64)
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -logs[np.arange(tokens.size - 1), tokens[1:]].mean() / np.log(2)
    assert model.evaluate(TEXT) == pytest.approx(expected, rel=1e-6)
    monkeypatch.setattr(module, "_EVALUATED_STEPS", 10)
    done = []
    assert model.evaluate(TEXT, progress=done.append) == pytest.approx(expected, rel=1e-6)
    assert done == [*range(10, 143, 10), 143]


def test_evaluating_needs_something_to_predict():
    with pytest.raises(ValueError, match="text must have at least 2 characters; got 1"):
        small_model().evaluate("a")
    with pytest.raises(ValueError, match="got 'x' at position 2"):
        small_model().evaluate("abx")


def test_draws_follow_the_softmax_of_the_logits_over_the_temperature():
    logits = np.array([0.0, 1.0, -1.0, 0.5, 2.0, -2.0])
    drawn = constant_model(logits).generate("a", 4000, temperature=0.7, seed=5)
    expected = np.exp(logits / 0.7) / np.exp(logits / 0.7).sum()
    found = np.array([drawn.count(character) for character in "\n abcd"]) / 4000
    # Five standard deviations.
    assert np.all(np.abs(found - expected) < 5 * np.sqrt(expected * (1 - expected) / 4000))


def test_temperature_zero_takes_the_likeliest():
    model = small_model()
    text = "ab"
    for _ in range(20):
        logits, _ = model(model.vocabulary.encode(text))
        text += model.vocabulary.characters[int(np.argmax(logits[-1]))]
    assert model.generate("ab", 20, temperature=0) == text[2:]


def test_a_seed_determines_the_text():
    model = small_model()
    texts = [model.generate("a", 40, seed=seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert all(len(text) == 40 for text in texts)
    assert model.generate("a", 0) == ""


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("", 3), ValueError, "prompt must have at least one character"),
        (("ax", 3), ValueError, "prompt must be written in .* got 'x' at position 1"),
        (("a", -1), ValueError, "length must be at least 0; got -1"),
        (("a", 1.5), TypeError, "length must be an integer; got 1.5"),
        (("a", 3, -0.1), ValueError, "temperature must be finite and >= 0; got -0.1"),
        (("a", 3, float("nan")), ValueError, "temperature must be finite and >= 0; got nan"),
        (("a", 3, 1.0, -1), ValueError, "seed must be at least 0; got -1"),
    ],
)
def test_bad_input(arguments, error, message):
    prompt, length, *rest = arguments
    options = dict(zip(("temperature", "seed"), rest, strict=False))
    with pytest.raises(error, match=message):
        small_model().generate(prompt, length, **options)


def test_a_text_begins_after_a_line_where_there_are_lines():
    assert small_model().opening == "\n"
    assert CharLanguageModel("xyz", **SMALL).opening == "x"


def test_a_file_holds_vocabulary_and_sizes(tmp_path):
    model = small_model(dropout=0.3)
    path = tmp_path / "model.safetensors"
    model.save(path)
    twin = nl.load(path, threads=1)
    assert isinstance(twin, CharLanguageModel)
    assert twin.configuration() == model.configuration()
    assert np.array_equal(twin.parameters.flat, model.parameters.flat)
    assert twin.generate("ab", 30, seed=0) == model.generate("ab", 30, seed=0)
    with safetensors.safe_open(path, framework="numpy") as file:
        configuration = json.loads(file.metadata()["configuration"])
    assert configuration["vocabulary"] == "\n abcd"
    assert configuration["hidden_size"] == 7


def test_operations_are_two_for_each_weight_and_character():
    model = small_model()
    products = [name for name in model.parameters if "weight_" in name or name == "2.weight"]
    assert len(products) == 5
    weights = sum(model.parameters[name].size for name in products)
    assert model.operations(3, 4) == 2 * 12 * weights
