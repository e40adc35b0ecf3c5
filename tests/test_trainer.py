"""Trainer: a step is the sum of its parts, or nothing at all."""

import copy
import functools
import math
import threading

import numpy as np
import pytest

from numba_lstm import (
    LSTM,
    SGD,
    Adam,
    AdamW,
    Embedding,
    Linear,
    RMSprop,
    Sequential,
    Trainer,
    clip_by_global_norm,
    mse,
    softmax_cross_entropy,
)

T, B, I, H, C = 5, 3, 7, 4, 6


def language_model(seed=0, dtype="float32", dropout=0.0, batch_first=False):
    """A small model of tokens."""
    return Sequential(
        Embedding(C, I, dtype=dtype, seed=seed),
        LSTM(I, H, 2, dropout=dropout, dtype=dtype, batch_first=batch_first, seed=seed),
        Linear(H, C, dtype=dtype, seed=seed),
        threads=1,
    )


def batch_of_tokens(seed):
    """Tokens and the tokens that follow them."""
    tokens = np.random.default_rng(seed).integers(0, C, (T + 1, B))
    return tokens[:-1], tokens[1:]


def batch_of_numbers(seed):
    """Inputs and wanted outputs of an LSTM."""
    random = np.random.default_rng(seed)
    return random.standard_normal((T, B, I)), random.standard_normal((T, B, H))


def assert_same_state(actual, expected):
    """Compare two states bit by bit."""
    assert set(actual) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, err_msg=name)


@pytest.mark.parametrize("clip", [None, 1e-3, 1000.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kept", [0, 1 << 17])
def test_a_step_of_a_sequential_is_the_sum_of_its_parts(clip, dtype, kept, monkeypatch):
    monkeypatch.setattr("numba_lstm.trainer._BYTES_KEPT", kept)
    model, other = language_model(dtype=dtype), language_model(dtype=dtype)
    trainer = Trainer(model, softmax_cross_entropy, Adam(model.parameters, lr=0.1), clip=clip)
    optimizer = Adam(other.parameters, lr=0.1)
    hx = before = None
    for seed in range(3):
        x, target = batch_of_tokens(seed)
        loss, hx = trainer.step(x, target, hx)
        y, before = other.forward(x, before)
        expected, dy = softmax_cross_entropy(y, target)
        other.gradients.zero()
        other.backward(dy)
        if clip is not None:
            clip_by_global_norm(other.gradients, clip)
        optimizer.step(other.gradients)
        assert loss == expected
        np.testing.assert_array_equal(hx, before)
        np.testing.assert_array_equal(model.parameters.flat, other.parameters.flat)


def test_a_step_of_an_lstm_is_the_sum_of_its_parts():
    model, other = LSTM(I, H, seed=0, threads=1), LSTM(I, H, seed=0, threads=1)
    trainer = Trainer(model, mse, SGD(model.parameters, lr=0.5))
    optimizer = SGD(other.parameters, lr=0.5)
    x, target = batch_of_numbers(0)
    for _ in range(2):
        loss, (h, c) = trainer.step(x, target)
        y, (last_h, last_c) = other.forward(x)
        expected, dy = mse(y, target)
        other.gradients.zero()
        other.backward(dy)
        optimizer.step(other.gradients)
        assert loss == expected
        np.testing.assert_array_equal([h, c], [last_h, last_c])
        np.testing.assert_array_equal(model.parameters.flat, other.parameters.flat)


def test_a_loss_that_takes_no_out_may_keep_the_outputs(monkeypatch):
    monkeypatch.setattr("numba_lstm.trainer._BYTES_KEPT", 0)
    model, other = language_model(), language_model()
    kept = []

    def keeping(y, target):
        kept.append(y)
        return softmax_cross_entropy(y, target)

    trainer = Trainer(model, keeping, Adam(model.parameters))
    twin = Trainer(other, softmax_cross_entropy, Adam(other.parameters))
    expected = []
    for seed in range(3):
        x, target = batch_of_tokens(seed)
        expected.append(other(x)[0])
        assert trainer.step(x, target)[0] == twin.step(x, target)[0]
    np.testing.assert_array_equal(kept, expected)


@pytest.mark.parametrize("kind", ["tokens", "numbers"])
def test_the_gradient_takes_the_place_of_the_outputs(kind, monkeypatch):
    """Of the same shape it is one array for all steps, which a copy of the trainer has not."""
    monkeypatch.setattr("numba_lstm.trainer._BYTES_KEPT", 0)
    seen = []  # and held, so that no other array gets the same memory

    def loss(y, target, out=None):
        seen.append(y)
        return (softmax_cross_entropy if kind == "tokens" else mse)(y, target, out=out)

    model = language_model() if kind == "tokens" else LSTM(I, H, threads=1)
    batch = batch_of_tokens if kind == "tokens" else batch_of_numbers
    trainer = Trainer(model, loss, Adam(model.parameters))
    for seed in range(3):
        trainer.step(*batch(seed))
    assert seen[0] is seen[1] is seen[2]
    shorter = [array[:-2] for array in batch(3)]
    trainer.step(*shorter)
    trainer.step(*batch(4))
    assert [len(y) for y in seen[3:]] == [T - 2, T]
    copied = copy.deepcopy(trainer)
    assert copied.step(*batch(5))[0] == trainer.step(*batch(5))[0]
    assert seen[-1] is seen[-3] is not seen[-2]


def test_outputs_that_a_loss_has_let_out_may_be_given_back(monkeypatch):
    monkeypatch.setattr("numba_lstm.trainer._BYTES_KEPT", 0)
    let_out = []

    def loss(y, target, out=None):
        found, dy = mse(y, target, out=out)
        let_out.append(dy)
        return found, dy

    model, other = LSTM(I, I, seed=0, threads=1), LSTM(I, I, seed=0, threads=1)
    trainer, twin = (Trainer(lstm, loss, SGD(lstm.parameters)) for lstm in (model, other))
    random = np.random.default_rng(0)
    x, target = random.standard_normal((2, T, B, I)).astype("f4")
    for _ in range(3):
        trainer.step(x, target)
        given = let_out[-1].copy()
        twin.step(x, target)
        assert trainer.step(let_out[-2], target)[0] == twin.step(given, target)[0]
        given = let_out[-2].copy()
        trainer.step(x, let_out[-2])
        twin.step(x, given)
    np.testing.assert_array_equal(model.parameters.flat, other.parameters.flat)


def positional(y, target, out=None, /):
    """A loss that takes nothing by name."""
    assert out is None
    return mse(y, target)


class Shy:
    """A loss that shows no signature."""

    __signature__ = "none"

    def __call__(self, y, target, out=None):
        assert out is None
        return mse(y, target)


def test_the_loss_may_be_changed_between_steps():
    model = LSTM(I, H, threads=1)
    trainer = Trainer(model, mse, SGD(model.parameters))
    for loss in (lambda y, target: mse(y, target), positional, Shy(), mse):
        trainer.loss = loss
        assert trainer.loss is loss
        trainer.step(*batch_of_numbers(0))
    with pytest.raises(TypeError, match="loss must be callable; got None"):
        trainer.loss = None
    assert trainer.loss is mse


@pytest.mark.parametrize(
    ("of_model", "of_layers", "expected"),
    [(1, (2, 2), 1), (None, (1, 2), 2), (None, (1, None), None), (2, (None, 1), 2)],
)
def test_a_loss_gets_the_threads_of_the_model_unless_it_is_told(of_model, of_layers, expected):
    seen = []

    def loss(y, target, threads=None):
        seen.append(threads)
        return softmax_cross_entropy(y, target, threads=threads)

    lstm, linear = LSTM(I, H, threads=of_layers[0]), Linear(H, C, threads=of_layers[1])
    model = Sequential(Embedding(C, I), lstm, linear, threads=of_model)
    for told in (loss, functools.partial(loss, threads=7)):
        Trainer(model, told, Adam(model.parameters)).step(*batch_of_tokens(0))
    assert seen == [expected, 7]


def test_the_state_is_carried():
    model = language_model()
    trainer = Trainer(model, softmax_cross_entropy, SGD(model.parameters, lr=0.0))
    x, target = batch_of_tokens(0)
    first, hx = trainer.step(x[:2], target[:2])
    second, _ = trainer.step(x[2:], target[2:], hx)
    whole, _ = trainer.step(x, target)
    assert (2 * first + 3 * second) / 5 == pytest.approx(whole, rel=1e-6)
    assert trainer.step(x[2:], target[2:])[0] != second


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW, RMSprop])
def test_counting_is_learnt(kind):
    model = language_model()
    rate = 2.0 if kind is SGD else 0.03
    trainer = Trainer(model, softmax_cross_entropy, kind(model.parameters, lr=rate), clip=5.0)
    x, _ = batch_of_tokens(0)
    losses = [trainer.step(x, (x + 1) % C)[0] for _ in range(200)]
    assert losses[0] == pytest.approx(math.log(C), rel=0.2)
    assert losses[-1] < 0.05


def pytorch_twin(torch, model):
    """Layers of PyTorch with the weights of a language model, and those set to learn that do."""
    embedding, lstm, linear = (
        torch.nn.Embedding(C, I),
        torch.nn.LSTM(I, H, 2),
        torch.nn.Linear(H, C),
    )
    theirs = torch.nn.ModuleList([embedding, lstm, linear]).double()
    tensors = {
        **{f"0.{name}": array for name, array in model.layers[0].parameters.items()},
        **{f"1.{name}": array for name, array in model.layers[1].state_dict().items()},
        **{f"2.{name}": array for name, array in model.layers[2].parameters.items()},
    }
    theirs.load_state_dict({name: torch.tensor(np.array(array)) for name, array in tensors.items()})
    # Two biases are one in ours: only one of them may learn.
    for name, tensor in lstm.named_parameters():
        tensor.requires_grad = "bias_hh" not in name
    return theirs


def test_training_takes_the_way_of_pytorch():
    torch = pytest.importorskip("torch")
    model = language_model(dtype="float64")
    trainer = Trainer(model, softmax_cross_entropy, Adam(model.parameters, lr=0.02), clip=0.3)
    theirs = pytorch_twin(torch, model)
    embedding, lstm, linear = theirs
    learning = [tensor for tensor in theirs.parameters() if tensor.requires_grad]
    optimizer = torch.optim.Adam(learning, lr=0.02)
    for seed in range(10):
        x, target = batch_of_tokens(seed)
        loss, _ = trainer.step(x, target)
        y = linear(lstm(embedding(torch.tensor(x)))[0])
        expected = torch.nn.functional.cross_entropy(
            y.reshape(-1, C), torch.tensor(target.reshape(-1))
        )
        optimizer.zero_grad()
        expected.backward()
        torch.nn.utils.clip_grad_norm_(learning, 0.3)
        optimizer.step()
        assert loss == pytest.approx(expected.item(), rel=1e-11)
    np.testing.assert_allclose(
        model.parameters["1.weight_hh_l1"], lstm.weight_hh_l1.detach().numpy(), rtol=0, atol=1e-11
    )


def test_gradients_of_a_burn_in_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    model = language_model(dtype="float64")
    trainer = Trainer(model, softmax_cross_entropy, SGD(model.parameters, lr=0.1))
    twin = pytorch_twin(torch, model)
    embedding, lstm, linear = twin
    learning = [tensor for tensor in twin.parameters() if tensor.requires_grad]
    hx = state = None
    for seed, K in enumerate([3, 1, 0, T - 1]):
        x, target = batch_of_tokens(seed)
        if K:
            with torch.no_grad():
                _, state = lstm(embedding(torch.tensor(x[:K])), state)
        y, state = lstm(embedding(torch.tensor(x[K:])), state)
        expected = torch.nn.functional.cross_entropy(
            linear(y).reshape(-1, C), torch.tensor(target[K:].reshape(-1))
        )
        gradients = torch.autograd.grad(expected, learning)
        loss, hx = trainer.step(x, target[K:], hx, burn_in=K)
        assert loss == pytest.approx(expected.item(), rel=1e-11)
        np.testing.assert_allclose(
            model.gradients.flat,
            np.concatenate([tensor.numpy().reshape(-1) for tensor in gradients]),
            rtol=0,
            atol=1e-13,
        )
        state = tuple(part.detach() for part in state)
        np.testing.assert_allclose(hx[0], np.stack(state), rtol=0, atol=1e-13)
        with torch.no_grad():
            for tensor, gradient in zip(learning, gradients, strict=True):
                tensor -= 0.1 * gradient


# Models with a burn-in, and the axis of their steps.
BURNING = {
    "lstm": (lambda: LSTM(I, H, 2, dropout=0.5, seed=0, threads=1), (T, B, I), 0),
    "one sequence": (lambda: LSTM(I, H, batch_first=True, seed=0, threads=1), (T, I), 0),
    "batch first": (lambda: LSTM(I, H, batch_first=True, seed=0, threads=1), (B, T, I), 1),
    "sequential": (lambda: language_model(dropout=0.5), (T, B), 0),
    "tokens of one sequence": (lambda: language_model(batch_first=True), (T,), 0),
    "tokens, batch first": (lambda: language_model(batch_first=True), (B, T), 1),
    "linear below, batch first": (
        lambda: Sequential(
            Linear(I, H, seed=0),
            LSTM(H, C, batch_first=True, seed=1),
            LSTM(C, H, 2, batch_first=True),
        ),
        (B, T, I),
        1,
    ),
}


def example(model, shape, seed):
    """A loss, an input of a shape, and what is to be learnt of each of its steps."""
    random = np.random.default_rng(seed)
    if isinstance(model, Sequential) and isinstance(model.layers[0], Embedding):
        return softmax_cross_entropy, *random.integers(0, C, (2, *shape))
    return mse, random.standard_normal(shape), random.standard_normal((*shape[:-1], H))


@pytest.mark.parametrize("K", [1, 3, T - 1])
@pytest.mark.parametrize("case", BURNING)
def test_a_burn_in_is_inference_before_the_steps_that_are_learnt_from(case, K):
    build, shape, axis = BURNING[case]
    model = build()
    other = copy.deepcopy(model)
    other.dropout_state = model.dropout_state
    loss, *_ = example(model, shape, 0)
    trainer = Trainer(model, loss, Adam(model.parameters, lr=0.1))
    twin = Trainer(other, loss, Adam(other.parameters, lr=0.1))
    hx = before = None
    for seed in range(3):
        _, x, target = example(model, shape, seed)
        first, others = np.split(x, [K], axis)
        target = np.split(target, [K], axis)[1]
        value, hx = trainer.step(x, target, hx, burn_in=K)
        _, before = other(first, before)
        expected, before = twin.step(others, target, before)
        assert value == expected
        np.testing.assert_equal(hx, before)
    assert_same_state(trainer.state_dict(), twin.state_dict())


def test_a_burn_in_stops_below_the_last_layers(monkeypatch):
    """What stands above the last LSTM has no state, and its outputs would not be read."""
    rows = []
    multiply = Linear.__call__

    def counted(self, x, **options):
        rows.append(len(x))
        return multiply(self, x, **options)

    monkeypatch.setattr(Linear, "__call__", counted)
    model = language_model()
    x, target = batch_of_tokens(0)
    Trainer(model, softmax_cross_entropy, SGD(model.parameters)).step(x, target[3:], burn_in=3)
    assert rows == [T - 3]


def test_a_skipped_batch_gives_back_the_state_before_its_burn_in():
    spoiled = Spoiled(mse, math.nan, 1.0)
    spoiled.spoils = True
    trainer = learning_model(Adam, spoiled, nonfinite="skip")
    x, _ = batch_of_numbers(0)
    _, hx = trainer.model(x)
    before = trainer.state_dict()
    with pytest.warns(RuntimeWarning, match="no update"):
        _, given = trainer.step(x, x[2:, :, :1], hx, burn_in=2)
    assert given is hx
    assert_same_state(trainer.state_dict(), before)


def nothing_runs(*arguments, **options):
    raise AssertionError("an LSTM ran before the error")


TOKENS = np.zeros((T, B), int)
ONE_AXIS = (
    "burn_in must be 0 unless LSTMs of one direction share the axis of their steps; got 2 for"
)


@pytest.mark.parametrize(
    ("build", "x", "burn_in", "error", "message"),
    [
        (language_model, TOKENS, -1, ValueError, "burn_in must be at least 0; got -1"),
        (language_model, TOKENS, T, ValueError, "burn_in must be below 5, the steps of x; got 5"),
        (language_model, TOKENS, 10**30, ValueError, "burn_in must be below 5, the steps of x"),
        (language_model, TOKENS, 1.0, TypeError, "burn_in must be an integer; got 1.0"),
        (language_model, TOKENS, True, TypeError, "burn_in must be an integer; got True"),
        (language_model, TOKENS, None, TypeError, "burn_in must be an integer; got None"),
        # The last step is as wrong as the first.
        (language_model, TOKENS + C * np.eye(T, B)[::-1].astype(int), 1, ValueError, "tokens must"),
        (lambda: language_model(batch_first=True), TOKENS, B, ValueError, "must be below 3, the"),
        (lambda: LSTM(I, H), np.ones((T, B, I)), T, ValueError, "burn_in must be below 5"),
        (lambda: LSTM(I, H), np.ones((T, B, I + 1)), 2, ValueError, "x must have shape"),
        (lambda: LSTM(I, H, bidirectional=True), np.ones((T, B, I)), 2, ValueError, ONE_AXIS),
        (
            lambda: Sequential(LSTM(I, H), LSTM(H, H, bidirectional=True)),
            np.ones((T, B, I)),
            2,
            ValueError,
            ONE_AXIS,
        ),
        (
            lambda: Sequential(LSTM(I, H, batch_first=True), LSTM(H, H)),
            np.ones((T, B, I)),
            2,
            ValueError,
            ONE_AXIS,
        ),
        (lambda: Sequential(Linear(I, H)), np.ones((T, B, I)), 2, ValueError, ONE_AXIS),
    ],
)
def test_a_refused_burn_in_changes_nothing(monkeypatch, build, x, burn_in, error, message):
    model = build()
    trainer = Trainer(model, mse, Adam(model.parameters))
    before, gradients = trainer.state_dict(), model.gradients.flat.copy()
    monkeypatch.setattr(LSTM, "__call__", nothing_runs)
    monkeypatch.setattr(LSTM, "forward", nothing_runs)
    with pytest.raises(error, match=message):
        trainer.step(x, None, burn_in=burn_in)
    assert_same_state(trainer.state_dict(), before)
    np.testing.assert_array_equal(model.gradients.flat, gradients)


class Spoiled:
    """A loss that is another one, but for the batches that are to be spoiled."""

    def __init__(self, loss, number, slope):
        self.loss, self.number, self.slope = loss, number, slope
        self.spoils = False

    def __call__(self, y, target):
        loss, dy = self.loss(y, target)
        if not self.spoils:
            return loss, dy
        dy[0, :2] = self.slope
        return self.number, dy


def learning_model(kind, loss, **options):
    """A trainer of a stack of LSTMs with dropout; the layer above it takes numbers as they are."""
    model = Sequential(
        LSTM(I, H, 2, dropout=0.5, seed=0),
        LSTM(H, H, 2, dropout=0.5, seed=1),
        Linear(H, 1, seed=0),
        threads=1,
    )
    momentum = {"momentum": 0.9} if kind in (SGD, RMSprop) else {}
    return Trainer(model, loss, kind(model.parameters, lr=0.05, **momentum), **options)


SPOILS = [
    (math.nan, 1.0, r"the loss must be finite; got nan"),
    (math.inf, 1.0, r"the loss must be finite; got inf"),
    (-math.inf, 1.0, r"the loss must be finite; got -inf"),
    (1.0, math.nan, r"gradients must be finite; 0\.weight_ih_l0 is not"),
    (1.0, math.inf, r"gradients must be finite; 0\.weight_ih_l0 is not"),
    # The sum of two is too large, and they are damped on the way down.
    (1.0, 3e38, r"gradients must be finite; 2\.bias is not"),
    (1.0, 1e30, r"a finite norm; every one is finite, but their squares overflow"),
]


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("kind", [SGD, Adam, AdamW, RMSprop])
@pytest.mark.parametrize(("number", "slope", "message"), SPOILS)
@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
def test_a_batch_that_is_not_finite_leaves_no_trace(nonfinite, number, slope, message, kind, clip):
    spoiled = Spoiled(mse, number, slope)
    trainer = learning_model(kind, spoiled, clip=clip, nonfinite=nonfinite)
    twin = learning_model(kind, mse, clip=clip)
    hx = before = None
    for seed in range(4):
        x, _ = batch_of_numbers(seed)
        target = x[..., :1]
        if seed in (1, 2):
            state, version = trainer.state_dict(), trainer.model.parameters.version
            spoiled.spoils = True
            if nonfinite == "raise":
                with pytest.raises(FloatingPointError, match=message):
                    trainer.step(x, target, hx)
            else:
                with pytest.warns(RuntimeWarning, match=f"no update: .*{message}"):
                    loss, given = trainer.step(x, target, hx)
                np.testing.assert_equal(loss, number)
                assert given is hx
            spoiled.spoils = False
            assert_same_state(trainer.state_dict(), state)
            assert trainer.model.parameters.version == version
        else:
            loss, hx = trainer.step(x, target, hx)
            expected, before = twin.step(x, target, before)
            assert loss == expected
            np.testing.assert_array_equal(hx, before)
    assert_same_state(trainer.state_dict(), twin.state_dict())
    assert trainer.state_dict()["dropout"][:, 1].tolist() == [2, 2]
    assert trainer.skipped == (2 if nonfinite == "skip" else 0)


def test_inputs_that_are_not_finite_show_in_the_loss():
    model = LSTM(I, H, 2, dropout=0.5, seed=0, threads=1)
    trainer = Trainer(model, mse, Adam(model.parameters), nonfinite="skip")
    x, target = batch_of_numbers(0)
    _, hx = trainer.step(x, target)
    before, gradients = trainer.state_dict(), model.gradients.flat.copy()
    x[2, 1, 3] = math.nan
    with pytest.warns(RuntimeWarning, match="no update: the loss must be finite; got nan"):
        loss, given = trainer.step(x, target, hx)
    assert math.isnan(loss)
    assert given is hx
    assert_same_state(trainer.state_dict(), before)
    np.testing.assert_array_equal(model.gradients.flat, gradients)


@pytest.mark.parametrize("clip", [None, 1.0])
def test_gradients_that_are_not_finite_can_be_looked_at(clip):
    """Clipping does not spread what is not finite, nor scale the others to zero."""
    model = Sequential(LSTM(I, H, seed=0, threads=1), Linear(H, 2, seed=0, threads=1))
    spoiled = Spoiled(mse, 1.0, [3e38, 1.0])
    spoiled.spoils = True
    trainer = Trainer(model, spoiled, Adam(model.parameters), clip=clip)
    x, _ = batch_of_numbers(0)
    with pytest.raises(FloatingPointError, match=r"1\.bias is not"):
        trainer.step(x, x[..., :2])
    np.testing.assert_array_equal(np.isinf(model.gradients["1.bias"]), [True, False])
    assert model.gradients["1.bias"][1] > 1.0


def test_a_refused_batch_changes_nothing():
    model = language_model(dropout=0.5)
    trainer = Trainer(model, softmax_cross_entropy, Adam(model.parameters))
    before = trainer.state_dict()
    x, target = batch_of_tokens(0)
    with pytest.raises(ValueError, match=r"target must have shape \(5, 3\)"):
        trainer.step(x, target[1:])
    with pytest.raises(ValueError, match=r"target must lie in \[0, 6\)"):
        trainer.step(x, target + C)
    with pytest.raises((TypeError, ValueError), match="tokens"):
        trainer.step(x + C, target)
    assert_same_state(trainer.state_dict(), before)


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW, RMSprop])
def test_a_restored_trainer_goes_on_with_the_same_bits(kind):
    model = language_model(dropout=0.5)
    trainer = Trainer(model, softmax_cross_entropy, kind(model.parameters, lr=0.05), clip=0.5)
    hx = None
    for seed in range(4):
        _, hx = trainer.step(*batch_of_tokens(seed), hx)
    state = trainer.state_dict()
    kept = {name: array.copy() for name, array in state.items()}
    after = [trainer.step(*batch_of_tokens(seed), hx)[0] for seed in range(4, 8)]
    assert_same_state(state, kept)

    twin = language_model(seed=1, dropout=0.5)
    again = Trainer(twin, softmax_cross_entropy, kind(twin.parameters, lr=1.0), clip=0.5)
    again.step(*batch_of_tokens(9))
    again.load_state_dict(state)
    assert_same_state(again.state_dict(), kept)
    assert [again.step(*batch_of_tokens(seed), hx)[0] for seed in range(4, 8)] == after
    np.testing.assert_array_equal(twin.parameters.flat, model.parameters.flat)


def test_a_restored_trainer_of_an_lstm_draws_the_same_masks():
    model = LSTM(I, H, 2, dropout=0.5, seed=0, threads=1)
    trainer = Trainer(model, mse, Adam(model.parameters))
    trainer.step(*batch_of_numbers(0))
    state = trainer.state_dict()
    after = trainer.step(*batch_of_numbers(1))[0]
    twin = LSTM(I, H, 2, dropout=0.5, seed=1, threads=1)
    again = Trainer(twin, mse, Adam(twin.parameters))
    again.load_state_dict(state)
    assert again.step(*batch_of_numbers(1))[0] == after


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"parameters.2.bias": np.zeros(C + 1)},
            ValueError,
            r"parameters.2.bias must have shape \(6,\); got \(7,\)",
        ),
        ({"parameters.2.bias": np.zeros(C, complex)}, TypeError, "parameters.2.bias must be"),
        ({"parameters.3.bias": np.zeros(C)}, ValueError, "adds parameters.3.bias"),
        ({"losses": np.zeros(3)}, ValueError, "it lacks nothing, and adds losses"),
        ({"dropout": None}, ValueError, "it lacks dropout, and adds nothing"),
        ({"parameters.0.weight": None}, ValueError, "it lacks parameters.0.weight, and adds"),
        ({"dropout": np.zeros((2, 2), int)}, ValueError, r"dropout must have shape \(1, 2\)"),
        ({"dropout": np.zeros((1, 2))}, TypeError, "dropout must be an array of integers"),
        ({"optimizer.mean": np.zeros(3)}, ValueError, "mean must have shape"),
        ({"optimizer.steps": -1}, ValueError, "steps must be at least 0"),
        ({"optimizer.velocity": np.zeros(3)}, ValueError, "state must have the names lr, mean"),
        ({"optimizer.lr": None}, ValueError, "state must have the names lr, mean"),
    ],
)
def test_a_refused_state_changes_nothing(changes, error, message):
    model = language_model()
    trainer = Trainer(model, softmax_cross_entropy, Adam(model.parameters))
    trainer.step(*batch_of_tokens(0))
    before = trainer.state_dict()
    state = {**{name: array + 1 for name, array in before.items()}, **changes}
    state = {name: array for name, array in state.items() if array is not None}
    with pytest.raises(error, match=message):
        trainer.load_state_dict(state)
    assert_same_state(trainer.state_dict(), before)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": Linear(3, 2)}, TypeError, "model must be an LSTM or a Sequential; got Linear"),
        ({"loss": "mse"}, TypeError, "loss must be callable; got 'mse'"),
        ({"optimizer": "adam"}, TypeError, "optimizer must be an Optimizer; got 'adam'"),
        ({"model": language_model()}, ValueError, "optimizer must be one of model.parameters"),
        ({"clip": 0}, ValueError, "clip must be finite and > 0; got 0"),
        ({"clip": math.nan}, ValueError, "clip must be finite and > 0; got nan"),
        ({"clip": "1"}, TypeError, "clip must be a number; got '1'"),
        ({"nonfinite": "ignore"}, ValueError, "nonfinite must be one of raise, skip; got 'ignore'"),
        ({"checkpoint": 0}, ValueError, "checkpoint must be at least 1; got 0"),
        ({"checkpoint": 2.5}, TypeError, "checkpoint must be an integer; got 2.5"),
        ({"checkpoint": "some"}, ValueError, 'checkpoint must be an integer, "auto" or None; got'),
    ],
)
def test_refuses(changes, error, message):
    model = language_model()
    arguments = {"model": model, "loss": mse, "optimizer": Adam(model.parameters), "clip": None}
    with pytest.raises(error, match=message):
        Trainer(**{**arguments, **changes})
    if "model" not in changes:
        trainer = Trainer(**arguments)
        ((name, value),) = changes.items()
        before = getattr(trainer, name)
        with pytest.raises(error, match=message):
            setattr(trainer, name, value)
        assert getattr(trainer, name) is before


def test_the_model_of_a_trainer_stays():
    model = language_model()
    with pytest.raises(AttributeError):
        Trainer(model, mse, SGD(model.parameters)).model = language_model()


@pytest.mark.parametrize("container", [list, tuple, lambda parts: dict(enumerate(parts)), iter])
def test_outputs_may_be_given_back_in_any_container(container, monkeypatch):
    """One of which nobody knows what it holds among them."""
    monkeypatch.setattr("numba_lstm.trainer._BYTES_KEPT", 0)
    let_out, seen = [], []

    def loss(y, target, out=None):
        parts = list(target.values() if isinstance(target, dict) else target)
        seen.append(parts[0].copy())
        found, dy = mse(y, parts[1], out=out)
        let_out.append(dy)
        return found, dy

    model = LSTM(I, H, seed=0, threads=1)
    trainer = Trainer(model, loss, SGD(model.parameters))
    x, target = batch_of_numbers(0)
    trainer.step(x, container([target, target]))
    given = let_out[-1].copy()
    trainer.step(x, container([let_out[-1], target]))
    np.testing.assert_array_equal(seen[-1], given)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda y: None, "loss must return a number and its gradient; got None"),
        (lambda y: 0.5, "loss must return a number and its gradient; got 0.5"),
        (lambda y: (0.5, None), "the second of what loss returns must be a gradient; got None"),
        (lambda y: (1.0, y, y), "loss must return a number and its gradient; got 3 items"),
        (lambda y: ("a", y), "the first of what loss returns must be a number; got 'a'"),
        (lambda y: (np.ones(3), y), "the first of what loss returns must be a number; got array"),
    ],
)
def test_a_loss_must_return_a_number_and_a_gradient(returned, message):
    model = LSTM(I, H, 2, dropout=0.5, seed=0)
    trainer = Trainer(model, lambda y, target: returned(y), SGD(model.parameters))
    before = trainer.state_dict()
    with pytest.raises(TypeError, match=message):
        trainer.step(*batch_of_numbers(0))
    assert_same_state(trainer.state_dict(), before)


def test_a_number_that_no_float_reaches_is_a_loss_that_is_not_finite():
    model = LSTM(I, H, seed=0)
    trainer = Trainer(model, lambda y, target: (10**400, y), SGD(model.parameters))
    with pytest.raises(FloatingPointError, match="the loss must be finite; got inf"):
        trainer.step(*batch_of_numbers(0))


def test_a_step_that_finds_no_memory_changes_nothing(monkeypatch):
    model = language_model(dropout=0.5)
    trainer = Trainer(model, softmax_cross_entropy, Adam(model.parameters))
    before = trainer.state_dict()

    def no_room(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(model.layers[2], "forward", no_room)
    with pytest.raises(MemoryError):
        trainer.step(*batch_of_tokens(0))
    assert_same_state(trainer.state_dict(), before)


def test_one_step_at_a_time():
    model = language_model(dropout=0.5)
    errors = []

    def intruding(y, target):
        def intrude():
            try:
                trainer.step(*batch_of_tokens(1))
            except RuntimeError as error:
                errors.append(str(error))

        thread = threading.Thread(target=intrude)
        thread.start()
        thread.join()
        return softmax_cross_entropy(y, target)

    trainer = Trainer(model, intruding, Adam(model.parameters))
    other = language_model(dropout=0.5)
    twin = Trainer(other, softmax_cross_entropy, Adam(other.parameters))
    assert trainer.step(*batch_of_tokens(0))[0] == twin.step(*batch_of_tokens(0))[0]
    assert_same_state(trainer.state_dict(), twin.state_dict())
    assert errors == [
        "another step of this trainer is under way: a model learns from one batch at a time"
    ]


@pytest.mark.parametrize("kind", ["lstm", "sequential"])
def test_a_forward_in_the_midst_of_a_step_refuses_it(kind):
    """The gradients would be those of another batch."""
    batch = batch_of_numbers if kind == "lstm" else batch_of_tokens
    model = LSTM(I, H, 2, dropout=0.5, seed=0) if kind == "lstm" else language_model(dropout=0.5)
    loss_of_kind = mse if kind == "lstm" else softmax_cross_entropy

    def loss(y, target):
        model.forward(batch(1)[0])
        return loss_of_kind(y, target)

    trainer = Trainer(model, loss, Adam(model.parameters))
    before = trainer.state_dict()
    with pytest.raises(RuntimeError, match="forward of the model has run again"):
        trainer.step(*batch(0))
    assert_same_state(trainer.state_dict(), before)
    assert not model.gradients.flat.any()
