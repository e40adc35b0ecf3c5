"""How functions that only kernels call are compiled."""

import numba
import numpy as np
import pytest
from numba.core.compiler import DefaultPassBuilder

from numba_lstm import compiler, jit


def test_what_is_left_out_is_known_to_numba():
    """A pass that is called otherwise in another version of Numba would be back unnoticed."""
    passes = []

    class Watched(compiler.LinkedCompiler):
        def define_pipelines(self):
            full = DefaultPassBuilder.define_nopython_pipeline(self.state)
            (lean,) = super().define_pipelines()
            passes.extend({kind.name() for kind, _ in those.passes} for those in (full, lean))
            return [lean]

    twice = numba.njit(pipeline_class=Watched)(lambda x: x + x)
    outer = numba.njit(lambda x: twice(x))
    assert outer(3) == 6
    full, lean = passes
    lowering = {"native_lowering"}, {"numba_lstm_linked_lowering"}
    assert full - lean == compiler._NOT_NEEDED | lowering[0]
    assert lean - full == lowering[1]


@jit.device
def _mixed(count, number, values):
    mixed = count + count, count + number, number + number, values[0] + count
    return (*mixed, count / 2, count // 2, count**2, count > 2, 2 - count)


# `jit.kernel` would find it by the digest of the package, which tests are no part of.
@numba.njit(error_model="numpy")
def _mix(count, number, values):
    return _mixed(count, number, values)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("number", [0.5, 1j], ids=["real", "complex"])
def test_operators_do_what_they_do_between_these_types(dtype, number):
    values = np.full(2, 0.25, dtype)
    expected = (6, 3 + number, number + number, 3.25, 1.5, 1, 9, True, -1)
    for _ in range(2):
        results = _mix(3, number, values)
        assert results == expected
        assert [type(value) for value in results] == [type(value) for value in expected]
