"""Scripts that tests run in interpreters of their own: a crash or a deadlock there is a failure."""

import importlib.metadata
import os
import signal
import subprocess
import sys

import pytest

# Exit status of a script whose threading layer is not installed.
NO_LAYER = 77

# Loads Numba's threading layer. A wheel of TBB leaves its library where no loader looks for it.
LOAD_LAYER = f"""
import ctypes, os, sys
if os.environ.get("LIBTBB"):
    ctypes.CDLL(os.environ["LIBTBB"], ctypes.RTLD_GLOBAL)
from numba.np.ufunc import parallel
try:
    parallel._launch_threads()
except ValueError as error:
    print(error)
    sys.exit({NO_LAYER})
assert parallel.threading_layer() == os.environ["NUMBA_THREADING_LAYER"]
"""


def library_of_tbb():
    """Path of TBB's library in an installed wheel, or nothing."""
    try:
        files = importlib.metadata.files("tbb") or []
    except importlib.metadata.PackageNotFoundError:
        return ""
    return next((str(path.locate()) for path in files if path.name == "libtbb.so.12"), "")


def run_script(script, *arguments, timeout=300, **environment):
    """Run a script; what it started dies with it, and a missing threading layer skips the test."""
    process = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, **environment},
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGABRT)  # prints where every thread stands
        output, _ = process.communicate()
        pytest.fail(f"still running after {timeout} s:\n{output}")
    if process.returncode == NO_LAYER:
        pytest.skip(output.strip().splitlines()[0])
    assert process.returncode == 0, f"status {process.returncode}:\n{output}"
    return output


def run_under(layer, script, *arguments, **environment):
    """Run a script that begins by loading a threading layer."""
    environment |= {"NUMBA_THREADING_LAYER": layer, "LIBTBB": library_of_tbb()}
    return run_script(LOAD_LAYER + script, *arguments, **environment)
