"""Optimisers against their formulas in float64 and against PyTorch."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numba_lstm import SGD, Adam, AdamW, Parameters, RMSprop, clip_by_global_norm
from numba_lstm.optimizers import clip_factor, global_norm

SHAPES = {"weight": (7, 5), "bias": (7,), "scale": ()}
OPTIMIZERS = [SGD, Adam, AdamW, RMSprop]
TOLERANCE = {"float32": 5e-6, "float64": 1e-13}

SETTINGS = [
    (SGD, {}),
    (SGD, {"lr": 0.1, "momentum": 0.9}),
    (SGD, {"lr": 0.1, "weight_decay": 0.3}),
    (SGD, {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.1, "nesterov": True}),
    (Adam, {}),
    (Adam, {"lr": 0.02, "betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    (Adam, {"betas": (0.0, 0.0)}),
    (AdamW, {}),
    (AdamW, {"lr": 0.02, "betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.5}),
    (RMSprop, {}),
    (RMSprop, {"lr": 0.03, "alpha": 0.9, "eps": 1e-4, "weight_decay": 0.1, "momentum": 0.7}),
    (RMSprop, {"alpha": 0.0, "momentum": 0.9}),
]


def random_parameters(seed, dtype="float64", shapes=SHAPES):
    """Parameters with normally distributed values."""
    parameters = Parameters(shapes, dtype)
    with parameters.edit() as flat:
        flat[:] = np.random.default_rng(seed).standard_normal(flat.size)
    return parameters


def assert_close(actual, expected, tolerance):
    """Compare relative to the largest magnitude."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def expected_sgd(p, slopes, lr=1e-3, momentum=0.0, weight_decay=0.0, nesterov=False):
    velocity = 0
    for slope in slopes:
        slope = slope + weight_decay * p
        velocity = momentum * velocity + slope
        p = p - lr * (slope + momentum * velocity if nesterov else velocity)
    return p


def expected_adam(p, slopes, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    return adam_steps(p, slopes, lr, betas, eps, weight_decay, 0.0)


def expected_adamw(p, slopes, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
    return adam_steps(p, slopes, lr, betas, eps, 0.0, weight_decay)


def adam_steps(p, slopes, lr, betas, eps, coupled, decoupled):
    mean = square = 0
    for step, slope in enumerate(slopes, 1):
        slope = slope + coupled * p
        mean = betas[0] * mean + (1 - betas[0]) * slope
        square = betas[1] * square + (1 - betas[1]) * slope**2
        root = np.sqrt(square / (1 - betas[1] ** step))
        p = p - lr * decoupled * p - lr * mean / (1 - betas[0] ** step) / (root + eps)
    return p


def expected_rmsprop(p, slopes, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0):
    square = velocity = 0
    for slope in slopes:
        slope = slope + weight_decay * p
        square = alpha * square + (1 - alpha) * slope**2
        velocity = momentum * velocity + slope / (np.sqrt(square) + eps)
        p = p - lr * velocity
    return p


EXPECTED = {
    SGD: expected_sgd,
    Adam: expected_adam,
    AdamW: expected_adamw,
    RMSprop: expected_rmsprop,
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("kind", "options"), SETTINGS)
def test_steps_follow_the_formula(kind, options, dtype):
    parameters = random_parameters(0, dtype)
    slopes = [random_parameters(seed, dtype) for seed in range(1, 13)]
    start = parameters.flat.astype("float64")
    optimizer = kind(parameters, **options)
    for gradients in slopes:
        optimizer.step(gradients)
    expected = EXPECTED[kind](start, [g.flat.astype("float64") for g in slopes], **options)
    assert_close(parameters.flat, expected, TOLERANCE[dtype])
    assert optimizer.steps == 12


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("kind", "options"), SETTINGS)
def test_steps_are_those_of_pytorch(kind, options, dtype):
    torch = pytest.importorskip("torch")
    parameters = random_parameters(0, dtype)
    optimizer = kind(parameters, **options)
    theirs = {name: torch.tensor(np.array(array)) for name, array in parameters.items()}
    their_optimizer = getattr(torch.optim, kind.__name__)(list(theirs.values()), **options)
    for step in range(25):
        if step == 15:
            optimizer.lr = their_optimizer.param_groups[0]["lr"] = 0.004
        gradients = random_parameters(step, dtype)
        for name, tensor in theirs.items():
            tensor.grad = torch.tensor(np.array(gradients[name]))
        optimizer.step(gradients)
        their_optimizer.step()
    for name, tensor in theirs.items():
        assert_close(parameters[name], tensor.numpy(), TOLERANCE[dtype])


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("size", [0, 1, 7, 8, 15, 16, 17, 31, 33, 100])
def test_every_number_is_updated_alike_wherever_it_stands(kind, size):
    parameters, gradients = (Parameters({"a": (size,)}, "float32") for _ in range(2))
    for flat, number in ((parameters, 3), (gradients, 0.5)):
        with flat.edit() as numbers:
            numbers[:] = number
    one, slope = (Parameters({"a": (1,)}, "float32") for _ in range(2))
    one["a"], slope["a"] = [3], [0.5]
    optimizer, its = kind(parameters, weight_decay=0.1), kind(one, weight_decay=0.1)
    for _ in range(3):
        optimizer.step(gradients)
        its.step(slope)
    np.testing.assert_array_equal(parameters.flat, np.repeat(one.flat, size))


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_step_raises_the_version_and_leaves_the_gradients(kind):
    parameters, gradients = random_parameters(0), random_parameters(1)
    version, before, its_version = parameters.version, gradients.flat.copy(), gradients.version
    kind(parameters).step(gradients)
    assert parameters.version > version
    assert gradients.version == its_version
    np.testing.assert_array_equal(gradients.flat, before)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_scale_is_what_clipping_does_to_the_gradients(kind):
    parameters, gradients = random_parameters(0), random_parameters(1)
    others, clipped = random_parameters(0), random_parameters(1)
    norm = clip_by_global_norm(clipped, 0.5)
    optimizer, other = kind(parameters), kind(others)
    for _ in range(2):
        optimizer.step(gradients, scale=clip_factor(norm, 0.5))
        other.step(clipped)
    np.testing.assert_array_equal(parameters.flat, others.flat)
    np.testing.assert_array_equal(gradients.flat, random_parameters(1).flat)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"scale": math.nan}, ValueError, "scale must be finite; got nan"),
        ({"scale": "1"}, TypeError, "scale must be a number"),
        ({"threads": 0}, ValueError, "threads must be at least 1; got 0"),
    ],
)
def test_a_refused_option_changes_nothing(options, error, message):
    parameters = random_parameters(0)
    optimizer = Adam(parameters)
    with pytest.raises(error, match=message):
        optimizer.step(random_parameters(1), **options)
    assert optimizer.steps == 0
    np.testing.assert_array_equal(parameters.flat, random_parameters(0).flat)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_rate_of_zero_changes_nothing(kind):
    parameters = random_parameters(0)
    kind(parameters, lr=0.0).step(random_parameters(1))
    np.testing.assert_array_equal(parameters.flat, random_parameters(0).flat)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_section_is_updated_without_its_neighbours(kind):
    alone, section = random_parameters(0), random_parameters(0)
    joined = Parameters.join({"0": random_parameters(2), "1": section, "2": random_parameters(3)})
    for parameters in (alone, section):
        kind(parameters).step(random_parameters(1))
    np.testing.assert_array_equal(section.flat, alone.flat)
    np.testing.assert_array_equal(joined["0.weight"], random_parameters(2)["weight"])
    np.testing.assert_array_equal(joined["2.weight"], random_parameters(3)["weight"])


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_restored_optimizer_goes_on_with_the_same_bits(kind, dtype):
    whole = random_parameters(0, dtype)
    optimizer = kind(whole, lr=0.1)
    for seed in range(5):
        optimizer.step(random_parameters(seed, dtype))
    state = optimizer.state_dict()
    halfway = whole.flat.copy()
    kept = {name: array.copy() for name, array in state.items()}
    for seed in range(5):
        optimizer.step(random_parameters(seed, dtype))

    resumed = random_parameters(9, dtype)
    with resumed.edit() as flat:
        flat[:] = halfway
    again = kind(resumed, lr=7)
    again.load_state_dict(state)
    assert again.lr == 0.1
    assert again.steps == 5
    for seed in range(5):
        again.step(random_parameters(seed, dtype))
    np.testing.assert_array_equal(resumed.flat, whole.flat)
    for name, array in state.items():
        assert isinstance(array, np.ndarray)
        np.testing.assert_array_equal(array, kept[name])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"mean": np.zeros(42)}, ValueError, r"mean must have shape \(43,\); got \(42,\)"),
        ({"square": np.zeros(43, complex)}, TypeError, "square must be an array of real numbers"),
        ({"steps": 1.5}, TypeError, "steps must be an array of integers; got dtype float64"),
        ({"steps": -1}, ValueError, "steps must be at least 0; got -1"),
        ({"steps": [3]}, ValueError, r"steps must have shape \(\); got \(1,\)"),
        ({"lr": np.nan}, ValueError, "lr must be finite and >= 0; got nan"),
        ({"lr": [0.1, 0.2]}, ValueError, r"lr must have shape \(\); got \(2,\)"),
        ({"lr": "fast"}, TypeError, "lr must be an array of real numbers"),
        ({"velocity": np.zeros(43)}, ValueError, "state must have the names lr, mean, square, st"),
        ({"mean": None}, TypeError, "mean must be an array of real numbers; got dtype object"),
    ],
)
def test_a_refused_state_changes_nothing(changes, error, message):
    optimizer = Adam(random_parameters(0))
    optimizer.step(random_parameters(1))
    before = optimizer.state_dict()
    state = {**{name: array + 1 for name, array in before.items()}, **changes}
    with pytest.raises(error, match=message):
        optimizer.load_state_dict(state)
    for name, array in optimizer.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_a_state_that_lacks_a_name_is_refused():
    optimizer = Adam(random_parameters(0))
    with pytest.raises(ValueError, match=r"names lr, mean, square, steps; got lr$"):
        optimizer.load_state_dict({"lr": 1.0})


@pytest.mark.parametrize(
    ("kind", "options", "error", "message"),
    [
        *((kind, {"lr": math.nan}, ValueError, "lr must be finite and") for kind in OPTIMIZERS),
        *((kind, {"lr": math.inf}, ValueError, "lr must be finite and") for kind in OPTIMIZERS),
        *((kind, {"lr": -0.1}, ValueError, "lr must be .*>= 0; got -0.1") for kind in OPTIMIZERS),
        *((kind, {"lr": "1"}, TypeError, "lr must be a number; got '1'") for kind in OPTIMIZERS),
        *((kind, {"lr": True}, TypeError, "lr must be a number; got True") for kind in OPTIMIZERS),
        *((kind, {"weight_decay": -1}, ValueError, "weight_decay must") for kind in OPTIMIZERS),
        (SGD, {"momentum": -0.1}, ValueError, "momentum must be finite and >= 0; got -0.1"),
        (SGD, {"nesterov": True}, ValueError, "momentum must be > 0 with nesterov=True; got 0"),
        (SGD, {"nesterov": 1, "momentum": 1}, TypeError, "nesterov must be True or False; got 1"),
        *((kind, {"eps": -1e-9}, ValueError, "eps must be") for kind in OPTIMIZERS[1:]),
        *((kind, {"eps": math.nan}, ValueError, "eps must be") for kind in OPTIMIZERS[1:]),
        (Adam, {"betas": (0.9, 1.0)}, ValueError, "betas must be .*>= 0 and < 1; got 1.0"),
        (Adam, {"betas": (-0.1, 0.9)}, ValueError, "betas must be .*>= 0 and < 1; got -0.1"),
        (Adam, {"betas": (math.nan, 0.9)}, ValueError, "betas must be .*; got nan"),
        (AdamW, {"betas": 0.9}, TypeError, "betas must be a pair of numbers; got 0.9"),
        (AdamW, {"betas": (0.9,)}, TypeError, r"betas must be a pair of numbers; got \(0.9,\)"),
        (RMSprop, {"alpha": 1}, ValueError, "alpha must be .*>= 0 and < 1; got 1"),
        (RMSprop, {"alpha": -1}, ValueError, "alpha must be .*>= 0 and < 1; got -1"),
        (RMSprop, {"momentum": math.inf}, ValueError, "momentum must be finite and >= 0; got inf"),
    ],
)
def test_refuses_numbers_out_of_range(kind, options, error, message):
    with pytest.raises(error, match=message):
        kind(random_parameters(0), **options)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_refuses_what_are_no_parameters(kind):
    with pytest.raises(TypeError, match="parameters must be Parameters; got dict"):
        kind({"weight": np.zeros(3)})


def test_the_rate_is_checked_when_it_is_set():
    optimizer = Adam(random_parameters(0))
    with pytest.raises(ValueError, match="lr must be finite and >= 0; got nan"):
        optimizer.lr = math.nan
    assert optimizer.lr == 1e-3
    optimizer.lr = np.float32(0.5)
    assert optimizer.lr == 0.5


@pytest.mark.parametrize(
    ("gradients", "error"),
    [
        ({"weight": np.zeros((7, 5))}, TypeError),
        (random_parameters(1, "float32"), ValueError),
        (random_parameters(1, shapes={**SHAPES, "bias": (8,)}), ValueError),
        (random_parameters(1, shapes={"weight": (7, 5), "bias": (7,)}), ValueError),
        # The same arrays in another order lie elsewhere in the flat buffer.
        (random_parameters(1, shapes=dict(reversed(SHAPES.items()))), ValueError),
    ],
)
def test_gradients_of_another_model_change_nothing(gradients, error):
    parameters = random_parameters(0)
    optimizer = Adam(parameters)
    with pytest.raises(error, match=r"gradients must (be|have) .*; got"):
        optimizer.step(gradients)
    assert optimizer.steps == 0
    np.testing.assert_array_equal(parameters.flat, random_parameters(0).flat)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [0, 1, 5, 16, 100, 1024, 1025, 50_001])
def test_norm(size, dtype):
    gradients = random_parameters(0, dtype, {"a": (size,)})
    expected = np.linalg.norm(gradients.flat.astype("float64"))
    assert global_norm(gradients) == pytest.approx(expected, rel=TOLERANCE[dtype] / 10)


def test_the_norm_of_a_million_equal_numbers_keeps_its_digits():
    gradients = Parameters({"a": (1_000_003,)}, "float32")
    with gradients.edit() as flat:
        flat[:] = 0.1
    exact = float(np.float32(0.1)) * math.sqrt(1_000_003)
    assert global_norm(gradients) == pytest.approx(exact, rel=1e-6)


@given(st.integers(1, 80), st.floats(0.01, 100), st.sampled_from(["float32", "float64"]))
def test_clipping_follows_its_formula(size, most, dtype):
    gradients = random_parameters(size, dtype, {"a": (size,)})
    before = gradients.flat.astype("float64")
    expected = np.linalg.norm(before)
    norm = clip_by_global_norm(gradients, most)
    assert type(norm) is float
    assert norm == pytest.approx(expected, rel=TOLERANCE[dtype])
    factor = min(1, most / (expected + 1e-6))
    assert_close(gradients.flat, before * factor, TOLERANCE[dtype])
    assert np.linalg.norm(gradients.flat.astype("float64")) <= most * (1 + TOLERANCE[dtype])


@pytest.mark.parametrize("scale", [1, 1e-6])
@pytest.mark.parametrize("most", [1e-9, 1e-6, 0.5, 100.0])
def test_clipping_is_that_of_pytorch(most, scale):
    torch = pytest.importorskip("torch")
    gradients = random_parameters(0, "float32")
    with gradients.edit() as flat:
        flat *= scale
    theirs = [torch.zeros(array.shape) for array in gradients.values()]
    for tensor, array in zip(theirs, gradients.values(), strict=True):
        tensor.grad = torch.tensor(np.array(array))
    expected = torch.nn.utils.clip_grad_norm_(theirs, most)
    assert clip_by_global_norm(gradients, most) == pytest.approx(expected.item(), rel=1e-6)
    for tensor, array in zip(theirs, gradients.values(), strict=True):
        np.testing.assert_allclose(array, tensor.grad.numpy(), rtol=1e-6)


def test_gradients_within_the_norm_keep_their_bits_and_version():
    gradients = random_parameters(0, "float32")
    before, version = gradients.flat.copy(), gradients.version
    clip_by_global_norm(gradients, 1000)
    np.testing.assert_array_equal(gradients.flat, before)
    assert gradients.version == version
    clip_by_global_norm(gradients, 0.1)
    assert gradients.version > version


@pytest.mark.parametrize(("junk", "expected"), [(math.nan, math.nan), (math.inf, math.inf)])
@pytest.mark.parametrize("place", [0, 20, 42])
def test_the_norm_shows_what_is_not_finite(junk, expected, place):
    gradients = random_parameters(0, "float32")
    with gradients.edit() as flat:
        flat[place] = junk
    np.testing.assert_equal(global_norm(gradients), expected)


@pytest.mark.parametrize(
    ("most", "error"),
    [(0, ValueError), (-1, ValueError), (math.nan, ValueError), ("1", TypeError)],
)
def test_clipping_refuses(most, error):
    gradients = random_parameters(0)
    with pytest.raises(error, match="max_norm must be"):
        clip_by_global_norm(gradients, most)
    np.testing.assert_array_equal(gradients.flat, random_parameters(0).flat)


def test_clipping_refuses_what_are_no_parameters():
    with pytest.raises(TypeError, match="gradients must be Parameters; got list"):
        clip_by_global_norm([np.ones(3)], 1.0)


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW, RMSprop])
def test_a_rate_too_large_for_the_dtype_is_refused_before_the_step_counts(kind):
    parameters = Parameters({"weight": (3,)}, "float32")
    optimizer = kind(parameters, 1e300)
    version = parameters.version
    with pytest.raises(ValueError, match=r"must give a step that is finite in float32; got coef"):
        optimizer.step(Parameters({"weight": (3,)}, "float32"))
    assert (optimizer.steps, parameters.version) == (0, version)
    optimizer.lr = 1e30
    optimizer.step(Parameters({"weight": (3,)}, "float32"))
    assert optimizer.steps == 1
