"""Exit code 5 is for devices, remote machines and missing runtimes only."""

import ast
import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Where errors with exit code 5 are raised, and what does not respond or is missing then.
DEVICES = {
    "edgeattn/benchmark/board.py": "a board",
    "edgeattn/cluster/*": "a scheduler",
    "edgeattn/deployment/*": "a device, or on it",
    "edgeattn/diagnosis/tflite.py": "a runtime",
    "edgeattn/runners/*": "a runtime",
    "edgeattn/targets/*": "a host or another Python, or on it",
    "edgeattn/validation/dask_shards.py": "workers of a scheduler",
    "converters/edgeattn_converters/boards/*": "boards",
    "converters/edgeattn_converters/sweep/boards.py": "boards",
    "converters/edgeattn_converters/sweep/remote.py": "a store",
    "converters/edgeattn_converters/tuning/device_pool.py": "boards",
    "converters/edgeattn_converters/tuning/latency.py": "a board",
    "converters/edgeattn_converters/tuning/spread.py": "workers of a scheduler",
}


# Modules without one of these words contain nothing that the tests search for.
CLASSES = {"DeviceError", "RuntimeUnavailableError", "StoreError"}
RELEVANT = re.compile("|".join(["exit_code", *sorted(CLASSES)]))


@pytest.fixture(scope="module")
def trees():
    """The paths of the relevant modules, and their syntax trees."""
    return [
        (path.relative_to(ROOT).as_posix(), ast.parse(text))
        for root in ("edgeattn", "converters")
        for path in sorted((ROOT / root).rglob("*.py"))
        if RELEVANT.search(text := path.read_text("utf-8"))
    ]


@pytest.fixture(scope="module")
def classes_with_code_5(trees):
    """The names of the error classes whose ``exit_code`` is 5."""
    return {
        node.name
        for _, tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for item in node.body
        if isinstance(item, ast.Assign) and ast.unparse(item) == "exit_code = 5"
    }


def test_only_devices_schedulers_stores_and_runtimes_raise_errors_with_code_5(
    trees, classes_with_code_5
):
    names = classes_with_code_5
    assert names == CLASSES
    for path, tree in trees:
        if any(fnmatchcase(path, pattern) for pattern in DEVICES):
            continue
        for node in ast.walk(tree):
            raised = isinstance(node, ast.Call) and ast.unparse(node.func) in names
            assert not raised, f"{path}:{node.lineno}: which device does not respond?"


def test_no_error_inherits_code_5(trees, classes_with_code_5):
    names = classes_with_code_5
    for path, tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                assert not names & {ast.unparse(base) for base in node.bases}, (
                    f"{path}: {node.name}"
                )


# Expressions with the number itself: a verdict that is "not run" because of a runtime or a device.
NUMBERS = {
    "edgeattn/api/sweep.py": "boards failed",
    "edgeattn/deployment/results.py": "the device did not validate",
    "edgeattn/validation/report.py": "no runtime for any artifact",
}


def test_the_number_5_is_an_exit_code_where_a_device_or_runtime_is_missing(trees):
    found = set()
    for path, tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name == "exit_code":
                constants = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)}
                found |= {path} if 5 in constants else set()
    assert found <= set(NUMBERS)
