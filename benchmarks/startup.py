"""What a new process waits for."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numba_lstm

_SCRIPT = """
import json, time
import numba
start = time.perf_counter()
import numba_lstm as nl
imported = time.perf_counter()
import numpy as np
lstm = nl.LSTM(8, 8, threads=1)
x = np.zeros((2, 2, 8), np.float32)
ready = time.perf_counter()
lstm(x)
called = time.perf_counter()
y, _ = lstm.forward(x)
lstm.backward(y)
trained = time.perf_counter()
print(json.dumps([imported - start, called - ready, trained - called]))
"""


def _measure(cache, **environment):
    """Seconds of import, first inference and first training step in a new process."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache, **environment}
    command = [sys.executable, "-c", _SCRIPT]
    printed = subprocess.run(command, env=environment, check=True, capture_output=True).stdout
    return json.loads(printed)


class Startup:
    """With a kernel cache that holds everything."""

    timeout = 300

    def setup_cache(self):
        cache = str(Path.cwd() / "kernels")  # asv gives every environment a folder of its own
        _measure(cache)
        return cache

    def track_import(self, cache):
        return _measure(cache)[0]

    def track_first_inference(self, cache):
        return _measure(cache)[1]

    def track_first_training_step(self, cache):
        return _measure(cache)[2]


def _measure_cold():
    """The same where no kernel is found: neither beside the package nor in the user's folders."""
    ignored = shutil.ignore_patterns("*.kernel")
    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(Path(numba_lstm.__file__).parent, f"{place}/numba_lstm", ignore=ignored)
        return _measure(f"{place}/cache", PYTHONPATH=place, HOME=place, XDG_CACHE_HOME=place)


class ColdStartup:
    """With an empty kernel cache."""

    timeout = 300

    def track_first_inference(self):
        return _measure_cold()[1]

    def track_first_training_step(self):
        return _measure_cold()[2]


for _benchmark in (
    Startup.track_import,
    Startup.track_first_inference,
    Startup.track_first_training_step,
    ColdStartup.track_first_inference,
    ColdStartup.track_first_training_step,
):
    _benchmark.unit = "seconds"
