"""The inner loop as LLVM compiles it: nothing but its multiply-adds, everything in registers."""

import itertools
import platform
import re

import numba
import numpy as np
import pytest

from numba_lstm.kernels.gemm import Place, Terms, Upcoming, _next_run, _run_of, tile_product
from numba_lstm.kernels.tiling import Stretch
from numba_lstm.simd import cpu
from numba_lstm.simd.pointer import address
from numba_lstm.simd.tile import tile_sum

pytestmark = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64") or "fma" not in cpu.cpu_features(),
    reason="reads the assembly of x86 with fused multiply-adds",
)

REGISTER = {128: "xmm", 256: "ymm", 512: "zmm"}


def innermost_loops(assembly):
    """Instructions of every loop that holds no other: from a label to the jump back to it."""
    lines = [line.split("#")[0].strip() for line in assembly.splitlines()]
    labels = {line[:-1]: i for i, line in enumerate(lines) if line.endswith(":")}
    jumps = [(labels.get(line.split()[-1]), i) for i, line in enumerate(lines) if line[:1] == "j"]
    loops = [(start, end) for start, end in jumps if start is not None and start < end]
    for start, end in loops:
        if not any(start <= other and last < end for other, last in loops):
            yield [line for line in lines[start + 1 : end] if line and line[0] != "."]


def product_loops(kernel, dtype):
    """Loops with multiply-adds of ``kernel(values, row_stride, steps, weights, panel, out)``."""
    array = numba.types.Array(numba.from_dtype(np.dtype(dtype)), 1, "C")
    kernel.compile((array, numba.int64, numba.int64, array, numba.int64, array))
    (assembly,) = kernel.inspect_asm().values()
    return [body for body in innermost_loops(assembly) if any("vfmadd" in i for i in body)]


def product_of(rows, vectors):
    """Kernel that sums a product in a tile."""

    @numba.njit
    def product(values, row_stride, steps, weights, panel, out):
        start = address(weights, 0)
        terms = Terms(steps, steps, steps, address(values, 0), 0, row_stride)
        place = Place(address(out, 0), 0, row_stride, panel)
        task = (place, steps, _run_of(terms, 0, 0), terms, start, panel, start, steps, steps, place)
        tile_sum(vectors, rows, _next_run, task)

    return product


def touches_the_stack(line):
    """Whether a vector goes to the stack or comes from there."""
    return "(%rsp" in line and "mm" in line


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("vectors", [4, 3, 2, 1])
def test_inner_loop(vectors, dtype):
    rows = cpu.tile_rows(vectors)
    size = rows * vectors
    terms = 2 if size > 8 else 1
    loops = product_loops(product_of(rows, vectors), dtype)
    (loop,) = [body for body in loops if sum("vfmadd" in line for line in body) == terms * size]
    suffix = "ps" if dtype == np.float32 else "pd"
    register = REGISTER[cpu.vector_bits()]

    sums = set()
    for line in (line for line in loop if line.startswith("vfmadd")):
        assert re.match(rf"vfmadd\d+{suffix}\s", line), line
        assert set(re.findall(r"%([xyz]mm)\d+", line)) == {register}, line
        sums.add(line.split()[-1])
    assert len(sums) == size, "every accumulator keeps a register of its own"

    for line in loop:
        assert "%rsp" not in line, f"the loop touches the stack: {line}"
        assert not re.match(r"v?mov\w*\s.*,\s*[-\w]*\(", line), f"the loop stores: {line}"
        assert not line.startswith("call"), line


def test_a_tile_that_does_not_fit_is_seen_to_spill(monkeypatch):
    """The check itself: one row too many leaves its accumulators on the stack."""
    too_tall = cpu.vector_registers() // 4
    monkeypatch.setattr(cpu, "tile_rows", lambda vectors: too_tall)
    loops = product_loops(product_of(too_tall, 4), np.float32)
    assert any(touches_the_stack(line) for loop in loops for line in loop)


def test_tallest_tile_of_a_step_stays_in_registers():
    """In its place among the jumps to the next run and the other heights, where registers are few.

    Where a step's tile was once kept on the stack in part, the loop by itself was as it should be.
    """

    @numba.njit
    def step(values, size, weights, panel, out):
        start = address(weights, 0)
        inputs = Terms(size, size, 0, address(values, 0), 0, size)
        hidden = Terms(size, size, 0, address(values, 0), 0, panel)
        place = Place(address(out, 0), 0, size, panel)
        terms, upcoming = Stretch(0, size), Upcoming(start, 0, size)
        tile_product(4, size, start, False, inputs, hidden, terms, start, panel, upcoming, place)

    array = numba.types.Array(numba.float32, 1, "C")
    step.compile((array, numba.int64, array, numba.int64, array))
    tile = cpu.tile_rows(4) * 4
    for assembly in step.inspect_asm().values():
        lines = [line.split("#")[0].strip() for line in assembly.splitlines()]
        edges = [i for i, line in enumerate(lines) if line.endswith(":") or line[:1] == "j"]
        blocks = [lines[first:last] for first, last in itertools.pairwise(edges)]
        sums = [{line.split()[-1] for line in block if "vfmadd" in line} for block in blocks]
        tallest = [block for block, own in zip(blocks, sums, strict=True) if len(own) == tile]
        assert tallest, "the multiply-adds of the tallest tile are one block"
        for block in tallest:
            assert not any(touches_the_stack(line) for line in block)
