"""The same tests for vectors of 512, 256 and 128 bits, each width in a process of its own.

The width that this process compiles for is tested by this process.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from numba_lstm.simd import cpu

TESTS = Path(__file__).parents[1]
# The name alone would leave the host's features switched on.
AVX = "+sse,+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+avx,+fma"
WIDTHS = {
    128: {"NUMBA_CPU_NAME": "nehalem", "NUMBA_CPU_FEATURES": AVX},
    256: {
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": f"{AVX},+avx2,+f16c,+bmi,+bmi2,+lzcnt,+movbe",
    },
    512: {},
}
NEEDED = {128: {"avx", "fma"}, 256: {"avx2", "fma"}, 512: {"avx512f"}}
ENGINE = ("gradients", "lstm", "panel_forms", "plan", "same_bits", "stream")
SCRIPT = """
import sys
import pytest
from numba_lstm.simd import cpu
assert cpu.vector_bits() == int(sys.argv[1]), cpu.vector_bits()
sys.exit(pytest.main(sys.argv[2:]))
"""

pytestmark = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="names CPUs of x86"
)


def run_tests(bits, *arguments):
    """Run tests in a process that compiles for vectors of `bits` bits."""
    if bits == cpu.vector_bits():
        pytest.skip("the width of this very process")
    host = {name for name, there in llvm.get_host_cpu_features().items() if there}
    if not host >= NEEDED[bits]:
        pytest.skip(f"this CPU lacks {', '.join(sorted(NEEDED[bits] - host))}")
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("NUMBA_CPU_")
    }
    command = [sys.executable, "-c", SCRIPT, str(bits), "-q", "-p", "no:cacheprovider"]
    command += [f"--ignore={__file__}", *arguments]
    done = subprocess.run(
        command,
        env={**inherited, **WIDTHS[bits]},
        cwd=TESTS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("bits", WIDTHS)
def test_vectors_and_activations(bits):
    run_tests(bits, "simd", "kernels/test_activations.py")


@pytest.mark.parametrize("bits", [256])
def test_same_bits(bits):
    run_tests(bits, "test_same_bits.py::test_random_configurations")


@pytest.mark.exhaustive
@pytest.mark.parametrize("bits", WIDTHS)
def test_engine(bits):
    paths = ["kernels", *(f"test_{name}.py" for name in ENGINE)]
    run_tests(bits, *paths, "-m", "exhaustive or not exhaustive")
