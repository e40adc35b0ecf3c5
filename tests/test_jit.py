"""The kernel cache: whatever happens to its files, results are right, at worst compiled again."""

import errno
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import llvmlite
import llvmlite.binding as llvm
import numba
import numpy as np
import pytest

import numba_lstm
from numba_lstm import jit

PACKAGE = Path(numba_lstm.__file__).parent


# Caches of this process, on kernels of our own.


def scaled_sum(values, factor):
    total = 0.0
    for k in range(values.size):
        total += factor * values[k]
    return total


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A cache folder of its own, and a list of kernels that nobody else sees."""
    monkeypatch.setattr(jit, "_folders", lambda: [tmp_path / "cache"])
    monkeypatch.setattr(jit, "_kernels", {})
    monkeypatch.setattr(jit, "_warm", [])
    return tmp_path / "cache"


def call(dtype="float64", kernel=None):
    """Call a fresh kernel: whether it was compiled, and whether the cache keeps it."""
    kernel = kernel or jit.kernel(scaled_sum)
    with jit.warming() as ready:
        assert kernel(np.arange(5, dtype=dtype), 3) == 30
    (state,) = ready
    assert state.dtype == dtype
    assert state.name == "test_jit.scaled_sum"
    return state.compiled, state.kept


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_kernel_is_compiled_once(folder):
    assert call() == (True, True)
    assert call() == (False, True)
    assert call("float32") == (True, True)
    assert call("float32") == call("float64") == (False, True)
    kernel = jit.kernel(scaled_sum)
    call(kernel=kernel)
    with jit.warming() as ready:
        kernel(np.arange(5.0), 3)
    assert ready == []
    assert len(files(folder)) == 2
    assert jit.cache_folder() == str(folder)


@pytest.mark.parametrize(
    "damage",
    [
        *(lambda content, size=size: content[:size] for size in (0, 1, 31, 32, 33, 1000, -1)),
        *(
            lambda content, share=share: flipped(content, int(share * len(content)))
            for share in (0.0, 0.01, 0.3, 0.6, 0.9)
        ),
        lambda content: content + b"\0",
        lambda content: b"\0" * len(content),
        lambda content: b"cos\nsystem\n(S'exit 1'\ntR.",
    ],
)
def test_a_damaged_file_is_compiled_again_and_mended(folder, damage):
    call()
    (path,) = files(folder)
    path.write_bytes(damage(path.read_bytes()))
    assert call() == (True, True)
    assert call() == (False, True)
    assert files(folder) == [path]


def flipped(content, place):
    """A file with one bit changed."""
    changed = bytearray(content)
    changed[place] ^= 16
    return bytes(changed)


def test_an_unreadable_file_is_compiled_again(folder):
    call()
    (path,) = files(folder)
    path.unlink()
    path.mkdir()  # reading and replacing it fail, for root as well
    assert call() == (True, False)
    assert files(folder) == []


def test_a_folder_that_goes_is_made_again(folder):
    kernel = jit.kernel(scaled_sum)
    call("float32", kernel)
    shutil.rmtree(folder)
    assert call("float64", kernel) == (True, True)
    assert len(files(folder)) == 1


def test_a_folder_that_cannot_be_made_again(folder):
    kernel = jit.kernel(scaled_sum)
    call("float32", kernel)
    shutil.rmtree(folder)
    folder.write_text("a file")
    assert call("float64", kernel) == (True, False)
    assert folder.read_text() == "a file"
    assert jit.cache_folder() is None


def test_a_folder_that_can_only_be_read_is_read(folder, monkeypatch):
    """As in the image of a container: what is not there is kept in the next one."""
    call("float32")
    refuse = {"mkdir": Path.mkdir, "write_bytes": Path.write_bytes}

    def read_only(name):
        def refused(path, *arguments, **options):
            if folder in (path, path.parent):
                raise OSError(errno.EROFS, "Read-only file system")
            return refuse[name](path, *arguments, **options)

        return refused

    for name in refuse:
        monkeypatch.setattr(Path, name, read_only(name))
    second = folder.parent / "second"
    monkeypatch.setattr(jit, "_folders", lambda: [folder, second])
    assert call("float32") == (False, True)
    assert call("float64") == (True, True)
    assert call("float64") == (False, True)
    assert len(files(folder)) == len(files(second)) == 1
    assert jit.cache_folder() == str(second)


def test_folders_come_in_the_order_of_numba(monkeypatch, tmp_path):
    beside = PACKAGE / "__pycache__"
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    assert jit._folders()[0] == beside
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert jit._folders()[:2] == [tmp_path / "numba_lstm", beside]
    assert len(jit._folders()) == 3
    monkeypatch.setattr(jit.AppDirs, "user_cache_dir", "~/.cache/numba")
    assert jit._folders() == [tmp_path / "numba_lstm", beside]


@pytest.mark.parametrize("step", ["write_bytes", "replace"])
def test_a_full_disk_costs_time_only(folder, monkeypatch, step):
    write, replace = Path.write_bytes, Path.replace

    def refused(path, content):
        if step == "write_bytes":
            write(path, content[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, step, refused)
    assert call() == call() == (True, False)
    assert files(folder) == []
    working = {"write_bytes": write, "replace": replace}
    monkeypatch.setattr(Path, step, working[step])
    assert call() == (True, True)
    assert call() == (False, True)


@pytest.mark.parametrize(
    ("owner", "name"),
    [(numba, "__version__"), (llvmlite, "__version__"), (sys, "version"), (jit, "_SOURCES")],
    ids=["numba", "llvmlite", "Python", "sources"],
)
def test_another_version_has_its_own_entries(folder, monkeypatch, owner, name):
    call()
    with monkeypatch.context() as changed:
        changed.setattr(owner, name, "another")
        assert call() == (True, True)
        assert call() == (False, True)
    assert call() == (False, True)


def test_without_sources_nothing_is_kept(folder, monkeypatch):
    monkeypatch.setattr(jit, "_SOURCES", None)
    assert call() == call() == (True, False)
    assert jit.cache_folder() is None
    assert not folder.exists()


def test_the_digest_holds_every_source_file(tmp_path, monkeypatch):
    copy = tmp_path / "numba_lstm"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(jit, "__file__", str(copy / "jit.py"))
    digests = [jit._digest_of_sources()]
    assert digests == [jit._SOURCES]
    for path in sorted(copy.rglob("*.py")):
        content = path.read_bytes()
        path.write_bytes(content + b"#")
        digests.append(jit._digest_of_sources())
        path.write_bytes(content)
    (copy / "jit.py").rename(copy / "jiu.py")  # its place among the others stays
    digests.append(jit._digest_of_sources())
    assert len(set(digests)) == len(digests) > 40
    shutil.rmtree(copy)
    assert jit._digest_of_sources() is None


def test_two_that_fill_a_cache_at_once_do_not_mix_their_kernels(folder):
    """Every order in which two processes look for a kernel each, and then write it."""
    for number, order in enumerate(set(itertools.permutations("aabb"))):
        key = {name: (name, number) for name in "ab"}
        cache = {name: jit._KernelFiles("kernel") for name in "ab"}
        looked = set()
        for name in order:
            if name in looked:
                cache[name].save(key[name], f"code of {name} {number}")
            else:
                assert cache[name].load(key[name]) is None
                looked.add(name)
        for reader, name in itertools.product("ab", "ab"):
            assert cache[reader].load(key[name]) == f"code of {name} {number}"


# Processes of their own, with kernels of the package.

MSE = """
import json
import numpy as np
import numba_lstm as nl
from numba_lstm import jit

def mse(dtype):
    with jit.warming() as ready:
        loss, dy = nl.mse(np.full((2, 4), 3.0, dtype), np.ones((2, 4), dtype))
    assert dy.dtype == dtype
    return loss, dy.sum().item(), ready[0].compiled, ready[0].kept
"""
RIGHT = (4.0, 4.0)  # (3 - 1)^2, and 2 (3 - 1)


@pytest.fixture
def package(tmp_path):
    """A copy of the package, without kernels beside it, that may be edited."""
    copy = tmp_path / "numba_lstm"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def start(package, cache, script, **environment):
    """Start a process with a package and a cache folder, and no other folder of the user's."""
    inherited = {name: value for name, value in os.environ.items() if "NUMBA_" not in name}
    nowhere = str(package / "__init__.py" / "home")
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-B", "-c", script],
        env={
            **inherited,
            "PYTHONPATH": str(package.parent),
            "NUMBA_CACHE_DIR": str(cache),
            "HOME": nowhere,
            "XDG_CACHE_HOME": nowhere,
            **environment,
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(process):
    out, error = process.communicate()
    assert process.returncode == 0, error
    assert error == ""
    return json.loads(out)


def loss(package, cache, change="", **environment):
    """Loss, gradient, whether the kernel was compiled, whether it is kept."""
    script = f"{MSE}\n{change}\nprint(json.dumps(mse('float32')))"
    return tuple(result(start(package, cache, script, **environment)))


def edit(path, old, new):
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new))


def test_an_edit_leaves_no_stale_kernel(package, tmp_path):
    cache = tmp_path / "cache"
    vector = package / "simd" / "vector.py"
    minus, plus = '(operator.sub, "fsub")', '(operator.sub, "fadd")'
    assert loss(package, cache) == (*RIGHT, True, True)
    # A process that began before the edit compiles what it has read.
    later = f"""
from pathlib import Path
path = Path({str(vector)!r})
path.write_text(path.read_text().replace({minus!r}, {plus!r}))
"""
    assert loss(package, cache, later) == (*RIGHT, False, True)
    assert loss(package, cache) == (16.0, 8.0, True, True)
    edit(vector, plus, minus)
    assert loss(package, cache) == (*RIGHT, False, True)
    shutil.rmtree(cache)
    assert loss(package, cache, later) == (*RIGHT, True, True)
    assert loss(package, cache) == (16.0, 8.0, True, True)


LSTM = """
import json
import numpy as np
import numba_lstm as nl
y, _ = nl.LSTM(3, 4, seed=0, threads=1)(np.ones((5, 2, 3)))
print(json.dumps(y.tolist()))
"""


@pytest.mark.exhaustive
def test_an_edit_of_the_cell_changes_the_lstm(package, tmp_path):
    cache = tmp_path / "cache"
    right = result(start(package, cache, LSTM))
    edit(package / "kernels" / "cell.py", "f = sigmoid(a_f)", "f = sigmoid(a_i)")
    assert result(start(package, cache, LSTM)) != right
    edit(package / "kernels" / "cell.py", "f = sigmoid(a_i)", "f = sigmoid(a_f)")
    assert result(start(package, cache, LSTM)) == right


AVX2 = (
    "+sse,+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+avx,+avx2,+fma,"
    "+f16c,+bmi,+bmi2,+lzcnt,+movbe"
)


@pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64")
    or not all(llvm.get_host_cpu_features().get(name) for name in ("avx2", "fma")),
    reason="names CPUs of x86",
)
def test_another_cpu_has_its_own_entries(package, tmp_path):
    cache = tmp_path / "cache"
    haswell = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": AVX2}
    assert loss(package, cache) == (*RIGHT, True, True)
    assert loss(package, cache, **haswell) == (*RIGHT, True, True)
    assert loss(package, cache) == (*RIGHT, False, True)
    assert loss(package, cache, **haswell) == (*RIGHT, False, True)


def test_no_folder_can_be_written(package):
    """Neither the one that is asked for, nor beside the sources, nor the user's."""
    (package / "__pycache__").write_text("a file")
    nowhere = package / "__init__.py" / "cache"
    show = "assert jit.cache_folder() is None"
    assert loss(package, nowhere, show) == (*RIGHT, True, False)
    (package / "__pycache__").unlink()
    assert loss(package, nowhere) == (*RIGHT, True, True)
    assert loss(package, nowhere) == (*RIGHT, False, True)


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit on the size of files")
def test_files_that_may_not_grow(package, tmp_path):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))"
    before = files(package)
    assert loss(package, tmp_path / "cache", limit) == (*RIGHT, True, False)
    assert files(tmp_path) == before


FILL = f"""
{MSE}
from numba_lstm.kernels import updates

def fill(dtype):
    values = np.arange(1, 40, dtype=dtype)
    updates.scale(values, values.dtype.type(2), 0, 1)
    sums = np.empty(1)
    updates.square_sums(values, sums, 0, 1)
    return [*mse(dtype)[:2], sums.item(), values.sum().item()]

print("ready", flush=True)
order = input().split()
print(json.dumps([[fill(dtype) for dtype in order], [k.compiled for k in jit._warm]]))
"""


def filled(package, cache, *orders):
    """Processes that begin at one moment: what each computes, and what it compiled."""
    processes = [start(package, cache, FILL) for _ in orders]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process, order in zip(processes, orders, strict=True):
        process.stdin.write(f"{order}\n")
        process.stdin.flush()
    return [result(process) for process in processes]


@pytest.mark.parametrize(
    "rounds", [1, pytest.param(10, marks=pytest.mark.exhaustive)], ids=["once", "often"]
)
def test_two_processes_fill_a_folder_at_once(package, tmp_path, rounds):
    squares = 4.0 * sum(k * k for k in range(1, 40))
    expected = [*RIGHT, squares, 2.0 * sum(range(1, 40))]
    for number in range(rounds):
        cache = tmp_path / str(number)
        both = filled(package, cache, "float32 float64", "float64 float32")
        assert [values for values, _ in both] == [[expected] * 2] * 2
        assert all(path.suffix == ".kernel" for path in files(cache))
        ((values, compiled),) = filled(package, cache, "float32 float64")
        assert values == [expected] * 2
        assert compiled == [False] * 6


def test_a_device_function_is_not_inlined_because_its_first_caller_is():
    @jit.device
    def triple(x):
        return 3 * x

    @jit.inlined
    def triple_and_one(x):
        return triple(x) + 1

    @numba.njit
    def run(x):
        return triple_and_one(x) + triple(x)

    assert run(4) == 25
    (inner,) = triple.overloads.values()
    (outer,) = triple_and_one.overloads.values()
    assert not inner.fndesc.inline
    assert outer.fndesc.inline
