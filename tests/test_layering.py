"""Which half may import what, read from the source and seen in processes that start."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "edgeattn"
# The one room that needs Keras: the layer that users train with.
LAYERS = PACKAGE / "layers"
HEAVY = {
    *("tensorflow", "tensorboard", "keras", "tf_keras", "jax", "torch", "h5py"),
    *("onnx", "tf2onnx", "edgeattn_converters"),
}
INSPECTION = Path("inspection.py")
# Read the operators of a TFLite file with the schema that its runtime brings along.
READING = (INSPECTION, Path("diagnosis/tflite.py"))
# Where the converters are asked, if they are there.
ASKING = (
    *(Path("cli/convert.py"), Path("cli/tune.py"), INSPECTION),
    Path("evaluation/keras_reference.py"),
)
RUNTIMES = {"ai_edge_litert", "tflite_runtime", "onnxruntime"}
LIGHT = [path for path in sorted(PACKAGE.rglob("*.py")) if LAYERS not in path.parents]


def imports(tree):
    """Every import of a file, inside functions too: its top-level name and the node."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.split(".")[0], node
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.split(".")[0], node


def for_type_checkers(tree):
    """The nodes under ``if TYPE_CHECKING``, which never run."""
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


def test_the_reader_of_imports_reads_them():
    tree = ast.parse("import onnx\ndef f():\n  from keras.layers import x\n  import numpy as np")
    assert [name for name, _ in imports(tree)] == ["onnx", "numpy", "keras"] or {
        name for name, _ in imports(tree)
    } == {"onnx", "numpy", "keras"}


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_the_light_half_imports_nothing_heavy(path):
    tree = ast.parse(path.read_text("utf-8"))
    unseen, in_try = for_type_checkers(tree), guarded(tree)
    for name, node in imports(tree):
        if name not in HEAVY | RUNTIMES or node in unseen:
            continue
        # A runtime where it is missing is an error that says what to install, and so are the
        # converters, which are asked about Keras files and for Keras' answers.
        room = path.relative_to(PACKAGE)
        allowed = name in RUNTIMES and (room.parts[0] == "runners" or room in READING)
        allowed |= name == "edgeattn_converters" and room in ASKING
        assert allowed, f"{path.name}:{node.lineno} imports {name}"
        assert node in in_try, f"{path.name}:{node.lineno} imports {name} without a guard"


def test_the_library_does_not_know_the_command_line():
    for path in LIGHT:
        if path.parent.name == "cli" or path.name == "__main__.py":
            continue
        for name, node in imports(ast.parse(path.read_text("utf-8"))):
            assert name != "click", f"{path.name}:{node.lineno}"
            assert "edgeattn.cli" not in ast.unparse(node), f"{path.name}:{node.lineno}"


def loaded(code):
    """The top-level modules that ``code`` leaves in ``sys.modules`` of a new process."""
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import json, sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\n"
            "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(json.loads(told.stdout.splitlines()[-1]))


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


def test_the_numerics_load_numpy_and_no_runtime():
    code = "import edgeattn; edgeattn.validate, edgeattn.run_bundle, edgeattn.TensorSpec"
    found = loaded(code)
    assert "numpy" in found
    assert not found & (HEAVY | RUNTIMES)


def test_commands_keep_the_runtime_in_their_child(dense_bundle, tmp_path):
    argv = ["edgeattn", "validate", str(dense_bundle.path)]
    code = f"from edgeattn.cli.main import main; sys.argv = {argv!r}; main()"
    assert not loaded(code) & (HEAVY | RUNTIMES)
