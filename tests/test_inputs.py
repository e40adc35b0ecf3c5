"""Arrays of any dtype, byte order and layout give the bits of a plain copy and stay as they are."""

import numpy as np
import pytest

import numba_lstm as nl

# Every entry that takes arrays: (what to run, the arrays that it takes by name).
# A name stands for real numbers by its shape, for tokens by (shape, number of classes), for a mask
# by (shape, bool).
ENTRIES = {}


def entry(**arrays):
    """Register a function ``run(dtype, **arrays)`` that returns the arrays of its result."""

    def register(run):
        ENTRIES[run.__name__] = (run, arrays)
        return run

    return register


def flattened(result):
    """Arrays and numbers of a nested result, one after the other."""
    if isinstance(result, (tuple, list)):
        return [array for part in result for array in flattened(part)]
    return [] if result is None else [np.asarray(result)]


STATE = (4, 3, 5)


@entry(x=(6, 3, 7), h=STATE, c=STATE)
def lstm_call(dtype, x, h, c):
    return nl.LSTM(7, 5, 2, bidirectional=True, dtype=dtype, seed=0)(x, (h, c))


@entry(x=(3, 6, 7))
def lstm_batch_first(dtype, x):
    return nl.LSTM(7, 5, batch_first=True, dtype=dtype, seed=0)(x)


@entry(x=(6, 7))
def lstm_unbatched(dtype, x):
    return nl.LSTM(7, 5, dtype=dtype, seed=0)(x)


@entry(x=(6, 3, 7), h=STATE, c=STATE, dy=(6, 3, 10), dh=STATE, dc=STATE)
def lstm_training(dtype, x, h, c, dy, dh, dc):
    lstm = nl.LSTM(7, 5, 2, bidirectional=True, dtype=dtype, seed=0)
    return lstm.forward(x, (h, c)), lstm.backward(dy, (dh, dc)), lstm.gradients.flat


@entry(x=(3, 7), active=((3,), bool), chunk=(4, 3, 7), h=(1, 3, 5), c=(1, 3, 5), rows=((2,), 3))
def stream(dtype, x, active, chunk, h, c, rows):
    stream = nl.LSTM(7, 5, dtype=dtype, seed=0).stream(3)
    stream.state = (h, c)
    results = [stream.step(x, active=active), stream.process(chunk)]
    stream.reset(rows)
    return results, stream.state


@entry(x=((3,), 6), active=((3,), bool), chunk=((4, 3), 6), h=(1, 3, 5), c=(1, 3, 5))
def sequential_stream(dtype, x, active, chunk, h, c):
    model = nl.Sequential(
        nl.Embedding(6, 4, dtype=dtype, seed=0),
        nl.LSTM(4, 5, dtype=dtype, seed=1),
        nl.Linear(5, 2, dtype=dtype, seed=2),
    )
    stream = model.stream(3)
    stream.state = ((h, c),)
    taking_part = stream.step(x, active=active)[np.asarray(active)]
    return taking_part, stream.process(chunk), stream.state


@entry(x=(6, 3, 7), dy=(6, 3, 4))
def linear(dtype, x, dy):
    linear = nl.Linear(7, 4, dtype=dtype, seed=0)
    return linear(x), linear.forward(x), linear.backward(dy), linear.gradients.flat


@entry(tokens=((6, 3), 9), dy=(6, 3, 4))
def embedding(dtype, tokens, dy):
    embedding = nl.Embedding(9, 4, dtype=dtype, seed=0)
    results = embedding(tokens), embedding.forward(tokens)
    embedding.backward(dy)
    return results, embedding.gradients.flat


@entry(x=(6, 3, 7), h=(1, 3, 5), c=(1, 3, 5), dy=(6, 3, 4), dh=(1, 3, 5), dc=(1, 3, 5))
def sequential(dtype, x, h, c, dy, dh, dc):
    model = nl.Sequential(
        nl.Linear(7, 3, dtype=dtype, seed=0),
        nl.LSTM(3, 5, dtype=dtype, seed=1),
        nl.Linear(5, 4, dtype=dtype, seed=2),
    )
    hx, dhx = ((h, c),), ((dh, dc),)
    return model(x, hx), model.forward(x, hx), model.backward(dy, dhx), model.gradients.flat


@entry(y=(6, 3, 4), target=(6, 3, 4), weights=(6, 3))
def mse(dtype, y, target, weights):
    return nl.mse(y, target, weights=weights)


@entry(y=(6, 3, 4), target=((6, 3), 4), weights=(6, 3))
def softmax_cross_entropy(dtype, y, target, weights):
    return nl.softmax_cross_entropy(y, target, weights=weights)


@entry(weight=(3, 4))
def parameters(dtype, weight):
    parameters = nl.Parameters({"weight": (3, 4)}, dtype)
    parameters["weight"] = weight
    return parameters.flat


@entry(weight_ih=(20, 7), weight_hh=(20, 5), bias_ih=(20,), bias_hh=(20,))
def state_dict(dtype, **arrays):
    state = {f"{name}_l0": array for name, array in arrays.items()}
    lstm = nl.LSTM(7, 5, dtype=dtype)
    lstm.load_state_dict(state)
    return lstm.parameters.flat


@entry(weight_ih=(20, 7), weight_hh=(20, 5), bias_ih=(20,), bias_hh=(20,))
def from_state_dict(_, **arrays):
    state = {f"{name}_l0": array for name, array in arrays.items()}
    return nl.LSTM.from_state_dict(state).parameters.flat


@entry(velocity=(14,))
def optimizer_state(dtype, velocity):
    optimizer = nl.SGD(nl.Linear(6, 2, dtype=dtype).parameters)
    optimizer.load_state_dict({**optimizer.state_dict(), "velocity": velocity})
    return optimizer.state_dict()["velocity"]


@entry(x=(6, 3, 7), target=(6, 3, 5), h=(1, 3, 5), c=(1, 3, 5))
def trainer(dtype, x, target, h, c):
    lstm = nl.LSTM(7, 5, dtype=dtype, seed=0)
    result = nl.Trainer(lstm, nl.mse, nl.Adam(lstm.parameters)).step(x, target, (h, c))
    return result, lstm.parameters.flat


@entry(x=(3, 6, 7), target=(3, 4, 5), h=(1, 3, 5), c=(1, 3, 5))
def trainer_with_a_burn_in(dtype, x, target, h, c):
    lstm = nl.LSTM(7, 5, batch_first=True, dtype=dtype, seed=0)
    trainer = nl.Trainer(lstm, nl.mse, nl.Adam(lstm.parameters))
    return trainer.step(x, target, (h, c), burn_in=2), lstm.parameters.flat


@entry(weight=(2, 7), bias=(2,), velocity=(16,))
def trainer_state(dtype, weight, bias, velocity):
    model = nl.Sequential(nl.Linear(7, 2, dtype=dtype))
    trainer = nl.Trainer(model, nl.mse, nl.SGD(model.parameters))
    parameters = {"parameters.0.weight": weight, "parameters.0.bias": bias}
    trainer.load_state_dict({**trainer.state_dict(), **parameters, "optimizer.velocity": velocity})
    return list(trainer.state_dict().values())


# What an array may look like. Each takes an array of at least one axis and gives one of its shape.


def unaligned(array):
    """At an odd address."""
    memory = np.zeros(array.nbytes + 1, np.uint8)
    view = memory[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    assert view.flags.aligned == (array.itemsize == 1)
    return view


def windows(array):
    """Windows that overlap, along the first and the last axis."""
    rows, columns = array.shape[0] if array.ndim > 1 else 1, array.shape[-1]
    line = np.resize(array, rows + columns - 1)
    view = np.lib.stride_tricks.sliding_window_view(line, columns)
    if array.ndim == 1:
        return view[0]
    return np.broadcast_to(view.reshape(rows, *[1] * (array.ndim - 2), columns), array.shape)


def pandas_frame(array):
    """Out of a data frame, whose columns lie one after the other."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(array.reshape(-1, array.shape[-1]))
    return frame.to_numpy().reshape(array.shape)


def frozen(array):
    array = array.copy()
    array.flags.writeable = False
    return array


LAYOUTS = {
    "plain": np.copy,
    "Fortran order": lambda a: np.asarray(a, order="F").copy("F"),
    "every other column": lambda a: np.repeat(a, 2, -1)[..., ::2],
    "every other row": lambda a: np.repeat(a, 2, 0)[::2],
    "backwards": lambda a: a.copy()[::-1],
    "columns backwards": lambda a: a.copy()[..., ::-1],
    "one row for all": lambda a: np.broadcast_to(a[:1].copy(), a.shape),
    "one number for all": lambda a: np.broadcast_to(a.flat[0], a.shape),
    "unaligned": unaligned,
    "read-only": frozen,
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "big-endian, backwards, unaligned, read-only": lambda a: frozen(
        unaligned(a.astype(a.dtype.newbyteorder(">"))[::-1])
    ),
    "sliding windows": windows,
    "pandas": pandas_frame,
    "nested lists": np.ndarray.tolist,
}
REAL_DTYPES = ["f2", "f4", "f8", "g", ">f2", ">f8", "i1", "i4", ">i8", "u1", ">u2", "u8"]
TOKEN_DTYPES = ["i1", "i2", "i8", ">i4", "u1", ">u2", "u4", "u8", ">u8"]


def kind_of(wanted):
    """bool for a mask, int64 for tokens, None for real numbers."""
    if not isinstance(wanted[0], tuple):
        return None
    return bool if wanted[1] is bool else np.int64


def plain_arrays(arrays, seed=0):
    """Random arrays as an entry wants them, of float64, int64 and bool."""
    random = np.random.default_rng(seed)
    drawn = {}
    for name, wanted in arrays.items():
        kind = kind_of(wanted)
        if kind is bool:
            drawn[name] = random.integers(2, size=wanted[0]) > 0
        elif kind is np.int64:
            drawn[name] = random.integers(wanted[1], size=wanted[0])
        else:
            drawn[name] = 4 * random.standard_normal(wanted)
            if name == "weights":
                drawn[name] = np.abs(drawn[name])
    return drawn


def memory_of(array):
    """Bytes of an array and of all around it that it is a view of."""
    if isinstance(array, list):
        return repr(array)
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array.tobytes("A")


def model_dtype(name, dtype, array):
    """What an entry computes in: the dtype of its model, or that of its arrays if it has none."""
    if name not in ("mse", "softmax_cross_entropy", "from_state_dict"):
        return dtype
    given = np.asarray(array).dtype
    return np.float64 if given.kind == "f" and given.itemsize >= 8 else np.float32


def compare_with_copies(name, dtype, disguise):
    """Run an entry with disguised arrays, and with plain ones in the dtype of the model."""
    run, wanted = ENTRIES[name]
    arrays = {key: disguise(array, wanted[key]) for key, array in plain_arrays(wanted).items()}
    copies = {
        key: np.array(array, kind_of(wanted[key]) or model_dtype(name, dtype, array), order="C")
        for key, array in arrays.items()
    }
    before = {key: memory_of(array) for key, array in arrays.items()}
    results, expected = flattened(run(dtype, **arrays)), flattened(run(dtype, **copies))
    assert len(results) == len(expected) > 0
    for result, like in zip(results, expected, strict=True):
        assert (result.dtype, result.shape) == (like.dtype, like.shape)
        assert result.tobytes() == like.tobytes()
    assert {key: memory_of(array) for key, array in arrays.items()} == before


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ENTRIES)
def test_any_layout_has_the_bits_of_a_copy(name, layout, dtype):
    def disguise(array, wanted):
        real = kind_of(wanted) is None
        return LAYOUTS[layout](array.astype(dtype) if real else array)

    compare_with_copies(name, dtype, disguise)


@pytest.mark.parametrize("number", range(len(REAL_DTYPES)))
@pytest.mark.parametrize("name", ENTRIES)
def test_any_dtype_has_the_bits_of_a_copy(name, number):
    def disguise(array, wanted):
        if kind_of(wanted) is bool:
            return array
        if kind_of(wanted) is np.int64:
            return array.astype(TOKEN_DTYPES[number % len(TOKEN_DTYPES)])
        given = np.dtype(REAL_DTYPES[number])
        return (np.abs(array) if given.kind == "u" else array).astype(given)

    compare_with_copies(name, "float32", disguise)


# What is no array of numbers.

IMPOSTORS = {
    "masked": lambda a: np.ma.masked_array(a, np.zeros(a.shape, bool)),
    "object": lambda a: a.astype(object),
    "complex": lambda a: a.astype(complex),
    "string": lambda a: a.astype(str),
    "bytes": lambda a: a.astype(bytes),
    "datetime": lambda a: a.astype(np.int64).astype("M8[s]"),
    "timedelta": lambda a: a.astype(np.int64).astype("m8[s]"),
    "void": lambda a: np.zeros(a.shape, "V8"),
    "structured": lambda a: np.zeros(a.shape, [("a", "f4"), ("b", "i4")]),
    "ragged": lambda a: [[1.0], [1.0, 2.0]],
    "huge integers": lambda a: np.full(a.shape, 2**70, object).tolist(),
    "None": lambda a: np.full(a.shape, None).tolist(),
    "string itself": lambda a: "abc",
    "mapping": lambda a: {"a": a},
}


@pytest.mark.parametrize("impostor", [*IMPOSTORS, "other kind"])
@pytest.mark.parametrize("name", ENTRIES)
def test_what_holds_no_numbers_is_refused(name, impostor):
    run, wanted = ENTRIES[name]
    arrays = plain_arrays(wanted)
    for key, array in arrays.items():
        if impostor == "other kind":  # reals for tokens and masks, truth values for reals
            wrong = array.astype(bool if kind_of(wanted[key]) is None else float)
        else:
            wrong = IMPOSTORS[impostor](array)
        kept = {other: values.copy() for other, values in arrays.items()}
        with pytest.raises(TypeError, match=r"must be .*; got"):
            run("float32", **{**arrays, key: wrong})
        for other, values in arrays.items():
            np.testing.assert_array_equal(values, kept[other])
