"""Arguments of every kind at every public function: documented errors only, and nothing changed.

The public names are found by inspection, and what they may raise is read from their docstrings.
"""

import builtins
import dataclasses
import datetime
import fractions
import inspect
import os
import pathlib
import re
import resource
import secrets
from typing import Any

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

import numba_lstm as nl
from numba_lstm.language_model import CharLanguageModel

PUBLIC = {
    **{name: getattr(nl, name) for name in nl.__all__},
    "CharLanguageModel": CharLanguageModel,
}
# What others make: models their streams and plans, `load` its error; an Optimizer is abstract.
MADE_ELSEWHERE = (nl.Plan, nl.Stream, nl.SequentialStream, nl.FormatError, nl.Optimizer)
OPERATORS = ("__call__", "__getitem__", "__setitem__", "__eq__")
# Arguments that a call writes.
WRITTEN = {
    **{
        f"{name}.{method}": ("out",)
        for name in ("LSTM", "Linear", "Embedding", "Sequential", "CharLanguageModel")
        for method in ("__call__", "forward")
    },
    **{f"{name}.backward": ("out",) for name in ("LSTM", "Linear")},
    **dict.fromkeys(("mse", "softmax_cross_entropy"), ("out",)),
    **{
        f"{name}.{method}": ("out",)
        for name in ("Stream", "SequentialStream")
        for method in ("step", "process")
    },
    "clip_by_global_norm": ("gradients",),
}
# More than the tests need, and little enough for every machine.
ROOM = 4 * 2**30


# An example of everything: of every class by its type, and of every argument by its name, or by
# the names of what is called and of the argument.

T, B, I, H = 5, 3, 7, 4
INSTANCES = {
    nl.LSTM: lambda: nl.LSTM(I, H, 2, dropout=0.5, seed=0),
    nl.Stream: lambda: stepped(nl.LSTM(I, H, 2, seed=0).stream(B), np.ones((B, I))),
    nl.SequentialStream: lambda: stepped(sequential().stream(B), np.ones(B, int)),
    nl.Sequential: lambda: sequential(),
    nl.Optimizer: lambda: nl.Adam(parameters()),
    nl.Plan: lambda: nl.LSTM(I, H).plan(T, B),
    CharLanguageModel: lambda: CharLanguageModel("abc", hidden_size=H, embedding_dim=2, seed=0),
}


def sequential():
    return nl.Sequential(
        nl.Embedding(6, I, seed=0), nl.LSTM(I, H, dropout=0.5, seed=1), nl.Linear(H, 2, seed=2)
    )


# The model of every trainer: an optimiser that is assigned must be one of the same parameters.
TRAINED = sequential()


def stepped(stream, x):
    stream.step(x)
    return stream


def parameters():
    made = nl.Parameters({"weight": (2, 3), "bias": (2,)}, "float32")
    made["weight"], made["bias"] = [[1, 2, 3], [4, 5, 6]], [7, 8]
    return made


def state(cells=2):
    return np.full((cells, B, H), 0.5), np.full((cells, B, H), 0.25)


def tokens(*shape):
    return np.arange(np.prod(shape)).reshape(shape) % 3


EXAMPLES = {
    "input_size": lambda: I,
    "hidden_size": lambda: H,
    "num_embeddings": lambda: 6,
    "embedding_dim": lambda: 2,
    "in_features": lambda: I,
    "out_features": lambda: 2,
    "vocabulary": lambda: "abc",
    "batch_size": lambda: B,
    "T": lambda: T,
    "B": lambda: B,
    "shapes": lambda: {"weight": (2, 3)},
    "dtype": lambda: "float64",
    "dtypes": lambda: ["float32"],
    "parameters": parameters,
    "gradients": parameters,
    "max_norm": lambda: 1.0,
    "lr": lambda: 0.1,
    "momentum": lambda: 0.5,
    "weight_decay": lambda: 0.1,
    "nesterov": lambda: False,
    "betas": lambda: (0.8, 0.9),
    "eps": lambda: 1e-6,
    "alpha": lambda: 0.9,
    "Optimizer.steps": lambda: 3,
    "parts": lambda: {"a": parameters()},
    "name": lambda: "weight",
    "other": parameters,
    "path": lambda: "model",
    "threads": lambda: 1,
    "seed": lambda: 0,
    "training": lambda: True,
    "checkpoint": lambda: "auto",
    "loss": lambda: nl.mse,
    "prompt": lambda: "ab",
    "length": lambda: 2,
    "text": lambda: "abcab",
    "LSTM.x": lambda: np.ones((T, B, I)),
    "LSTM.dy": lambda: np.ones((T, B, H)),
    "LSTM.hx": state,
    "LSTM.dhx": state,
    "LSTM.mapping": lambda: nl.LSTM(I, H, 2, seed=1).state_dict(),
    "LSTM.configuration": lambda: nl.LSTM(I, H).configuration(),
    "LSTM.dropout_state": lambda: {"seed": 1, "calls": 2},
    "LSTM.out": lambda: (np.zeros((T, B, H), "f4"), tuple(a.astype("f4") for a in state())),
    "LSTM.backward.out": lambda: (
        np.zeros((T, B, I), "f4"),
        tuple(a.astype("f4") for a in state()),
    ),
    "Linear.x": lambda: np.ones((T, B, I)),
    "Linear.dy": lambda: np.ones((T, B, 2)),
    "Linear.out": lambda: np.zeros((T, B, 2), "f4"),
    "Linear.backward.out": lambda: np.zeros((T, B, I), "f4"),
    "Linear.configuration": lambda: nl.Linear(I, 2).configuration(),
    "Embedding.tokens": lambda: tokens(T, B),
    "Embedding.dy": lambda: np.ones((T, B, 2)),
    "Embedding.out": lambda: np.zeros((T, B, 2), "f4"),
    "Embedding.configuration": lambda: nl.Embedding(6, 2).configuration(),
    "Sequential.layers": lambda: nl.Linear(2, 2),
    "Sequential.x": lambda: tokens(T, B),
    "Sequential.out": lambda: np.zeros((T, B, 2), "f4"),
    "Sequential.backward.out": lambda: None,  # as its input is tokens
    "Sequential.dy": lambda: np.ones((T, B, 2)),
    "Sequential.hx": lambda: (state(1),),
    "Sequential.dhx": lambda: (state(1),),
    "Sequential.configuration": lambda: sequential().configuration(),
    "Sequential.dropout_state": lambda: [{"seed": 1, "calls": 2}],
    "CharLanguageModel.x": lambda: tokens(T, B),
    "CharLanguageModel.out": lambda: np.zeros((T, B, 3), "f4"),
    "CharLanguageModel.backward.out": lambda: None,
    "CharLanguageModel.dy": lambda: np.ones((T, B, 3)),
    "CharLanguageModel.hx": lambda: (state(2),),
    "CharLanguageModel.dhx": lambda: (state(2),),
    "CharLanguageModel.configuration": lambda: CharLanguageModel("abc").configuration(),
    "CharLanguageModel.dropout_state": lambda: [{"seed": 1, "calls": 2}],
    "Stream.x": lambda: np.ones((B, I)),
    "Stream.active": lambda: np.array([True, False, True]),
    "Stream.step.out": lambda: np.zeros((B, H), "f4"),
    "Stream.chunk": lambda: np.ones((T, B, I)),
    "Stream.process.out": lambda: np.zeros((T, B, H), "f4"),
    "Stream.state": state,
    "Stream.rows": lambda: [0, 2],
    "SequentialStream.x": lambda: tokens(B),
    "SequentialStream.active": lambda: np.array([True, False, True]),
    "SequentialStream.step.out": lambda: np.zeros((B, 2), "f4"),
    "SequentialStream.process.out": lambda: np.zeros((T, B, 2), "f4"),
    "SequentialStream.chunk": lambda: tokens(T, B),
    "SequentialStream.state": lambda: (state(1),),
    "SequentialStream.rows": lambda: np.array([True, False, True]),
    "Parameters.value": lambda: np.ones((2, 3)),
    "Trainer.x": lambda: tokens(T, B),
    "Trainer.target": lambda: np.ones((T, B, 2)),
    "Trainer.optimizer": lambda: nl.SGD(TRAINED.parameters),
    "Trainer.clip": lambda: 0.5,
    "Trainer.nonfinite": lambda: "skip",
    "Trainer.checkpoint": lambda: 2,
    "mse.y": lambda: np.ones((T, 2)),
    "mse.target": lambda: np.zeros((T, 2)),
    "mse.weights": lambda: np.ones(T),
    "mse.out": lambda: np.zeros((T, 2)),
    "softmax_cross_entropy.y": lambda: np.ones((T, 4)),
    "softmax_cross_entropy.target": lambda: tokens(T),
    "softmax_cross_entropy.weights": lambda: np.ones(T),
    "softmax_cross_entropy.out": lambda: np.zeros((T, 4)),
    "scale": lambda: 0.5,
}


def instance(cls):
    """An object of a public class; of a new one by the examples of what its constructor needs."""
    if cls is nl.Trainer:
        return nl.Trainer(TRAINED, nl.mse, nl.Adam(TRAINED.parameters))
    if cls in INSTANCES:
        return INSTANCES[cls]()
    wanted = inspect.signature(cls).parameters.values()
    return cls(*(EXAMPLES[p.name]() for p in wanted if p.default is p.empty))


# What is called.


@dataclasses.dataclass(frozen=True)
class Target:
    """A public function, a constructor, a method, an operator, or an assigned attribute."""

    name: str
    call: Any
    doc: str
    cls: type | None = None
    on_instance: bool = False

    def __str__(self):
        return f"{self.cls.__name__}.{self.name}" if self.cls else self.name

    @property
    def parameters(self):
        """Parameters of the call, without self."""
        return list(inspect.signature(self.call).parameters.values())[self.on_instance :]

    def documented(self):
        """Types in the section Raises of the docstring."""
        section = re.search(r"^Raises\n-+\n((?:.*\n?)*?)(?=^\S.*\n-+$|\Z)", self.doc, re.MULTILINE)
        lines = section[1].splitlines() if section else []
        names = [name for line in lines if re.match(r"\w", line) for name in line.split(", ")]
        return tuple(getattr(builtins, name, None) or getattr(nl, name) for name in names)

    def examples(self):
        """A valid argument for every parameter that must have one, and for others that have one."""
        if self.cls is nl.Trainer and not self.on_instance:
            model = sequential()
            return {"model": model, "loss": nl.mse, "optimizer": nl.Adam(model.parameters)}
        if self.name == "load_state_dict" and not hasattr(self.cls, "from_state_dict"):
            return {"state": instance(self.cls).state_dict()}
        owners = [base.__name__ for base in self.cls.__mro__] if self.cls else [self.name]
        found = {}
        for parameter in self.parameters:
            keys = [f"{owner}.{parameter.name}" for owner in owners]
            keys = [f"{self}.{parameter.name}", *keys, parameter.name]
            known = next((EXAMPLES[key] for key in keys if key in EXAMPLES), None)
            if known is not None:
                found[parameter.name] = known()
            else:
                assert parameter.default is not parameter.empty, f"{keys} lack an example"
        return found


def targets():
    """All public calls, by inspection."""
    for name, thing in PUBLIC.items():
        if not inspect.isclass(thing):
            yield Target(name, thing, inspect.getdoc(thing))
            continue
        if thing not in MADE_ELSEWHERE:
            yield Target("__init__", thing, inspect.getdoc(thing), thing)
        for attribute in getattr(thing, "_checks", {}):
            yield Target(attribute, assignment(attribute), inspect.getdoc(thing), thing, True)
        for attribute in dir(thing):
            member = inspect.getattr_static(thing, attribute)
            plain = getattr(member, "__func__", getattr(member, "fset", None) or member)
            hidden = attribute.startswith("_") and attribute not in OPERATORS
            if hidden or not inspect.isfunction(plain) or "numba_lstm" not in plain.__module__:
                continue
            doc = inspect.getdoc(getattr(thing, attribute)) or ""
            if isinstance(member, property):
                yield Target(attribute, assignment(attribute), doc, thing, True)
            elif isinstance(member, classmethod):
                yield Target(attribute, getattr(thing, attribute), doc, thing)
            else:
                yield Target(attribute, plain, doc, thing, True)


def assignment(name):
    """Function that assigns an attribute."""

    def assign(self, value):
        setattr(self, name, value)

    listed = [inspect.Parameter(part, inspect.Parameter.POSITIONAL_ONLY) for part in ("self", name)]
    assign.__signature__ = inspect.Signature(listed)
    return assign


TARGETS = list(targets())


def subject_of(target):
    """What a target is called on, after what comes before it."""
    if not target.on_instance:
        return None
    subject = instance(target.cls)
    if target.name == "backward":
        forward = next(t for t in TARGETS if t.cls is target.cls and t.name == "forward")
        subject.forward(next(iter(forward.examples().values())))
    return subject


def call(target, subject, arguments):
    """Call a target with arguments by name."""
    positional = [] if subject is None else [subject]
    named = {}
    for parameter in target.parameters:
        if parameter.name not in arguments:
            continue
        value = arguments[parameter.name]
        if parameter.kind is parameter.VAR_POSITIONAL:
            positional += value if isinstance(value, tuple) else [value]
        elif parameter.kind is parameter.POSITIONAL_ONLY:
            positional.append(value)
        else:
            named[parameter.name] = value
    with np.errstate(over="ignore", invalid="ignore"):  # of casts, of which NumPy warns
        result = target.call(*positional, **named)
        if inspect.isgenerator(result) or hasattr(result, "__enter__"):
            with result:
                pass
    return result


# What arguments may be.

SIZES = [2**31, 2**32 + 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64, 2**70, 10**400]
INTEGERS = st.integers(-3, 9) | st.sampled_from(SIZES + [-size for size in SIZES])
FLOATS = st.floats() | st.sampled_from([0.0, 0.5, 1.0, 1e300, 5e-324, -1e-9])
TEXTS = st.sampled_from(
    ["", "a", "auto", "skip", "weight", "float32", "f4,,", "(1", "\0", "\ud800", "/", "no/such"]
)
DTYPES = [
    *("i1", "u1", "i4", ">i8", "u8", "f2", "f4", ">f4", "f8", ">f8", "g", "c8", "?"),
    *("S3", "U2", "M8[s]", "m8[D]", "V5", "O"),
]
SHAPES = st.lists(st.integers(0, 7), max_size=4).map(tuple) | st.sampled_from(
    [(T, B, I), (T, B), (B, I), (T, B, H), (2, B, H), (1, B, H), (2**40, 0, I), (0, 2**40, I)]
)
OBJECTS = st.sampled_from(
    [
        object(), len, int, np.float32, np.float64(1), np.int8(3), np.bool_(True), np.dtype("f4"),
        range(3), {1, 2}, 1j, fractions.Fraction(10**400, 3), datetime.date(2000, 1, 1), Ellipsis,
        NotImplemented, slice(3), pathlib.Path("folder"), np.str_("a"), b"float32", bytearray(8),
        memoryview(b"12345678"),
    ]
)  # fmt: skip
INSTANCE_TYPES = [nl.LSTM, nl.Linear, nl.Parameters, nl.Adam, nl.Sequential, nl.Stream, nl.Trainer]


@st.composite
def arrays(draw):
    """Arrays of any shape, dtype and layout."""
    shape, dtype = draw(SHAPES), np.dtype(draw(st.sampled_from(DTYPES)))
    array = np.zeros(shape, dtype)
    if dtype.kind in "iuf":
        array += np.asarray(draw(st.integers(0, 9)), dtype)
    if dtype.kind in "fc":
        array += np.asarray(draw(st.sampled_from([0, 0.5, -1, np.nan, np.inf])), dtype)
    return disguised(draw, array)


def disguised(draw, array):
    """The same array in another layout or class."""
    kind = draw(st.integers(0, 7))
    if kind == 0:
        return np.asfortranarray(array)
    if kind == 1:
        return array[::-1] if array.ndim else array
    if kind == 2:
        return np.broadcast_to(array, (2, *array.shape))
    if kind == 3:
        return np.ma.masked_array(array)
    if kind == 4:
        return array.astype(array.dtype.newbyteorder())
    if kind == 5:
        array.flags.writeable = False
    return array


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    INTEGERS,
    FLOATS,
    TEXTS,
    st.binary(max_size=3),
    OBJECTS,
    arrays(),
    st.sampled_from(INSTANCE_TYPES).map(instance),
)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(TEXTS | st.integers(0, 2), inner, max_size=2),
    ),
    max_leaves=4,
)


def nearly(draw, value):
    """A valid argument with something wrong in one place."""
    if isinstance(value, dict) and value:
        key = draw(st.sampled_from(sorted(value)))
        kept = {k: v for k, v in value.items() if k != key}
        change = draw(st.integers(0, 2))
        if change == 0:
            return kept
        other = nearly(draw, value[key])
        return {**value, key: other} if change == 1 else {**kept, draw(TEXTS): other}
    if isinstance(value, (tuple, list)) and value:
        place = draw(st.integers(0, len(value) - 1))
        return type(value)([*value[:place], nearly(draw, value[place]), *value[place + 1 :]])
    if isinstance(value, np.ndarray) and draw(st.booleans()):
        dtype = np.dtype(draw(st.sampled_from(DTYPES[:13])))
        with np.errstate(all="ignore"):  # what the other dtype cannot hold
            changed = value.astype(dtype)
        return disguised(draw, changed[:-1] if changed.ndim and draw(st.booleans()) else changed)
    return draw(ANYTHING)


@st.composite
def arguments_of(draw, target):
    """Arguments, most of them valid and some of them not."""
    examples = target.examples()
    arguments = {}
    for parameter in target.parameters:
        required = parameter.default is parameter.empty
        kinds = ["nearly", "anything"] if required else ["left out", "left out", "anything"]
        if parameter.name in examples:
            kinds = ["valid", "valid", *kinds]
            kinds += [] if required else ["nearly"]
        kind = draw(st.sampled_from(kinds))
        if kind == "valid":
            arguments[parameter.name] = examples[parameter.name]
        elif kind == "nearly":
            arguments[parameter.name] = nearly(draw, examples[parameter.name])
        elif kind == "anything":
            arguments[parameter.name] = draw(ANYTHING)
    return arguments


# What may not change.


def content(value):
    """Everything that a call could change in a value, to be compared."""
    if isinstance(value, np.ndarray):
        whole = value
        while isinstance(whole.base, np.ndarray):
            whole = whole.base
        objects = whole.dtype.hasobject
        return value.shape, str(value.dtype), repr(whole) if objects else whole.tobytes("A")
    if isinstance(value, (tuple, list)):
        return [content(part) for part in value]
    if isinstance(value, dict):
        return [(key, content(part)) for key, part in value.items()]
    if isinstance(value, nl.Parameters):
        return list(value.shapes.items()), value.flat.tobytes()
    if isinstance(value, nl.Trainer):
        return content(value.state_dict()), value.clip, value.nonfinite, value.skipped
    if isinstance(value, nl.Optimizer):
        return content(value.parameters), content(value.state_dict())
    if isinstance(value, (nl.Stream, nl.SequentialStream)):
        return content(value.state)
    if isinstance(value, nl.Sequential):
        return content(value.layers)
    if isinstance(value, (nl.LSTM, nl.Linear, nl.Embedding)):
        kept = id(value._tape._saved), value.__dict__.get("_dropout_calls")
        return content(value.parameters), content(value.gradients), kept
    return repr(value)


def check(target, arguments):
    """Call once: only documented errors, which change nothing; and arguments stay as they are."""
    subject = subject_of(target)
    before, given = content(subject), {name: content(arguments[name]) for name in arguments}
    try:
        call(target, subject, arguments)
        written = WRITTEN.get(str(target), ())
    except target.documented():
        assert content(subject) == before
        written = ()
    for name in arguments:
        assert name in written or content(arguments[name]) == given[name], name


@pytest.fixture(autouse=True)
def little_room(tmp_path, monkeypatch):
    """A folder for files that are written, and no room for arrays that no machine should make."""
    monkeypatch.chdir(tmp_path)
    sequential().save("model")
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def identifier(target):
    return str(target)


@pytest.mark.parametrize("target", TARGETS, ids=identifier)
def test_examples_are_valid(target):
    call(target, subject_of(target), target.examples())


def test_the_walk_finds_what_users_call():
    names = {str(target) for target in TARGETS}
    assert names >= {
        *("mse", "load", "LSTM.__init__", "LSTM.__call__", "LSTM.from_state_dict", "LSTM.save"),
        *("Stream.step", "Stream.state", "Parameters.__setitem__", "Adam.lr", "Trainer.step"),
    }
    assert names.isdisjoint({"Stream.__init__", "LSTM.parameters", "LSTM.__repr__"})


def test_errors_are_read_from_docstrings():
    documented = {str(target): target.documented() for target in TARGETS}
    assert documented["Parameters.__setitem__"] == (KeyError, TypeError, ValueError)
    assert documented["load"] == (OSError, nl.FormatError, TypeError, ValueError, MemoryError)
    assert documented["Parameters.zero"] == ()


@pytest.mark.parametrize("target", TARGETS, ids=identifier)
@settings(max_examples=40)
@given(data=st.data())
def test_any_arguments(target, data):
    check(target, data.draw(arguments_of(target)))


@pytest.mark.exhaustive
@pytest.mark.parametrize("target", TARGETS, ids=identifier)
def test_many_more_arguments(target):
    number = int(os.environ.get("NUMBA_LSTM_SEED", secrets.randbelow(2**32)))
    print(f"NUMBA_LSTM_SEED={number}")

    @seed(number)
    @settings(max_examples=300, derandomize=False, database=None)
    @given(arguments=arguments_of(target))
    def search(arguments):
        check(target, arguments)

    search()


# Sizes beyond all memory.


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    "build",
    [
        lambda size: nl.LSTM(size, 4),
        lambda size: nl.LSTM(4, size),
        lambda size: nl.Linear(size, size),
        lambda size: nl.Embedding(size, 4),
        lambda size: nl.Parameters({"weight": (3, size)}, "float32"),
        lambda size: nl.LSTM(I, H).stream(size),
        lambda size: nl.LSTM(I, H)(np.broadcast_to(np.float32(0), (min(size, 2**55), 3, I))),
        lambda size: nl.Linear(I, H)(np.broadcast_to(np.float32(0), (min(size, 2**55), I))),
        lambda size: nl.Embedding(I, H)(np.broadcast_to(0, (min(size, 2**55), 3))),
    ],
    ids=["input", "hidden", "linear", "embedding", "shapes", "stream", "x", "rows", "tokens"],
)
def test_sizes_beyond_all_memory(build, size):
    with pytest.raises(MemoryError, match=r"room|Unable to allocate"):
        build(size)


@pytest.mark.parametrize("size", [2**62, 2**63, 2**64, 2**70, 10**400], ids=str)
def test_plans_beyond_64_bits(size):
    lstm = nl.LSTM(I, H, 2)
    for ask in (lstm.plan, lstm.workspace_nbytes):
        for training in (False, True):
            with pytest.raises(ValueError, match="T and B must be such that 64 bits number"):
                ask(size, size, training=training)


def test_steps_of_no_rows_take_no_time():
    lstm = nl.LSTM(I, H, 2)
    x = np.zeros((2**40, 0, I))
    y, (h, _) = lstm(x)
    assert (y.shape, h.shape) == ((2**40, 0, H), (2, 0, H))
    assert lstm.forward(x, checkpoint=1)[0].shape == y.shape
    dx, _ = lstm.backward(y)
    assert dx.shape == x.shape
    assert not lstm.gradients.flat.any()
