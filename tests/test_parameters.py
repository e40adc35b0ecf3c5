"""Parameters: named views on one flat buffer, and who may write them."""

import copy
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numba_lstm import Parameters

SHAPES = {"weight": (3, 4), "bias": (3,), "scale": ()}

names = st.text("abcxyz_0", min_size=1, max_size=6)
shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
tables = st.dictionaries(names, shapes, max_size=5)


def numbered(shapes, dtype="float32", first=1):
    """Parameters that hold first, first + 1, ..."""
    parameters = Parameters(shapes, dtype)
    with parameters.edit() as flat:
        flat[:] = np.arange(first, first + flat.size)
    return parameters


@given(tables)
def test_views_lie_side_by_side_in_the_order_of_the_table(table):
    parameters = numbered(table, "float64", first=0)
    assert list(parameters) == list(table)
    assert len(parameters) == len(table)
    assert dict(parameters.shapes) == table
    assert parameters.size == parameters.flat.size == sum(map(math.prod, table.values()))
    assert parameters.nbytes == 8 * parameters.size
    place = 0
    for name, shape in table.items():
        assert parameters.place(name) == place
        size = math.prod(shape)
        expected = np.arange(place, place + size).reshape(shape)
        np.testing.assert_array_equal(parameters[name], expected)
        place += size


@pytest.mark.parametrize("dtype", ["float32", "float64", np.float32, np.dtype("f8")])
def test_starts_with_zeros_of_its_dtype_on_a_cache_line(dtype):
    parameters = Parameters(SHAPES, dtype)
    assert parameters.dtype == parameters["bias"].dtype == np.dtype(dtype)
    assert parameters.flat.ctypes.data % 64 == 0
    np.testing.assert_array_equal(parameters.flat, np.zeros(16))


@pytest.mark.parametrize("dtype", ["float16", "int32", "complex64", None, "nonsense", "f4,,"])
def test_refuses_other_dtypes(dtype):
    with pytest.raises(ValueError, match=r"dtype must be float32 or float64; got"):
        Parameters(SHAPES, dtype)


def test_views_follow_what_is_written():
    parameters = numbered(SHAPES)
    weight, flat = parameters["weight"], parameters.flat
    parameters["weight"] = np.full((3, 4), 7)
    np.testing.assert_array_equal(weight, np.full((3, 4), 7))
    np.testing.assert_array_equal(flat, [*[7] * 12, 13, 14, 15, 16])


def test_views_are_read_only():
    parameters = numbered(SHAPES)
    for view in (parameters.flat, *parameters.values()):
        assert not view.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            view[...] = 0
    with pytest.raises(TypeError):
        parameters.shapes["bias"] = (4,)
    np.testing.assert_array_equal(parameters.flat, np.arange(1, 17))


@pytest.mark.parametrize(
    "value",
    [
        np.arange(12, dtype=np.int8).reshape(3, 4),
        np.arange(12, dtype=np.float16).reshape(4, 3).T,
        np.arange(24, dtype=">f8").reshape(6, 4)[::-2],
        [[1, 2, 3, 4]] * 3,
        np.full((3, 4), np.nan),
    ],
)
def test_assignment_converts_any_real_array(value):
    parameters = Parameters(SHAPES, "float32")
    parameters["weight"] = value
    np.testing.assert_array_equal(parameters["weight"], np.asarray(value, np.float32))
    np.testing.assert_array_equal(parameters["bias"], np.zeros(3))


def test_assignment_of_its_own_reversed_view_is_a_copy():
    parameters = numbered(SHAPES)
    parameters["bias"] = parameters["bias"][::-1]
    np.testing.assert_array_equal(parameters["bias"], [15, 14, 13])


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("weight", np.zeros((4, 3)), ValueError, r"weight must have shape \(3, 4\); got \(4, 3\)"),
        ("bias", 1.0, ValueError, r"bias must have shape \(3,\); got \(\)"),
        ("bias", np.zeros(3, complex), TypeError, "bias must be .* real numbers; got dtype comp"),
        ("bias", ["a", "b", "c"], TypeError, "bias must be .* real numbers; got dtype <U1"),
        ("bias", [None] * 3, TypeError, "bias must be .* real numbers; got dtype object"),
        ("bias", [True] * 3, TypeError, "bias must be .* real numbers; got dtype bool"),
        ("bais", np.zeros(3), KeyError, "no parameter 'bais'; there are weight, bias, scale"),
    ],
)
def test_refused_assignment_changes_nothing(name, value, error, message):
    parameters = numbered(SHAPES)
    version = parameters.version
    with pytest.raises(error, match=message):
        parameters[name] = value
    assert parameters.version == version
    np.testing.assert_array_equal(parameters.flat, np.arange(1, 17))


def test_every_write_raises_the_version_and_no_read_does():
    parameters = Parameters(SHAPES, "float32")
    versions = [parameters.version]
    parameters["bias"] = np.ones(3)
    versions.append(parameters.version)
    with parameters.edit() as flat:
        flat += 1
    versions.append(parameters.version)
    parameters.zero()
    versions.append(parameters.version)
    assert versions == sorted(set(versions))
    _ = parameters["bias"], parameters.flat, repr(parameters), pickle.dumps(parameters)
    assert parameters.version == versions[-1]


def test_two_parameters_share_no_version():
    assert Parameters(SHAPES, "float32").version != Parameters(SHAPES, "float32").version


def test_edit_raises_the_version_when_it_is_broken_off_and_then_lends_no_more():
    parameters = numbered(SHAPES)
    version = parameters.version
    kept = []

    def interrupted():
        with parameters.edit() as flat:
            kept.append(flat)
            flat[0] = 100
            raise InterruptedError

    with pytest.raises(InterruptedError):
        interrupted()
    assert parameters.version > version
    assert parameters.flat[0] == 100
    with pytest.raises(ValueError, match="read-only"):
        kept[0][0] = 0


def test_zero():
    parameters = numbered(SHAPES)
    parameters.zero()
    np.testing.assert_array_equal(parameters.flat, np.zeros(16))


def test_join_puts_parts_one_after_the_other():
    first, second = numbered({"a": (2, 2)}), numbered({"a": (3,), "b": ()}, first=5)
    joined = Parameters.join({"0": first, "1": second})
    assert dict(joined.shapes) == {"0.a": (2, 2), "1.a": (3,), "1.b": ()}
    np.testing.assert_array_equal(joined.flat, np.arange(1, 9))
    np.testing.assert_array_equal(first.flat, np.arange(1, 5))
    np.testing.assert_array_equal(second["a"], [5, 6, 7])
    assert second.place("b") == 3
    assert second.size == 4


def test_a_version_rises_before_anything_is_written():
    """Ctrl-C at the end of an edit takes no notice away."""
    parameters = Parameters(SHAPES, "float32")
    version = parameters.version
    with parameters.edit():
        assert parameters.version > version


def test_joined_parts_share_memory_and_version():
    first, second = numbered({"a": (2,)}), numbered({"a": (3,)})
    detached = second["a"]
    joined = Parameters.join({"0": first, "1": second})
    version = joined.version
    second["a"] = [7, 8, 9]
    assert joined.version == first.version == second.version > version
    np.testing.assert_array_equal(joined.flat, [1, 2, 7, 8, 9])
    np.testing.assert_array_equal(detached, [1, 2, 3])
    second.zero()
    np.testing.assert_array_equal(joined.flat, [1, 2, 0, 0, 0])
    with joined.edit() as flat:
        flat[:] = 4
    np.testing.assert_array_equal(first["a"], [4, 4])
    assert np.shares_memory(first["a"], joined.flat)


def test_joining_raises_the_version_of_the_parts():
    part = numbered({"a": (2,)})
    version = part.version
    Parameters.join({"0": part})
    assert part.version > version


def test_parameters_are_joined_once():
    part, other = numbered({"a": (2,)}), numbered({"a": (1,)})
    joined = Parameters.join({"0": part})
    for parts in ([part], [other, joined], [other, other]):
        with pytest.raises(ValueError, match="none of them joined before; got "):
            Parameters.join({str(position): part for position, part in enumerate(parts)})
    part["a"] = [5, 6]
    np.testing.assert_array_equal(joined.flat, [5, 6])


@pytest.mark.parametrize(
    ("dtypes", "message"),
    [([], "got no parts"), (["float32", "float64"], "one dtype; got float32, float64")],
)
def test_join_refuses_nothing_and_mixtures(dtypes, message):
    parts = {str(k): numbered({"a": (2,)}, dtype) for k, dtype in enumerate(dtypes)}
    with pytest.raises(ValueError, match=message):
        Parameters.join(parts)


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda parameters: pickle.loads(pickle.dumps(parameters))]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_copies_by_value(copied, dtype):
    section = numbered(SHAPES, dtype)
    joined = Parameters.join({"0": numbered({"a": (5,)}, dtype), "1": section})
    twin = copied(section)
    assert dict(twin.shapes) == SHAPES
    assert twin.dtype == dtype
    assert twin.size == 16
    twin.zero()
    np.testing.assert_array_equal(section.flat, np.arange(1, 17))
    section["bias"] = [0, 0, 0]
    np.testing.assert_array_equal(copied(joined)["1.bias"], [0, 0, 0])


def test_a_pickled_section_does_not_carry_its_neighbours():
    small = numbered({"a": (2,)})
    Parameters.join({"0": small, "1": numbered({"a": (100_000,)})})
    assert len(pickle.dumps(small)) < 1000


def test_is_a_mapping():
    parameters = numbered(SHAPES)
    assert "bias" in parameters
    assert "bais" not in parameters
    assert parameters.get("bais") is None
    with pytest.raises(KeyError, match="bais"):
        parameters["bais"]


def test_repr_names_arrays_and_dtype():
    expected = "Parameters(weight (3, 4), bias (3,), scale (); float32)"
    assert repr(Parameters(SHAPES, "float32")) == expected
