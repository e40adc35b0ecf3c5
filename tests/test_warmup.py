"""Kernels compiled ahead: afterwards nothing compiles, whatever is asked for."""

import inspect
import json
import subprocess
import sys

import numpy as np
import pytest

import numba_lstm as nl
from numba_lstm import cli, jit

WARM = """
import json
import numba_lstm as nl
from numba_lstm import jit
kernels = nl.warmup()
again = nl.warmup()
print(json.dumps({
    "ready": [[kernel.name, kernel.dtype] for kernel in kernels],
    "lost": [kernel.name for kernel in kernels if not kernel.kept],
    "again": len(again),
    "signatures": {name: len(kernel.signatures) for name, kernel in jit._kernels.items()},
}))
"""

# All that a user can do, large enough to be shared among threads.
USE = """
import json
import numpy as np
from numba.core import event
import numba_lstm as nl

def use(dtype, threads):
    lstm = nl.LSTM(9, 40, 2, bidirectional=True, dropout=0.5, dtype=dtype, threads=threads)
    model = nl.Sequential(
        nl.Embedding(5, 40, dtype=dtype),
        nl.LSTM(40, 40, bias=False, dtype=dtype),
        nl.Linear(40, 300, dtype=dtype),
        nl.Linear(300, 5, bias=False, dtype=dtype),
        threads=threads,
    )
    x = np.ones((20, 16, 9), dtype)
    x.flags.writeable = False
    y, hx = lstm(x)
    lstm(x[::-1], hx, out=(y, hx))
    lstm(x[:, 0])
    few = nl.LSTM(9, 200, dtype=dtype, threads=threads)
    few(x[:, :2])
    few.stream(2).step(x[0, :2], active=[True, False])
    tokens = np.ones((40, 16), np.int64)
    model(tokens)
    steps = [
        nl.Trainer(lstm, nl.mse, nl.SGD(lstm.parameters, momentum=0.9, nesterov=True)),
        nl.Trainer(lstm, nl.mse, nl.RMSprop(lstm.parameters), clip=1e-6),
        nl.Trainer(model, nl.softmax_cross_entropy, nl.AdamW(model.parameters), clip=1e-6),
        nl.Trainer(model, nl.softmax_cross_entropy, nl.Adam(model.parameters)),
    ]
    for trainer in steps:
        if trainer.model is lstm:
            trainer.step(x, np.zeros((20, 16, 80)))
        else:
            trainer.step(tokens, tokens)
    loss, dy = nl.mse(y, y, weights=np.ones((20, 16)))
    lstm.forward(x, hx)
    lstm.backward(dy, hx)

with event.install_recorder("numba:compile") as compiled:
    for dtype in ("float32", "float64"):
        for threads in (1, 2):
            use(dtype, threads)
print(json.dumps(
    [[str(seen.data["dispatcher"]), str(seen.data["args"])] for _, seen in compiled.buffer]
))
"""


def fresh(script):
    """What a process of its own prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_after_a_warmup_nothing_compiles():
    seen = fresh(WARM)
    of_tokens = ("token_sums.group_tokens", "embedding.distinct_tokens")
    assert [seen["signatures"].pop(name) for name in of_tokens] == [1, 1]
    every = {(name, dtype) for name in seen["signatures"] for dtype in ("float32", "float64")}
    every |= {(name, "int64") for name in of_tokens}
    assert {tuple(kernel) for kernel in seen["ready"]} == every
    # The region is another one for all that have arguments of other types in common.
    assert seen["signatures"].pop("region.all_shares") == 2 * 15
    assert set(seen["signatures"].values()) == {2}
    assert seen["lost"] == []
    assert seen["again"] == 0
    assert fresh(USE) == []


COMPILE = """
import json
import numpy as np
from numba.core import event
import numba_lstm as nl

lstm = nl.LSTM(30, 40, dtype="float32")
before = lstm.parameters.flat.copy(), lstm.dropout_state
ready = [[kernel.name for kernel in lstm.compile(training=training)] for training in (False, True)]
assert np.array_equal(lstm.parameters.flat, before[0]) and lstm.dropout_state == before[1]
with event.install_recorder("numba:compile") as compiled:
    for threads in (1, 2):
        lstm.forward(lstm(np.ones((40, 16, 30)), threads=threads)[0][..., :30], threads=threads)
        lstm.backward(np.ones((40, 16, 40)), threads=threads)
    lstm.stream(2).step(np.ones((2, 30)), active=[True, False])
print(json.dumps({"ready": ready, "compilations": len(compiled.buffer)}))
"""


def test_a_model_compiles_what_it_needs():
    seen = fresh(COMPILE)
    inference, training = seen["ready"]
    assert sorted(inference) == [
        *("forward.lstm_forward", "inactive_rows.restore_inactive_rows", "panels.pack_cells"),
        *("region.all_shares", "step.lstm_step", "units.lstm_units", "wavefront.lstm_wavefront"),
    ]
    assert sorted(set(training)) == [
        *("backward.lstm_backward", "gradients.lstm_gradients", "gradients.lstm_sums_of_groups"),
        *("panels.pack_products", "region.all_shares", "units_back.lstm_units_back"),
    ]
    assert seen["compilations"] == 0


ONE_THREAD = """
import json
import numba_lstm as nl
from numba.np.ufunc import parallel
few = nl.warmup(dtypes=[float], training=False, threads=1)
few += nl.LSTM(3, 4, dtype="float64", threads=1).compile(training=True)
print(json.dumps([sorted(k.name for k in few if k.dtype == "float64"), parallel._is_initialized]))
"""


def test_with_one_thread_no_threads_start():
    names, started = fresh(ONE_THREAD)
    assert names == [
        *("backward.lstm_backward", "forward.lstm_forward", "gradients.lstm_gradients"),
        *("gradients.lstm_sums_of_groups", "inactive_rows.restore_inactive_rows"),
        *("linear.linear_product", "panels.pack_cells", "panels.pack_matrix"),
        *("panels.pack_products", "step.lstm_step", "vocabulary.lstm_vocabulary"),
    ]
    assert not started


def test_one_region_runs_every_kernel_that_is_shared_out():
    parallel = {
        name for name, kernel in jit._kernels.items() if kernel.targetoptions.get("parallel")
    }
    assert parallel == {"region.all_shares"}
    parameters = [list(inspect.signature(k.py_func).parameters) for k in jit._kernels.values()]
    shared_out = [names for names in parameters if "worker" in names]
    assert shared_out
    assert all(names[-2:] == ["worker", "workers"] for names in shared_out)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"dtypes": "float32"}, TypeError, "dtypes must be a sequence of dtypes; got 'float32'"),
        ({"dtypes": ["float32", "int8"]}, ValueError, "float32 or float64; got"),
        ({"training": 1}, TypeError, "training must be"),
        ({"threads": 0}, ValueError, "threads must be at least 1; got 0"),
    ],
)
def test_bad_arguments_compile_nothing(arguments, error, message):
    before = list(jit._warm)
    with pytest.raises(error, match=message):
        nl.warmup(**arguments)
    with pytest.raises(TypeError, match="training must be"):
        nl.LSTM(3, 4).compile(training=None)
    assert jit._warm == before


def test_the_command_shows_what_was_done(capsys, monkeypatch):
    kernels = [
        jit.WarmKernel("gemm.product", "float32", 1.25, True, True),
        jit.WarmKernel("gemm.product", "float64", 0.25, False, True),
    ]
    asked = []

    def warm_up(**arguments):
        asked.append(arguments)
        return kernels

    monkeypatch.setattr(cli, "warm_up", warm_up)
    monkeypatch.setattr(jit, "cache_folder", lambda: "/some/folder")

    def lines(*arguments):
        cli.main(["warmup", *arguments])
        return capsys.readouterr().out.splitlines()

    first, second, total, folder = lines()
    assert first.split() == ["gemm.product", "float32", "1.25", "s", "compiled"]
    assert second.split() == ["gemm.product", "float64", "0.25", "s", "from", "the", "cache"]
    assert total == "1 kernels compiled, 1 from the cache, in 1.5 s"
    assert folder.split() == ["kernel", "cache", "/some/folder"]
    kernels[0] = jit.WarmKernel("gemm.product", "float32", 1.25, True, False)
    first, *_, last = lines("--dtype=float64", "--inference", "--threads=1")
    assert first.endswith("compiled, not kept")
    assert last == "1 kernels could not be written there, and compile in each process"
    monkeypatch.setattr(jit, "cache_folder", lambda: None)
    assert "none can be written" in lines()[-1]
    assert asked == [
        {"dtypes": ("float32", "float64"), "training": True, "threads": None},
        {"dtypes": ("float64",), "training": False, "threads": 1},
        {"dtypes": ("float32", "float64"), "training": True, "threads": None},
    ]


def test_dtypes_of_numpy_are_taken():
    nl.warmup(dtypes=(np.float32, "float32"), training=False, threads=1)
    assert nl.warmup(dtypes=[np.dtype("float32")], training=False, threads=1) == []
