"""Copies of every public object, and weights that change by every way there is."""

import contextlib
import copy
import pickle

import numpy as np
import pytest

import numba_lstm as nl
from numba_lstm.language_model import CharLanguageModel


def joblib_copy(thing, tmp_path):
    joblib = pytest.importorskip("joblib")
    joblib.dump(thing, tmp_path / "thing")
    return joblib.load(tmp_path / "thing")


WAYS = {
    "copy": lambda thing, _: copy.copy(thing),
    "deepcopy": lambda thing, _: copy.deepcopy(thing),
    "pickle": lambda thing, _: pickle.loads(pickle.dumps(thing)),
    "oldest pickle": lambda thing, _: pickle.loads(pickle.dumps(thing, 2)),
    "joblib": joblib_copy,
}
TOKENS = np.arange(15).reshape(5, 3) % 3


def sequential(dropout=0.0):
    return nl.Sequential(
        nl.Embedding(3, 6, seed=0),
        nl.LSTM(6, 5, 2, dropout=dropout, seed=1),
        nl.Linear(5, 2, seed=2),
    )


# A model and its input.
MODELS = {
    "LSTM": (lambda: nl.LSTM(7, 5, 2, bidirectional=True, seed=0), np.ones((5, 3, 7))),
    "Embedding": (lambda: nl.Embedding(3, 4, dtype="float64", seed=0), TOKENS),
    "Linear": (lambda: nl.Linear(7, 5, bias=False, seed=0), np.ones((5, 3, 7))),
    "Sequential": (sequential, TOKENS),
    "CharLanguageModel": (
        lambda: CharLanguageModel("abc", hidden_size=5, embedding_dim=4, seed=0),
        TOKENS,
    ),
}
OPTIMIZERS = {
    "SGD": lambda parameters: nl.SGD(parameters, 0.1, momentum=0.9),
    "Adam": lambda parameters: nl.Adam(parameters, 0.1),
    "AdamW": lambda parameters: nl.AdamW(parameters, 0.1),
    "RMSprop": lambda parameters: nl.RMSprop(parameters, 0.1, momentum=0.5),
}


def output(model, x):
    result = model(x)
    return result[0] if isinstance(result, tuple) else result


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MODELS)
def test_models(name, way, tmp_path):
    build, x = MODELS[name]
    model = build()
    expected = output(model, x)
    model.parameters.zero()
    nothing = output(model, x)
    model = build()
    output(model, x)
    twin = WAYS[way](model, tmp_path)
    assert type(twin) is type(model)
    assert twin.configuration() == model.configuration()
    np.testing.assert_array_equal(output(twin, x), expected)
    twin.parameters.zero()
    np.testing.assert_array_equal(output(twin, x), nothing)
    np.testing.assert_array_equal(output(model, x), expected)


@pytest.mark.parametrize("way", [way for way in WAYS if way != "copy"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name, way, tmp_path):
    parameters = nl.Parameters({"weight": (3, 4)}, "float32")
    gradients = copy.copy(parameters)
    gradients["weight"] = np.arange(12).reshape(3, 4)
    optimizer = OPTIMIZERS[name](parameters)
    optimizer.step(gradients)
    twin = WAYS[way](optimizer, tmp_path)
    twin.step(gradients)
    assert (twin.steps, optimizer.steps) == (2, 1)
    assert twin.parameters != parameters
    optimizer.step(gradients)
    assert twin.parameters == parameters


def test_optimizers_keep_parameters_that_are_copied_with_them():
    parameters = nl.Parameters({"weight": (3, 4)}, "float32")
    twin, optimizer = copy.deepcopy((parameters, nl.SGD(parameters)))
    assert optimizer.parameters is twin


@pytest.mark.parametrize("way", WAYS)
def test_a_trainer_goes_on_with_the_same_bits(way, tmp_path):
    model = sequential(dropout=0.5)
    trainer = nl.Trainer(model, nl.softmax_cross_entropy, nl.Adam(model.parameters), clip=1.0)
    target = TOKENS % 2
    trainer.step(TOKENS, target)
    before = model.parameters.flat.copy()
    twin = WAYS[way](trainer, tmp_path)
    assert twin.optimizer.parameters is twin.model.parameters
    loss, _ = twin.step(TOKENS, target)
    np.testing.assert_array_equal(model.parameters.flat, before)
    assert (twin.model.parameters.flat != before).any()
    assert trainer.step(TOKENS, target)[0] == loss
    for key, array in trainer.state_dict().items():
        np.testing.assert_array_equal(twin.state_dict()[key], array)


@pytest.mark.parametrize("way", WAYS)
def test_the_state_of_dropout_is_copied(way, tmp_path):
    """A copy draws the masks that its model would have drawn."""
    model = sequential(dropout=0.5)
    model.forward(TOKENS)
    twin = WAYS[way](model, tmp_path)
    assert twin.dropout_state == model.dropout_state
    np.testing.assert_array_equal(twin.forward(TOKENS)[0], model.forward(TOKENS)[0])


@pytest.mark.parametrize("way", WAYS)
def test_bounds_of_threads_are_copied(way, tmp_path):
    model = nl.Sequential(
        nl.Embedding(3, 6), nl.LSTM(6, 5, threads=1), nl.Linear(5, 2, threads=2), threads=3
    )
    twin = WAYS[way](model, tmp_path)
    assert (twin.threads, twin.layers[1].threads, twin.layers[2].threads) == (3, 1, 2)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("begin", [lambda: nl.LSTM(7, 5).stream(3), lambda: sequential().stream(3)])
def test_streams_say_what_to_copy_instead(begin, way, tmp_path):
    stream = begin()
    with pytest.raises(TypeError, match=r"Stream is not copied, but its model is"):
        WAYS[way](stream, tmp_path)


# Ways to change weights. Each gets a model, whose parameters become twice what they were.


def assign(model):
    for name, array in model.parameters.items():
        model.parameters[name] = 2 * array


def edit(model):
    with model.parameters.edit() as flat:
        flat *= 2


def edit_and_break_off(model):
    with contextlib.suppress(InterruptedError), model.parameters.edit() as flat:
        flat *= 2
        raise InterruptedError


def step(model):
    gradients = copy.copy(model.parameters)
    with gradients.edit() as flat:
        flat *= -1
    nl.SGD(model.parameters, 1.0).step(gradients)


def load(model):
    model.load_state_dict({name: 2 * array for name, array in model.state_dict().items()})


def through_layers(model):
    for layer in model.layers:
        edit(layer)


def join(model):
    edit(model)
    nl.Sequential(model)


def restore(model):
    trainer = nl.Trainer(model, nl.mse, nl.SGD(model.parameters))
    state = trainer.state_dict()
    doubled = {name: 2 * array for name, array in state.items() if name.startswith("parameters.")}
    trainer.load_state_dict({**state, **doubled})


CHANGES = [assign, edit, edit_and_break_off, step]
CASES = [
    *((name, change) for name in MODELS for change in CHANGES),
    *(("LSTM", change) for change in (load, join, restore)),
    *(("Linear", change) for change in (join,)),
    *(("Sequential", change) for change in (through_layers, restore)),
]


@pytest.mark.parametrize("copied", [False, True], ids=["", "copied"])
@pytest.mark.parametrize(("name", "change"), CASES)
def test_the_next_call_uses_new_weights(name, change, copied):
    build, x = MODELS[name]
    model = pickle.loads(pickle.dumps(build())) if copied else build()
    fresh = build()
    with fresh.parameters.edit() as flat:
        flat *= 2
    expected = output(fresh, x)
    before = output(model, x)
    change(model)
    assert (expected != before).any()
    np.testing.assert_array_equal(output(model, x), expected)
    np.testing.assert_array_equal(output(pickle.loads(pickle.dumps(model)), x), expected)


@pytest.mark.parametrize("name", ["LSTM", "Linear"])
def test_backward_uses_new_weights(name):
    build, x = MODELS[name]
    model, fresh = build(), build()
    for _ in range(2):
        y = model.forward(x)
        dy = np.ones_like(y[0] if name == "LSTM" else y)
        model.backward(dy)
        edit(model)
    edit(fresh), edit(fresh)
    gradients = []
    for one in (model, fresh):
        one.gradients.zero()
        one.forward(x)
        result = one.backward(dy)
        gradients.append((result[0] if name == "LSTM" else result, one.gradients.flat))
    for changed, like in zip(*gradients, strict=True):
        np.testing.assert_array_equal(changed, like)


@pytest.mark.parametrize("change", [assign, edit, edit_and_break_off, step, restore])
def test_a_stream_uses_new_weights(change):
    for build, x in ((lambda: nl.LSTM(7, 5, 2, seed=0), np.ones((3, 7))), (sequential, TOKENS[0])):
        model, fresh = build(), build()
        stream = model.stream(3)
        stream.step(x)
        change(model)
        stream.reset()
        edit(fresh)
        np.testing.assert_array_equal(stream.step(x), fresh.stream(3).step(x))
        stream.reset()
        np.testing.assert_array_equal(stream.process(x[None]), fresh.stream(3).process(x[None]))
