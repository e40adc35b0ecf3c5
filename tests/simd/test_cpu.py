"""What the CPU offers, here and on others."""

import os

import pytest
from numba.core import config

from numba_lstm.simd import cpu


@pytest.fixture
def pretend(monkeypatch):
    """Make `cpu` see another CPU for the length of a test."""
    cached = [value for value in vars(cpu).values() if hasattr(value, "cache_clear")]

    def clear():
        for function in cached:
            function.cache_clear()

    def set_up(name, features, *, enable_avx=True, machine="x86_64"):
        monkeypatch.setattr(config, "CPU_NAME", name)
        monkeypatch.setattr(config, "CPU_FEATURES", features)
        monkeypatch.setattr(config, "ENABLE_AVX", enable_avx)
        monkeypatch.setattr(cpu.platform, "machine", lambda: machine)
        clear()

    yield set_up
    monkeypatch.undo()
    clear()


@pytest.mark.parametrize(
    ("features", "bits", "registers"),
    [
        ("+avx512f,+avx2,+fma,+avx", 512, 32),
        ("+avx2,+fma,+avx,-avx512f", 256, 16),
        ("+avx2,+avx", 128, 16),
        ("+avx,+fma", 128, 16),
        ("+sse2", 128, 16),
        ("", 128, 16),
    ],
)
def test_width_and_registers_follow_from_the_features(pretend, features, bits, registers):
    pretend("x", features)
    assert (cpu.vector_bits(), cpu.vector_registers()) == (bits, registers)


def test_without_avx_the_width_is_128(pretend):
    pretend("x", "+avx512f,+avx2,+fma,+sse2", enable_avx=False)
    assert cpu.cpu_features() == {"fma", "sse2"}
    assert cpu.vector_bits() == 128


def test_the_generic_cpu_offers_nothing(pretend):
    pretend("generic", None)
    assert cpu.cpu_name() == "generic"
    assert cpu.cpu_features() == frozenset()


def test_the_host_is_taken_where_nothing_is_set(pretend):
    pretend(None, None)
    assert cpu.cpu_name() == cpu.llvm.get_host_cpu_name()
    host = {name for name, there in cpu.llvm.get_host_cpu_features().items() if there}
    assert cpu.cpu_features() == host


@pytest.mark.parametrize("machine", ["aarch64", "arm64", "ARM64"])
def test_arm_has_32_registers_of_128_bits(pretend, machine):
    pretend("x", "+neon", machine=machine)
    assert (cpu.vector_bits(), cpu.vector_registers()) == (128, 32)
    assert cpu.tile_rows(4) == 6
    assert cpu.is_arm()
    assert not cpu.is_x86()


@pytest.mark.parametrize("features", ["+avx512f", "+avx2,+fma", "+sse2"])
@pytest.mark.parametrize("vectors", [1, 2, 3, 4])
def test_tile_fits_beside_its_shorter_side_and_one_of_the_other(pretend, features, vectors):
    pretend("x", features)
    rows = cpu.tile_rows(vectors)

    def registers(rows):
        return rows * vectors + min(rows, vectors) + 1

    most = 8 if vectors <= 2 and cpu.vector_registers() == 32 else 6
    assert registers(rows) <= cpu.vector_registers()
    assert rows == most or registers(rows + 1) > cpu.vector_registers()


def test_tile_shapes(pretend):
    pretend("x", "+avx512f")
    assert [cpu.tile_rows(vectors) for vectors in (4, 3, 2, 1)] == [6, 6, 8, 8]
    pretend("x", "+avx2,+fma")
    assert [cpu.tile_rows(vectors) for vectors in (4, 3, 2, 1)] == [3, 4, 6, 6]


def test_lanes_fill_a_register():
    assert cpu.lanes(4) * 32 == cpu.lanes(8) * 64 == cpu.vector_bits()


def test_caches_grow_with_distance():
    level1, level2, level3 = cpu.cache_sizes()
    assert 4 << 10 <= level1 < level2 < level3


def test_the_cpu_has_a_name():
    assert cpu.model_name().strip()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_cores_respect_affinity():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert cpu.cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert cpu.cores() == len(allowed)
