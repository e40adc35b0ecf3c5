"""The house rules, read from the sources: who imports whom, who opens files, what is documented."""

import ast
import itertools
import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import numba_lstm

PACKAGE = Path(numba_lstm.__file__).parent

# Data takes one way: a module imports only what stands above it.
ORDER = re.findall(
    r"[\w.]+",
    """
    garbage compiler jit
    simd.cpu simd.pointer simd.vector simd.tile simd.mode simd.atomic simd.native
    kernels.region kernels.tables kernels.workers kernels.lanes kernels.rooms kernels.kept
    kernels.term_numbers kernels.activations kernels.tiling kernels.gemm kernels.outer_products
    kernels.transposition kernels.panels
    kernels.projection kernels.cell kernels.dropout kernels.order kernels.states kernels.vocabulary
    kernels.forward kernels.units kernels.backward kernels.gradient_tasks kernels.token_sums
    kernels.gradients kernels.vocabulary_back kernels.units_back kernels.wavefront kernels.step
    kernels.inactive_rows kernels.linear kernels.embedding kernels.losses kernels.updates
    kernels.probes validation guarded locks memory config parameters initialization files storage
    pieces schedule packed_layout layout plan threadpool packing tape workspace
    sequences results passes interop stream layer lstm embedding linear sequential
    losses optimizers trainer warmup
    numba_lstm
    language_model.corpus language_model.model language_model.settings language_model.progress
    language_model.interruption language_model.run language_model.plot language_model.watchers
    language_model
    bench.shapes bench.limits bench.roofline
    bench.engines.engine bench.engines.own bench.engines.pytorch bench.engines.onnx_model
    bench.engines.onnxruntime bench.engines.openvino bench.engines.jax bench.engines
    bench.worker bench.process bench.comparison bench.language_model
    bench.report bench.chart bench.command
    bench
    language_model.command cli __main__
    simd kernels
    """,
)

# Modules that touch files; cpu and threadpool read what the system says of the machine, jit the
# package's own sources, an engine's process talks through pipes.
FILES = ("files", "storage", "language_model", "cli", "simd.cpu", "threadpool", "jit")
FILES += ("bench.process", "bench.worker", "bench.chart", "bench.command")
OPENING = {
    *("open", "fdopen", "read_text", "read_bytes", "write_text", "write_bytes"),
    *("mkdir", "makedirs", "unlink", "rmtree", "touch", "fsync", "fromfile", "tofile", "savetxt"),
    *("NamedTemporaryFile", "TemporaryFile", "TemporaryDirectory", "mkstemp", "mkdtemp"),
}
FILE_MODULES = {"io", "mmap", "os", "pathlib", "pickle", "safetensors", "shutil", "tempfile"}
COMPILING = {
    *("jit", "njit", "vectorize", "guvectorize", "cfunc", "stencil", "jit_module"),
    *("generated_jit", "overload", "overload_method", "overload_attribute", "register_jitable"),
}
OPTIONS = {"fastmath", "error_model", "nogil", "forceinline", "boundscheck", "jit_options"}
HEAVY = {"click", "matplotlib", "rich", "scipy", "hypothesis", "pytest"}
HEAVY |= {"torch", "onnx", "onnxruntime", "openvino", "jax", "jaxlib"}


def module_name(path):
    """Name of a module within the package; the package's own is ``numba_lstm``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(parts) or "numba_lstm"


SOURCES = {
    module_name(path): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
}
PACKAGES = {module_name(path) for path in PACKAGE.rglob("__init__.py")}


def nodes(module, *kinds):
    return [node for node in ast.walk(SOURCES[module]) if isinstance(node, kinds)]


def imported_names(module):
    """Full names of what a module imports: every module, and every name out of one."""
    for node in nodes(module, ast.Import):
        yield from (alias.name for alias in node.names)
    for node in nodes(module, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parts = [] if module == "numba_lstm" else module.split(".")
            up = node.level - (module in PACKAGES)
            parts = parts[: len(parts) - up]
            base = ".".join(["numba_lstm", *parts, *([node.module] if node.module else [])])
        yield from (f"{base}.{alias.name}" for alias in node.names)


def own_imports(module):
    """Modules of the package that a module imports."""
    for name in imported_names(module):
        if name.split(".")[0] != "numba_lstm":
            continue
        inner = name.removeprefix("numba_lstm").removeprefix(".")
        while inner and inner not in SOURCES:
            inner = inner.rpartition(".")[0]
        yield inner or "numba_lstm"


def called_name(call):
    """Last part of the name of what is called."""
    function = call.func
    return getattr(function, "attr", getattr(function, "id", ""))


def test_every_module_has_its_place():
    assert sorted(ORDER) == sorted(SOURCES)


def test_imports_go_one_way():
    upwards = [
        f"{module} imports {name}"
        for module in SOURCES
        for name in own_imports(module)
        if ORDER.index(name) >= ORDER.index(module)
    ]
    assert upwards == []


def test_only_simd_speaks_llvm():
    """And only it and the compiler reach into Numba; its cache and versions apart."""
    inner = ("llvmlite.", "numba.core.", "numba.extending.intrinsic")
    speakers = {
        module.partition(".")[0]
        for module in SOURCES
        for name in imported_names(module)
        if name.startswith(inner)
    }
    assert speakers == {"simd", "compiler", "jit"}
    generating = [
        f"{module} imports {name}"
        for module in ("compiler", "jit")
        for name in imported_names(module)
        if name.startswith(
            ("llvmlite.", "numba.core.types", "numba.core.cgutils", "numba.extending")
        )
    ]
    assert generating == []


def test_kernels_know_numbers_only():
    known = {"math", "numpy", "numba.carray", "numba.prange"}
    foreign = [
        f"{module} imports {name}"
        for module in SOURCES
        if module.startswith("kernels.")
        for name in imported_names(module)
        if not name.startswith(("numba_lstm.", "__future__.", "typing.")) and name not in known
    ]
    assert foreign == []


def test_files_are_touched_where_they_belong():
    others = [module for module in SOURCES if not module.startswith(FILES)]
    touching = [
        f"{module} calls {called_name(call)}"
        for module in others
        for call in nodes(module, ast.Call)
        if called_name(call) in OPENING
    ]
    importing = [
        f"{module} imports {name}"
        for module in others
        for name in imported_names(module)
        if name.partition(".")[0] in FILE_MODULES
    ]
    assert touching + importing == []


def test_compilation_options_stand_in_one_place():
    others = [module for module in SOURCES if module != "jit"]
    imported = [
        f"{module} imports {name}"
        for module in others
        for name in imported_names(module)
        if name.startswith("numba.") and name.rpartition(".")[2] in COMPILING
    ]
    named = [
        f"{module} names {ast.unparse(node)}"
        for module in others
        for node in nodes(module, ast.Attribute)
        if node.attr in COMPILING and ast.unparse(node).startswith("numba.")
    ]
    given = [
        f"{module} gives {keyword.arg}"
        for module in others
        for call in nodes(module, ast.Call)
        for keyword in call.keywords
        if keyword.arg in OPTIONS
    ]
    assert imported + named + given == []


# Documentation.


def definitions(body, prefix):
    """Public functions and classes, and the public methods of those, by their full names."""
    for node in body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith("_"):
            continue
        if any(ast.unparse(decorator).endswith(".setter") for decorator in node.decorator_list):
            continue
        name = f"{prefix}.{node.name}"
        yield name, node
        if isinstance(node, ast.ClassDef):
            yield from definitions(node.body, name)


DEFINITIONS = {
    name: node for module, tree in SOURCES.items() for name, node in definitions(tree.body, module)
}
# What a user meets: the exported names and the methods of exported classes.
OBJECTS = [getattr(numba_lstm, name) for name in numba_lstm.__all__]
HOMES = tuple(f"{o.__module__.partition('.')[2]}.{o.__qualname__}" for o in OBJECTS)
EXPORTED = {
    name: node
    for name, node in DEFINITIONS.items()
    if name in HOMES or name.rpartition(".")[0] in HOMES
}


def sections(node):
    """Sections of a numpydoc docstring by their titles, each a list of lines."""
    lines = (ast.get_docstring(node) or "").splitlines()
    found, title = {}, ""
    for line, below in itertools.zip_longest(lines, lines[1:], fillvalue=""):
        if re.fullmatch(r"-{3,}", below) and len(below) == len(line):
            title = line
        elif not re.fullmatch(r"-{3,}", line):
            found.setdefault(title, []).append(line)
    return found


def documented_names(node, title="Parameters"):
    """Names that a section explains, in its order."""
    entries = [line for line in sections(node).get(title, []) if re.match(r"[\w*]", line)]
    return [
        name.strip().lstrip("*") for line in entries for name in line.split(" : ")[0].split(",")
    ]


def parameters(node):
    """Names of what a function, or the constructor of a class, takes."""
    if isinstance(node, ast.ClassDef):
        methods = {part.name: part for part in node.body if isinstance(part, ast.FunctionDef)}
        if "__init__" not in methods:
            return fields(node)
        node = methods["__init__"]
    listed = node.args
    names = [*listed.posonlyargs, *listed.args, listed.vararg, *listed.kwonlyargs, listed.kwarg]
    return [name.arg for name in names if name is not None and name.arg not in ("self", "cls")]


def fields(node):
    """Annotated names in the body of a class."""
    return [part.target.id for part in node.body if isinstance(part, ast.AnnAssign)]


def test_docstrings_begin_with_one_line():
    wrong = []
    for name, node in DEFINITIONS.items():
        summary, *rest = (ast.get_docstring(node) or "").splitlines() or [""]
        if not summary.endswith((".", "::")) or rest[:1] not in ([], [""]):
            wrong.append(name)
    assert wrong == []


def test_documented_parameters_are_those_of_the_signature():
    wrong = {
        name: (documented_names(node), parameters(node))
        for name, node in DEFINITIONS.items()
        if "Parameters" in sections(node) and documented_names(node) != parameters(node)
    }
    assert wrong == {}


def test_documented_attributes_exist():
    for name, node in DEFINITIONS.items():
        own = ast.walk(node)
        there = {part.attr for part in own if isinstance(part, ast.Attribute)}
        there |= {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
        there |= set(fields(node))
        assert set(documented_names(node, "Attributes")) <= there, name


def test_users_find_every_attribute_explained():
    wrong = {}
    for name, node in EXPORTED.items():
        methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
        if isinstance(node, ast.ClassDef):
            explained = {*documented_names(node, "Attributes"), *(part.name for part in methods)}
            kept = [
                part.attr
                for method in methods
                if method.name == "__init__"
                for part in ast.walk(method)
                if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store)
            ]
            wrong[name] = {attr for attr in kept if not attr.startswith("_")} - explained
    assert not any(wrong.values()), wrong


def test_users_find_every_parameter_and_result_explained():
    wrong = []
    for name, node in EXPORTED.items():
        if isinstance(node, ast.ClassDef):
            explained = documented_names(node) == parameters(node)
        elif any(ast.unparse(decorator).endswith("property") for decorator in node.decorator_list):
            continue
        else:
            gives = ast.unparse(node.returns) != "None"
            explained = documented_names(node) == parameters(node) and (
                not gives or {"Returns", "Yields"} & set(sections(node))
            )
        if not explained:
            wrong.append(name)
    assert wrong == []


def test_everything_exported_is_documented_here():
    assert set(HOMES) <= set(EXPORTED)


# The package as a whole.


def test_the_version_stands_in_one_place():
    assigned = [
        module
        for module in SOURCES
        for target in nodes(module, ast.Assign)
        if "__version__" in ast.unparse(target.targets[0])
    ]
    assert assigned == ["numba_lstm"]
    literal = re.compile(rf"[\"\']{re.escape(numba_lstm.__version__)}[\"\']")
    mentions = [path for path in PACKAGE.rglob("*.py") if literal.search(path.read_text("utf-8"))]
    assert mentions == [PACKAGE / "__init__.py"]


def test_the_installed_distribution_has_that_version():
    try:
        installed = metadata.distribution("numba-lstm")
    except metadata.PackageNotFoundError:
        pytest.skip("run from the sources")
    assert installed.version == numba_lstm.__version__


IMPORT = """
import json, os, sys
import numba, numpy
from numba.core import event
from numba.np.ufunc import parallel

def threads():
    return len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1

before, modules = threads(), set(sys.modules)
with event.install_recorder("numba:compile") as compiled:
    import numba_lstm
print(json.dumps({
    "compilations": len(compiled.buffer),
    "threads": threads() - before,
    "pool": bool(parallel._is_initialized),
    "modules": sorted({name.split(".")[0] for name in set(sys.modules) - modules}),
}))
"""


def test_importing_does_nothing_but_import(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == 1
    seen = json.loads(lines[0])
    assert (seen["compilations"], seen["threads"], seen["pool"]) == (0, 0, False)
    assert HEAVY.isdisjoint(seen["modules"])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
