"""What the CPU that the kernels are compiled for offers: vectors, registers, caches."""

from __future__ import annotations

import functools
import os
import platform
from pathlib import Path

import llvmlite.binding as llvm
from numba.core import config


@functools.cache
def cpu_name() -> str:
    """Name of the CPU that Numba compiles for, as LLVM spells it."""
    return str(config.CPU_NAME or llvm.get_host_cpu_name())


@functools.cache
def cpu_features() -> frozenset[str]:
    """Instruction sets that Numba's code may use, ``NUMBA_CPU_FEATURES`` respected."""
    if config.CPU_FEATURES is not None:
        flags = config.CPU_FEATURES.split(",")
    elif config.CPU_NAME == "generic":
        flags = []
    else:
        flags = llvm.get_host_cpu_features().flatten().split(",")
    features = {flag[1:] for flag in flags if flag.startswith("+")}
    if not config.ENABLE_AVX:
        features = {name for name in features if not name.startswith("avx")}
    return frozenset(features)


def is_x86() -> bool:
    """Whether the CPU is one of Intel's or AMD's architecture."""
    return platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")


def is_arm() -> bool:
    """Whether the CPU is one of ARM's 64-bit architecture."""
    return platform.machine().lower() in ("aarch64", "arm64")


@functools.cache
def vector_bits() -> int:
    """Width of the widest vector register with fused multiply-adds."""
    features = cpu_features()
    if "avx512f" in features:
        return 512
    if {"avx2", "fma"} <= features:
        return 256
    return 128


@functools.cache
def vector_registers() -> int:
    """Number of vector registers."""
    if vector_bits() == 512 or is_arm():
        return 32
    return 16


def lanes(itemsize: int) -> int:
    """Numbers of `itemsize` bytes in one vector."""
    return vector_bits() // (8 * itemsize)


@functools.cache
def tile_rows(vectors: int) -> int:
    """Rows of the tallest tile of `vectors` vectors a row that this register file holds.

    Beside the accumulators live the shorter of a row of weight vectors and a column of broadcast
    values, and one of the other: 6 x 4 takes 29 of 32 registers, 3 x 4 takes 16 of 16, and 7 x 4
    spills and halves the speed. More than 6 rows gain nothing, or 8 of one vector or two, of which
    older versions of LLVM keep some on the stack where there are 16.
    """
    tallest = 8 if vectors <= 2 and vector_registers() == 32 else 6
    needed = {rows: rows * vectors + min(rows, vectors) + 1 for rows in range(1, tallest + 1)}
    return max(rows for rows, count in needed.items() if count <= vector_registers())


@functools.cache
def cache_sizes() -> tuple[int, int, int]:
    """Bytes of the L1 data, L2 and L3 caches that core 0 sees; common sizes where unknown."""
    sizes = {1: 32 << 10, 2: 512 << 10, 3: 8 << 20}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level = int((index / "level").read_text())
            kind = (index / "type").read_text().strip()
            size = (index / "size").read_text().strip()
        except (OSError, ValueError):
            continue
        if kind != "Instruction" and size.endswith("K"):
            sizes[level] = int(size[:-1]) << 10
    return sizes[1], sizes[2], sizes[3]


def cached_numbers(itemsize: int) -> int:
    """Numbers of a matrix that a core's L2 cache keeps from one use to the next: half of it."""
    _, level2, _ = cache_sizes()
    return level2 // 2 // itemsize


def numbers_cached_in_part(itemsize: int) -> int:
    """Numbers of the largest matrix of which L3 keeps a good part: half as many again as it holds.

    To go through it to and fro finds what the last step read at its end. Larger ones are read as
    fast or faster from the front every time (one row, one thread, an L3 of 32 MiB, GFLOP/s to and
    fro and from the front: H 512 103 and 89, H 1024 96 and 95, H 1500 73 and 74, H 2048 43 and 48).
    """
    _, _, level3 = cache_sizes()
    return level3 * 3 // 2 // itemsize


def level3_is_near() -> bool:
    """Whether a core reads its L3 cache at more than half the pace of L2: so on AMD's Zen.

    Measured 120 and 190 GB/s on Zen 5; on Intel's server CPUs 30 and 180.
    """
    return cpu_name().startswith("znver")


@functools.cache
def model_name() -> str:
    """The CPU's name as its maker writes it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cores() -> int:
    """Processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
