"""What each half may import, levels of packages, import cycles, functions named by strings."""

import ast
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "edgeattn"
# The only package that requires Keras.
LAYERS = PACKAGE / "layers"
HEAVY = {
    *("tensorflow", "tensorboard", "keras", "tf_keras", "jax", "torch", "h5py"),
    *("onnx", "tf2onnx", "edgeattn_converters"),
}
# Modules that read TFLite files with the schema that the runtime includes.
READING = (Path("inspection.py"), Path("diagnosis/tflite.py"))
RUNTIMES = {"ai_edge_litert", "tflite_runtime", "tflite_micro", "onnxruntime"}
LIGHT = [path for path in sorted(PACKAGE.rglob("*.py")) if LAYERS not in path.parents]


def imports(tree):
    """The top-level name of every import of a file, also inside functions, and the node."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.split(".")[0], node
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.split(".")[0], node


def for_type_checkers(tree):
    """The nodes under ``if TYPE_CHECKING``, which are never executed."""
    return {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }


def guarded(tree):
    """The nodes inside functions, in a ``try`` that catches ImportError."""
    return {
        inner
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Try)
        and any("ImportError" in ast.unparse(h.type) for h in node.handlers if h.type)
        for statement in node.body
        for inner in ast.walk(statement)
    }


def test_imports_finds_imports_inside_functions():
    tree = ast.parse("import onnx\ndef f():\n  from keras.layers import x\n  import numpy as np")
    assert [name for name, _ in imports(tree)] == ["onnx", "numpy", "keras"] or {
        name for name, _ in imports(tree)
    } == {"onnx", "numpy", "keras"}


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_the_light_half_imports_nothing_heavy(path):
    tree = ast.parse(path.read_text("utf-8"))
    never_executed, in_try = for_type_checkers(tree), guarded(tree)
    for name, node in imports(tree):
        if name not in HEAVY | RUNTIMES or node in never_executed:
            continue
        # Missing runtimes are errors that say what to install.
        module = path.relative_to(PACKAGE)
        allowed = name in RUNTIMES and (module.parts[0] == "runners" or module in READING)
        assert allowed, f"{path.name}:{node.lineno} imports {name}"
        assert node in in_try, f"{path.name}:{node.lineno} imports {name} without a guard"


def test_the_library_does_not_import_the_command_line():
    for path in LIGHT:
        if path.parent.name == "cli" or path.name == "__main__.py":
            continue
        for name, node in imports(ast.parse(path.read_text("utf-8"))):
            assert name != "click", f"{path.name}:{node.lineno}"
            assert "edgeattn.cli" not in ast.unparse(node), f"{path.name}:{node.lineno}"


def loaded(code):
    """The top-level modules in ``sys.modules`` after a new process has executed ``code``."""
    process = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import json, sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\n"
            "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(process.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import edgeattn",
        "from edgeattn.cli.main import main; sys.argv = ['edgeattn', '--help']; main()",
        "from edgeattn.cli.main import main; sys.argv = ['edgeattn', '--version']; main()",
        "from edgeattn.cli.main import main; sys.argv = ['edgeattn', 'convert', '--help']; main()",
        "from edgeattn.cli.main import main; sys.argv = ['edgeattn', 'run', '--help']; main()",
        "from edgeattn.cli.main import main; sys.argv = ['edgeattn', 'validate', '-x']; main()",
        "import edgeattn.errors, edgeattn.process.worker, edgeattn.bundle.bundle, edgeattn.runners",
    ],
)
def test_help_loads_neither_numpy_nor_a_runtime(code):
    assert not loaded(code) & ({"numpy"} | HEAVY | RUNTIMES)


def test_numerics_load_numpy_but_no_runtime():
    code = "import edgeattn; edgeattn.validate, edgeattn.run_bundle, edgeattn.TensorSpec"
    modules = loaded(code)
    assert "numpy" in modules
    assert not modules & (HEAVY | RUNTIMES)


def test_commands_load_the_runtime_in_a_worker_only(dense_bundle, tmp_path):
    argv = ["edgeattn", "validate", str(dense_bundle.path)]
    code = f"from edgeattn.cli.main import main; sys.argv = {argv!r}; main()"
    assert not loaded(code) & (HEAVY | RUNTIMES)


ROOTS = {
    "edgeattn": PACKAGE,
    "edgeattn_converters": PACKAGE.parent / "converters" / "edgeattn_converters",
}
BENCHMARKS = {"benchmarks": PACKAGE.parent / "benchmarks"}
# Bottom to top: a package or module imports only from itself and from those before it.
LEVELS = {
    "edgeattn": (
        *(
            "version",
            "errors",
            "schemes",
            "printable",
            "progress",
            "files",
            "first_bytes",
            "converters",
            "tensors",
            "numpy_attention",
            "frontend",
        ),
        *(
            "process",
            "cluster",
            "samples",
            "bundle",
            "runners",
            "file_structure",
            "device",
            "inference",
            "serving",
            "metrics",
        ),
        *("evaluation", "__init__", "targets", "validation", "diagnosis", "benchmark"),
        *("deployment", "plots", "layers", "report", "inspection", "selftest", "child"),
        *("api", "cli", "__main__"),
    ),
    "edgeattn_converters": (
        *(
            "keras_classes",
            "recipes",
            "options",
            "lengths",
            "option_conflicts",
            "graphs",
            "loading",
            "lowering",
            "tracing",
        ),
        *(
            "quantization",
            "formats",
            "rounding",
            "calibration",
        ),
        *("reference", "inspection", "front_end", "original_layers", "diagnosis"),
        *("quantization_aware", "worker"),
        *("__init__", "boards", "tuning", "sweep"),
    ),
}


def modules(half):
    """Every module of a half by its name."""
    root = {**ROOTS, **BENCHMARKS}[half]
    for path in sorted(root.rglob("*.py")):
        parts = [half, *path.relative_to(root).with_suffix("").parts]
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def lazy_exports(tree):
    """The nodes in a module's ``__getattr__``, which only exports names of other modules."""
    return {
        inner
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name == "__getattr__"
        for inner in ast.walk(node)
    }


@cache
def import_graph(half):
    """The modules of the same half that each module imports, also inside functions."""
    paths = dict(modules(half))
    graph = {}
    for module, path in paths.items():
        tree = ast.parse(path.read_text("utf-8"))
        ignored = for_type_checkers(tree) | lazy_exports(tree)
        graph[module] = set()
        for node in ast.walk(tree):
            if node in ignored:
                continue
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == half:
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                graph[module] |= {name if name in paths else node.module for name in names}
            elif isinstance(node, ast.Import):
                graph[module] |= {alias.name for alias in node.names if alias.name in paths}
    return graph


@pytest.mark.parametrize("half", [*ROOTS, *BENCHMARKS])
def test_no_import_cycles(half):
    graph = {module: imported - {module} for module, imported in import_graph(half).items()}
    # Remove modules that import no remaining module, until none is left or only cycles are.
    while removable := {module for module, imported in graph.items() if not imported & set(graph)}:
        graph = {module: graph[module] for module in graph.keys() - removable}
    assert not graph, f"import cycles among {sorted(graph)}"


@pytest.mark.parametrize("half", ROOTS)
def test_no_upward_imports(half):
    def level(module):
        return LEVELS[half].index(module.split(".")[1] if "." in module else "__init__")

    upward = [
        f"{module} imports {other}"
        for module, imported in import_graph(half).items()
        for other in imported
        if level(other) > level(module)
    ]
    assert not upward


def named_functions(half):
    """Strings "module:function" in the source, with the place where they occur.

    The function is empty if a part of the string is computed.
    """
    for module, path in modules(half):
        tree = ast.parse(path.read_text("utf-8"))
        computed = {
            part
            for node in ast.walk(tree)
            if isinstance(node, ast.JoinedStr)
            for part in node.values
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                match = re.fullmatch(r"(edgeattn[\w.]*):(\w*)", node.value)
                if match:
                    function = "" if node in computed else match[2]
                    yield f"{module}:{node.lineno}", match[1], function


@pytest.mark.parametrize("half", ROOTS)
def test_functions_named_by_strings_exist(half):
    """Worker functions are named by strings, which type checkers do not follow."""
    paths = {**dict(modules("edgeattn")), **dict(modules("edgeattn_converters"))}
    for place, module, function in named_functions(half):
        assert module in paths, f"{place}: no module {module}"
        if function:
            tree = ast.parse(paths[module].read_text("utf-8"))
            callables = ast.FunctionDef | ast.ClassDef
            names = {node.name for node in tree.body if isinstance(node, callables)}
            assert function in names, f"{place}: no function {module}:{function}"


def test_the_light_half_names_no_functions_of_the_converters():
    # ONNX files are diagnosed with the onnx package, which only the converters require.
    allowed = "edgeattn.diagnosis.diagnose"
    for place, module, _ in named_functions("edgeattn"):
        named = module.startswith("edgeattn_converters")
        assert not named or place.split(":")[0] == allowed, place
    for module, path in modules("edgeattn"):
        if module not in (allowed, "edgeattn.converters"):
            text = path.read_text("utf-8")
            imports_by_name = text.count('import_converters("edgeattn_converters')
            assert text.count('"edgeattn_converters') == imports_by_name, module


def test_functions_take_at_most_eight_parameters():
    """More belong into a frozen dataclass. Commands, and the functions of the same names, take one
    parameter for each option."""
    for half in LEVELS:
        for module, path in modules(half):
            if module.startswith(("edgeattn.cli", "edgeattn.api")):
                continue
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    arguments = node.args
                    names = [
                        argument.arg
                        for argument in arguments.posonlyargs
                        + arguments.args
                        + arguments.kwonlyargs
                        if isinstance(argument, ast.arg) and argument.arg not in ("self", "cls")
                    ]
                    assert len(names) <= 8, f"{module}:{node.name} has {len(names)}"


def test_no_two_test_modules_have_the_same_name():
    """pytest imports them by name, and stops at the second one."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
